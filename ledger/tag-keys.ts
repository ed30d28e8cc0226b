/** The keys of tags on one machine: kept, used for callers, and deleted once they are old (design §6, Privacy). */

import { fromHex, hmacSha256, isSameBytes, toHex } from '../protocol/crypto.ts';
import { isHelixFlowError } from '../protocol/errors.ts';
import { type AccountId, type IssuerId, isIssuerId, type KeyId, type Tag } from '../protocol/ids.ts';
import type { Cancel, Clock, Log, Random, Store, StoreOp } from '../protocol/ports.ts';
import { Memory } from '../protocol/tables.ts';
import { dayMs, ms, type UnixMs } from '../protocol/units.ts';
import type { Caller } from './line.ts';
import { readSealedRow, sealRow } from './sealed-rows.ts';
import type { TagOwner, Tags } from './tags.ts';

/** A day's key, as gateways hand it to each other. */
export interface TagKey {
  /** Days since 1970 (UTC). */
  readonly day: number;
  /** 32 bytes. */
  readonly key: Uint8Array;
}

export interface TagPorts {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface TagOptions {
  /** A key is deleted this many days after its own; from then on its tags name nobody. */
  readonly tagDays?: number;
}

/** The keys, and the tags made with them. `open` first. */
export interface TagKeys extends Tags {
  /** Reads what is on disk; what is damaged is left out. @throws HelixFlowError STORE_FAILED */
  open(): Promise<void>;
  /** Those that are held of these days. */
  held(issuer: IssuerId, days: readonly number[]): readonly TagKey[];
  /** Draws the keys of these days that are not held; waits for `open`, and is synced once it resolves. For the issuer's own gateway. */
  draw(issuer: IssuerId, days: readonly number[]): Promise<void>;
  /**
   * Keeps keys that came from another gateway. Of several for one day the first names callers, and all tell them.
   * @returns whether any of them is new here.
   */
  take(issuer: IssuerId, keys: readonly TagKey[]): Promise<boolean>;
  /** Nothing touches the store once it resolves. */
  close(): Promise<void>;
}

/** Of one issuer and day: one more than the times that it was lost and drawn anew. */
export const keysPerDayMax = 8;
/** Days after today for which keys are handed out. */
export const tagDaysAhead = 2;
export const defaultTagDays = 40;
const tidyEveryMs = ms(3_600_000);
/** Callers whose tags are remembered; about 0.3 kB each. */
const callersMax = 16_384;
const issuersMax = 256;

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const prefix = 't/';
const range = { gte: encoder.encode(prefix), lt: encoder.encode('t0') };
const keyBytes = 32;
const ownName = 'own';

/** The UTC day that a moment belongs to, since 1970. */
export const dayOf = (atMs: UnixMs): number => Math.floor(atMs / dayMs);

/** Days whose keys gateways hold ahead of need. */
export const daysFrom = (today: number): readonly number[] =>
  Array.from({ length: tagDaysAhead + 1 }, (_, ahead) => today + ahead);

const rowKey = (name: string): Uint8Array => encoder.encode(prefix + name);

function writeRow(name: string, { day, key }: TagKey): StoreOp {
  const at = rowKey(name);
  return { type: 'put', key: at, value: sealRow(at, [day, key]) };
}

const readRow = (at: Uint8Array, value: Uint8Array): TagKey | undefined =>
  readSealedRow(at, value, (r) => ({ day: r.int(), key: r.bytes(keyBytes, keyBytes).slice() }));

const nameOf = (issuer: IssuerId, day: number, at = 0): string => `${issuer}/${day}${at === 0 ? '' : `/${at}`}`;

/** 8 bytes that stand for something, for whoever holds the key alone. */
const tagOf = (key: Uint8Array, kind: 'account' | 'key', issuer: IssuerId, id: string): Tag =>
  toHex(hmacSha256(key, `helixflow/tag/1/${kind}\0`, fromHex(issuer), id).subarray(0, 8)) as Tag;

class DayKeys implements TagKeys {
  readonly #ports: TagPorts;
  readonly #tagDays: number;
  readonly #keys = new Map<IssuerId, Map<number, Uint8Array[]>>();
  /** What was asked for lately; emptied whenever a key comes or goes, and each day. */
  /** By key id, which no other issuer has drawn, too. */
  #callers = new Memory<TagOwner & { readonly caller: Caller }>(callersMax);
  #callersDay = -1;
  /** This gateway's own, and the day on which it was drawn. */
  #own: TagKey;
  #cancelTidy: Cancel = () => {};
  #writing: Promise<void> = Promise.resolve();
  #isClosed = false;
  readonly #opened = Promise.withResolvers<void>();

