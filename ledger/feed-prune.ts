/** Blocks whose statements are settled for good, cut down to what the chain and the standing need: header, leaves, other entries. */

import type { Value } from '../protocol/codec.ts';
import { isSameBytes } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, EpochId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { merkleLeaf, merklePaths } from '../protocol/merkle.ts';
import type { Clock, Store, StoreOp } from '../protocol/ports.ts';
import { Reader } from '../protocol/reader.ts';
import type { UnixMs } from '../protocol/units.ts';
import { type Block, headerMaxBytes, parseHeader, type SignedHeader } from './block.ts';
import { type Entry, parseEntry } from './entry.ts';
import { type CheckedBlock, unlessMalformed } from './feed-blocks.ts';
import { blockKey, blockKeys, readBlockRow } from './feed-rows.ts';
import type { EpochHead } from './feeds.ts';
import { readSealedRow, sealRow } from './sealed-rows.ts';

/** What is left of a block: of each entry its bytes, or its leaf of the tree. */
export interface PrunedBlock {
  readonly head: SignedHeader;
  readonly kept: readonly { readonly index: number; readonly bytes: Uint8Array }[];
  /** Of every entry, in their order. */
  readonly leaves: readonly Uint8Array[];
}

/** Beside 0 and 1 for whole blocks and open parts. */
const holdsPruned = 2;

/** The row of a pruned block; `key` is its `blockKey`. */
export function writePrunedRow(key: Uint8Array, { head, kept, leaves }: PrunedBlock): Uint8Array {
  const bytesAt = new Map(kept.map(({ index, bytes }) => [index, bytes]));
  const entries = leaves.map((leaf, index): Value => {
    const bytes = bytesAt.get(index);
    return bytes === undefined ? leaf : [bytes];
  });
  return sealRow(key, [holdsPruned, head.bytes, head.signature, entries]);
}

/** What lies at `key`, without looking at its chain; undefined where a byte has changed, or a block is not pruned. */
export const readPrunedRow = (key: Uint8Array, row: Uint8Array): PrunedBlock | undefined =>
  readSealedRow(key, row, (r) => {
    r.int(holdsPruned, holdsPruned);
    const head = parseHeader(r.bytes(headerMaxBytes), r.bytes(64, 64));
    const kept: { index: number; bytes: Uint8Array }[] = [];
    let index = 0;
    const leaves = r.list(limits.blockEntriesMax, (value) => {
      const at = index++;
      if (value instanceof Uint8Array) return leafOf(value);
      const bytes = new Reader(value, 'entry').bytes(limits.entryMaxBytes);
      kept.push({ index: at, bytes });
      return merkleLeaf(bytes);
    });
    const isHere = isSameBytes(blockKey(head.header), key);
    if (!isHere || leaves.length !== head.header.count || !isSameBytes(merklePaths(leaves).root, head.header.root)) {
      throw new HelixFlowError('FRAME_MALFORMED', { reason: 'row: not what its header says' });
    }
    return { head, kept, leaves };
  });

function leafOf(value: Uint8Array): Uint8Array {
  if (value.length === 32) return value;
  throw new HelixFlowError('FRAME_MALFORMED', { reason: 'row: no leaf' });
}

/** Its entries that are left, as those of a block that is held in part. */
export function checkPruned(key: Uint8Array, row: Uint8Array): CheckedBlock | undefined {
  const pruned = readPrunedRow(key, row);
  if (pruned === undefined) return undefined;
  const { head, kept } = pruned;
  return unlessMalformed(() => {
    const entries = kept.map(({ index, bytes }) => ({ index, entry: parseEntry(bytes) }));
    return { block: { head, open: kept.map((entry) => ({ ...entry, path: [] })) }, head, entries };
  });
}

/**
 * The block without the entries that are dropped; undefined where it stays as it is. One with a statement that is not
 * dropped does: its node will want the proof that it stands there.
 */
export function prune({ head, entries }: Block, isDropped: (entry: Entry) => boolean): PrunedBlock | undefined {
  const kept: { readonly index: number; readonly bytes: Uint8Array }[] = [];
  for (const [index, bytes] of entries.entries()) {
    const entry = parseEntry(bytes);
    if (isDropped(entry)) continue;
    if (entry.kind === 'statement') return undefined;
    kept.push({ index, bytes });
  }
  return kept.length === entries.length ? undefined : { head, kept, leaves: entries.map(merkleLeaf) };
}

export interface PruneOptions {
  /** Blocks that were signed before this moment, by their author's clock. */
  readonly beforeMs: UnixMs;
  /** What is counted for good, and not needed by anybody here. */
  readonly isDropped: (author: AuthorId, epoch: EpochId, entry: Entry) => boolean;
  /** True once there is no more time for it. */
  readonly isOver?: () => boolean;
}

/** What became of one epoch. */
export interface Pruned {
  readonly blocks: number;
  readonly bytes: number;
  /** The first block that was not old enough: the next time it is enough to begin there. */
  readonly next: number;
}

/** Of rows that are looked at without a pause, and of those that share a sync. */
const pauseBytes = 65_536;
const batchMaxBytes = 1_048_576;

/**
 * Prunes the blocks of an epoch from `from` on. What they say is dropped from this disk alone: whoever wants it asks those
 * who keep everything.
 * @throws HelixFlowError STORE_FAILED
 */
export async function pruneEpoch(
  deps: { readonly store: Store; readonly clock: Pick<Clock, 'turn'> },
  { author, epoch, number: to }: Pick<EpochHead, 'author' | 'epoch' | 'number'>,
  from: number,
  { beforeMs, isDropped, isOver = () => false }: PruneOptions,
): Promise<Pruned> {
  const { store, clock } = deps;
  let [blocks, freed, next] = [0, 0, from];
  let ops: StoreOp[] = [];
  let [unwritten, unpaused] = [0, 0];
  for await (const [key, row] of store.range(blockKeys(author, epoch, from, to))) {
    const block = readBlockRow(key, row);
    const header = block?.head.header ?? readPrunedRow(key, row)?.head.header;
    if (header === undefined || header.timeMs >= beforeMs || isOver()) break;
    next = header.number + 1;
    unpaused += row.length;
    const pruned =
      block !== undefined && 'entries' in block ? prune(block, (entry) => isDropped(author, epoch, entry)) : undefined;
    if (pruned !== undefined) {
      const value = writePrunedRow(key, pruned);
      ops.push({ type: 'put', key, value });
      blocks += 1;
      freed += row.length - value.length;
      unwritten += value.length;
    }
    if (unpaused < pauseBytes) continue;
    unpaused = 0;
    await clock.turn();
    if (unwritten < batchMaxBytes) continue;
    await store.batch(ops, { sync: true });
    ops = [];
    unwritten = 0;
  }
  if (ops.length > 0) await store.batch(ops, { sync: true });
  return { blocks, bytes: freed, next };
}
