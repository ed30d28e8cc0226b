/** Feeds over a store: what comes in is checked and chained, what is written is signed and synced, forks are proven. */

import { isSameBytes } from '../protocol/crypto.ts';
import { isHelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, EpochId } from '../protocol/ids.ts';
import { assert } from '../protocol/invariant.ts';
import { limits } from '../protocol/limits.ts';
import type { SigningKey } from '../protocol/ports.ts';
import {
  authorIdOf,
  type Block,
  type BlockPlace,
  type ForkProof,
  isFork,
  isSigned,
  type OpenBlock,
  type SignedHeader,
} from './block.ts';
import type { AuthorEntry } from './entry.ts';
import { type CheckedBlock, checkBlock, checkContents, firstOf, readHead, sizeOfBlock } from './feed-blocks.ts';
import { checkFeeds } from './feed-check.ts';
import { createLanes } from './feed-lanes.ts';
import { checkPruned, readPrunedRow } from './feed-prune.ts';
import {
  blockKey,
  blockKeys,
  liftKey,
  proofKey,
  readBlockRow,
  writeBlockRow,
  writeLiftRow,
  writeProofRow,
} from './feed-rows.ts';
import { FeedState } from './feed-state.ts';
import { type Change, createFeedWriter, type FeedWriter } from './feed-writer.ts';
import type {
  Acceptance,
  EpochHead,
  Feeds,
  FeedsDeps,
  FeedsEvents,
  FeedsOptions,
  OpenReport,
  OwnFeed,
} from './feeds.ts';
import { createOwnFeed } from './own-feed.ts';

/** Proofs about authors of whom nothing is held, kept in memory until their first block; the oldest that nobody named makes room. */
const strangersMax = 256;
const rowsAtOnce = 1_024;

/** What is decided at once, and what becomes of it once it is on disk. */
interface Decision {
  readonly settled: Promise<Acceptance>;
}

const now = (acceptance: Acceptance): Decision => ({ settled: Promise.resolve(acceptance) });
const textOf = ({ author, epoch, number }: BlockPlace): string => `${author}/${epoch}/${number}`;

class StoredFeeds implements Feeds {
  readonly #deps: FeedsDeps;
  readonly #options: FeedsOptions;
  readonly #events: FeedsEvents;
  readonly #state = new FeedState();
  readonly #writer: FeedWriter;
  readonly #inLane = createLanes();
  /** Blocks that are checked and not yet on disk. */
  readonly #staged = new Map<string, SignedHeader>();
  readonly #strangers = new Map<AuthorId, ForkProof>();
  readonly #own = new Set<AuthorId>();
  #isOpen = false;

  constructor(deps: FeedsDeps, options: FeedsOptions, events: FeedsEvents) {
    this.#deps = deps;
    this.#options = options;
    this.#events = events;
    this.#writer = createFeedWriter(deps, { batchMaxBytes: limits.ledgerWindowBytes });
  }

