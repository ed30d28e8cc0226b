/** `ledger tail`: the newest attempts of all gateways, read from the ends of their feeds. */

import { toHex } from '../protocol/crypto.ts';
import type { Store } from '../protocol/ports.ts';
import type { UnixMs } from '../protocol/units.ts';
import { parseEntry } from './entry.ts';
import { unlessMalformed } from './feed-blocks.ts';
import { readBlockRow } from './feed-rows.ts';
import type { UsageLine } from './line.ts';
import { type RefusalReason, type StatementEntry, statementHash } from './statement.ts';
import { type EntrySpot, lineText } from './verify-place.ts';
import { type EpochRange, epochRanges } from './verify-rows.ts';

/** One line, and what its node has said of it so far. */
export interface TailLine {
  readonly place: string;
  /** When its statement was signed. */
  readonly statedMs: UnixMs;
  readonly node: StatementEntry['node'];
  readonly author: EntrySpot['author'];
  readonly line: UsageLine;
  readonly state: 'countersigned' | 'refused' | 'waiting';
  readonly refused?: RefusalReason;
}

type Rows = Pick<Store, 'range'>;
type Words = Map<string, ReadonlyMap<number, RefusalReason>>;

/** A line whose node may have its say in a block that was not read yet: of an epoch after this one, too. */
interface ReadLine extends Omit<TailLine, 'state' | 'refused'> {
  readonly statement: string;
  readonly at: number;
}

interface ReadBlock {
  readonly timeMs: UnixMs;
  /** Newest first. */
  readonly lines: readonly ReadLine[];
}

/** @param words What nodes have said; grows with each block. */
function readRow(key: Uint8Array, row: Uint8Array, words: Words): ReadBlock | undefined {
  const block = readBlockRow(key, row);
  if (block === undefined || !('entries' in block)) return undefined;
  const { author, epoch, number, timeMs } = block.head.header;
  const entries = block.entries.map((bytes) => unlessMalformed(() => parseEntry(bytes)));
  for (const entry of entries) {
    if (entry?.kind !== 'countersign') continue;
    words.set(toHex(entry.statement), new Map(entry.refused.map(({ index, reason }) => [index, reason])));
  }
  const lines = entries.flatMap((entry, index): ReadLine[] => {
    if (entry?.kind !== 'statement') return [];
    const statement = toHex(statementHash(block.entries[index] ?? new Uint8Array()));
    return entry.lines.map((line, at): ReadLine => {
      const place = lineText({ author, epoch, number, index }, 'line', at, line);
      return { place, statedMs: timeMs, node: entry.node, author, line, statement, at };
    });
  });
  return { timeMs, lines: lines.toReversed() };
}

function judged({ statement, at, ...line }: ReadLine, words: Words): TailLine {
  const word = words.get(statement);
  const refused = word?.get(at);
  if (refused !== undefined) return { ...line, state: 'refused', refused };
  return { ...line, state: word === undefined ? 'waiting' : 'countersigned' };
}

/** Blocks of one epoch that are fetched at a time. */
const fetchedBlocks = 16;

/** The blocks of an epoch, the newest first. */
async function* newestFirst(rows: Rows, { gte, lt }: EpochRange, words: Words): AsyncGenerator<ReadBlock> {
  for (let end: Uint8Array | undefined = lt; end !== undefined; ) {
    let last: Uint8Array | undefined;
    let count = 0;
    for await (const [key, row] of rows.range({ gte, lt: end, limit: fetchedBlocks, reverse: true })) {
      count += 1;
      last = key;
      const read = readRow(key, row, words);
      if (read !== undefined) yield read;
    }
    end = count < fetchedBlocks ? undefined : last;
  }
}

interface Cursor {
  readonly blocks: AsyncGenerator<ReadBlock>;
  next: ReadBlock | undefined;
}

async function advance(cursor: Cursor): Promise<void> {
  const { value, done } = await cursor.blocks.next();
  cursor.next = done === true ? undefined : value;
}

/** The newest lines, oldest first; of blocks that were signed in one moment in any order. */
export async function tailLines(rows: Rows, count: number): Promise<readonly TailLine[]> {
  const words: Words = new Map();
  const cursors: Cursor[] = [];
  for (const epoch of await epochRanges(rows)) {
    if (epoch.isIssuer) continue;
    const cursor: Cursor = { blocks: newestFirst(rows, epoch, words), next: undefined };
    await advance(cursor);
    cursors.push(cursor);
  }
  const lines: ReadLine[] = [];
  while (lines.length < count) {
    const newest = cursors.reduce<Cursor | undefined>(
      (best, cursor) => ((cursor.next?.timeMs ?? -1) > (best?.next?.timeMs ?? -1) ? cursor : best),
      undefined,
    );
    if (newest?.next === undefined) break;
    lines.push(...newest.next.lines);
    await advance(newest);
  }
  return lines
    .slice(0, count)
    .toReversed()
    .map((line) => judged(line, words));
}

/** The lines of rows that come from now on, in their order. */
export function linesOfRow(key: Uint8Array, row: Uint8Array): readonly TailLine[] {
  const words: Words = new Map();
  return (readRow(key, row, words)?.lines ?? []).toReversed().map((line) => judged(line, words));
}
