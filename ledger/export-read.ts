/** Feeds read for whoever writes them down elsewhere: blocks that check, and what statements in them say of attempts. */

import { toHex } from '../protocol/crypto.ts';
import type { AuthorId, EpochId, MeshId, PeerId } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';
import { type CheckedBlock, entryBytes } from './feed-blocks.ts';
import { FeedCheck } from './feed-check.ts';
import { FeedState } from './feed-state.ts';
import type { UsageLine } from './line.ts';
import { type StatementEntry, statementHash } from './statement.ts';
import type { FeedRows } from './verify.ts';

/** Where a gateway said something of an attempt. */
export interface Origin {
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly block: number;
  readonly entry: number;
  /** Among the statement's lines, or those it tells of as running. */
  readonly list: 'line' | 'running' | 'progress';
  readonly at: number;
  /** Of the tab. */
  readonly statement: number;
  /** `statementHash`, as hex. */
  readonly hash: string;
}

/** One thing that a gateway said of an attempt, and where. */
export interface Mention {
  readonly node: PeerId;
  readonly line: UsageLine;
  readonly origin: Origin;
}

/** A statement, and where it stands. */
export interface PlacedStatement {
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly block: number;
  readonly entry: number;
  readonly timeMs: UnixMs;
  readonly hash: string;
  readonly statement: StatementEntry;
}

/** The blocks that check, each epoch's in their order. What does not is passed over: `ledger verify` tells of it. */
export async function* readBlocks(
  rows: FeedRows,
  options: { readonly meshId: MeshId; readonly holds: 'all' | 'open' },
): AsyncGenerator<CheckedBlock> {
  let good: CheckedBlock[] = [];
  const check = new FeedCheck(options, new FeedState(), (block) => good.push(block));
  const take = (): CheckedBlock[] => {
    const taken = good;
    good = [];
    return taken;
  };
  for await (const [key, row] of rows) {
    check.takeBlock(key, row);
    if (good.length > 0) yield* take();
  }
  check.vouch();
  yield* take();
}

/** The statements of a block. */
export function statementsOf({ block, head, entries }: CheckedBlock): PlacedStatement[] {
  const { author, epoch, number, timeMs } = head.header;
  return entries.flatMap(({ index, entry }) => {
    if (entry.kind !== 'statement') return [];
    const hash = toHex(statementHash(entryBytes(block, index)));
    return [{ author, epoch, block: number, entry: index, timeMs, hash, statement: entry }];
  });
}

const originOf = (placed: PlacedStatement, list: Origin['list'], at: number): Origin => ({
  author: placed.author,
  epoch: placed.epoch,
  block: placed.block,
  entry: placed.entry,
  list,
  at,
  statement: placed.statement.number,
  hash: placed.hash,
});

export type AttemptName = Pick<UsageLine, 'run' | 'serial'>;

/**
 * What a statement says, one after the other.
 * @param told What this gateway has told as running so far, to this node; progress is told of those alone.
 */
export function* mentionsOf(
  placed: PlacedStatement,
  told: (attempt: AttemptName) => UsageLine | undefined,
): Generator<Mention> {
  const { node, lines, running, progress, run } = placed.statement;
  for (const [at, line] of lines.entries()) yield { node, line, origin: originOf(placed, 'line', at) };
  for (const [at, line] of running.entries()) yield { node, line, origin: originOf(placed, 'running', at) };
  for (const [at, { serial, completionTokens }] of progress.entries()) {
    const line = told({ run, serial });
    if (line !== undefined)
      yield { node, line: { ...line, completionTokens }, origin: originOf(placed, 'progress', at) };
  }
}