  async open(): Promise<OpenReport> {
    assert(!this.#isOpen, 'feeds are opened once');
    this.#isOpen = true;
    const { store, log } = this.#deps;
    const report = await checkFeeds({ store, state: this.#state }, this.#options, (block) => this.#tell(block));
    const [first] = report.damaged;
    if (first !== undefined) {
      const { author, epoch, number, reason } = first;
      log.warn('feeds damaged', { count: report.damaged.length, author, epoch, number, reason });
    }
    return report;
  }

  #check(): void {
    assert(this.#isOpen, 'feeds are opened before they are used');
    this.#writer.check();
  }

  #tell({ head, entries, block }: CheckedBlock): void {
    const { author, epoch, number, generation, timeMs } = head.header;
    const isAfterFork = this.#state.isAfterFork(head.header);
    for (const [at, { index, entry }] of entries.entries()) {
      const bytes = 'entries' in block ? block.entries[index] : block.open[at]?.bytes;
      assert(bytes !== undefined, 'a checked block holds the bytes of its entries');
      this.#events.entry({ entry, bytes, place: { author, epoch, number, generation, timeMs, index, isAfterFork } });
    }
  }

  heads(): readonly EpochHead[] {
    return this.#state.heads();
  }

  headOf(author: AuthorId, epoch: EpochId): EpochHead | undefined {
    return this.#state.epoch(author, epoch)?.head;
  }

  newestOf(author: AuthorId): EpochHead | undefined {
    return this.#state.newestOf(author);
  }

  async headerAt(place: BlockPlace): Promise<SignedHeader | undefined> {
    // A store may show what would not survive yet.
    if (this.#staged.has(textOf(place))) return undefined;
    const key = blockKey(place);
    const row = await this.#deps.store.get(key);
    return row && (readBlockRow(key, row) ?? readPrunedRow(key, row))?.head;
  }

  async read(
    author: AuthorId,
    epoch: EpochId,
    from: number,
    maxBytes: number,
  ): Promise<readonly (Block | OpenBlock)[]> {
    const blocks: (Block | OpenBlock)[] = [];
    let bytes = 0;
    const keys = blockKeys(author, epoch, from, Number.MAX_SAFE_INTEGER - 1);
    for await (const [key, row] of this.#deps.store.range({ ...keys, limit: rowsAtOnce })) {
      const block = readBlockRow(key, row);
      const isNext = block?.head.header.number === from + blocks.length;
      if (!isNext || this.#staged.has(textOf(block.head.header))) break;
      bytes += sizeOfBlock(block);
      if (blocks.length > 0 && bytes > maxBytes) break;
      blocks.push(block);
    }
    return blocks;
  }

  async accept(block: Block | OpenBlock): Promise<Acceptance> {
    this.#check();
    const head = readHead(block.head);
    if (head === undefined) return 'invalid';
    const { settled } = await this.#inLane(head.header.author, () => this.#decide(block, head));
    return await settled;
  }

  async #decide(block: Block | OpenBlock, head: SignedHeader): Promise<Decision> {
    const { author, epoch, number, generation } = head.header;
    const state = this.#state.epoch(author, epoch);
    if (state?.holds(number)) return await this.#meet(head);
    const checked = checkBlock(block, head, this.#options);
    if (checked === undefined) return now('invalid');
    if (state?.isOwn) return now('refused');
    const isStopped = this.#state.isFrozen(author) || this.#state.hasForkedIn(author, epoch);
    if (isStopped && !state?.isVouched(head)) return now('frozen');
    const fit = state?.fitOf(head) ?? (number === 0 ? 'next' : 'gap');
    if (fit === 'gap') return now('gap');
    if (fit === 'wrong') return now('invalid');
    if (fit === 'apart') return now('frozen');
    const first = firstOf(checked);
    if (number === 0 && first !== undefined && !(await this.#mayBegin(checked, first))) return now('refused');
    const stranger = this.#strangers.get(author);
    if (stranger !== undefined) {
      this.#strangers.delete(author);
      const proven = this.#prove(stranger);
      if (proven !== undefined) return { settled: proven.then(() => 'frozen') };
    }
    this.#state.begin({ author, epoch, generation });
    return this.#write(checked);
  }

  #write(checked: CheckedBlock): Decision {
    const change = this.#stage(checked);
    return { settled: this.#writer.write(change.ops, change.done).then(() => 'new') };
  }

  /** A block of a place that is taken. */
  async #meet(head: SignedHeader): Promise<Decision> {
    const staged = this.#staged.get(textOf(head.header));
    const held = staged ?? (await this.headerAt(head.header));
    // A row that can no longer be read is found, and asked for again, at the next start.
    if (held === undefined || isSameBytes(held.hash, head.hash)) {
      return staged === undefined ? now('known') : { settled: this.#writer.write([], () => {}).then(() => 'known') };
    }
    if (!isSigned(head, this.#options.meshId)) return now('invalid');
    const proven = this.#prove({ a: held, b: head });
    return proven === undefined ? now('frozen') : { settled: proven.then(() => 'forked') };
  }

  async #mayBegin({ head }: CheckedBlock, first: AuthorEntry): Promise<boolean> {
    const { author, timeMs } = head.header;
    if (!this.#hasRoom(head.header)) return false;
    try {
      return await this.#options.mayWrite(author, first, timeMs);
    } catch (error) {
      if (isHelixFlowError(error)) return false;
      throw error;
    }
  }

  #hasRoom({ author, epoch }: BlockPlace): boolean {
    if (this.#state.epoch(author, epoch) !== undefined) return true;
    if (this.#state.isKnown(author)) return this.#state.epochsOf(author) < limits.epochsPerAuthorMax;
    return this.#own.has(author) || this.#state.size < limits.authorsMax;
  }

  #stage(checked: CheckedBlock): Change {
    const { head, block } = checked;
    const place = textOf(head.header);
    const key = blockKey(head.header);
    const state = this.#state.epoch(head.header.author, head.header.epoch);
    assert(state !== undefined, 'a block is staged in an epoch that has begun');
    const headThen = state.add(head);
    this.#staged.set(place, head);
    const done = (): void => {
      this.#staged.delete(place);
      state.head = headThen;
      this.#tell(checked);
      this.#events.added(block);
    };
    return { ops: [{ type: 'put', key, value: writeBlockRow(key, block) }], done, failed: () => {} };
  }

  /** Freezes at once. @returns undefined when the proof says nothing new. */
  #proven(proof: ForkProof): Change | undefined {
    const { author, epoch, number } = proof.a.header;
    if (!this.#state.prove(proof)) return undefined;
    const key = proofKey(author, epoch);
    this.#deps.log.warn('feed forked', { author, epoch, number });
    const done = (): void => this.#events.forked(proof);
    return { ops: [{ type: 'put', key, value: writeProofRow(key, proof) }], done, failed: () => {} };
  }

  /** @returns undefined when the proof says nothing new, else when it is on disk and everyone was told. */
  #prove(proof: ForkProof): Promise<void> | undefined {
    const change = this.#proven(proof);
    return change && this.#writer.write(change.ops, change.done).then(() => this.#tellAgain(proof.a.header));
  }

  async #tellAgain({ author, epoch, number }: BlockPlace): Promise<void> {
    const keys = blockKeys(author, epoch, number, Number.MAX_SAFE_INTEGER - 1);
    for await (const [key, row] of this.#deps.store.range(keys)) {
      const block = readBlockRow(key, row);
      const checked = block ? checkContents(block, block.head, this.#options.holds) : checkPruned(key, row);
      if (checked !== undefined) this.#tell(checked);
    }
  }

  async acceptProof({ a, b }: ForkProof): Promise<boolean> {
    this.#check();
    const heads = { a: readHead(a), b: readHead(b) };
    if (heads.a === undefined || heads.b === undefined) return false;
    const proof = { a: heads.a, b: heads.b };
    if (!isFork(proof, this.#options.meshId)) return false;
    const { author } = proof.a.header;
    const proven = await this.#inLane(author, async () => {
      if (this.#state.isKnown(author) || this.#own.has(author)) return { settled: this.#prove(proof) };
      this.#strangers.delete(author);
      this.#strangers.set(author, proof);
      if (this.#strangers.size > strangersMax) this.#strangers.delete(this.#leastOfStrangers(author));
      return undefined;
    });
    await proven?.settled;
    return proven?.settled !== undefined;
  }

  /** Anyone can make keys that fork, so as to push out the proof about an author that matters. */
  #leastOfStrangers(newest: AuthorId): AuthorId {
    const { isNamed } = this.#options;
    const known = [...this.#strangers.keys()];
    return known.find((author) => isNamed?.(author) !== true) ?? known[0] ?? newest;
  }

  proofs(): readonly ForkProof[] {
    return this.#state.proofs();
  }

  isFrozen(author: AuthorId): boolean {
    return this.#state.isFrozen(author);
  }

  async lift(author: AuthorId, epoch: EpochId): Promise<void> {
    this.#check();
    if (this.#state.isLifted(author, epoch)) return;
    const key = liftKey(author, epoch);
    await this.#writer.write([{ type: 'put', key, value: writeLiftRow(key) }], () => this.#state.lift(author, epoch));
  }

  write(key: SigningKey, first: (after: EpochHead | undefined) => AuthorEntry): OwnFeed {
    const { clock, random } = this.#deps;
    const { meshId, holds } = this.#options;
    const author = authorIdOf(key.publicKey);
    this.#own.add(author);
    const stranger = this.#strangers.get(author);
    this.#strangers.delete(author);
    const proven = stranger && this.#proven(stranger);
    if (proven !== undefined) this.#writer.submit(() => proven);
    const deps = {
      clock,
      random: random.fork(`feed ${author}`),
      state: this.#state,
      writer: this.#writer,
      stage: (block: CheckedBlock) => this.#stage(block),
    };
    return createOwnFeed(deps, { meshId, holds, key, first });
  }

  async close(): Promise<void> {
    await this.#writer.close();
  }
}

/** Makes the feeds of one process; `open` them before anything else. The store's keys below `f/` are theirs. */
export const createFeeds = (deps: FeedsDeps, options: FeedsOptions, events: FeedsEvents): Feeds =>
  new StoredFeeds(deps, options, events);
