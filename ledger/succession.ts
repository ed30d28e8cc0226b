/** What an issuer's word comes to, together with that of whoever took over from it. */

import type { AccountId, AuthorId, IssuerId, KeyId } from '../protocol/ids.ts';
import type { Ledger } from './ledger.ts';
import type { AccountStanding, KeyStanding } from './standing.ts';
import { joinRevoked } from './standing-records.ts';

/** Of terms those of the last in the line count, and any revocation. */
function joinKeys(earlier: KeyStanding | undefined, later: KeyStanding | undefined): KeyStanding | undefined {
  if (earlier === undefined || later === undefined) return earlier ?? later;
  const made = earlier.made ?? later.made;
  const terms = later.terms ?? earlier.terms;
  const revoked = later.revoked === undefined ? earlier.revoked : joinRevoked(earlier.revoked, later.revoked);
  return {
    key: earlier.key,
    by: earlier.by,
    ...(made === undefined ? {} : { made }),
    ...(terms === undefined ? {} : { terms }),
    ...(revoked === undefined ? {} : { revoked }),
  };
}

function joinAccounts(
  earlier: AccountStanding | undefined,
  later: AccountStanding | undefined,
): AccountStanding | undefined {
  if (earlier === undefined || later === undefined) return earlier ?? later;
  return { ...later, by: earlier.by, createdMs: earlier.createdMs };
}

function overLine<T>(
  authors: readonly AuthorId[],
  ask: (author: AuthorId) => T | undefined,
  join: (earlier: T | undefined, later: T | undefined) => T | undefined,
): T | undefined {
  const [only] = authors;
  if (authors.length === 1 && only !== undefined) return ask(only);
  return authors.map(ask).reduce(join, undefined);
}

type Known = Pick<Ledger, 'standing' | 'authorsOf'>;

/** What counts for a key that this issuer has signed. Nothing is made anew where nobody took over. */
export const keyOf = (ledger: Known, key: KeyId, issuer: IssuerId): KeyStanding | undefined =>
  overLine(ledger.authorsOf(issuer), (author) => ledger.standing.key(key, author), joinKeys);

/** As `keyOf`, for an account of this issuer. */
export const accountOf = (ledger: Known, account: AccountId, issuer: IssuerId): AccountStanding | undefined =>
  overLine(ledger.authorsOf(issuer), (author) => ledger.standing.account(account, author), joinAccounts);

/** Issuers whose authority came to this one, oldest first, and it itself. */
export function heldBy(ledger: Pick<Ledger, 'authorsOf' | 'roots'>, issuer: IssuerId): readonly IssuerId[] {
  const [own] = ledger.authorsOf(issuer);
  const before = [...ledger.roots.issuers.keys()].filter(
    (other) => other !== issuer && own !== undefined && ledger.authorsOf(other).includes(own),
  );
  // Whoever came earlier has more that came after it.
  const age = (other: IssuerId): number => ledger.authorsOf(other).length;
  return [...before.sort((a, b) => age(b) - age(a) || (a < b ? -1 : 1)), issuer];
}
