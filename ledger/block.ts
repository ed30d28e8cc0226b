/** Blocks of a feed: a signed header over the Merkle root of its entries, chained to the block before (design §6). */

import { decodeValue, encodeValue, type Value } from '../protocol/codec.ts';
import { fromHex, isSameBytes, sha256, signBytes, toHex, verifyBytes } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, EpochId, MeshId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { isInMerkleTree, merkleLeaf, merklePaths, merkleRoot } from '../protocol/merkle.ts';
import type { SigningKey } from '../protocol/ports.ts';
import { Reader } from '../protocol/reader.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import { isOpenEntry } from './entry.ts';

/** Where a block stands: every process of an author that writes draws an epoch of its own, and counts from 0 in it. */
export interface BlockPlace {
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly number: number;
}

/** What an author signs. */
export interface BlockHeader extends BlockPlace {
  /** One more than that of the epoch which the author knew as its newest; orders what epochs say. From 0. */
  readonly generation: number;
  /** Hash of the header before; of the newest one known for the first of an epoch; zeros where there was none. */
  readonly previous: Uint8Array;
  /** Of the entries, in their order (`protocol/merkle.ts`). */
  readonly root: Uint8Array;
  /** Entries; 1 to `limits.blockEntriesMax`. */
  readonly count: number;
  /** How many of them are open, so that nobody can keep one back from a node. */
  readonly openCount: number;
  readonly timeMs: UnixMs;
}

/** A header as it is stored and sent. */
export interface SignedHeader {
  readonly header: BlockHeader;
  /** What was signed; never made anew from `header`. */
  readonly bytes: Uint8Array;
  /** 64 bytes. */
  readonly signature: Uint8Array;
  /** sha256 of `bytes`. */
  readonly hash: Uint8Array;
}

/** An entry with its place, and the path that proves it. */
export interface ProvenEntry {
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly path: readonly Uint8Array[];
}

/** Header and all entries. */
export interface Block {
  readonly head: SignedHeader;
  readonly entries: readonly Uint8Array[];
}

/** What a node gets: the header, and the open entries with their proofs. */
export interface OpenBlock {
  readonly head: SignedHeader;
  readonly open: readonly ProvenEntry[];
}

const DOMAIN = 'helixflow/block/1';
const version = 1;
/** A header is about 150 bytes. */
export const headerMaxBytes = 256;
/** Before the first block of an author. */
export const noHash: Uint8Array = new Uint8Array(32);

/** The author behind an Ed25519 public key of 32 bytes. */
export const authorIdOf = (publicKey: Uint8Array): AuthorId => toHex(publicKey) as AuthorId;
/** The public key behind an author. */
export const authorKeyOf = (author: AuthorId): Uint8Array => fromHex(author);

// A header of one mesh must not pass in another.
const domainOf = (meshId: MeshId): string => `${DOMAIN}/${meshId}`;

/** What a header says beside what follows from the entries. */
export type BlockStart = Omit<BlockHeader, 'root' | 'count' | 'openCount'>;

const signatureBytes = 64;
const headBytes = headerMaxBytes + signatureBytes;
/** An entry's length, and what marks it as one; a leaf of the tree, which a node gets in place of what is not open. */
const entryExtraBytes = 4;
const leafBytes = 34;

/** Adds up what a block of the entries taken so far comes to, whole or as nodes get it. */
export function createBlockSize(): {
  /** True when the block may hold this entry too; it is then counted. A block may always hold one. */
  take(entry: Uint8Array): boolean;
} {
  let count = 0;
  let bytes = headBytes;
  return {
    take(entry) {
      const more = Math.max(entry.length + entryExtraBytes, leafBytes);
      if (count > 0 && (count === limits.blockEntriesMax || bytes + more > limits.blockMaxBytes)) return false;
      count += 1;
      bytes += more;
      return true;
    },
  };
}

/** True when a block may hold these entries: their number and size, whole or as nodes get it. */
export function fitsBlock(entries: readonly Uint8Array[]): boolean {
  const size = createBlockSize();
  return entries.every((entry) => entry.length <= limits.entryMaxBytes && size.take(entry));
}

