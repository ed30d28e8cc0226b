/** The exchange with one peer on one channel: reads its frames, keeps it to the rules, hands on what is good. */

import { isSameBytes } from '../protocol/crypto.ts';
import { errorText, HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { Role } from '../protocol/grants.ts';
import type { AuthorId, MeshId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import {
  type Blocks,
  type HeartbeatFrame,
  type LedgerFrame,
  type OpenBlocks,
  parseLedgerFrame,
  type Want,
} from '../protocol/messages/ledger.ts';
import type { RootToken } from '../protocol/peer/roots.ts';
import type { Channel, Clock, Log } from '../protocol/ports.ts';
import { Allowance } from './allowance.ts';
import { type Block, type ForkProof, isFork, type OpenBlock } from './block.ts';
import type { Acceptance, Feeds } from './feeds.ts';
import { AskedWants } from './replicate-asked.ts';
import { Heard, type HeardEpoch } from './replicate-have.ts';
import { allOf, Jobs } from './replicate-jobs.ts';
import type { Outbox } from './replicate-outbox.ts';
import { Patience } from './replicate-patience.ts';
import type { Contradiction, Source, Wants } from './replicate-wants.ts';
import { type EpochKey, keyOf, nameOf, readBlock, readOpenBlock, readProof, shortHash } from './replicate-wire.ts';

/** What an exchange needs of the others. */
export interface ExchangeWorld {
  readonly meshId: MeshId;
  readonly feeds: Feeds;
  readonly wants: Wants;
  readonly clock: Clock;
  readonly log: Log;
  /** What this peer is. */
  readonly role: Role;
  /** Takes root tokens. @throws HelixFlowError TOKEN_INVALID */
  said(token: RootToken, from: Exchange): Promise<void>;
  /** @returns false when it is no heartbeat of an issuer. */
  beat(frame: HeartbeatFrame, from: Exchange): boolean;
  /** Whether blocks of this epoch are taken from the peer at all. */
  isWanted(key: EpochKey, from: Exchange): boolean;
  /** The peer told or gave something: others may be asked, recovery may be over. */
  progressed(): void;
  /** Names everything anew to the peer. */
  restart(exchange: Exchange): void;
}

/** Frames cost one unit, items in them a part, and what should not happen more. */
const work = { perSecond: 2_000, burst: 20_000 };
const itemUnits = 0.1;
/** A block whose author may not write here, or a peer that does not give what it has named. */
const mishapUnits = 500;
/** Two signatures to check. */
const proofUnits = 20;
/** Blocks that are checked in one turn: requests are served meanwhile. */
const checkedPerTurn = 32;
/** Naming everything anew is for states that got lost. */
const againMinMs = 10_000;
/** Jobs that wait behind storing; more pushes and heartbeats are passed over. */
const jobsMax = 64;

const violation = (reason: string): HelixFlowError => new HelixFlowError('PROTOCOL_VIOLATION', { reason });

export class Exchange implements Source {
  readonly heard: Heard;
  readonly todo = new Set<EpochKey>();
  readonly contradictions = new Map<EpochKey, Contradiction>();
  readonly role: Role;
  readonly outbox: Outbox;
  readonly channel: Channel;
  /** The newest block pushed of an epoch, and one. */
  readonly pushed = new Map<EpochKey, number>();
  /** As much of an epoch as comes with what was pushed to us and is being stored. */
  readonly #coming = new Map<EpochKey, number>();
  /** Time of the newest heartbeat of each issuer that the peer holds, as far as is known. */
  readonly beats = new Map<AuthorId, number>();
  heardMs: number;
  readonly #world: ExchangeWorld;
  readonly #allowance: Allowance;
  readonly #asked = new AskedWants();
  /** Epochs of which it gave nothing when it was asked; each of them it had named. */
  readonly #empty = new Set<EpochKey>();
  readonly #patience: Patience;
  #storingBytes = 0;
  /** One after the other, in the order of the frames: what the root said counts for the blocks behind it. */
  readonly #jobs: Jobs;
  /** What becomes of blocks that were handed over, in their order. */
  readonly #verdicts: Jobs;
  #restartedMs = Number.NEGATIVE_INFINITY;
  #isOver = false;

  constructor(channel: Channel, role: Role, outbox: (exchange: Exchange) => Outbox, world: ExchangeWorld) {
    this.channel = channel;
    this.role = role;
    this.heard = new Heard(role);
    this.#world = world;
    this.#allowance = new Allowance(world.clock, work);
    this.#patience = new Patience(world.clock, {
      isWaiting: () => this.#asked.size > 0,
      lost: () => {
        world.wants.released(this);
        world.progressed();
      },
      regained: () => world.progressed(),
    });
    const owner = { isOver: () => this.#isOver, failed: (error: HelixFlowError) => this.fail(error) };
    this.#jobs = new Jobs(owner);
    this.#verdicts = new Jobs(owner);
    this.heardMs = world.clock.nowMs();
    this.outbox = outbox(this);
  }

  get roomBytes(): number {
    if (this.#patience.isLost || this.#isOver) return 0;
    return limits.ledgerWindowBytes - this.#asked.bytes - this.#storingBytes;
  }

  ask(want: Want, contradiction?: Contradiction): void {
    this.#asked.add(want, contradiction);
    if (this.#asked.size === 1) this.#patience.next();
    this.outbox.want(want);
  }

  /** A frame came. @throws HelixFlowError for one that breaks the rules; the channel and connection end then. */
  frame(bytes: Uint8Array): void {
    if (this.#isOver) return;
    this.heardMs = this.#world.clock.nowMs();
    this.#spend(1);
    const frame = parseLedgerFrame(bytes);
    if (frame !== undefined) this.#read(frame, bytes.length);
  }

  #spend(units: number): void {
    if (!this.#allowance.take(units)) throw violation('more than a peer may ask and tell');
  }

  #read(frame: LedgerFrame, bytes: number): void {
    switch (frame.type) {
      case 'tokens':
        this.#tokens(frame.tokens);
        break;
      case 'have':
        this.#spend(itemUnits * (frame.news.length + frame.changes.length));
        if (frame.isStart) this.#forget();
        this.#heard(this.heard.take(frame));
        break;
      case 'want':
        this.#wanted(frame);
        break;
      case 'blocks':
      case 'open':
        this.#blocks(frame, bytes);
        break;
      case 'push':
        if (this.role !== 'gateway' || this.#world.role !== 'gateway') throw violation('a push that is not for nodes');
        this.#pushed(readBlock(frame.block));
        break;
      case 'proof': {
        const proof = readProof(frame);
        this.#spend(proofUnits);
        this.#jobs.add(() => this.#proof(proof));
        break;
      }
      case 'heartbeat':
        if (this.#jobs.size >= jobsMax) break;
        this.#jobs.add(() => {
          if (!this.#world.beat(frame, this)) throw violation('a heartbeat that nobody signed');
        });
        break;
      case 'tally':
        if (!this.heard.fits(frame)) this.#again();
        break;
      case 'again':
        this.#restart();
        break;
    }
  }

  /** What it had named counts no more. */
  #forget(): void {
    this.todo.clear();
    this.contradictions.clear();
  }

  /** Asks for what the peer has of this epoch, as far as is remembered of it, beyond what is held and what has come. */
  #lacks(key: EpochKey): void {
    const held = Math.max(this.#world.wants.held(key), this.#coming.get(key) ?? 0);
    if (this.heard.countOf(key) > held) this.todo.add(key);
  }

  async #proof(proof: ForkProof): Promise<void> {
    const { feeds, meshId } = this.#world;
    const { author, epoch, number } = proof.a.header;
    const known = feeds.proofs().find(({ a }) => a.header.author === author && a.header.epoch === epoch);
    if (known !== undefined && known.a.header.number <= number) return;
    // One that is not taken may still be about an author of whom nothing is held.
    if (!(await feeds.acceptProof(proof)) && !isFork(proof, meshId)) throw violation('a proof of nothing');
  }

  #tokens(tokens: readonly RootToken[]): void {
    this.#spend(tokens.length);
    if (this.#jobs.size >= jobsMax) throw violation('more tokens than the root signs');
    this.#jobs.add(async () => {
      for (const token of tokens) await this.#world.said(token, this);
    });
  }

  #again(): void {
    this.#world.log.info('ledger.again', { peer: this.channel.connection.peer });
    this.heard.isAwaitingStart = true;
    this.outbox.again();
  }

  #restart(): void {
    const nowMs = this.#world.clock.nowMs();
    if (nowMs - this.#restartedMs < againMinMs) throw violation('everything is asked for too often');
    this.#restartedMs = nowMs;
    this.#world.restart(this);
  }

  #heard(epochs: readonly HeardEpoch[]): void {
    const { wants, feeds } = this.#world;
    for (const { key, count, hash } of epochs) {
      const held = wants.held(key);
      if (count > held) {
        if (this.#world.isWanted(key, this)) this.#lacks(key);
      } else if (count === held) {
        const { author, epoch } = nameOf(key);
        const head = feeds.headOf(author, epoch);
        if (head !== undefined) this.#compare(key, count, isSameBytes(shortHash(head.head), hash));
      } else this.#compareEarlier(key, count, hash);
    }
    wants.fill(this);
    this.#world.progressed();
  }

  #compare(key: EpochKey, count: number, isSame: boolean): void {
    if (isSame || this.#world.feeds.isFrozen(nameOf(key).author)) return;
    // A node cannot show us the whole block, but it can ask us for ours, and prove the fork.
    if (this.role === 'node') this.outbox.insist(key);
    else this.contradictions.set(key, { low: 0, high: count - 1 });
  }

  /** What was given up may be taken now. */
  reconsider(): void {
    for (const { key, count } of this.heard.all()) {
      if (count <= this.#world.wants.held(key) || !this.#world.isWanted(key, this)) continue;
      this.heard.showed(key, count);
      this.todo.add(key);
    }
    this.#world.wants.fill(this);
  }

  #compareEarlier(key: EpochKey, count: number, hash: Uint8Array): void {
    if (this.#jobs.size >= jobsMax) return;
    this.#jobs.add(async () => {
      const header = await this.#world.feeds.headerAt({ ...nameOf(key), number: count - 1 });
      if (header === undefined) return;
      this.#compare(key, count, isSameBytes(shortHash(header), hash));
      this.#world.wants.fill(this);
    });
  }

  #wanted(want: Want): void {
    if (this.outbox.servedBytes + want.maxBytes > limits.ledgerWindowBytes) {
      throw violation('more is asked for than the window holds');
    }
    this.outbox.serve(want);
  }

  #blocks(frame: Blocks | OpenBlocks, bytes: number): void {
    if ((frame.type === 'open') !== (this.#world.role === 'node')) throw violation('blocks of the wrong form');
    const blocks = frame.type === 'open' ? frame.blocks.map(readOpenBlock) : frame.blocks.map(readBlock);
    const { isLast } = frame;
    const asked = this.#asked.answer(blocks, isLast, bytes);
    if (isLast && asked.next === asked.from) this.#gaveNothing(asked.key);
    this.#storingBytes += bytes;
    this.#patience.answered(isLast, bytes, asked.gotBytes);
    const { contradiction } = asked;
    if (contradiction === undefined) {
      this.#world.wants.came(asked.key, this, asked.next, isLast);
      this.#jobs.add(() => this.#handOver(blocks, asked.key, bytes));
    } else {
      this.#jobs.add(async () => {
        await this.#narrow(blocks[0], asked.key, contradiction);
        this.#stored(bytes);
      });
    }
    this.#world.wants.fill(this);
  }

  /** It may have pruned what it holds the end of; whoever names that again and again only wastes time. */
  #gaveNothing(key: EpochKey): void {
    if (this.#empty.has(key)) this.#spend(mishapUnits);
    this.#empty.add(key);
  }

  /** Without waiting for the disk: blocks that come while it syncs share its next sync. */
  async #handOver(blocks: readonly (Block | OpenBlock)[], key: EpochKey, bytes: number): Promise<void> {
    const { feeds, clock, wants } = this.#world;
    for (let at = 0; at < blocks.length && !this.#isOver; at += checkedPerTurn) {
      const part = blocks.slice(at, at + checkedPerTurn);
      const outcomes = allOf(part.map((block) => feeds.accept(block)));
      this.#verdicts.add(async () => {
        const settled = await outcomes;
        if (isHelixFlowError(settled)) throw settled;
        for (const [index, outcome] of settled.entries()) this.#judge(outcome, part[index] as Block | OpenBlock, key);
      });
      await clock.turn();
    }
    this.#verdicts.add(() => {
      wants.stored(key, this);
      this.#stored(bytes);
    });
  }

  #stored(bytes: number): void {
    this.#storingBytes -= bytes;
    this.#world.wants.fill(this);
    this.#world.progressed();
  }

  /** Halves what lies between the last block that both branches share and one that differs; the first proves the fork. */
  async #narrow(block: Block | OpenBlock | undefined, key: EpochKey, { low, high }: Contradiction): Promise<void> {
    const { feeds } = this.#world;
    const held = block && (await feeds.headerAt(block.head.header));
    if (block === undefined || held === undefined) return;
    const { number } = block.head.header;
    if (!isSameBytes(held.hash, block.head.hash)) {
      if (number > low) this.contradictions.set(key, { low, high: number });
      else this.#judge(await feeds.accept(block), block, key);
    } else if (number < high) this.contradictions.set(key, { low: number + 1, high });
  }

  #judge(outcome: Acceptance, block: Block | OpenBlock, key: EpochKey): void {
    const { number, author } = block.head.header;
    if (outcome === 'invalid')
      throw new HelixFlowError('BLOCK_INVALID', { author, number, reason: 'it does not check' });
    if (outcome === 'refused') this.#spend(mishapUnits);
    // What follows our newest block, but not on it, shows that the branches have parted.
    if (outcome === 'gap' && number > 0 && number === this.#world.wants.held(key))
      this.contradictions.set(key, { low: 0, high: number - 1 });
  }

  #pushed(block: Block): void {
    const { author, epoch, number } = block.head.header;
    const key = keyOf({ author, epoch });
    const count = number + 1;
    this.heard.showed(key, count);
    if (this.#world.wants.held(key) > number || !this.#world.isWanted(key, this)) return;
    if (this.#jobs.size >= jobsMax) {
      this.#lacks(key);
      return;
    }
    this.#coming.set(key, count);
    this.#jobs.add(async () => {
      const outcome = await this.#world.feeds.accept(block);
      if (this.#coming.get(key) === count) this.#coming.delete(key);
      this.#judge(outcome, block, key);
      if (outcome !== 'refused' && outcome !== 'frozen') this.#lacks(key);
      this.#world.wants.fill(this);
      this.#world.progressed();
    });
  }

  /** Ends it; a peer that broke the rules loses its connection, too. */
  fail(error: HelixFlowError): void {
    if (this.#isOver) return;
    const { connection } = this.channel;
    const isOurs = isHelixFlowError(error, 'STORE_FAILED') || isHelixFlowError(error, 'LEDGER_UNREADY');
    this.#world.log.warn('ledger.cut', {
      peer: connection.peer,
      code: error.code,
      reason: errorText(error.code, error.details),
    });
    this.channel.abort(isOurs ? error : violation('the ledger’s rules'));
    this.over();
    if (!isOurs) void connection.close();
  }

  /** The channel is gone. */
  over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#patience.close();
    this.outbox.close();
    this.#world.wants.released(this);
    this.#world.progressed();
  }
}
