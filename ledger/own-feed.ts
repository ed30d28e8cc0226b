/** The feed that this process writes: entries of one turn, and those that came during a write, share a block and its sync. */

import { toHex } from '../protocol/crypto.ts';
import { HelixFlowError, toHelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, EpochId, MeshId } from '../protocol/ids.ts';
import { assert } from '../protocol/invariant.ts';
import { limits } from '../protocol/limits.ts';
import type { Clock, Random, SigningKey } from '../protocol/ports.ts';
import { authorIdOf, type Block, createBlockSize, noHash, openPartOf, signBlock } from './block.ts';
import { type AuthorEntry, type Entry, encodeEntry, parseEntry } from './entry.ts';
import type { CheckedBlock } from './feed-blocks.ts';
import type { FeedState } from './feed-state.ts';
import type { Change, FeedWriter } from './feed-writer.ts';
import type { EntryPlace, EpochHead, OwnFeed } from './feeds.ts';

export interface OwnFeedDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly state: FeedState;
  readonly writer: FeedWriter;
  /** Makes a block that fits part of a batch; it counts as held from now on. */
  readonly stage: (block: CheckedBlock) => Change;
}

export interface OwnFeedOptions {
  readonly meshId: MeshId;
  readonly holds: 'all' | 'open';
  readonly key: SigningKey;
  readonly first: (after: EpochHead | undefined) => AuthorEntry;
}

/** An entry that every peer will be able to read, and its bytes. */
interface Written {
  readonly entry: Entry;
  readonly bytes: Uint8Array;
}

interface Append {
  readonly entries: readonly Written[];
  readonly resolve: (places: readonly EntryPlace[]) => void;
  readonly reject: (error: HelixFlowError) => void;
}

/** Where the next block goes. */
interface Tip {
  readonly epoch: EpochId;
  readonly generation: number;
  number: number;
  previous: Uint8Array;
}

function writeEntry(entry: Entry): Written {
  const bytes = encodeEntry(entry);
  return { entry: parseEntry(bytes), bytes };
}

/** Cuts entries into as few blocks as hold them, in order. */
function cut(entries: readonly Written[]): Written[][] {
  const blocks: Written[][] = [];
  let size = createBlockSize();
  for (const written of entries) {
    const current = blocks.at(-1);
    if (current !== undefined && size.take(written.bytes)) {
      current.push(written);
    } else {
      size = createBlockSize();
      size.take(written.bytes);
      blocks.push([written]);
    }
  }
  return blocks;
}

const notSigned = (cause: unknown): HelixFlowError =>
  new HelixFlowError('LEDGER_UNREADY', { reason: 'the first entry of its feed' }, { cause });

class FeedAuthor implements OwnFeed {
  readonly author: AuthorId;
  readonly #deps: OwnFeedDeps;
  readonly #options: OwnFeedOptions;
  #queue: Append[] = [];
  #isSubmitted = false;
  #tip: Tip | undefined;
  #epoch: EpochId | undefined;

  constructor(deps: OwnFeedDeps, options: OwnFeedOptions) {
    this.#deps = deps;
    this.#options = options;
    this.author = authorIdOf(options.key.publicKey);
  }

  get epoch(): EpochId | undefined {
    return this.#epoch;
  }

  async append(entries: readonly Entry[]): Promise<readonly EntryPlace[]> {
    this.#deps.writer.check();
    this.#checkThawed();
    return entries.length === 0 ? [] : await this.#enqueue(entries.map(writeEntry));
  }

