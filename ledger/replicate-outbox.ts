/** What waits to be told to one peer: a state, not a queue, so that a slow peer costs no memory. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { Role } from '../protocol/grants.ts';
import type { AuthorId } from '../protocol/ids.ts';
import {
  encodeLedgerFrame,
  type HeartbeatFrame,
  haveItemsMax,
  type LedgerFrame,
  tokensFrameBytes,
  type Want,
} from '../protocol/messages/ledger.ts';
import type { RootToken } from '../protocol/peer/roots.ts';
import type { Channel, Log } from '../protocol/ports.ts';
import type { Block, ForkProof, OpenBlock } from './block.ts';
import type { EpochHead, Feeds } from './feeds.ts';
import { Told } from './replicate-have.ts';
import { type EpochKey, intoFrames, nameOf, wholeOf, wireBlock, wireOpenBlock, wireProof } from './replicate-wire.ts';

interface OutboxDeps {
  readonly feeds: Feeds;
  readonly log: Log;
}

interface OutboxOptions {
  /** What the peer is. */
  readonly to: Role;
  /** True for feeds that the peer may be told of. */
  readonly shows: (author: AuthorId) => boolean;
  /** How far the peer itself is, as it told: it need not hear what it has. */
  readonly has: (key: EpochKey) => number;
}

export class Outbox {
  readonly #channel: Channel;
  readonly #deps: OutboxDeps;
  readonly #options: OutboxOptions;
  readonly #told = new Told();
  #tokens: RootToken[] = [];
  #proofs: ForkProof[] = [];
  readonly #beats = new Map<AuthorId, HeartbeatFrame>();
  #dirty = new Set<EpochKey>();
  readonly #insisted = new Set<EpochKey>();
  /** Everything held at the start has not been named yet. */
  #isWhole = false;
  #isHaveDue = false;
  #isTallyDue = false;
  #isAgainDue = false;
  readonly #wants: Want[] = [];
  readonly #asked: Want[] = [];
  #isServing = false;
  #isWritable = true;
  #isOver = false;
  #resume: () => void = () => {};

  constructor(channel: Channel, deps: OutboxDeps, options: OutboxOptions) {
    this.#channel = channel;
    this.#deps = deps;
    this.#options = options;
  }

  /** Bytes that the peer has asked for and that have not all been sent. */
  get servedBytes(): number {
    return this.#asked.reduce((sum, { maxBytes }) => sum + maxBytes, 0);
  }

  get isWritable(): boolean {
    return this.#isWritable;
  }

  tokens(said: readonly RootToken[]): void {
    this.#tokens.push(...said);
    this.pump();
  }

  proofs(proofs: readonly ForkProof[]): void {
    this.#proofs.push(...proofs);
    this.pump();
  }

  /** A newer one of the same issuer takes its place. */
  beat(issuer: AuthorId, frame: HeartbeatFrame): void {
    this.#beats.set(issuer, frame);
    this.pump();
  }

  /** These have grown; told with the next `flush`. */
  grown(keys: Iterable<EpochKey>): void {
    for (const key of keys) if (this.#options.shows(nameOf(key).author)) this.#dirty.add(key);
  }

  /** Told even to a peer that has as much: it has something else. */
  insist(key: EpochKey): void {
    this.#insisted.add(key);
    this.grown([key]);
    this.flush();
  }

  flush(): void {
    this.#isHaveDue ||= this.#dirty.size > 0 || !this.#isWhole;
    this.pump();
  }

  tally(): void {
    this.#isTallyDue = true;
    this.flush();
  }

  /** Asks the peer to name everything anew. */
  again(): void {
    this.#isAgainDue = true;
    this.pump();
  }

  /** Names everything anew. */
  restart(keys: readonly EpochKey[]): void {
    this.#told.reset();
    this.#isWhole = false;
    this.#dirty = new Set();
    this.grown(keys);
    this.flush();
  }

  want(want: Want): void {
    this.#wants.push(want);
    this.pump();
  }

  /** @returns false when the channel is full or closed: the block was not sent, and the peer will ask for it. */
  push(block: Block): boolean {
    if (!this.#isWritable || this.#isOver) return false;
    this.#send({ type: 'push', block: wireBlock(block) });
    return true;
  }

  serve(want: Want): void {
    this.#asked.push(want);
    if (!this.#isServing) void this.#serveAll();
  }

  drained(): void {
    this.#isWritable = true;
    this.pump();
    if (this.#isWritable) this.#resume();
  }

  close(): void {
    this.#isOver = true;
    this.#resume();
  }

  /** Sends what is due for as long as the channel takes it. */
  pump(): void {
    while (this.#isWritable && !this.#isOver) {
      const frame = this.#next();
      if (frame === undefined) return;
      this.#send(frame);
    }
  }

  #send(frame: LedgerFrame): void {
    this.#isWritable = this.#channel.send(encodeLedgerFrame(frame));
  }

  #next(): LedgerFrame | undefined {
    if (this.#tokens.length > 0) return this.#nextTokens();
    const proof = this.#proofs.shift();
    if (proof !== undefined) return wireProof(proof);
    for (const [issuer, beat] of this.#beats) {
      this.#beats.delete(issuer);
      return beat;
    }
    if (this.#isAgainDue) {
      this.#isAgainDue = false;
      return { type: 'again' };
    }
    return this.#nextHave() ?? this.#nextTally() ?? this.#wants.shift();
  }

  #nextTokens(): LedgerFrame {
    let bytes = 0;
    const fitting = this.#tokens.findIndex(({ token }) => {
      bytes += token.length;
      return bytes > tokensFrameBytes;
    });
    const tokens = this.#tokens.splice(0, fitting === -1 ? this.#tokens.length : Math.max(fitting, 1));
    return { type: 'tokens', tokens };
  }

