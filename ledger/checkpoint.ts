/** Checkpoints: what all usage comes to, on disk, so that a start need not settle everything again. */

import type { Value } from '../protocol/codec.ts';
import { fromHex, toHex } from '../protocol/crypto.ts';
import type { AuthorId, Tag } from '../protocol/ids.ts';
import type { Clock, Log, Store, StoreOp } from '../protocol/ports.ts';
import { Reader } from '../protocol/reader.ts';
import type { UnixMs } from '../protocol/units.ts';
import { partRowsMax, readRows, writeRows } from './checkpoint-day.ts';
import { GatewayReader } from './checkpoint-gateway.ts';
import {
  checkpointKeys,
  claimsGroup,
  dayGroup,
  type Group,
  gatewayGroup,
  type Manifest,
  manifestKey,
  partKey,
  readManifest,
  readPart,
  spentGroup,
  subjectOf,
  type Written,
  writeManifest,
  writePart,
} from './checkpoint-rows.ts';
import type { FoldedUsage, UsageFold } from './create-usage.ts';
import { type UsageBounds, usageBounds } from './usage-state.ts';

export interface CheckpointDeps {
  readonly store: Store;
  readonly clock: Pick<Clock, 'wallMs' | 'turn'>;
  readonly log: Log;
  readonly usage: FoldedUsage;
}

/**
 * What a start found: `none`; `whole`, and usage goes on from it; `damaged`, and usage begins with what feeds tell: all
 * of it, unless blocks have been pruned.
 */
export interface CheckpointReport {
  readonly state: 'none' | 'whole' | 'damaged';
  readonly atMs?: UnixMs;
}

export interface Checkpoints {
  /** Reads the last checkpoint; before the first entry is told. @throws HelixFlowError STORE_FAILED */
  open(): Promise<CheckpointReport>;
  /** Writes the next one; it counts once all of it is on disk. @throws HelixFlowError STORE_FAILED */
  write(): Promise<UsageFold>;
}

/** Of one write that does not wait for the disk; others have their turn after it. */
const batchMaxBytes = 65_536;
const valuesEach = 64;
const pairsEach = 1_024;

interface Pending {
  readonly group: Group;
  readonly parts: Iterable<readonly Value[]>;
}

function* cut<T>(all: readonly T[], size: number): Generator<readonly T[]> {
  for (let from = 0; from < all.length; from += size) yield all.slice(from, from + size);
}

const spentParts = function* (spent: readonly (readonly [Tag, number])[]): Generator<readonly Value[]> {
  for (const pairs of cut(spent, pairsEach)) yield pairs.map(([tag, micro]): Value => [fromHex(tag), micro]);
};

/** Rows of a day are made one part after the other: there may be many. */
function* dayParts({ days, rowAt }: UsageFold, at: number): Generator<readonly Value[]> {
  const day = days[at];
  if (day === undefined) return;
  for (let from = 0; from < day.size; from += partRowsMax) {
    const rows = Array.from({ length: Math.min(partRowsMax, day.size - from) }, (_, index) => from + index);
    const whole = rows.filter((row) => !day.isEmpty(row)).map((row) => rowAt(day, row));
    yield [writeRows(whole)];
  }
}

class StoredCheckpoints implements Checkpoints {
  readonly #deps: CheckpointDeps;
  readonly #bounds: UsageBounds;
  #manifest: Manifest | undefined;
  /** Of days as they are written down. */
  readonly #versions = new Map<number, number>();
  #writing: Promise<unknown> = Promise.resolve();

  constructor(deps: CheckpointDeps, bounds: UsageBounds) {
    this.#deps = deps;
    this.#bounds = bounds;
  }

  async open(): Promise<CheckpointReport> {
    const { store, log, usage } = this.#deps;
    const row = await store.get(manifestKey);
    const manifest = row && readManifest(row);
    const { isWhole, strays } = await this.#check(manifest);
    if (row !== undefined && (manifest === undefined || !isWhole)) {
      log.error('usage.checkpoint-damaged', { fold: manifest?.fold ?? 0 });
      return { state: 'damaged' };
    }
    // What a checkpoint left that did not come to its end.
    if (strays.length > 0) await store.batch(strays, { sync: false });
    if (manifest === undefined) return { state: 'none' };
    await this.#load(manifest);
    this.#manifest = manifest;
    usage.fold((day) => {
      this.#versions.set(day.day, day.version);
      return true;
    });
    return { state: 'whole', atMs: manifest.atMs };
  }

