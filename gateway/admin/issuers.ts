/** Which issuers a thing may belong to, as far as this gateway has heard. */

import type { Ledger } from '../../ledger/ledger.ts';
import { fromHex } from '../../protocol/crypto.ts';
import { issuerIdOf } from '../../protocol/grants.ts';
import type { AccountId, AuthorId, IssuerId, KeyId } from '../../protocol/ids.ts';

type Known = Pick<Ledger, 'standing'>;

const issuersOf = (authors: readonly AuthorId[]): readonly IssuerId[] => [
  ...new Set(authors.map((by) => issuerIdOf(fromHex(by)))),
];

/** Every issuer that told of this account: its own, and whoever took it over; none where it was erased. */
export function issuersOfAccount({ standing }: Known, account: AccountId): readonly IssuerId[] {
  const told = standing.accounts().filter((each) => each.account === account);
  return told.some(({ isErased }) => isErased) ? [] : issuersOf(told.map(({ by }) => by));
}

/** As `issuersOfAccount`, for a key; none where its account was erased. */
export function issuersOfKey({ standing }: Known, key: KeyId): readonly IssuerId[] {
  const told = standing.keys().filter((each) => each.key === key);
  const accounts = new Set(told.map(({ made }) => made?.account));
  const isErased = standing.accounts().some((each) => each.isErased === true && accounts.has(each.account));
  return isErased ? [] : issuersOf(told.map(({ by }) => by));
}
