/** The order in which feeds are read by whoever audits them: gateways before issuers, the epochs of an author as it wrote them. */

import type { AuthorId, EpochId } from '../protocol/ids.ts';
import type { Store, StoreRange } from '../protocol/ports.ts';
import { parseEntry } from './entry.ts';
import { entryBytes, unlessMalformed } from './feed-blocks.ts';
import { readPrunedRow } from './feed-prune.ts';
import { feedKeys, readBlockRow, readKey, rowKinds } from './feed-rows.ts';

type Rows = Pick<Store, 'range'>;
type Row = readonly [key: Uint8Array, value: Uint8Array];

/** The keys of one epoch. */
export interface EpochRange extends StoreRange {
  readonly isIssuer: boolean;
  readonly author: AuthorId;
  readonly epoch: EpochId;
  /** 0 where its first block is damaged. */
  readonly generation: number;
}

/** Bytes that come behind every key that begins with `prefix`, which is not all 0xff. */
function after(prefix: Uint8Array): Uint8Array {
  const next = prefix.slice();
  for (let at = next.length - 1; at >= 0; at -= 1) {
    next[at] = ((next[at] ?? 0) + 1) & 0xff;
    if (next[at] !== 0) break;
  }
  return next;
}

const epochKeyBytes = feedKeys.gte.length + 1 + 32 + 16;
const blocksFrom = Uint8Array.of(...feedKeys.gte, rowKinds.block);
const blocksTo = Uint8Array.of(...feedKeys.gte, rowKinds.block + 1);

/** Of an epoch whose beginning is missing nobody can tell. */
function isIssuers(first: Uint8Array | undefined): boolean {
  const entry = first === undefined ? undefined : unlessMalformed(() => parseEntry(first));
  return entry?.kind === 'author' && entry.role === 'issuer';
}

function rangeOf(key: Uint8Array, row: Uint8Array): EpochRange {
  const { author, epoch } = readKey(key);
  const block = readBlockRow(key, row);
  const pruned = block === undefined ? readPrunedRow(key, row) : undefined;
  const generation = (block ?? pruned)?.head.header.generation ?? 0;
  const first = pruned?.kept.find(({ index }) => index === 0)?.bytes ?? (block && entryBytes(block, 0));
  const range = { gte: key, lt: after(key.subarray(0, epochKeyBytes)), author, epoch, generation };
  return { ...range, isIssuer: isIssuers(first) };
}

async function firstRow(rows: Rows, gte: Uint8Array): Promise<Row | undefined> {
  for await (const row of rows.range({ gte, lt: blocksTo, limit: 1 })) return row;
  return undefined;
}

const compare = (a: string | number, b: string | number): number => (a < b ? -1 : a > b ? 1 : 0);

/** The epochs of which anything is held: gateways before issuers, each author's in the order it wrote them. */
export async function epochRanges(rows: Rows): Promise<readonly EpochRange[]> {
  const epochs: EpochRange[] = [];
  for (let row = await firstRow(rows, blocksFrom); row !== undefined; ) {
    const range = rangeOf(...row);
    epochs.push(range);
    row = await firstRow(rows, range.lt);
  }
  return epochs.sort(
    (a, b) =>
      Number(a.isIssuer) - Number(b.isIssuer) || compare(a.author, b.author) || compare(a.generation, b.generation),
  );
}

/**
 * All rows of feeds, each once. What grows meanwhile may be read in part, but nothing that refers to something older
 * is read before it: lines come before the leases and prices that issuers have written for them.
 */
export async function* rowsInOrder(rows: Rows): AsyncGenerator<Row> {
  const epochs = await epochRanges(rows);
  yield* rows.range({ gte: feedKeys.gte, lt: blocksFrom });
  for (const { gte, lt } of epochs) yield* rows.range({ gte, lt });
  yield* rows.range({ gte: blocksTo, lt: feedKeys.lt });
}