  /** Whether every part that is named is there, and as it was written; and what is there beyond. */
  async #check(manifest: Manifest | undefined): Promise<{ isWhole: boolean; strays: readonly StoreOp[] }> {
    const named = new Set<string>();
    for (const [group, { fold, parts }] of manifest?.groups ?? []) {
      for (let part = 0; part < parts; part += 1) named.add(toHex(partKey(group, fold, part)));
    }
    let isWhole = true;
    const strays: StoreOp[] = [];
    for await (const [key, row] of this.#deps.store.range(checkpointKeys)) {
      if (toHex(key) === toHex(manifestKey)) continue;
      if (!named.delete(toHex(key))) strays.push({ type: 'del', key });
      else if (readPart(key, row, () => true) === undefined) isWhole = false;
    }
    return { isWhole: isWhole && named.size === 0, strays };
  }

  async #load({ groups, claimed }: Manifest): Promise<void> {
    const { usage } = this.#deps;
    const readers = new Map<AuthorId, GatewayReader>();
    const spent = new Map<AuthorId, [Tag, number][]>();
    for (const [group, written] of groups) {
      const subject = subjectOf(group);
      for await (const [key, row] of this.#parts(group, written)) {
        if (subject?.kind === 'day') {
          for (const rows of readPart(key, row, (value) => readRows(value, subject.day)) ?? []) usage.goOn({ rows });
        } else if (subject?.kind === 'gateway') {
          const { author } = subject;
          const reader = readers.get(author) ?? new GatewayReader(author, this.#bounds);
          readers.set(author, reader);
          readPart(key, row, (value) => reader.take(value));
        } else if (subject?.kind === 'spent') {
          const pairs = readPart(key, row, readSpent) ?? [];
          spent.set(subject.author, [...(spent.get(subject.author) ?? []), ...pairs]);
        } else {
          usage.goOn({ claims: readPart(key, row, readClaim) ?? [] });
        }
      }
    }
    const gateways = [...readers].map(([author, { state }]) => ({ state, spent: spent.get(author) ?? [] }));
    usage.goOn({ gateways, claimed });
  }

  async *#parts(group: Group, { fold, parts }: Written): AsyncGenerator<readonly [Uint8Array, Uint8Array]> {
    for (let part = 0; part < parts; part += 1) {
      const key = partKey(group, fold, part);
      const row = await this.#deps.store.get(key);
      if (row !== undefined) yield [key, row];
    }
  }

  write(): Promise<UsageFold> {
    const writing = this.#writing.then(() => this.#write());
    this.#writing = writing.catch(() => {});
    return writing;
  }

  async #write(): Promise<UsageFold> {
    const { store, clock, usage } = this.#deps;
    const before = this.#manifest;
    const fold = (before?.fold ?? 0) + 1;
    const folded = usage.fold(({ day, version }) => this.#versions.get(day) === version);
    const groups = new Map<Group, Written>();
    const changed = this.#changed(folded);
    for (const [group, written] of before?.groups ?? [])
      if (subjectOf(group)?.kind === 'day') groups.set(group, written);
    let ops: StoreOp[] = [];
    let bytes = 0;
    for (const { group, parts } of changed) {
      let part = 0;
      for (const values of parts) {
        const key = partKey(group, fold, part);
        const value = writePart(key, values);
        ops.push({ type: 'put', key, value });
        part += 1;
        bytes += value.length;
        if (bytes < batchMaxBytes) continue;
        await store.batch(ops, { sync: false });
        await clock.turn();
        ops = [];
        bytes = 0;
      }
      groups.set(group, { fold, parts: part });
    }
    const manifest = { fold, atMs: clock.wallMs(), groups, claimed: folded.claimed };
    ops.push({ type: 'put', key: manifestKey, value: writeManifest(manifest) }, ...this.#superseded(groups));
    await store.batch(ops, { sync: true });
    this.#manifest = manifest;
    for (const { day, version } of folded.days) this.#versions.set(day, version);
    return folded;
  }

  #changed(folded: UsageFold): Pending[] {
    const { days, gateways, claims } = folded;
    const names = claims.map((name): Value => fromHex(name));
    return [
      ...days.map(({ day }, at) => ({ group: dayGroup(day), parts: dayParts(folded, at) })),
      ...gateways.map(({ author, state }) => ({ group: gatewayGroup(author), parts: cut(state, valuesEach) })),
      ...gateways.map(({ author, spent }) => ({ group: spentGroup(author), parts: spentParts(spent) })),
      { group: claimsGroup, parts: cut(names, pairsEach) },
    ];
  }

  #superseded(groups: ReadonlyMap<Group, Written>): StoreOp[] {
    return [...(this.#manifest?.groups ?? [])].flatMap(([group, { fold, parts }]) =>
      groups.get(group)?.fold === fold
        ? []
        : Array.from({ length: parts }, (_, part): StoreOp => ({ type: 'del', key: partKey(group, fold, part) })),
    );
  }
}

function readSpent(value: Value): [Tag, number] {
  const r = new Reader(value, 'spent');
  return [toHex(r.bytes(8, 8)) as Tag, r.int()];
}

const readClaim = (value: Value): string => toHex(new Reader([value], 'claim').bytes(16, 16));

/** Checkpoints of `usage`; the store's keys below `u/` are theirs. */
export const createCheckpoints = (deps: CheckpointDeps, bounds: UsageBounds = usageBounds): Checkpoints =>
  new StoredCheckpoints(deps, bounds);
