/** What closes an account for good: its keys, and then itself (design §6, Privacy). */

import type { AccountId, IssuerId, KeyId } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { Entry } from './entry.ts';
import type { Ledger } from './ledger.ts';
import { accountIn, keysIn } from './succession.ts';

/** Entries of one append. */
const entriesAtOnce = 256;

/** What is to be written, and the keys that the account ever had. */
export interface Erasure {
  readonly keys: readonly KeyId[];
  readonly entries: readonly (readonly Entry[])[];
}

function* pieces(entries: readonly Entry[]): Generator<readonly Entry[]> {
  for (let at = 0; at < entries.length; at += entriesAtOnce) yield entries.slice(at, at + entriesAtOnce);
}

/**
 * The account goes first: from then on none of its keys counts anywhere, also where the rest is not heard. Each key is
 * revoked besides, so that requests under way end; one that was cut before is not cut again.
 */
export function erasureOf(
  ledger: Pick<Ledger, 'standing' | 'authorsOf' | 'roots'>,
  { account, issuer }: { readonly account: AccountId; readonly issuer: IssuerId },
  fromMs: UnixMs,
): Erasure {
  const keys = keysIn(ledger, issuer).filter(({ made }) => made?.account === account);
  const isClosed = accountIn(ledger, account, issuer)?.isErased === true;
  const entries: Entry[] = isClosed ? [] : [{ kind: 'erase', account }];
  for (const { key, revoked } of keys) {
    if (revoked?.cut !== true || revoked.fromMs > fromMs) entries.push({ kind: 'revoke', key, fromMs, cut: true });
  }
  return { keys: keys.map(({ key }) => key), entries: [...pieces(entries)] };
}