  async begin(): Promise<EpochId> {
    this.#deps.writer.check();
    this.#checkThawed();
    if (this.#epoch === undefined) await this.#enqueue([]);
    assert(this.#epoch !== undefined, 'what was written stands in an epoch');
    return this.#epoch;
  }

  #enqueue(entries: readonly Written[]): Promise<readonly EntryPlace[]> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ entries, resolve, reject });
      this.#submit();
    });
  }

  #checkThawed(): void {
    if (this.#deps.state.isFrozen(this.author)) throw new HelixFlowError('FEED_FROZEN', { author: this.author });
  }

  #submit(): void {
    if (this.#isSubmitted) return;
    this.#isSubmitted = true;
    this.#deps.writer.submit(() => {
      this.#isSubmitted = false;
      return this.#make();
    });
  }

  /** As many of those that wait as a batch takes, at least one. */
  #take(): Append[] {
    let bytes = 0;
    let count = 0;
    for (const { entries } of this.#queue) {
      bytes += entries.reduce((sum, entry) => sum + entry.bytes.length, 0);
      if (count > 0 && bytes > limits.ledgerWindowBytes) break;
      count += 1;
    }
    return this.#queue.splice(0, count);
  }

  #make(): Change | undefined {
    const appends = this.#take();
    if (this.#queue.length > 0) this.#submit();
    const failed = (error: HelixFlowError): void => {
      for (const { reject } of appends) reject(error);
    };
    try {
      // After a failed write nothing is known of what is on disk, so nothing more may be signed.
      this.#deps.writer.checkWritten();
      this.#checkThawed();
      const { blocks, places } = this.#sign(appends);
      const changes = blocks.map(this.#deps.stage);
      const done = (): void => {
        this.#epoch = this.#tip?.epoch;
        for (const change of changes) change.done();
        for (const [at, { resolve }] of appends.entries()) resolve(places[at] ?? []);
      };
      return { ops: changes.flatMap(({ ops }) => ops), done, failed };
    } catch (error) {
      failed(toHelixFlowError(error, notSigned));
      return undefined;
    }
  }

  /** The epoch goes on, unless there is none yet, or it has forked and the root lets the author write again. */
  #tipNow(): { readonly tip: Tip; readonly begins: readonly Written[] } {
    const { state, random } = this.#deps;
    if (this.#tip !== undefined && !state.hasForkedIn(this.author, this.#tip.epoch))
      return { tip: this.#tip, begins: [] };
    const after = state.newestOf(this.author);
    const generation = state.newestGeneration(this.author) + 1;
    if (generation > limits.epochsPerAuthorMax) {
      throw new HelixFlowError('LEDGER_UNREADY', { reason: `${this.author} has used up its epochs` });
    }
    const begins = [writeEntry(this.#options.first(after))];
    let epoch = toHex(random.bytes(16)) as EpochId;
    while (state.epoch(this.author, epoch) !== undefined) epoch = toHex(random.bytes(16)) as EpochId;
    return { tip: { epoch, generation, number: 0, previous: after?.head.hash ?? noHash }, begins };
  }

  #sign(appends: readonly Append[]): { readonly blocks: readonly CheckedBlock[]; readonly places: EntryPlace[][] } {
    const { clock, state } = this.#deps;
    const { meshId, holds, key } = this.#options;
    const { author } = this;
    const { tip, begins } = this.#tipNow();
    const timeMs = clock.wallMs();
    const all: EntryPlace[] = [];
    const blocks = cut([...begins, ...appends.flatMap(({ entries }) => entries)]).map((written): CheckedBlock => {
      const { epoch, generation, number, previous } = tip;
      const place = { author, epoch, generation, number, timeMs };
      const whole: Block = signBlock(
        { ...place, previous },
        written.map(({ bytes }) => bytes),
        { meshId, key },
      );
      all.push(...written.map((_, index) => ({ ...place, index, isAfterFork: false })));
      tip.number += 1;
      tip.previous = whole.head.hash;
      const entries = written.map(({ entry }, index) => ({ index, entry }));
      if (holds === 'all') return { block: whole, head: whole.head, entries };
      const block = openPartOf(whole);
      return { block, head: whole.head, entries: block.open.map(({ index }) => entries[index] as (typeof entries)[0]) };
    });
    state.begin({ author, epoch: tip.epoch, generation: tip.generation }, true);
    this.#tip = tip;
    let from = begins.length;
    const places = appends.map(({ entries }) => {
      const to = from + entries.length;
      const own = all.slice(from, to);
      from = to;
      return own;
    });
    return { blocks, places };
  }
}

/** Opens the feed of `options.key`; nothing is signed or written before the first `append`. */
export const createOwnFeed = (deps: OwnFeedDeps, options: OwnFeedOptions): OwnFeed => new FeedAuthor(deps, options);
