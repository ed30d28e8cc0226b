/** Blocks and proofs between the forms that feeds keep and those that the wire carries. */

import { isSameBytes } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, EpochId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { merkleLeaf, merklePaths } from '../protocol/merkle.ts';
import { haveHashBytes, type WireBlock, type WireHead, type WireOpenBlock } from '../protocol/messages/ledger.ts';
import { type Block, type ForkProof, type OpenBlock, parseHeader, type SignedHeader } from './block.ts';
import { isOpenEntry } from './entry.ts';

/** Names an epoch of an author. */
export type EpochKey = string & { readonly key: 'epoch' };

/** An epoch of an author. */
export interface EpochName {
  readonly author: AuthorId;
  readonly epoch: EpochId;
}

export const keyOf = ({ author, epoch }: EpochName): EpochKey => `${author}${epoch}` as EpochKey;
export const nameOf = (key: EpochKey): EpochName => ({
  author: key.slice(0, 64) as AuthorId,
  epoch: key.slice(64) as EpochId,
});

/** What a `have` shows of a header. */
export const shortHash = ({ hash }: SignedHeader): Uint8Array => hash.slice(0, haveHashBytes);

export const wireHead = ({ bytes, signature }: SignedHeader): WireHead => ({ header: bytes, signature });
/** @throws HelixFlowError FRAME_MALFORMED */
export const readHead = ({ header, signature }: WireHead): SignedHeader => parseHeader(header, signature);

export const wireBlock = ({ head, entries }: Block): WireBlock => ({ ...wireHead(head), entries });
/** @throws HelixFlowError FRAME_MALFORMED */
export const readBlock = (wire: WireBlock): Block => ({ head: readHead(wire), entries: wire.entries });

/** What a node may see of a block. */
export const wireOpenBlock = ({ head, entries }: Block): WireOpenBlock => ({
  ...wireHead(head),
  slots: entries.map((entry) => (isOpenEntry(entry) ? { entry } : { leaf: merkleLeaf(entry) })),
});

/**
 * Reads a block as nodes get it, and makes the paths that prove its entries.
 * @throws HelixFlowError FRAME_MALFORMED; BLOCK_INVALID when the slots are not those that the header stands for.
 */
export function readOpenBlock(wire: WireOpenBlock): OpenBlock {
  const head = readHead(wire);
  const { author, number, count, root: expected } = head.header;
  const leaves = wire.slots.map((slot) => ('entry' in slot ? merkleLeaf(slot.entry) : slot.leaf));
  const { root, paths } = merklePaths(leaves);
  if (leaves.length !== count || !isSameBytes(root, expected)) {
    throw new HelixFlowError('BLOCK_INVALID', { author, number, reason: 'its slots do not fit its header' });
  }
  const open = wire.slots.flatMap((slot, index) =>
    'entry' in slot ? [{ index, bytes: slot.entry, path: paths[index] as readonly Uint8Array[] }] : [],
  );
  return { head, open };
}

/** The whole block, where all of its entries are there. */
export function wholeOf(block: Block | OpenBlock): Block | undefined {
  if ('entries' in block) return block;
  const { head, open } = block;
  return open.length === head.header.count ? { head, entries: open.map(({ bytes }) => bytes) } : undefined;
}

export const wireProof = ({ a, b }: ForkProof) => ({ type: 'proof', a: wireHead(a), b: wireHead(b) }) as const;
/** @throws HelixFlowError FRAME_MALFORMED */
export const readProof = ({ a, b }: { readonly a: WireHead; readonly b: WireHead }): ForkProof => ({
  a: readHead(a),
  b: readHead(b),
});

/** At most so many bytes of a frame: heads of items with some to spare. */
const itemBytes = 5;

const wireBytes = (block: WireBlock | WireOpenBlock): number => {
  const items =
    'entries' in block ? block.entries : block.slots.map((slot) => ('entry' in slot ? slot.entry : slot.leaf));
  const head = block.header.length + block.signature.length + 4 * itemBytes;
  return items.reduce((sum, item) => sum + item.length + itemBytes, head);
};

/** Splits blocks, in their order, into lists that each fit a frame; one empty list for none. */
export function intoFrames<T extends WireBlock | WireOpenBlock>(blocks: readonly T[]): readonly (readonly T[])[] {
  const frames: T[][] = [[]];
  let usedBytes = 0;
  for (const block of blocks) {
    const bytes = wireBytes(block);
    if (usedBytes > 0 && usedBytes + bytes > limits.blockMaxBytes) {
      frames.push([]);
      usedBytes = 0;
    }
    frames.at(-1)?.push(block);
    usedBytes += bytes;
  }
  return frames;
}
