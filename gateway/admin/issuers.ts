/** Which issuers a thing may belong to, as far as this gateway has heard. */

import type { Ledger } from '../../ledger/ledger.ts';
import { fromHex } from '../../protocol/crypto.ts';
import { issuerIdOf } from '../../protocol/grants.ts';
import type { AccountId, AuthorId, IssuerId, KeyId } from '../../protocol/ids.ts';

type Known = Pick<Ledger, 'standing'>;

const issuersOf = (authors: readonly AuthorId[]): readonly IssuerId[] => [
  ...new Set(authors.map((by) => issuerIdOf(fromHex(by)))),
];

/** Every issuer that told of this account: its own, and whoever took it over. */
export const issuersOfAccount = ({ standing }: Known, account: AccountId): readonly IssuerId[] =>
  issuersOf(
    standing
      .accounts()
      .filter((each) => each.account === account && each.isErased !== true)
      .map(({ by }) => by),
  );

export const issuersOfKey = ({ standing }: Known, key: KeyId): readonly IssuerId[] =>
  issuersOf(
    standing
      .keys()
      .filter((each) => each.key === key)
      .map(({ by }) => by),
  );
