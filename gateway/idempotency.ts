/** Idempotency keys of one gateway: a request that comes again under its key is run and billed once (design §6). */

import { createFeedWriter, type FeedWriter } from '../ledger/feed-writer.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { RequestId } from '../protocol/ids.ts';
import type { Cancel, Clock, Log, Store } from '../protocol/ports.ts';
import { ms, type UnixMs } from '../protocol/units.ts';
import type { Access } from './access/judge.ts';
import {
  type IdempotencyName,
  idempotencyKeys,
  nameAt,
  nameOf,
  readRow,
  rowKey,
  writeRow,
} from './idempotency-rows.ts';
import { type RunOwner, SharedRun } from './idempotency-run.ts';

/** A key is remembered for so long. */
const keepMs = 86_400_000;
/** On disk, at some 120 bytes each. */
export interface IdempotencyBounds {
  /** Keys that are remembered for one API key, and for all of them. */
  readonly keysPerOwnerMax: number;
  readonly keysMax: number;
}

const idempotencyBounds: IdempotencyBounds = { keysPerOwnerMax: 250_000, keysMax: 1_000_000 };
/** All answers that are kept; the oldest is forgotten for a new one. */
const answersMaxBytes = 67_108_864;
const sweepEveryMs = ms(3_600_000);
const batchMaxBytes = 65_536;
/** Rows that are removed at once. */
const sweepMax = 1_000;
/** Whoever has used up all keys waits until some of them are a day old. */
const fullRetryMs = 60_000;
const retryAfterMs = 1_000;

export interface IdempotencyPorts {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
}

/** A request that came with a key. */
export interface IdempotentAsk {
  readonly caller: Access;
  /** As the client wrote it; 1 to 255 characters. */
  readonly key: string;
  /** All that makes the request what it is. */
  readonly body: string;
  /** Should it be the first. */
  readonly request: RequestId;
}

/** Whose turn it is. */
export interface Claimed {
  readonly run: SharedRun;
  /** It has to be begun by this request; its key is on disk. */
  readonly isFirst: boolean;
}

export interface Idempotency {
  /** Until then claims wait. */
  open(): void;
  /**
   * Finds the run of a key, or makes one.
   * @throws HelixFlowError IDEMPOTENCY_MISMATCH, IDEMPOTENCY_GONE, RATE_LIMITED, USAGE_UNRECORDED, GATEWAY_DRAINING
   */
  claim(ask: IdempotentAsk): Promise<Claimed>;
  /** The process ends: work that nobody waits for ends at once. */
  drain(): void;
  /** Nothing touches the store once it resolves. */
  close(): Promise<void>;
}

interface Live {
  readonly body: string;
  readonly atMs: UnixMs;
  readonly owner: string;
  readonly run: SharedRun;
  /** Of memory, as far as it is counted. */
  bytes: number;
}

const ignore = (): void => {};

class Keys implements Idempotency, RunOwner {
  readonly clock: Clock;
  readonly #ports: IdempotencyPorts;
  readonly #bounds: IdempotencyBounds;
  readonly #writer: FeedWriter;
  readonly #opened = Promise.withResolvers<void>();
  /** Those that run, and those whose answers are kept, oldest first; by name. */
  readonly #live = new Map<string, Live>();
  #liveBytes = 0;
  /** What is being looked up or written, by name: two requests under one key never are at the same time. */
  readonly #busy = new Map<string, Promise<unknown>>();
  /** Rows on disk, by owner; as the last sweep found them, and what came since it began. */
  #counts = new Map<string, number>();
  #sinceSweep: Map<string, number> | undefined;
  readonly #writtenSinceSweep = new Set<string>();
  #total = 0;
  #openedMs = 0;
  #cancelSweep: Cancel | undefined;
  #sweeping: Promise<void> = Promise.resolve();
  #isClosed = false;
  isDraining = false;

  constructor(ports: IdempotencyPorts, bounds: IdempotencyBounds) {
    this.#bounds = bounds;
    this.clock = ports.clock;
    this.#ports = ports;
    this.#writer = createFeedWriter(ports, { batchMaxBytes });
    this.#opened.promise.catch(ignore);
  }

