/** What the ledger says of keys and accounts, asked by issuer: its own entries and those of whoever took over from it. */

import type { Ledger } from '../../ledger/ledger.ts';
import type { AccountStanding, KeyStanding } from '../../ledger/standing.ts';
import { accountOf, keyOf } from '../../ledger/succession.ts';
import type { AccountId, IssuerId, KeyId } from '../../protocol/ids.ts';
import type { UnixMs } from '../../protocol/units.ts';

/** Asked with each request, so every answer must come from memory. */
export interface KeyLedger {
  key(key: KeyId, issuer: IssuerId): Pick<KeyStanding, 'terms' | 'revoked'> | undefined;
  account(
    account: AccountId,
    issuer: IssuerId,
  ): Pick<AccountStanding, 'limits' | 'strict' | 'budget' | 'isErased'> | undefined;
  /** When the issuer last vouched for what is known here; undefined when it never did. */
  asOfMs(issuer: IssuerId): UnixMs | undefined;
}

/** Looks keys up in the ledger of this peer. */
export const keyLedgerOf = (ledger: Pick<Ledger, 'standing' | 'authorsOf' | 'freshness'>): KeyLedger => ({
  key: (key, issuer) => keyOf(ledger, key, issuer),
  account: (account, issuer) => accountOf(ledger, account, issuer),
  asOfMs: (issuer) => ledger.freshness(issuer).asOfMs,
});
