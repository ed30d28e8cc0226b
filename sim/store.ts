/** Simulated disks: LevelDB as measured, with what a crash, a full disk and a failed fsync do to it. */

import { HelixFlowError } from '../protocol/errors.ts';
import { assert } from '../protocol/invariant.ts';
import type { Store, StoreOp, StoreRange } from '../protocol/ports.ts';
import type { FaultCounts } from './effects.ts';
import type { Kernel, Lifeline } from './kernel.ts';
import type { SimRandom } from './random.ts';

type Bytes = Uint8Array;
/** A key as text of one character per byte: compares as the bytes do. */
type KeyText = string;

const keyText = (key: Bytes): KeyText => String.fromCharCode(...key);

interface LogRecord {
  readonly ops: readonly StoreOp[];
  isSynced: boolean;
}

/** What can be wrong with a disk. */
export interface DiskFaults {
  /** Multiplies every latency. */
  slowFactor: number;
  /** The next write or sync fails, and the store is lost until the process restarts. */
  failNext: 'write' | 'sync' | undefined;
  /** Writes fail from now on. */
  isFull: boolean;
  /** Chance that a crash leaves a hole in the log, in records that had been synced. */
  holeChance: number;
}

/** Ends the process at one moment of its work with a disk. */
interface Countdown {
  /** Moments before it: each operation has one before and one after what it does. */
  left: number;
  readonly kill: () => void;
}

/** Bytes that outlive the process: a table, and the log of what was written since. */
export class SimDisk {
  readonly faults: DiskFaults = { slowFactor: 1, failNext: undefined, isFull: false, holeChance: 0 };
  #countdown: Countdown | undefined;
  readonly #counts: FaultCounts;
  readonly #random: SimRandom;
  #table = new Map<KeyText, readonly [Bytes, Bytes]>();
  #log: LogRecord[] = [];
  #isHeld = false;

  constructor(random: SimRandom, counts: FaultCounts) {
    this.#random = random;
    this.#counts = counts;
  }

  get random(): SimRandom {
    return this.#random;
  }

