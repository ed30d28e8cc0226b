/** What a block must be in itself, before anyone asks where it belongs. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { MeshId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import {
  type Block,
  fitsBlock,
  fitsHeader,
  isSigned,
  type OpenBlock,
  openPartOf,
  parseHeader,
  provesOpen,
  type SignedHeader,
} from './block.ts';
import { type AuthorEntry, type Entry, parseEntry } from './entry.ts';

/** A block whose entries are what its header says. */
export interface CheckedBlock {
  /** As this peer holds blocks: whole, or the open part. */
  readonly block: Block | OpenBlock;
  readonly head: SignedHeader;
  readonly entries: readonly { readonly index: number; readonly entry: Entry }[];
}

/** What `read` returns; undefined where it finds something that is no block. */
export function unlessMalformed<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isHelixFlowError(error, 'FRAME_MALFORMED') || isHelixFlowError(error, 'FRAME_TOO_LARGE')) return undefined;
    throw error;
  }
}

/** The header as its bytes say, whatever else came with it. */
export const readHead = ({ bytes, signature }: SignedHeader): SignedHeader | undefined =>
  unlessMalformed(() => parseHeader(bytes, signature));

function partsOf(block: Block | OpenBlock): readonly { readonly index: number; readonly bytes: Uint8Array }[] {
  return 'entries' in block ? block.entries.map((bytes, index) => ({ index, bytes })) : block.open;
}

/** The bytes of one entry; empty where it is not held. */
export const entryBytes = (block: Block | OpenBlock, at: number): Uint8Array =>
  ('entries' in block ? block.entries[at] : block.open.find(({ index }) => index === at)?.bytes) ?? new Uint8Array();

const isWhole = (block: Block | OpenBlock, entries: readonly Uint8Array[]): boolean =>
  entries.length <= limits.blockEntriesMax &&
  fitsBlock(entries) &&
  ('entries' in block ? fitsHeader(block) : provesOpen(block));

/**
 * Checks everything but signature and place. A whole block is cut to its open part where only that is held; a part
 * where whole blocks are held is none.
 */
export function checkContents(
  given: Block | OpenBlock,
  head: SignedHeader,
  holds: 'all' | 'open',
): CheckedBlock | undefined {
  const block = { ...given, head };
  if (holds === 'all' && !('entries' in block)) return undefined;
  const parts = partsOf(block);
  if (
    !isWhole(
      block,
      parts.map(({ bytes }) => bytes),
    )
  )
    return undefined;
  const held = holds === 'open' && 'entries' in block ? openPartOf(block) : block;
  return unlessMalformed(() => {
    // Also those that are not kept: a block that is none for gateways is none for nodes.
    const parsed = parts.map(({ index, bytes }) => ({ index, entry: parseEntry(bytes) }));
    const kept = new Set(partsOf(held).map(({ index }) => index));
    const checked = { block: held, head, entries: parsed.filter(({ index }) => kept.has(index)) };
    return head.header.number > 0 || firstOf(checked) !== undefined ? checked : undefined;
  });
}

/** As `checkContents`, and signed by its author. */
export function checkBlock(
  given: Block | OpenBlock,
  head: SignedHeader,
  by: { readonly meshId: MeshId; readonly holds: 'all' | 'open' },
): CheckedBlock | undefined {
  const checked = checkContents(given, head, by.holds);
  return checked !== undefined && isSigned(head, by.meshId) ? checked : undefined;
}

/** The entry that an epoch's first block must begin with. */
export function firstOf({ entries }: CheckedBlock): AuthorEntry | undefined {
  const [first] = entries;
  return first?.index === 0 && first.entry.kind === 'author' ? first.entry : undefined;
}

/** Bytes of a block, about as many as it takes on the wire. */
export const sizeOfBlock = (block: Block | OpenBlock): number =>
  partsOf(block).reduce((sum, { bytes }) => sum + bytes.length, block.head.bytes.length + block.head.signature.length);
