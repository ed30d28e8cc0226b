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
  const isErased = earlier.isErased === true || later.isErased === true;
  return { ...later, by: earlier.by, createdMs: earlier.createdMs, ...(isErased ? { isErased } : {}) };
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
type Line = Known & Pick<Ledger, 'roots'>;

/** What counts for a key that this issuer has signed. Nothing is made anew where nobody took over. */
export const keyOf = (ledger: Known, key: KeyId, issuer: IssuerId): KeyStanding | undefined =>
  overLine(ledger.authorsOf(issuer), (author) => ledger.standing.key(key, author), joinKeys);

/** As `keyOf`, for an account of this issuer. */
export const accountOf = (ledger: Known, account: AccountId, issuer: IssuerId): AccountStanding | undefined =>
  overLine(ledger.authorsOf(issuer), (author) => ledger.standing.account(account, author), joinAccounts);

/** Issuers whose authority came to this one, oldest first, and it itself. */
export function inCareOf(ledger: Line, issuer: IssuerId): readonly IssuerId[] {
  const [own] = ledger.authorsOf(issuer);
  const before = [...ledger.roots.issuers.keys()].filter(
    (other) => other !== issuer && own !== undefined && ledger.authorsOf(other).includes(own),
  );
  // Whoever came earlier has more that came after it.
  const age = (other: IssuerId): number => ledger.authorsOf(other).length;
  return [...before.sort((a, b) => age(b) - age(a) || (a < b ? -1 : 1)), issuer];
}

/** Whose thing this is: that of the first who made it, or else of the first who says anything of it. */
function ofWhom(
  ledger: Line,
  issuers: readonly IssuerId[],
  saysOf: (author: AuthorId) => 'made' | 'said' | 'nothing',
): IssuerId | undefined {
  const says = issuers.map((issuer) => {
    const [own] = ledger.authorsOf(issuer);
    return own === undefined ? 'nothing' : saysOf(own);
  });
  const at = says.includes('made') ? says.indexOf('made') : says.indexOf('said');
  return issuers[at];
}

function keyAmong(ledger: Line, key: KeyId, issuers: readonly IssuerId[]): KeyStanding | undefined {
  const issuer = ofWhom(ledger, issuers, (author) => {
    const said = ledger.standing.key(key, author);
    return said === undefined ? 'nothing' : said.made === undefined ? 'said' : 'made';
  });
  return issuer && keyOf(ledger, key, issuer);
}

function accountAmong(ledger: Line, account: AccountId, issuers: readonly IssuerId[]): AccountStanding | undefined {
  const issuer = ofWhom(ledger, issuers, (author) =>
    ledger.standing.account(account, author) === undefined ? 'nothing' : 'made',
  );
  return issuer && accountOf(ledger, account, issuer);
}

/** A key that this issuer looks after: its own, or of one that it took over from. */
export const keyIn = (ledger: Line, key: KeyId, issuer: IssuerId): KeyStanding | undefined =>
  keyAmong(ledger, key, inCareOf(ledger, issuer));

/** As `keyIn`, for an account. */
export const accountIn = (ledger: Line, account: AccountId, issuer: IssuerId): AccountStanding | undefined =>
  accountAmong(ledger, account, inCareOf(ledger, issuer));

/** Each id of rows of these issuers once. */
function idsOf<Row extends { readonly by: AuthorId }, Id>(
  ledger: Line,
  issuers: readonly IssuerId[],
  rows: { readonly all: readonly Row[]; readonly idOf: (row: Row) => Id },
): readonly Id[] {
  const authors = new Set(issuers.flatMap((issuer) => ledger.authorsOf(issuer)));
  return [...new Set(rows.all.filter(({ by }) => authors.has(by)).map(rows.idOf))];
}

/** Every key that `keyIn` would find. */
export function keysIn(ledger: Line, issuer: IssuerId): readonly KeyStanding[] {
  const issuers = inCareOf(ledger, issuer);
  const ids = idsOf(ledger, issuers, { all: ledger.standing.keys(), idOf: ({ key }) => key });
  return ids.flatMap((key) => keyAmong(ledger, key, issuers) ?? []);
}

/** Every account that `accountIn` would find. */
export function accountsIn(ledger: Line, issuer: IssuerId): readonly AccountStanding[] {
  const issuers = inCareOf(ledger, issuer);
  const ids = idsOf(ledger, issuers, { all: ledger.standing.accounts(), idOf: ({ account }) => account });
  return ids.flatMap((account) => accountAmong(ledger, account, issuers) ?? []);
}