  /** Records in the log, and how many of them would survive a power cut. */
  get logged(): { readonly records: number; readonly synced: number } {
    return { records: this.#log.length, synced: this.#log.filter((record) => record.isSynced).length };
  }

  /** Calls `kill` when whoever works with the disk then has come to the moment with this number, counted from 1. */
  killAt(moment: number, kill: () => void): void {
    this.#countdown = { left: moment, kill };
  }

  /** @returns whether anything was still to come. */
  killNoMore(): boolean {
    const wasDue = this.#countdown !== undefined;
    this.#countdown = undefined;
    return wasDue;
  }

  /** One more moment of an operation. @returns true when the process has died of it. */
  passes(): boolean {
    const countdown = this.#countdown;
    if (countdown === undefined) return false;
    countdown.left -= 1;
    if (countdown.left > 0) return false;
    this.#countdown = undefined;
    this.#counts.add('diskCrash', 1);
    countdown.kill();
    return true;
  }

  hold(): void {
    this.#isHeld = true;
  }

  get isHeld(): boolean {
    return this.#isHeld;
  }

  /** A clean end: the log is whole when the store is opened again. */
  release(): void {
    this.#isHeld = false;
  }

  append(ops: readonly StoreOp[]): LogRecord {
    const record = { ops, isSynced: false };
    this.#log.push(record);
    return record;
  }

  /** Everything up to this record is on the platter. */
  sync(record: LogRecord): void {
    for (let at = this.#log.indexOf(record); at >= 0; at -= 1) {
      const earlier = this.#log[at];
      if (earlier === undefined || earlier.isSynced) return;
      earlier.isSynced = true;
    }
  }

  /** Power fails: a suffix of what was not synced is lost, the last of what stays may be torn, and so lost too. */
  crash(): void {
    this.#isHeld = false;
    const synced = this.#log.filter((record) => record.isSynced).length;
    const kept = synced + (this.#log.length > synced ? this.#random.int(this.#log.length - synced + 1) : 0);
    this.#counts.add('diskLostSuffix', this.#log.length > kept ? 1 : 0);
    this.#log.length = kept;
    if (kept > 2 && this.#random.chance(this.faults.holeChance)) this.#tearHole(kept);
  }

  /** LevelDB opens without a word although records in the middle of its log are unreadable. */
  #tearHole(kept: number): void {
    const first = this.#random.int(kept - 1);
    const length = 1 + this.#random.int(Math.max(1, Math.floor(kept / 4)));
    this.#log.splice(first, Math.min(length, kept - 1 - first));
    this.#counts.add('diskHoles', 1);
  }

  /** A copy of everything that a reader would find now. */
  backup(): DiskBackup {
    const table = new Map(this.#table);
    for (const { ops } of this.#log) applyOps(table, ops);
    return table;
  }

  /** A copy of what a reader would find after a power cut at the worst moment. */
  durable(): DiskBackup {
    const table = new Map(this.#table);
    for (const { ops, isSynced } of this.#log) if (isSynced) applyOps(table, ops);
    return table;
  }

  /** Puts a backup in place of everything; no process may hold the disk. */
  restore(backup: DiskBackup): void {
    assert(!this.#isHeld, 'nobody holds a disk that is restored');
    this.#counts.add('diskRestored', isSameTable(backup, this.backup()) ? 0 : 1);
    this.#table = new Map(backup);
    this.#log = [];
  }

  /** Replays the log, as opening does. */
  load(): Map<KeyText, readonly [Bytes, Bytes]> {
    for (const record of this.#log) applyOps(this.#table, record.ops);
    this.#log = [];
    return new Map(this.#table);
  }
}

/** A disk's content at a moment. */
export type DiskBackup = ReadonlyMap<KeyText, readonly [Bytes, Bytes]>;

const isSameTable = (a: DiskBackup, b: DiskBackup): boolean =>
  a.size === b.size &&
  [...a].every(([key, entry]) => keyText(entry[1]) === keyText(b.get(key)?.[1] ?? Uint8Array.of()));

function applyOps(table: Map<KeyText, readonly [Bytes, Bytes]>, ops: readonly StoreOp[]): void {
  for (const op of ops) {
    if (op.type === 'put') table.set(keyText(op.key), [op.key, op.value]);
    else table.delete(keyText(op.key));
  }
}

const copyOp = (op: StoreOp): StoreOp =>
  op.type === 'put'
    ? { type: 'put', key: op.key.slice(), value: op.value.slice() }
    : { type: 'del', key: op.key.slice() };

const failed = (reason: string): HelixFlowError => new HelixFlowError('STORE_FAILED', { reason });

class SimStore implements Store {
  readonly #kernel: Kernel;
  readonly #lifeline: Lifeline;
  readonly #disk: SimDisk;
  readonly #counts: FaultCounts;
  readonly #table: Map<KeyText, readonly [Bytes, Bytes]>;
  #keys: KeyText[] | undefined;
  #refusal: string | undefined;
  /** Appends happen in the order of the calls. */
  #lastAppendMs = 0;

  constructor(kernel: Kernel, lifeline: Lifeline, disk: SimDisk, counts: FaultCounts) {
    this.#kernel = kernel;
    this.#lifeline = lifeline;
    this.#disk = disk;
    this.#counts = counts;
    this.#table = disk.load();
    disk.hold();
  }

  #check(): void {
    this.#lifeline.check();
    if (this.#refusal !== undefined) throw failed(this.#refusal);
  }

  #after<T>(latencyMs: number, result: () => T): Promise<T> {
    const { faults, random } = this.#disk;
    if (faults.slowFactor > 1) this.#counts.add('diskSlow', 1);
    return new Promise((resolve, reject) => {
      const complete = this.#completing(result, resolve, reject);
      this.#kernel.schedule(latencyMs * (0.5 + random.float()) * faults.slowFactor, complete, this.#lifeline, 'io');
    });
  }

  /** The process may die before the operation is done, or before it hears of it. */
  #completing<T>(result: () => T, resolve: (value: T) => void, reject: (error: unknown) => void): () => void {
    return () => {
      if (this.#disk.passes()) return;
      try {
        const value = result();
        if (!this.#disk.passes()) resolve(value);
      } catch (error) {
        reject(error);
      }
    };
  }

  async get(key: Bytes): Promise<Bytes | undefined> {
    this.#check();
    const text = keyText(key);
    return await this.#after(0.02, () => {
      this.#check();
      return this.#table.get(text)?.[1].slice();
    });
  }

  async *range(range: StoreRange): AsyncGenerator<readonly [Bytes, Bytes]> {
    this.#check();
    const entries = await this.#after(0.05, () => this.#select(range));
    for (const [key, value] of entries) {
      this.#check();
      yield [key.slice(), value.slice()];
    }
  }

  #select(range: StoreRange): (readonly [Bytes, Bytes])[] {
    this.#check();
    this.#keys ??= [...this.#table.keys()].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    const low = keyText(range.gte);
    const high = keyText(range.lt);
    const inside = this.#keys.filter((key) => key >= low && key < high);
    if (range.reverse === true) inside.reverse();
    return inside.slice(0, range.limit ?? inside.length).map((key) => {
      const entry = this.#table.get(key);
      assert(entry !== undefined, 'every listed key has a value');
      return entry;
    });
  }

  async batch(ops: readonly StoreOp[], options: { readonly sync: boolean }): Promise<void> {
    this.#check();
    const copies = ops.map(copyOp);
    const nowMs = this.#kernel.nowMs;
    const appendMs = Math.max(this.#lastAppendMs, nowMs + 0.01 + 0.02 * this.#disk.random.float());
    this.#lastAppendMs = appendMs;
    const record = await this.#at(appendMs - nowMs, () => this.#append(copies));
    if (options.sync) await this.#after(2, () => this.#sync(record));
  }

  #at<T>(delayMs: number, result: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#kernel.scheduleLast(delayMs, this.#completing(result, resolve, reject), this.#lifeline, 'io');
    });
  }

  #append(ops: readonly StoreOp[]): LogRecord {
    this.#check();
    const { faults } = this.#disk;
    if (faults.isFull || faults.failNext === 'write') {
      this.#counts.add(faults.isFull ? 'diskFull' : 'diskWriteError', 1);
      faults.failNext = undefined;
      this.#refuse('a write failed: ENOSPC');
    }
    applyOps(this.#table, ops);
    this.#keys = undefined;
    return this.#disk.append(ops);
  }

  #sync(record: LogRecord): void {
    this.#check();
    if (this.#disk.faults.failNext === 'sync') {
      this.#disk.faults.failNext = undefined;
      this.#counts.add('diskSyncError', 1);
      // What of it reached the platter is unknown, and no later fsync would tell: the store is lost.
      this.#refuse('a write failed: EIO');
    }
    this.#disk.sync(record);
  }

  #refuse(reason: string): never {
    this.#refusal = reason;
    throw failed(reason);
  }

  async close(): Promise<void> {
    if (this.#refusal === 'closed') return;
    this.#refusal = 'closed';
    this.#disk.release();
  }
}

/**
 * Opens the store on `disk` for one run of a process.
 * @throws HelixFlowError DATA_DIR_HELD when another has it open.
 */
export function openSimStore(kernel: Kernel, lifeline: Lifeline, disk: SimDisk, counts: FaultCounts): Store {
  if (disk.isHeld) throw new HelixFlowError('DATA_DIR_HELD', { path: 'simulated', holder: 'another process' });
  return new SimStore(kernel, lifeline, disk, counts);
}
