/** All tabs of one gateway process: lines become durable, then statements of its feed, then are sent and countersigned. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, EpochId, MeshId, PeerId, ProcessId } from '../protocol/ids.ts';
import { assert } from '../protocol/invariant.ts';
import { limits } from '../protocol/limits.ts';
import type { ClaimFrame, CountersignFrame } from '../protocol/messages/tab.ts';
import type { Cancel, Clock, Log, Store } from '../protocol/ports.ts';
import { type Ms, ms } from '../protocol/units.ts';
import type { Block, OpenBlock } from './block.ts';
import type { Entry } from './entry.ts';
import type { EntryPlace, HeldEntry } from './feeds.ts';
import type { Draft, PendingLine, Tab, TabOwner } from './gateway-tab.ts';
import { TabBook } from './gateway-tab-book.ts';
import { Claims } from './gateway-tab-claims.ts';
import { Past } from './gateway-tab-past.ts';
import { type ProvenBlock, proveBlock } from './gateway-tab-sender.ts';
import type { Ledger } from './ledger.ts';
import type { UsageLine } from './line.ts';
import { LineLog } from './line-log.ts';
import { type ClaimEntry, type CountersignEntry, parseUsage, type StatementEntry } from './statement.ts';
import type { AttemptStart, GatewayTabs, OpenLine, TabEvents, TabLink, TabStatus } from './tabs.ts';

export interface GatewayTabsPorts {
  readonly clock: Clock;
  readonly store: Store;
  readonly log: Log;
  readonly ledger: Pick<Ledger, 'append' | 'heads' | 'onEntry' | 'onBlock' | 'own' | 'read' | 'status'>;
}

export interface GatewayTabsOptions {
  readonly meshId: MeshId;
  readonly self: PeerId;
  /** Names this process in its lines; never used before. */
  readonly run: ProcessId;
}

/** Lines that may wait for the disk, and for a statement, before no new work is taken. */
const writingMax = 16_384;
const unstatedMax = 65_536;
/** Countersignatures and claims that wait to be written, and as many as go into one round. */
const wordsMax = 1_024;
const wordsPerRoundMax = 256;
const roundBytesMax = limits.ledgerWindowBytes / 2;
const retryLeastMs = 1_000;
const retryMostMs = 30_000;

type StoreFailed = HelixFlowError<'STORE_FAILED'>;
type Durable = (error?: StoreFailed) => void;

class Tabs implements GatewayTabs, TabOwner {
  readonly run: ProcessId;
  readonly #ports: GatewayTabsPorts;
  readonly #events: TabEvents;
  readonly #log: LineLog;
  readonly #claims: Claims;
  readonly #author: AuthorId;
  readonly #tabs: TabBook;
  readonly #past = new Past();
  #words: (CountersignEntry | ClaimEntry)[] = [];
  /** Blocks of the own feed that came while a round was being written. */
  readonly #blocks = new Map<string, Block>();
  #serial = 0;
  #unstated = 0;
  #writing = 0;
  #failure: StoreFailed | undefined;
  #state: 'new' | 'open' | 'closed' = 'new';
  #maySign = false;
  /** An epoch of this process that it writes no more. */
  #ended: EpochId | undefined;
  #isDue = false;
  /** Something became full while a round was being put together or written. */
  #isAsked = false;
  #isWriting = false;
  #round: Promise<void> | undefined;
  #retryMs = retryLeastMs;
  #notBeforeMs = 0;
  #cancelTick: Cancel | undefined;
  readonly #cancels: readonly Cancel[];

  constructor(ports: GatewayTabsPorts, { meshId, self, run }: GatewayTabsOptions, events: TabEvents) {
    const { ledger, clock, log } = ports;
    const author = ledger.own()?.author;
    assert(author !== undefined, 'a gateway has a feed of its own');
    this.run = run;
    this.#ports = ports;
    this.#events = events;
    this.#author = author;
    this.#log = new LineLog(ports, run);
    this.#claims = new Claims(meshId);
    const mayAsk = (): boolean => this.#words.length < wordsMax;
    this.#tabs = new TabBook(this, { clock, log, ledger, author, signed: { meshId, gateway: self }, mayAsk });
    this.#cancels = [ledger.onEntry((held) => this.#entry(held)), ledger.onBlock((block) => this.#block(block))];
  }

