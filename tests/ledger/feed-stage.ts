/** What tests of feeds share: disks that can be copied, stores that die, peers that note what they are told. */

import type { ForkProof } from '../../ledger/block.ts';
import { authorIdOf, type Block, type BlockStart, noHash, type OpenBlock, signBlock } from '../../ledger/block.ts';
import { createFeeds } from '../../ledger/create-feeds.ts';
import { type AuthorEntry, type BanEntry, type Entry, encodeEntry, type RevokeEntry } from '../../ledger/entry.ts';
import type { EpochHead, Feeds, FeedsOptions, HeldEntry, OpenReport, OwnFeed } from '../../ledger/feeds.ts';
import { keyFromSeed, sha256 } from '../../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import type { AuthorId, EpochId, KeyId, MeshId, PeerId } from '../../protocol/ids.ts';
import type { Log, Random, SigningKey, Store, StoreOp, StoreRange } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import { SimRandom } from '../../sim/random.ts';
import { ManualClock } from '../support/manual-clock.ts';

export const meshId = 'ab'.repeat(32) as MeshId;
export const somePeer = '12D3KooWAuthorWithFeeds' as PeerId;

export const keyNamed = (name: string): SigningKey => keyFromSeed(sha256(name));
export const authorNamed = (name: string): AuthorId => authorIdOf(keyNamed(name).publicKey);
export const epochNamed = (name: string): EpochId =>
  Buffer.from(sha256(name).subarray(0, 16)).toString('hex') as EpochId;

const hexOf = (number: number, chars: number): string => number.toString(16).padStart(chars, '0');
/** An open entry that is told apart by its number. */
export const ban = (number: number): BanEntry => ({ kind: 'ban', peer: somePeer, ban: hexOf(number, 32) });
/** One that nodes do not get. */
export const revoke = (number: number): RevokeEntry => ({
  kind: 'revoke',
  key: hexOf(number, 16) as KeyId,
  fromMs: unixMs(number),
  cut: false,
});
export const firstEntry = (after?: EpochHead): AuthorEntry => ({
  kind: 'author',
  role: 'issuer',
  peer: somePeer,
  certificate: 'certificate',
  membership: '',
  ...(after === undefined ? {} : { after: { epoch: after.epoch, number: after.number } }),
});

export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  with: () => silentLog,
};

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));

/** Rows that outlive the process, and those that would not survive a power cut. */
export class Disk {
  rows = new Map<string, Uint8Array>();
  #synced: ReadonlyMap<string, Uint8Array> | undefined;

  copy(): Disk {
    const copy = new Disk();
    copy.rows = new Map([...this.rows].map(([key, value]) => [key, value.slice()]));
    return copy;
  }

  apply(ops: readonly StoreOp[], isSynced: boolean): void {
    if (!isSynced) this.#synced ??= new Map(this.rows);
    for (const op of ops) {
      if (op.type === 'put') this.rows.set(hex(op.key), op.value.slice());
      else this.rows.delete(hex(op.key));
    }
    if (isSynced) this.sync();
  }

  /** All that was written so far would survive. */
  sync(): void {
    this.#synced = undefined;
  }

  /** Power fails, and the next process finds what was synced. */
  cut(): void {
    if (this.#synced !== undefined) this.rows = new Map(this.#synced);
    this.#synced = undefined;
  }
}

/** What happens to the operation that a store does not survive. */
export interface Death {
  /** Operations that come before it. */
  readonly after: number;
  readonly isApplied: boolean;
}

/** A store on a disk, for one process: the one before it is gone, and so is what it had not synced. */
export class DiskStore implements Store {
  readonly disk: Disk;
  readonly died: Promise<void>;
  operations = 0;
  batches = 0;
  /** Batches wait for this. */
  gate: Promise<void> = Promise.resolve();
  failure: HelixFlowError | undefined;
  readonly #death: Death | undefined;
  #die: () => void = () => {};

  constructor(disk: Disk, death?: Death) {
    this.disk = disk;
    disk.cut();
    this.#death = death;
    this.died = new Promise((resolve) => {
      this.#die = resolve;
    });
  }

