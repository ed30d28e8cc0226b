/** Issuers as the ledger sees them: their authors, who took over from whom, and whose key is held here. */

import { type IssuerCertificate, issuerIdOf } from '../protocol/grants.ts';
import type { AuthorId, IssuerId } from '../protocol/ids.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import { authorIdOf, authorKeyOf } from './block.ts';

/** The author of an issuer's feed. */
export const authorOf = ({ publicKey }: IssuerCertificate): AuthorId => authorIdOf(publicKey);

/** Look-ups in what the root has said; each is a map's. */
export interface Issuers {
  /** True for authors whom the root has named, revoked or not. */
  isIssuer(author: AuthorId): boolean;
  /** The same, without those that were revoked. */
  counts(author: AuthorId): boolean;
  /** Itself, then those that succeeded it and were not revoked, oldest first; none when the root never named it. */
  line(issuer: IssuerId): readonly IssuerCertificate[];
  /** What was looked up before counts no more: the root has said something. */
  changed(): void;
}

export function createIssuers(roots: Roots): Issuers {
  const named = new Map<AuthorId, boolean>();
  const lines = new Map<IssuerId, readonly IssuerCertificate[]>();
  const idOf = (author: AuthorId): IssuerId => issuerIdOf(authorKeyOf(author));
  // Authors come from peers, so what is remembered of them has a bound.
  const remembered = 8_192;
  const isIssuer = (author: AuthorId): boolean => {
    let known = named.get(author);
    if (known === undefined) {
      known = roots.certificateOf(idOf(author)) !== undefined;
      if (named.size >= remembered) named.clear();
      named.set(author, known);
    }
    return known;
  };
  return {
    isIssuer,
    counts: (author) => isIssuer(author) && !roots.isRevoked(idOf(author)),
    line: (issuer) => {
      let known = lines.get(issuer);
      if (known === undefined) {
        const first = roots.certificateOf(issuer);
        known = first === undefined ? [] : [first, ...roots.successorsOf(issuer)];
        if (lines.size >= remembered) lines.clear();
        lines.set(issuer, known);
      }
      return known;
    },
    changed: () => {
      named.clear();
      lines.clear();
    },
  };
}