  async open(): Promise<void> {
    const { log } = this.#ports;
    const { lines, damaged } = await this.#log.open();
    if (damaged > 0) log.error('lines.damaged', { rows: damaged });
    for (const { node, line, row } of lines) {
      if (this.#past.isStated(line)) {
        this.#log.stated(row);
        continue;
      }
      const pending = { line, row, isStated: false };
      this.#past.leave(pending);
      this.#tabs.of(node).tab.lines.push(pending);
      this.#unstated += 1;
    }
    const hasUnheard = this.#past.hasUnheard(this.#ports.ledger, this.#author);
    this.#past.read(hasUnheard);
    this.#tabs.dropIdle();
    this.#state = 'open';
    this.#log.sweep();
    if (this.#unstated > 0) log.info('lines.left', { lines: this.#unstated });
    if (this.#unstated > 0 || hasUnheard) this.#ask(true);
  }

  now(): Ms {
    return this.#ports.clock.nowMs();
  }

  refusal(): HelixFlowError<'USAGE_UNRECORDED'> | undefined {
    const isFull = this.#writing >= writingMax || this.#unstated >= unstatedMax;
    const isRefused = isFull || this.#state !== 'open' || this.#failure !== undefined;
    return isRefused || this.#log.failure !== undefined ? new HelixFlowError('USAGE_UNRECORDED', {}) : undefined;
  }

  begin(start: AttemptStart): OpenLine {
    this.#serial += 1;
    const place = { serial: this.#serial, startMs: this.#ports.clock.wallMs() };
    const attempt = this.#tabs.of(start.node).tab.begin(start, place);
    this.#arm();
    return attempt;
  }

  ended(tab: Tab, line: UsageLine, durable: Durable): void {
    this.#writing += 1;
    this.#log.write(tab.node, line, (row) => {
      this.#writing -= 1;
      tab.writing -= 1;
      if (isHelixFlowError(row)) {
        this.#failed(row);
        durable(row);
        return;
      }
      this.#unstated += 1;
      tab.lines.push({ line, row, isStated: false });
      if (tab.isFull) this.#ask(false);
      else this.#arm();
      durable();
    });
  }

  #failed(error: StoreFailed): void {
    if (this.#failure === undefined) this.#ports.log.error('lines.unwritable', { reason: error.details.reason });
    this.#failure ??= error;
  }

  #markStated(pending: PendingLine): void {
    if (pending.isStated) return;
    pending.isStated = true;
    this.#unstated -= 1;
    this.#log.stated(pending.row);
    this.#past.done(pending);
  }

  #entry({ entry, place }: HeldEntry): void {
    if (entry.kind === 'claim') this.#claims.known(entry);
    if (place.author !== this.#author) return;
    const isOurs = place.epoch === this.#ports.ledger.own()?.epoch;
    // What follows a fork is told again; it ends the epoch that this process writes.
    if (place.isAfterFork && isOurs) this.#endEpoch();
    if (isOurs || (place.isAfterFork && this.#past.isRead)) return;
    if (entry.kind === 'statement') this.#found(entry, place);
    else if (entry.kind === 'countersign') this.#tabs.of(entry.node).sender.foundAnswer(entry.epoch, entry.number);
  }

  /** The feed goes on in another epoch, where the chains of tabs begin anew. */
  #endEpoch(): void {
    this.#ended = this.#ports.ledger.own()?.epoch;
    this.#tabs.beginEpoch();
  }

  /** An earlier process stated this; it was on disk, or others gave it back. */
  #found(entry: StatementEntry, place: EntryPlace): void {
    const { tab, sender } = this.#tabs.of(entry.node);
    this.#past.found(place, entry.lines);
    sender.found(place, entry.number);
    for (const line of entry.lines) {
      const pending = this.#past.stated(line);
      if (pending !== undefined) this.#markStated(pending);
    }
    tab.prune();
    this.#log.sweep();
  }