  /** The process ends here: what waits for the operation waits for ever. */
  async #operate(applied?: () => void): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    this.operations += 1;
    if (this.#death === undefined || this.operations <= this.#death.after) return;
    if (this.operations === this.#death.after + 1 && this.#death.isApplied) applied?.();
    this.#die();
    await new Promise(() => {});
  }

  async get(key: Uint8Array): Promise<Uint8Array | undefined> {
    await this.#operate();
    return this.disk.rows.get(hex(key))?.slice();
  }

  async *range({ gte, lt, limit = Number.POSITIVE_INFINITY, reverse = false }: StoreRange) {
    await this.#operate();
    const [low, high] = [hex(gte), hex(lt)];
    const keys = [...this.disk.rows.keys()].filter((key) => key >= low && key < high).sort();
    if (reverse) keys.reverse();
    for (const key of keys.slice(0, limit)) {
      yield [bytesOf(key), (this.disk.rows.get(key) ?? new Uint8Array()).slice()] as const;
    }
  }

  async batch(ops: readonly StoreOp[], { sync }: { readonly sync: boolean }): Promise<void> {
    this.batches += 1;
    await this.#operate(() => this.disk.apply(ops, sync));
    // Readers see it from here on, as LevelDB does not promise otherwise.
    this.disk.apply(ops, false);
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    if (sync) this.disk.sync();
  }

  async close(): Promise<void> {
    this.failure = new HelixFlowError('STORE_FAILED', { reason: 'closed' });
  }
}

/** Feeds, and everything that they told. */
export interface FeedPeer {
  readonly feeds: Feeds;
  readonly store: Store;
  readonly clock: ManualClock;
  readonly told: HeldEntry[];
  readonly added: (Block | OpenBlock)[];
  readonly forks: ForkProof[];
  readonly report: OpenReport;
}

export interface PeerOptions extends Partial<FeedsOptions> {
  readonly random?: Random;
}

let runs = 0;

/** Makes feeds over a store and opens them, with chance of their own each time. */
export async function openFeeds(
  store: Store = new DiskStore(new Disk()),
  options: PeerOptions = {},
): Promise<FeedPeer> {
  runs += 1;
  const { random = new SimRandom(`feeds ${runs}`), ...rest } = options;
  const told: HeldEntry[] = [];
  const added: (Block | OpenBlock)[] = [];
  const forks: ForkProof[] = [];
  const clock = new ManualClock();
  const feeds = createFeeds(
    { store, clock, random, log: silentLog },
    { meshId, holds: 'all', mayWrite: async () => true, ...rest },
    {
      entry: (held) => told.push(held),
      added: (block) => added.push(block),
      forked: (proof) => forks.push(proof),
    },
  );
  return { feeds, store, clock, told, added, forks, report: await feeds.open() };
}

export const writerOf = ({ feeds }: FeedPeer, name: string): OwnFeed => feeds.write(keyNamed(name), firstEntry);

/** Signs blocks of one epoch, one after the other. */
export class BlockMaker {
  readonly key: SigningKey;
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly generation: number;
  number = 0;
  previous: Uint8Array;

  constructor(name: string, epoch: string, generation = 0, previous: Uint8Array = noHash) {
    this.key = keyNamed(name);
    this.author = authorNamed(name);
    this.epoch = epochNamed(epoch);
    this.generation = generation;
    this.previous = previous;
  }

  next(entries: readonly Entry[], change: Partial<BlockStart> = {}): Block {
    const { author, epoch, generation, number, previous } = this;
    const all = number === 0 ? [firstEntry(), ...entries] : entries;
    const place: BlockStart = {
      author,
      epoch,
      generation,
      number,
      previous,
      timeMs: unixMs(1_000 + number),
      ...change,
    };
    const block = signBlock(place, all.map(encodeEntry), { meshId, key: this.key });
    this.number += 1;
    this.previous = block.head.hash;
    return block;
  }

  /** A maker that goes on from here on a branch of its own. */
  branch(): BlockMaker {
    const branch = new BlockMaker('', '');
    return Object.assign(branch, this);
  }
}

/** One line per entry, without what a fork changes. */
export const linesOf = (told: readonly HeldEntry[]): string[] =>
  told.map(({ entry, place: { isAfterFork: _, ...place } }) => JSON.stringify([place, entry])).sort();

/** Author, epoch and number of every head. */
export const headsOf = (feeds: Feeds): string[] =>
  feeds.heads().map(({ author, epoch, number, head }) => `${author}/${epoch}/${number}/${hex(head.hash)}`);

export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'did not fail';
  } catch (error) {
    return isHelixFlowError(error) ? error.code : `not typed: ${error}`;
  }
}