  constructor(ports: TagPorts, { tagDays = defaultTagDays }: TagOptions) {
    this.#ports = ports;
    this.#tagDays = tagDays;
    this.#own = this.#drawn(this.#today());
  }

  #today(): number {
    return dayOf(this.#ports.clock.wallMs());
  }

  #drawn(day: number): TagKey {
    return { day, key: this.#ports.random.bytes(keyBytes).slice() };
  }

  #daysOf(issuer: IssuerId): Map<number, Uint8Array[]> {
    let days = this.#keys.get(issuer);
    if (days === undefined) {
      days = new Map();
      this.#keys.set(issuer, days);
    }
    return days;
  }

  async open(): Promise<void> {
    const { store, log } = this.#ports;
    const ops: StoreOp[] = [];
    let hasOwn = false;
    for await (const [at, value] of store.range(range)) {
      const name = decoder.decode(at.subarray(prefix.length));
      const row = readRow(at, value);
      const [issuer = '', , nth = '0'] = name.split('/');
      if (row !== undefined && name === ownName) {
        this.#own = row;
        hasOwn = true;
      } else if (row !== undefined && isIssuerId(issuer) && name === nameOf(issuer, row.day, Number(nth))) {
        this.#daysOf(issuer).set(row.day, [...(this.#keys.get(issuer)?.get(row.day) ?? []), row.key]);
      } else {
        log.warn('tags.damaged', { row: name.slice(0, 64) });
        ops.push({ type: 'del', key: at });
      }
    }
    if (!hasOwn) ops.push(writeRow(ownName, this.#own));
    ops.push(...this.#expire());
    await this.#write(ops);
    this.#opened.resolve();
    this.#tidyLater();
  }

  #tidyLater(): void {
    this.#cancelTidy = this.#ports.clock.timer(tidyEveryMs, () => {
      void this.#write(this.#expire()).catch((error: unknown) => {
        if (!isHelixFlowError(error)) throw error;
        this.#ports.log.warn('tags.not-tidied', { code: error.code });
      });
      this.#tidyLater();
    });
  }

  /** Forgets what is old, and says what of it has to go from the disk. */
  #expire(): StoreOp[] {
    const oldest = this.#today() - this.#tagDays;
    const ops: StoreOp[] = [];
    for (const [issuer, days] of this.#keys) {
      for (const day of days.keys()) {
        if (day >= oldest) continue;
        days.delete(day);
        for (let at = 0; at < keysPerDayMax; at += 1) ops.push({ type: 'del', key: rowKey(nameOf(issuer, day, at)) });
      }
      if (days.size === 0) this.#keys.delete(issuer);
    }
    if (this.#own.day < oldest) {
      this.#own = this.#drawn(this.#today());
      ops.push(writeRow(ownName, this.#own));
    }
    if (ops.length > 0) this.#forgetCallers();
    return ops;
  }

  #forgetCallers(): void {
    this.#callers = new Memory(callersMax);
  }

  #write(ops: readonly StoreOp[]): Promise<void> {
    if (ops.length === 0 || this.#isClosed) return this.#writing;
    const write = (): Promise<void> => this.#ports.store.batch(ops, { sync: true });
    const written = this.#writing.then(write);
    this.#writing = written.catch((error: unknown) => {
      if (!isHelixFlowError(error)) throw error;
    });
    return written;
  }

  callerOf({ issuer, account, key }: TagOwner, atMs: UnixMs): Caller {
    const today = dayOf(atMs);
    if (today !== this.#callersDay) {
      this.#callersDay = today;
      this.#forgetCallers();
    }
    const known = this.#callers.get(key);
    if (known !== undefined && known.issuer === issuer && known.account === account) return known.caller;
    const used = this.#keyFor(issuer, today);
    const caller = {
      day: used.day,
      account: tagOf(used.key, 'account', issuer, account),
      key: tagOf(used.key, 'key', issuer, key),
    };
    this.#callers.set(key, { issuer, account, key, caller });
    return caller;
  }

  #keyFor(issuer: IssuerId, today: number): TagKey {
    const days = this.#keys.get(issuer);
    const ofToday = days?.get(today)?.[0];
    if (ofToday !== undefined) return { day: today, key: ofToday };
    const newest = Math.max(-1, ...[...(days?.keys() ?? [])].filter((day) => day < today));
    const key = days?.get(newest)?.[0];
    return key === undefined ? { day: 0, key: this.#own.key } : { day: newest, key };
  }

  #heldKeys(issuer: IssuerId, day: number): readonly Uint8Array[] {
    return day === 0 ? [this.#own.key] : (this.#keys.get(issuer)?.get(day) ?? []);
  }

  accountTag(issuer: IssuerId, account: AccountId, day: number): Tag | undefined {
    return this.accountTags(issuer, account, day)[0];
  }

  keyTag(issuer: IssuerId, keyId: KeyId, day: number): Tag | undefined {
    return this.keyTags(issuer, keyId, day)[0];
  }

  accountTags(issuer: IssuerId, account: AccountId, day: number): readonly Tag[] {
    return this.#heldKeys(issuer, day).map((key) => tagOf(key, 'account', issuer, account));
  }

  keyTags(issuer: IssuerId, keyId: KeyId, day: number): readonly Tag[] {
    return this.#heldKeys(issuer, day).map((key) => tagOf(key, 'key', issuer, keyId));
  }

  held(issuer: IssuerId, days: readonly number[]): readonly TagKey[] {
    const known = this.#keys.get(issuer);
    return days.flatMap((day) => (known?.get(day) ?? []).map((key) => ({ day, key })));
  }

  async draw(issuer: IssuerId, days: readonly number[]): Promise<void> {
    // Before the disk was read every key looks as if it was lacking, and would be replaced.
    await this.#opened.promise;
    await this.take(
      issuer,
      days.filter((day) => !this.#keys.get(issuer)?.has(day)).map((day) => this.#drawn(day)),
    );
  }

  async take(issuer: IssuerId, keys: readonly TagKey[]): Promise<boolean> {
    await this.#opened.promise;
    const today = this.#today();
    const ops: StoreOp[] = [];
    if (!this.#keys.has(issuer) && this.#keys.size >= issuersMax) return false;
    for (const { day, key } of keys) {
      const isInTime = day > 0 && day >= today - this.#tagDays && day <= today + tagDaysAhead + 1;
      if (!isInTime || key.length !== keyBytes) continue;
      const known = this.#keys.get(issuer)?.get(day) ?? [];
      if (known.length >= keysPerDayMax || known.some((one) => isSameBytes(one, key))) continue;
      this.#daysOf(issuer).set(day, [...known, key.slice()]);
      ops.push(writeRow(nameOf(issuer, day, known.length), { day, key }));
    }
    if (ops.length > 0) this.#forgetCallers();
    await this.#write(ops);
    return ops.length > 0;
  }

  async close(): Promise<void> {
    this.#cancelTidy();
    this.#isClosed = true;
    await this.#writing;
  }
}

/** Keeps keys in `ports.store`, below `t/`. They are as secret as the store: whoever reads them can name who was served. */
export const createTags = (ports: TagPorts, options: TagOptions = {}): TagKeys => new DayKeys(ports, options);