  #block(block: Block | OpenBlock): void {
    const { author, epoch, number } = block.head.header;
    if (!this.#isWriting || author !== this.#author || !('entries' in block)) return;
    this.#blocks.set(`${epoch}/${number}`, block);
  }

  ready(link: TabLink): void {
    this.#tabs.of(link.peer).sender.ready(link);
    this.#arm();
  }

  gone(link: TabLink): void {
    this.#tabs.gone(link);
  }

  received(node: PeerId, frame: CountersignFrame | ClaimFrame): void {
    const entry = parseUsage(frame.entry);
    if (entry.kind === 'claim' && frame.type === 'claim') this.#claimed(node, entry);
    else if (entry.kind === 'countersign' && frame.type === 'countersign') this.#countersigned(node, entry);
    else throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: `${frame.type}: holds something else` });
  }

  #claimed(node: PeerId, entry: ClaimEntry): void {
    if (this.#words.length >= wordsMax || !this.#claims.take(node, entry, this.now())) return;
    this.#words.push(entry);
    this.#events.claimed?.(node, entry.gateway, entry.attempts.length);
    this.#arm();
  }

  #countersigned(node: PeerId, entry: CountersignEntry): void {
    if (entry.node !== node) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'countersign: of another node' });
    }
    const { tab, sender } = this.#tabs.of(node);
    if (!sender.answered(entry)) return;
    this.#words.push(entry);
    if (entry.epoch === this.#ports.ledger.own()?.epoch) tab.countersigned(entry.number);
    if (entry.refused.length > 0) {
      tab.refused += entry.refused.length;
      this.#events.refused?.(node, entry.refused);
    }
    sender.pump();
    if (this.#words.length >= wordsPerRoundMax) this.#ask(false);
    else this.#arm();
  }

  status(): readonly TabStatus[] {
    return this.#tabs.status();
  }

  /** Something is there to be told: within a second it is. */
  #arm(): void {
    if (this.#cancelTick !== undefined || this.#state !== 'open') return;
    this.#cancelTick = this.#ports.clock.timer(ms(limits.statementEveryMs), () => this.#tick());
  }

  #tick(): void {
    this.#cancelTick = undefined;
    for (const { sender } of this.#tabs.all()) sender.tick();
    if (this.#hasNews()) this.#ask(true);
    this.#armIfBusy();
  }

  #armIfBusy(): void {
    const hasFailed = this.#log.failure !== undefined || this.#failure !== undefined;
    if (!hasFailed && (this.#hasNews() || this.#tabs.isBehind)) this.#arm();
  }

  #hasNews(): boolean {
    return this.#unstated > 0 || this.#words.length > 0 || this.#tabs.hasRunning;
  }

  /** @param isDue Tells all there is; else only statements that are full. */
  #ask(isDue: boolean): void {
    this.#isDue ||= isDue;
    this.#isAsked = true;
    if (this.#round !== undefined || this.#failure !== undefined || this.now() < this.#notBeforeMs) return;
    if (this.#state !== 'open') return;
    this.#round = this.#work().finally(() => {
      this.#round = undefined;
      this.#armIfBusy();
    });
  }

  /** Writes until there is nothing more to say for now. */
  async #work(): Promise<void> {
    try {
      // Until others have had their time to tell what this process stated before, nothing is stated again.
      if (!this.#maySign) {
        await this.#ports.ledger.append('gateway', []);
        for await (const { node, line } of this.#past.unheard(this.#ports.ledger, this.#author)) {
          this.#tabs.of(node).tab.writing += 1;
          this.ended(this.#tabs.of(node).tab, line, () => {});
        }
      }
      this.#maySign = true;
      do this.#isAsked = false;
      while ((await this.#write()) || this.#isAsked);
      this.#retryMs = retryLeastMs;
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      this.#rejected(error);
    }
  }

  #rejected(error: HelixFlowError): void {
    if (isHelixFlowError(error, 'STORE_FAILED')) {
      this.#failed(error);
      return;
    }
    this.#ports.log.warn('statements.waiting', { code: error.code });
    // The root lets a feed go on that has forked only in another epoch.
    if (error.code === 'FEED_FROZEN') this.#endEpoch();
    this.#isDue = true;
    this.#notBeforeMs = this.now() + this.#retryMs;
    this.#retryMs = Math.min(2 * this.#retryMs, retryMostMs);
  }

  /** @returns false when there was nothing to write. */
  async #write(): Promise<boolean> {
    const isDue = this.#isDue;
    this.#isDue = false;
    const drafts = this.#drafts(isDue);
    const words = this.#words.slice(0, wordsPerRoundMax);
    if (drafts.length === 0 && (words.length === 0 || !(isDue || words.length === wordsPerRoundMax))) return false;
    const entries: Entry[] = [...drafts.map(({ entry }) => entry), ...words];
    const places = await this.#append(entries);
    this.#words.splice(0, words.length);
    const proven = new Map<number, ProvenBlock>();
    for (const [at, draft] of drafts.entries()) this.#written(draft, places[at], proven);
    for (const tab of new Set(drafts.map((draft) => draft.tab))) {
      tab.prune();
      this.#tabs.of(tab.node).sender.pump();
    }
    this.#log.sweep();
    this.#blocks.clear();
    return true;
  }

  async #append(entries: readonly Entry[]): Promise<readonly EntryPlace[]> {
    this.#blocks.clear();
    this.#isWriting = true;
    try {
      return await this.#ports.ledger.append('gateway', entries);
    } finally {
      this.#isWriting = false;
    }
  }

  #drafts(isDue: boolean): readonly Draft[] {
    const drafts: Draft[] = [];
    let bytes = 0;
    for (const { tab, sender } of this.#tabs.all()) {
      if (!isDue && !tab.isFull) continue;
      const statementsMax = tab.statementsMax(sender.isConnected && this.#state === 'open');
      const more = tab.drafts({ isDue, statementsMax, bytesMax: roundBytesMax - bytes });
      drafts.push(...more);
      bytes += more.reduce((sum, draft) => sum + draft.bytes, 0);
      if (bytes < roundBytesMax) continue;
      this.#isDue ||= isDue;
      break;
    }
    return drafts;
  }

  #written(draft: Draft, place: EntryPlace | undefined, proven: Map<number, ProvenBlock>): void {
    assert(place !== undefined, 'each entry has a place');
    draft.tab.settled(draft);
    if (place.epoch === this.#ended) draft.tab.beginEpoch();
    for (const pending of draft.lines) this.#markStated(pending);
    const { number } = place;
    const block = this.#blocks.get(`${place.epoch}/${number}`);
    assert(block !== undefined, 'a block is told before what appended it goes on');
    const found = proven.get(number) ?? proveBlock(block);
    proven.set(number, found);
    this.#tabs.of(draft.tab.node).sender.wrote(place, draft.entry.number, found);
  }

  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#cancelTick?.();
    await this.#log.settled();
    if (this.#ports.ledger.status().writing === 'ready' && this.#failure === undefined) {
      await this.#round;
      this.#isDue = true;
      await this.#work();
    }
    await this.#log.settled();
    for (const cancel of this.#cancels) cancel();
  }
}

/** Makes the tabs of one gateway process; make them before `Ledger.open`, which tells what they were. */
export const createGatewayTabs = (
  ports: GatewayTabsPorts,
  options: GatewayTabsOptions,
  events: TabEvents = {},
): GatewayTabs => new Tabs(ports, options, events);
