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
  /** The id of an author that the root has named; asked with every request, and a hash each time would be half its cost. */
  const named = new Map<AuthorId, IssuerId | null>();
  const lines = new Map<IssuerId, readonly IssuerCertificate[]>();
  const idOf = (author: AuthorId): IssuerId => issuerIdOf(authorKeyOf(author));
  // Authors come from peers, so what is remembered of them has a bound.
  const remembered = 8_192;
  const issuerOf = (author: AuthorId): IssuerId | null => {
    let known = named.get(author);
    if (known === undefined) {
      const id = idOf(author);
      known = roots.certificateOf(id) === undefined ? null : id;
      if (named.size >= remembered) named.clear();
      named.set(author, known);
    }
    return known;
  };
  return {
    isIssuer: (author) => issuerOf(author) !== null,
    counts: (author) => {
      const issuer = issuerOf(author);
      return issuer !== null && !roots.isRevoked(issuer);
    },
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
