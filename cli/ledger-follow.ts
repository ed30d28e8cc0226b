/** Feeds as they grow: rows that a daemon has added since it was asked last. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { HeadView } from '../gateway/admin/ledger-operations.ts';
import { blockKeys } from '../ledger/feed-rows.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { LedgerSource } from './ledger-source.ts';

const everyMs = 1_000;

const nameOf = ({ author, epoch }: Pick<HeadView, 'author' | 'epoch'>): string => `${author}/${epoch}`;

/** Waits; false once it is over. */
export async function pause(signal: AbortSignal, forMs: number = everyMs): Promise<boolean> {
  if (signal.aborted) return false;
  try {
    await sleep(forMs, undefined, { signal });
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    throw error;
  }
}

/**
 * The rows of blocks that come after these heads, as soon as they come, those of an epoch in their order.
 * @throws HelixFlowError DAEMON_UNREACHABLE when nothing writes the directory, or no longer.
 */
export async function* followFeeds(
  { dir, isLive, heads, rows }: LedgerSource,
  from: readonly HeadView[],
  signal: AbortSignal,
): AsyncGenerator<readonly [Uint8Array, Uint8Array]> {
  if (!isLive) throw new HelixFlowError('DAEMON_UNREACHABLE', { path: dir.socket });
  const seen = new Map(from.map((head) => [nameOf(head), head.number]));
  while (await pause(signal)) {
    for (const head of await heads()) {
      const last = seen.get(nameOf(head)) ?? -1;
      if (last >= head.number) continue;
      yield* rows.range(blockKeys(head.author, head.epoch, last + 1, head.number));
      seen.set(nameOf(head), head.number);
    }
  }
}
