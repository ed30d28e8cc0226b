/** How checkpoints lie in the store: parts in groups, each under the number of the checkpoint that wrote it, and one row that names them. */

import type { Value } from '../protocol/codec.ts';
import { fromHex, toHex } from '../protocol/crypto.ts';
import type { AuthorId } from '../protocol/ids.ts';
import { Reader } from '../protocol/reader.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import { readSealedRow, sealRow } from './sealed-rows.ts';

const prefix = [0x75, 0x2f];
const kinds = { claims: 0x63, day: 0x64, gateway: 0x67, manifest: 0x6d, spent: 0x73 } as const;
/** Every key of checkpoints. */
export const checkpointKeys = { gte: Uint8Array.of(...prefix), lt: Uint8Array.of(0x75, 0x30) };
export const manifestKey = Uint8Array.of(...prefix, kinds.manifest);
/** Groups, and values in a part. */
const listMax = 1_048_576;
const numberBytes = 6;

function numbersOf(...numbers: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(numbers.length * numberBytes);
  for (const [at, number] of numbers.entries()) {
    let rest = number;
    for (let index = numberBytes - 1; index >= 0; index -= 1) {
      bytes[at * numberBytes + index] = rest % 256;
      rest = Math.floor(rest / 256);
    }
  }
  return bytes;
}

/** What belongs together, by a name; hex. */
export type Group = string;
export const dayGroup = (day: number): Group => toHex(Uint8Array.of(kinds.day, ...numbersOf(day)));
export const gatewayGroup = (author: AuthorId): Group => toHex(Uint8Array.of(kinds.gateway)) + author;
/** What was spent from leases, by gateway. */
export const spentGroup = (author: AuthorId): Group => toHex(Uint8Array.of(kinds.spent)) + author;
export const claimsGroup: Group = toHex(Uint8Array.of(kinds.claims));

/** What a group is about. */
export type Subject =
  | { readonly kind: 'day'; readonly day: number }
  | { readonly kind: 'gateway' | 'spent'; readonly author: AuthorId }
  | { readonly kind: 'claims' };

/** Undefined for one that no version wrote. */
export function subjectOf(group: Group): Subject | undefined {
  const [kind, ...rest] = fromHex(group);
  if (kind === kinds.day) return { kind: 'day', day: rest.reduce((number, byte) => number * 256 + byte, 0) };
  const author = group.slice(2) as AuthorId;
  if (kind === kinds.gateway) return { kind: 'gateway', author };
  if (kind === kinds.spent) return { kind: 'spent', author };
  return kind === kinds.claims ? { kind: 'claims' } : undefined;
}

/** Which checkpoint wrote a group, and how many parts it has. */
export interface Written {
  readonly fold: number;
  readonly parts: number;
}

/** What a checkpoint consists of. */
export interface Manifest {
  /** Counts checkpoints. */
  readonly fold: number;
  readonly atMs: UnixMs;
  readonly groups: ReadonlyMap<Group, Written>;
  /** Claims in all; those that are told apart have a group. */
  readonly claimed: number;
}

export const partKey = (group: Group, fold: number, part: number): Uint8Array =>
  Uint8Array.of(...prefix, ...fromHex(group), ...numbersOf(fold, part));

export const writePart = (key: Uint8Array, values: readonly Value[]): Uint8Array => sealRow(key, [values]);
/** Each value as `read` finds it; undefined where a byte has changed. */
export const readPart = <T>(key: Uint8Array, row: Uint8Array, read: (value: Value) => T): T[] | undefined =>
  readSealedRow(key, row, (r) => r.list(listMax, read));

export function writeManifest({ fold, atMs, groups, claimed }: Manifest): Uint8Array {
  const rows = [...groups].map(([group, written]): Value => [fromHex(group), written.fold, written.parts]);
  return sealRow(manifestKey, [fold, atMs, rows, claimed]);
}

/** Undefined where a byte has changed. */
export const readManifest = (row: Uint8Array): Manifest | undefined =>
  readSealedRow(manifestKey, row, (r) => {
    const [fold, atMs] = [r.int(), unixMs(r.int())];
    const groups = r.list(listMax, (value): [Group, Written] => {
      const group = new Reader(value, 'group');
      return [toHex(group.bytes(64)), { fold: group.int(), parts: group.int(listMax) }];
    });
    return { fold, atMs, groups: new Map(groups), claimed: r.int() };
  });