  open(): void {
    this.#openedMs = this.clock.nowMs();
    this.#opened.resolve();
    this.#sweepNow();
  }

  async claim({ caller, key, body, request }: IdempotentAsk): Promise<Claimed> {
    await this.#opened.promise;
    const asked = nameOf(caller, key, body);
    const { name } = asked;
    for (let busy = this.#busy.get(name); busy !== undefined; busy = this.#busy.get(name)) await busy;
    if (this.#isClosed) throw new HelixFlowError('GATEWAY_DRAINING', { retryAfterMs });
    const live = this.#live.get(name);
    if (live === undefined || (live.run.isOver && this.#isExpired(live)))
      return this.#alone(name, this.#begin(asked, request));
    if (live.body !== asked.body) throw new HelixFlowError('IDEMPOTENCY_MISMATCH', {});
    return { run: live.run, isFirst: false };
  }

  grew({ name }: SharedRun, bytes: number): boolean {
    const live = this.#live.get(name);
    if (live === undefined) return false;
    this.#makeRoom(bytes);
    if (this.#liveBytes + bytes > answersMaxBytes) return false;
    live.bytes += bytes;
    this.#liveBytes += bytes;
    return true;
  }

  ended(run: SharedRun, isFree: boolean): void {
    const live = this.#live.get(run.name);
    if (live === undefined) return;
    this.#liveBytes += run.size - live.bytes;
    live.bytes = run.size;
    if (!run.isKept) this.#live.delete(run.name);
    if (isFree) void this.#alone(run.name, this.#free(run.name, live.owner));
  }

  drain(): void {
    this.isDraining = true;
    for (const { run } of [...this.#live.values()]) run.drain();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#opened.reject(new HelixFlowError('GATEWAY_DRAINING', { retryAfterMs }));
    this.#cancelSweep?.();
    await this.#sweeping;
    await this.#writer.close();
  }

  /** Others under this name wait until it is done, whatever comes of it. */
  #alone<T>(name: string, work: Promise<T>): Promise<T> {
    const done = work.then(ignore, ignore).then(() => {
      if (this.#busy.get(name) === done) this.#busy.delete(name);
    });
    this.#busy.set(name, done);
    return work;
  }

  async #begin(asked: IdempotencyName, request: RequestId): Promise<Claimed> {
    const { name, owner, body } = asked;
    const atMs = this.clock.wallMs();
    try {
      const isKnown = await this.#isKnown(asked);
      if (!isKnown) this.#checkRoom(owner);
      await this.#writer.write([writeRow(name, { owner, body, request, atMs })], ignore);
      if (!isKnown) this.#count(owner, 1);
      if (this.#sinceSweep !== undefined) this.#writtenSinceSweep.add(name);
    } catch (error) {
      throw isHelixFlowError(error, 'STORE_FAILED')
        ? new HelixFlowError('USAGE_UNRECORDED', {}, { cause: error })
        : error;
    }
    const run = new SharedRun(this, { name, request, createdS: Math.floor(atMs / 1_000) });
    this.#makeRoom(run.size);
    this.#live.set(name, { body, atMs, owner, run, bytes: run.size });
    this.#liveBytes += run.size;
    return { run, isFirst: true };
  }

  /** Whether a row is there that counts no more. @throws HelixFlowError IDEMPOTENCY_MISMATCH, IDEMPOTENCY_GONE where it does. */
  async #isKnown({ name, body }: IdempotencyName): Promise<boolean> {
    const key = rowKey(name);
    const value = await this.#ports.store.get(key);
    if (value === undefined) return false;
    const row = readRow(key, value);
    // Of a damaged row nothing is known but that it was there: better not at all than twice.
    if (row === undefined) throw new HelixFlowError('IDEMPOTENCY_GONE', { request: 'unknown' });
    if (this.#isExpired(row)) return true;
    if (row.body !== body) throw new HelixFlowError('IDEMPOTENCY_MISMATCH', {});
    throw new HelixFlowError('IDEMPOTENCY_GONE', { request: row.request });
  }

  async #free(name: string, owner: string): Promise<void> {
    if (this.#isClosed) return;
    try {
      await this.#writer.write([{ type: 'del', key: rowKey(name) }], ignore);
      this.#count(owner, -1);
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      this.#ports.log.warn('idempotency.not-freed', { code: error.code });
    }
  }

  #isExpired({ atMs }: { readonly atMs: UnixMs }): boolean {
    return this.clock.wallMs() - atMs >= keepMs;
  }

  #checkRoom(owner: string): void {
    const { keysPerOwnerMax, keysMax } = this.#bounds;
    const isOwners = (this.#counts.get(owner) ?? 0) >= keysPerOwnerMax;
    if (!isOwners && this.#total < keysMax) return;
    const limit = isOwners ? keysPerOwnerMax : keysMax;
    const details = { limit, unit: 'idempotency keys a day', scope: isOwners ? 'key' : 'gateway' };
    throw new HelixFlowError('RATE_LIMITED', { ...details, retryAfterMs: fullRetryMs });
  }

  #count(owner: string, more: number): void {
    this.#total += more;
    for (const counts of [this.#counts, this.#sinceSweep]) counts?.set(owner, (counts.get(owner) ?? 0) + more);
    this.#sweepLater();
  }

  /** Forgets the oldest answers, until so many bytes are free; those that run are not forgotten. */
  #makeRoom(bytes: number): void {
    if (this.#liveBytes + bytes <= answersMaxBytes) return;
    for (const [name, live] of this.#live) {
      if (live.run.isOver) this.#forget(name, live);
      if (this.#liveBytes + bytes <= answersMaxBytes) return;
    }
  }

  #forget(name: string, live: Live): void {
    this.#live.delete(name);
    this.#liveBytes -= live.bytes;
    live.run.forget();
  }

  #sweepNow(): void {
    this.#sweeping = this.#sweep().catch((error: unknown) => {
      if (!isHelixFlowError(error)) throw error;
      this.#ports.log.warn('idempotency.not-swept', { code: error.code });
    });
  }

  /** While nothing is remembered nothing has to be forgotten. */
  #sweepLater(): void {
    if (this.#total === 0 || this.#isClosed) return;
    this.#cancelSweep ??= this.clock.timer(sweepEveryMs, () => {
      this.#cancelSweep = undefined;
      this.#sweepNow();
    });
  }

  /** Removes what is old, and counts the rest. */
  async #sweep(): Promise<void> {
    for (const [name, live] of this.#live) if (live.run.isOver && this.#isExpired(live)) this.#forget(name, live);
    const counts = new Map<string, number>();
    const since = new Map<string, number>();
    this.#sinceSweep = since;
    let old: Uint8Array[] = [];
    for await (const [key, value] of this.#ports.store.range(idempotencyKeys)) {
      const row = readRow(key, value);
      // A damaged row cannot tell its age; a day from now it is old in any case.
      const isOld = row === undefined ? this.clock.nowMs() - this.#openedMs >= keepMs : this.#isExpired(row);
      if (isOld) old.push(key.slice());
      else if (row !== undefined) counts.set(row.owner, (counts.get(row.owner) ?? 0) + 1);
      if (old.length < sweepMax) continue;
      await this.#remove(old);
      old = [];
    }
    await this.#remove(old);
    for (const [owner, more] of since) counts.set(owner, (counts.get(owner) ?? 0) + more);
    this.#sinceSweep = undefined;
    this.#writtenSinceSweep.clear();
    this.#counts = counts;
    this.#total = [...counts.values()].reduce((sum, count) => sum + count, 0);
    this.#sweepLater();
  }

  /** Not synced: what comes back after a crash is as old as it was. */
  async #remove(old: readonly Uint8Array[]): Promise<void> {
    const names = old.map(nameAt).filter((name) => !this.#busy.has(name) && !this.#writtenSinceSweep.has(name));
    if (names.length === 0 || this.#isClosed) return;
    const ops = names.map((name) => ({ type: 'del', key: rowKey(name) }) as const);
    const removed = this.#ports.store.batch(ops, { sync: false });
    // Whoever takes one of them up again waits, or its row would go with the old one.
    await Promise.all(names.map((name) => this.#alone(name, removed)));
  }
}

/** Remembers keys in `ports.store`, below `i/`; answers only in memory. */
export const createIdempotency = (ports: IdempotencyPorts, bounds = idempotencyBounds): Idempotency =>
  new Keys(ports, bounds);
