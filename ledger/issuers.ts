/** Issuers as the ledger sees them: their authors, who took over from whom, and whose key is held here. */

import { type IssuerCertificate, issuerIdOf, type Succession } from '../protocol/grants.ts';
import type { AuthorId, IssuerId } from '../protocol/ids.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import { authorIdOf, authorKeyOf, type BlockPlace } from './block.ts';

/** Asked several times with each request; a text that is made anew is also hashed anew wherever it is looked up. */
const authors = new WeakMap<IssuerCertificate, AuthorId>();

/** The author of an issuer's feed. */
export function authorOf(certificate: IssuerCertificate): AuthorId {
  const known = authors.get(certificate);
  if (known !== undefined) return known;
  const author = authorIdOf(certificate.publicKey);
  authors.set(certificate, author);
  return author;
}

/** Look-ups in what the root has said; each is a map's. */
export interface Issuers {
  /** True for authors whom the root has named, revoked or not. */
  isIssuer(author: AuthorId): boolean;
  /** The same, without those that were revoked. */
  counts(author: AuthorId): boolean;
  /** Itself, then those that succeeded it and were not revoked, oldest first; none when the root never named it. */
  line(issuer: IssuerId): readonly IssuerCertificate[];
  /** The handover that ended this author's authority; the same object until the root says something new. */
  endOf(author: AuthorId): Succession | undefined;
  /** What was looked up before counts no more: the root has said something. */
  changed(): void;
}

export function createIssuers(roots: Roots): Issuers {
  /** The id of an author that the root has named; asked with every request, and a hash each time would be half its cost. */
  const named = new Map<AuthorId, IssuerId | null>();
  const lines = new Map<IssuerId, readonly IssuerCertificate[]>();
  const ends = new Map<IssuerId, Succession | null>();
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
  const line = (issuer: IssuerId): readonly IssuerCertificate[] => {
    let known = lines.get(issuer);
    if (known === undefined) {
      const first = roots.certificateOf(issuer);
      known = first === undefined ? [] : [first, ...roots.successorsOf(issuer)];
      if (lines.size >= remembered) lines.clear();
      lines.set(issuer, known);
    }
    return known;
  };
  /** Whoever took over at once may have been revoked since: then one that took over from it leads back there. */
  const findEnd = (issuer: IssuerId): Succession | null => {
    for (const heir of line(issuer).slice(1)) {
      const seen = new Set<IssuerId>();
      let at: IssuerCertificate | undefined = heir;
      while (at?.succeeds !== undefined && !seen.has(at.issuer)) {
        if (at.succeeds.issuer === issuer) return at.succeeds;
        seen.add(at.issuer);
        at = roots.certificateOf(at.succeeds.issuer);
      }
    }
    return null;
  };
  return {
    isIssuer: (author) => issuerOf(author) !== null,
    counts: (author) => {
      const issuer = issuerOf(author);
      return issuer !== null && !roots.isRevoked(issuer);
    },
    line,
    endOf: (author) => {
      const issuer = issuerOf(author);
      if (issuer === null) return undefined;
      let known = ends.get(issuer);
      if (known === undefined) {
        known = findEnd(issuer);
        ends.set(issuer, known);
      }
      return known ?? undefined;
    },
    changed: () => {
      named.clear();
      lines.clear();
      ends.clear();
    },
  };
}

/** True where the block is held, with all before it, that the handover to this issuer names; so too without any. */
export function holdsWhatIsNamedBy(
  heir: IssuerCertificate,
  roots: Pick<Roots, 'certificateOf' | 'isRevoked'>,
  holds: (place: BlockPlace) => boolean,
): boolean {
  const seen = new Set<IssuerId>();
  for (let at: IssuerCertificate | undefined = heir; at?.succeeds !== undefined && !seen.has(at.issuer); ) {
    seen.add(at.issuer);
    const { issuer, last } = at.succeeds;
    const before = roots.certificateOf(issuer);
    // Of one that was taken back nothing counts, but what it took over from does.
    if (roots.isRevoked(issuer)) at = before;
    else if (last === undefined) return true;
    else return before !== undefined && holds({ author: authorOf(before), ...last });
  }
  return true;
}
