/** How feeds lie in the store: keys in the order of author, epoch and number; rows that tell when a byte of them changed. */

import type { Value } from '../protocol/codec.ts';
import { fromHex, isSameBytes, toHex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, EpochId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { Reader } from '../protocol/reader.ts';
import {
  type Block,
  type BlockPlace,
  type ForkProof,
  headerMaxBytes,
  type OpenBlock,
  type ProvenEntry,
  parseHeader,
  type SignedHeader,
} from './block.ts';
import { readSealedRow, sealRow } from './sealed-rows.ts';

/** The kinds of row, by the byte behind `f/`. */
export const rowKinds = { block: 0x62, lift: 0x6c, proof: 0x70 } as const;
const prefix = Uint8Array.of(0x66, 0x2f);
/** Every key of feeds. */
export const feedKeys = { gte: prefix, lt: Uint8Array.of(0x66, 0x30) };

const authorAt = prefix.length + 1;
const epochAt = authorAt + 32;
const numberAt = epochAt + 16;

function keyOf(kind: number, author: AuthorId, epoch: EpochId, number?: number): Uint8Array {
  const key = new Uint8Array(number === undefined ? numberAt : numberAt + 8);
  key.set(prefix);
  key[prefix.length] = kind;
  key.set(fromHex(author), authorAt);
  key.set(fromHex(epoch), epochAt);
  if (number !== undefined) new DataView(key.buffer).setBigUint64(numberAt, BigInt(number));
  return key;
}

/** Where a block lies. */
export const blockKey = ({ author, epoch, number }: BlockPlace): Uint8Array =>
  keyOf(rowKinds.block, author, epoch, number);
/** The keys of an epoch's blocks from `from` up to, and with, `to`. */
export const blockKeys = (author: AuthorId, epoch: EpochId, from: number, to: number) => ({
  gte: keyOf(rowKinds.block, author, epoch, from),
  lt: keyOf(rowKinds.block, author, epoch, to + 1),
});
export const proofKey = (author: AuthorId, epoch: EpochId): Uint8Array => keyOf(rowKinds.proof, author, epoch);
export const liftKey = (author: AuthorId, epoch: EpochId): Uint8Array => keyOf(rowKinds.lift, author, epoch);

/** What a key says, as far as it says anything. `kind` is undefined for one that no version wrote. */
export function readKey(key: Uint8Array): BlockPlace & { readonly kind: keyof typeof rowKinds | undefined } {
  const whole = new Uint8Array(numberAt + 8);
  whole.set(key.subarray(0, whole.length));
  const asked = Object.entries(rowKinds).find(([, byte]) => byte === key[prefix.length])?.[0] as keyof typeof rowKinds;
  const number = Number(new DataView(whole.buffer).getBigUint64(numberAt));
  const length = asked === 'block' ? numberAt + 8 : numberAt;
  return {
    kind: key.length === length && Number.isSafeInteger(number) ? asked : undefined,
    author: toHex(whole.subarray(authorAt, epochAt)) as AuthorId,
    epoch: toHex(whole.subarray(epochAt, numberAt)) as EpochId,
    number,
  };
}

const damaged = (reason: string): HelixFlowError => new HelixFlowError('FRAME_MALFORMED', { reason: `row: ${reason}` });

const headFields = ({ bytes, signature }: SignedHeader): [Value, Value] => [bytes, signature];
const readHead = (r: Reader): SignedHeader => parseHeader(r.bytes(headerMaxBytes), r.bytes(64, 64));

const holdsAll = 0;
const holdsOpen = 1;

/** Paths of one tree share most of their steps: each step is stored once, and named by its position. */
function openFields(open: readonly ProvenEntry[]): [Value, Value] {
  const steps = new Map<string, number>();
  const stored: Uint8Array[] = [];
  const nameOf = (step: Uint8Array): number => {
    const hex = toHex(step);
    const known = steps.get(hex);
    if (known !== undefined) return known;
    steps.set(hex, stored.length);
    return stored.push(step) - 1;
  };
  const entries = open.map(({ index, bytes, path }): Value => [index, bytes, path.map(nameOf)]);
  return [entries, stored];
}

const readBytes = (value: Value): Uint8Array => {
  if (value instanceof Uint8Array && value.length <= limits.entryMaxBytes) return value;
  throw damaged('no bytes');
};

function readOpen(r: Reader): ProvenEntry[] {
  const named = r.list(limits.blockEntriesMax, (value) => {
    const row = new Reader(value, 'entry');
    return { index: row.int(), bytes: row.bytes(limits.entryMaxBytes), names: row.ints(64) };
  });
  const steps = r.list(2 * limits.blockEntriesMax, readBytes);
  return named.map(({ index, bytes, names }) => {
    const path = names.map((name) => steps[name] ?? new Uint8Array());
    return { index, bytes, path };
  });
}

/** The row of a block; `key` is its `blockKey`. */
export const writeBlockRow = (key: Uint8Array, block: Block | OpenBlock): Uint8Array =>
  'entries' in block
    ? sealRow(key, [holdsAll, ...headFields(block.head), block.entries])
    : sealRow(key, [holdsOpen, ...headFields(block.head), ...openFields(block.open)]);

/** What lies at `key`: the block that was written, without looking at its chain; undefined where a byte has changed. */
export const readBlockRow = (key: Uint8Array, row: Uint8Array): Block | OpenBlock | undefined =>
  readSealedRow(key, row, (r) => {
    const kind = r.int(holdsOpen);
    const head = readHead(r);
    if (!isSameBytes(blockKey(head.header), key)) throw damaged('another place');
    return kind === holdsAll
      ? { head, entries: r.list(limits.blockEntriesMax, readBytes) }
      : { head, open: readOpen(r) };
  });

/** The row of a proof; `key` is its `proofKey`. */
export const writeProofRow = (key: Uint8Array, { a, b }: ForkProof): Uint8Array =>
  sealRow(key, [...headFields(a), ...headFields(b)]);

/** The proof at `key`, its signatures not checked; undefined where a byte has changed. */
export const readProofRow = (key: Uint8Array, row: Uint8Array): ForkProof | undefined =>
  readSealedRow(key, row, (r) => ({ a: readHead(r), b: readHead(r) }));

/** The row of a lift: all is in its key. */
export const writeLiftRow = (key: Uint8Array): Uint8Array => sealRow(key, []);
/** True for a lift whose bytes are as they were written. */
export const isLiftRow = (key: Uint8Array, row: Uint8Array): boolean => readSealedRow(key, row, () => true) === true;