  #nextHave(): LedgerFrame | undefined {
    if (!this.#isHaveDue) return undefined;
    const heads: EpochHead[] = [];
    for (const key of this.#dirty) {
      this.#dirty.delete(key);
      const { author, epoch } = nameOf(key);
      const head = this.#deps.feeds.headOf(author, epoch);
      if (head === undefined || this.#isNoNews(key, head)) continue;
      heads.push(head);
      if (heads.length === haveItemsMax) break;
    }
    const wasWhole = this.#isWhole;
    this.#isWhole ||= this.#dirty.size === 0;
    this.#isHaveDue = this.#dirty.size > 0;
    const have = this.#told.frame(heads, this.#isWhole);
    const saysNothing = have.news.length === 0 && have.changes.length === 0 && wasWhole === this.#isWhole;
    return saysNothing ? this.#nextHave() : have;
  }

  /** Who holds as much or more learns nothing, except while it waits for all that there is. */
  #isNoNews(key: EpochKey, head: EpochHead): boolean {
    return !this.#insisted.delete(key) && this.#isWhole && this.#options.has(key) > head.number;
  }

  #nextTally(): LedgerFrame | undefined {
    if (!this.#isTallyDue) return undefined;
    this.#isTallyDue = false;
    return this.#told.tally();
  }

  async #serveAll(): Promise<void> {
    this.#isServing = true;
    try {
      for (let want = this.#asked[0]; want !== undefined && !this.#isOver; want = this.#asked[0]) {
        await this.#serve(want);
        this.#asked.shift();
      }
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.warn('ledger.not-served', { peer: this.#channel.connection.peer, code: error.code });
      this.#channel.abort(error);
    } finally {
      this.#isServing = false;
    }
  }

  async #serve(want: Want): Promise<void> {
    const frames = this.#answer(want, await this.#read(want));
    for (const [at, frame] of frames.entries()) {
      while (!this.#isWritable && !this.#isOver) {
        await new Promise<void>((resolve) => {
          this.#resume = resolve;
        });
      }
      if (this.#isOver) return;
      this.#send({ ...frame, isLast: at === frames.length - 1 });
    }
  }

  /** Nothing of a feed that the peer may not be told of. */
  #read({ author, epoch, from, maxBytes }: Want): Promise<readonly (Block | OpenBlock)[]> | [] {
    return this.#options.shows(author) ? this.#deps.feeds.read(author, epoch, from, maxBytes) : [];
  }

  #answer(want: Want, found: readonly (Block | OpenBlock)[]) {
    const whole: Block[] = [];
    for (const block of found) {
      const all = wholeOf(block);
      if (all === undefined || all.head.header.number !== want.from + whole.length) break;
      whole.push(all);
    }
    return this.#options.to === 'node'
      ? intoFrames(whole.map(wireOpenBlock)).map((blocks) => ({ type: 'open', isLast: false, blocks }) as const)
      : intoFrames(whole.map(wireBlock)).map((blocks) => ({ type: 'blocks', isLast: false, blocks }) as const);
  }
}