/** Signs a block of these entries, which `fitsBlock`. */
export function signBlock(
  place: BlockStart,
  entries: readonly Uint8Array[],
  by: { readonly meshId: MeshId; readonly key: SigningKey },
): Block {
  const openCount = entries.filter(isOpenEntry).length;
  const header: BlockHeader = { ...place, root: merkleRoot(entries), count: entries.length, openCount };
  const fields: Value = [
    version,
    fromHex(header.author),
    fromHex(header.epoch),
    header.generation,
    header.number,
    header.previous,
    header.root,
    header.count,
    header.openCount,
    header.timeMs,
  ];
  const bytes = encodeValue(fields).slice();
  return {
    head: { header, bytes, signature: signBytes(domainOf(by.meshId), bytes, by.key), hash: sha256(bytes) },
    entries,
  };
}

/** Reads a header without checking its signature. @throws HelixFlowError FRAME_MALFORMED */
export function parseHeader(bytes: Uint8Array, signature: Uint8Array): SignedHeader {
  if (bytes.length > headerMaxBytes) throw new HelixFlowError('FRAME_MALFORMED', { reason: 'header: too long' });
  const r = new Reader(decodeValue(bytes), 'header');
  r.int(version, version);
  const place = {
    author: toHex(r.bytes(32, 32)) as AuthorId,
    epoch: toHex(r.bytes(16, 16)) as EpochId,
    generation: r.int(limits.epochsPerAuthorMax),
    number: r.int(),
    previous: r.bytes(32, 32),
    root: r.bytes(32, 32),
  };
  const count = r.int(limits.blockEntriesMax, 1);
  const header: BlockHeader = { ...place, count, openCount: r.int(count), timeMs: unixMs(r.int()) };
  if (r.hasMore || signature.length !== signatureBytes) {
    throw new HelixFlowError('FRAME_MALFORMED', { reason: 'header: more or less than a header' });
  }
  return { header, bytes: bytes.slice(), signature: signature.slice(), hash: sha256(bytes) };
}

/** True when its author signed the header, for this mesh. About 0.1 ms. */
export const isSigned = ({ header, bytes, signature }: SignedHeader, meshId: MeshId): boolean =>
  verifyBytes(domainOf(meshId), bytes, signature, authorKeyOf(header.author));

/** True when these are all the entries of the header. */
export const fitsHeader = ({ head, entries }: Block): boolean =>
  entries.length === head.header.count &&
  entries.filter(isOpenEntry).length === head.header.openCount &&
  isSameBytes(merkleRoot(entries), head.header.root);

/** What a node may see of a block. */
export function openPartOf({ head, entries }: Block): OpenBlock {
  const { paths } = merklePaths(entries.map(merkleLeaf));
  const open = entries.flatMap((bytes, index) =>
    isOpenEntry(bytes) ? [{ index, bytes, path: paths[index] ?? [] }] : [],
  );
  return { head, open };
}

/** True when these are all the open entries, each where it says, under the header's root, in order and once. */
export const provesOpen = ({ head, open }: OpenBlock): boolean =>
  open.length === head.header.openCount &&
  open.every(
    ({ index, bytes, path }, at) =>
      (at === 0 || index > (open[at - 1]?.index ?? 0)) &&
      isOpenEntry(bytes) &&
      isInMerkleTree(bytes, { index, count: head.header.count, path }, head.header.root),
  );

/** Two headers of one author, epoch and number that differ: whoever signed both has forked. */
export interface ForkProof {
  readonly a: SignedHeader;
  readonly b: SignedHeader;
}

/** True when both headers are signed, for this mesh, and cannot both belong to one feed. */
export function isFork({ a, b }: ForkProof, meshId: MeshId): boolean {
  const isOnePlace =
    a.header.author === b.header.author && a.header.epoch === b.header.epoch && a.header.number === b.header.number;
  return isOnePlace && !isSameBytes(a.hash, b.hash) && isSigned(a, meshId) && isSigned(b, meshId);
}
