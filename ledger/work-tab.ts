/** The tab of a node with one gateway: work that waits to be covered, the statements that cover it, the time they may take. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { EpochId, MeshId, PeerId, PriceId, ProcessId } from '../protocol/ids.ts';
import type { StatementFrame } from '../protocol/messages/tab.ts';
import type { Clock, Log, SigningKey, StoreOp } from '../protocol/ports.ts';
import { ms, type UnixMs } from '../protocol/units.ts';
import type { ForkProof } from './block.ts';
import { type CheckedStatement, checkStatement, type OwnWork, ownPromptTokens } from './check-statement.ts';
import { attemptName, type UsageLine } from './line.ts';
import { encodeUsage, signCountersign } from './statement.ts';
import type { OpenWork, WorkEnd, WorkLink, WorkStart, WorkStatus } from './work.ts';
import { TabChain } from './work-chain.ts';
import { TabChanges } from './work-changes.ts';
import { type ProvenStatement, proveStatement, violation } from './work-frame.ts';
import { TabWork } from './work-own.ts';
import { dueMs, pauseMs, toleranceTokens } from './work-patience.ts';
import type { GatewayRecord, KeptStatement, WorkRecord } from './work-rows.ts';
import { type SeenPiece, SeenWork } from './work-seen.ts';

/** How often running attempts are looked at. */
export const watchEveryMs = 1_000;
/** Work that was given up, and is covered all the same when its line comes late. */
const givenMax = 4_096;
/** Statements whose countersignature is on its way to the disk; others wait. */
const writingMax = 64;

/** Uncovered attempts of one gateway; it gets no more work above it. */
export const worksMax = 65_536;

/** What all tabs of a node share. */
export interface TabShared {
  readonly clock: Clock;
  readonly log: Log;
  readonly meshId: MeshId;
  readonly self: PeerId;
  readonly key: SigningKey;
  /** Work that began at a gateway before may have been forgotten by this process. */
  readonly forgottenMs: UnixMs;
  isPriceRight(line: UsageLine): boolean;
  isPriceHeld(id: PriceId): boolean;
  /** Something is to be written: at once, or soon. */
  changed(tab: WorkTab, isUrgent: boolean): void;
  forked(proof: ForkProof): void;
}

/** What a disk had of a tab. */
export interface TabRecords {
  readonly record: GatewayRecord | undefined;
  readonly works: readonly WorkRecord[];
  readonly kept: readonly KeptStatement[];
  readonly pieces: readonly SeenPiece[];
}

export class WorkTab {
  readonly gateway: PeerId;
  readonly links = new Set<WorkLink>();
  /** Everything that no statement covers, by name. */
  readonly works = new Map<string, TabWork>();
  /** Work that is waited for no more. */
  readonly #given = new Map<string, TabWork>();
  readonly #shared: TabShared;
  readonly #chain = new TabChain();
  readonly #seen = new SeenWork();
  readonly #changes: TabChanges;
  readonly #counts = { statements: 0, lines: 0, refused: 0, claimed: 0, shortTokens: 0, coveredTokens: 0 };
  #newest: { readonly epoch: EpochId; readonly number: number } | undefined;
  #run: ProcessId | undefined;
  #runSinceMs: number | undefined;
  #losses = 0;
  #lossMs = 0;
  /** Connected time before the present connection, and when that began on the clock. */
  #connectedMs = 0;
  #readyMs: number | undefined;
  /** Nothing is overdue before this moment of connected time. */
  #nextDueMs = 0;

  constructor(gateway: PeerId, shared: TabShared, { record, works, kept, pieces }: TabRecords) {
    this.gateway = gateway;
    this.#shared = shared;
    this.#changes = new TabChanges(gateway);
    this.#chain.load(record?.heads ?? [], kept);
    this.#seen.load(pieces);
    for (const work of works) this.works.set(attemptName(work), TabWork.load(work));
    if (record === undefined) return;
    const { statements, lines, refused, claimed, shortTokens, coveredTokens } = record;
    Object.assign(this.#counts, { statements, lines, refused, claimed, shortTokens, coveredTokens });
    this.#newest = this.#chain.newest();
    this.#run = record.run;
    this.#runSinceMs = record.runSinceMs;
    this.#losses = record.losses;
    this.#lossMs = record.lossMs;
    const sinceMs = Math.max(0, ...works.map((work) => Math.max(work.sinceMs, work.endedMs)));
    // The clock is written now and then only; it never runs behind what was.
    this.#connectedMs = Math.max(record.connectedMs, sinceMs);
  }

  /** Time with a link to the gateway, over all processes of this node. */
  get nowMs(): number {
    const sinceMs = this.#readyMs;
    return this.#connectedMs + (sinceMs === undefined ? 0 : this.#shared.clock.nowMs() - sinceMs);
  }

  get isIdle(): boolean {
    return this.works.size === 0 && this.links.size === 0;
  }

  ready(link: WorkLink): void {
    this.links.add(link);
    this.#readyMs ??= this.#shared.clock.nowMs();
    if (link.peerProcess !== undefined) this.#noteRun(link.peerProcess);
  }

  gone(link: WorkLink): void {
    if (!this.links.delete(link) || this.links.size > 0) return;
    this.#connectedMs = this.nowMs;
    this.#readyMs = undefined;
    this.#changed();
  }

  #noteRun(run: ProcessId): void {
    if (run === this.#run) return;
    if (this.#run !== undefined) this.#runSinceMs = this.nowMs;
    this.#run = run;
    this.#nextDueMs = 0;
    this.#changed();
  }

  #changed(isUrgent = false): void {
    this.#shared.changed(this, isUrgent);
  }

  /** @throws HelixFlowError PROTOCOL_VIOLATION where the gateway has used the attempt's name before. */
  begin(start: WorkStart): OpenWork {
    const name = attemptName(start);
    if (this.#workOf(start) !== undefined || this.#seen.has(start.run, start.serial)) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'the serial of an attempt is used twice' });
    }
    this.#noteRun(start.run);
    const work = TabWork.begin(start, this.#shared.clock.wallMs(), this.nowMs);
    this.works.set(name, work);
    return { end: (end) => this.#end(work, end) };
  }

  #end(work: TabWork, end: WorkEnd): void {
    if (work.end !== undefined) return;
    work.finish(end, this.nowMs);
    const { coveredBy } = work;
    if (coveredBy !== undefined) {
      // Its line came first, and could not be held against what the node has told of the prompt since.
      if (coveredBy.outcome !== 'cancelled') return;
      this.#counts.shortTokens += Math.max(0, ownPromptTokens(work) - coveredBy.promptTokens);
      return;
    }
    if (!this.works.has(attemptName(work))) return;
    if (work.isWorthless) this.works.delete(attemptName(work));
    else this.#changes.work(work);
    this.#changed();
  }

  /** Time passes: what is covered at this moment is as old as this moment. */
  watch(): void {
    const { nowMs } = this;
    for (const work of this.works.values()) if (work.end === undefined) work.watched(nowMs);
    this.#giveUp();
  }

  /** Work that has waited for too long. */
  overdue(): readonly TabWork[] {
    const { nowMs } = this;
    if (nowMs < this.#nextDueMs) return [];
    const overdue: TabWork[] = [];
    let nextMs = Number.POSITIVE_INFINITY;
    for (const work of this.works.values()) {
      const due = dueMs(work, this.#patience, nowMs);
      if (due !== undefined && due < nowMs) overdue.push(work);
      // What is covered by now becomes uncovered again with its next piece.
      nextMs = Math.min(nextMs, due ?? nowMs + watchEveryMs);
    }
    this.#nextDueMs = overdue.length > 0 ? nowMs : Math.min(nextMs, nowMs + watchEveryMs);
    return overdue;
  }

  get #patience() {
    return { run: this.#run, runSinceMs: this.#runSinceMs, losses: this.#losses, lossMs: this.#lossMs };
  }

  /** Gives up what has been overdue for long enough, and with it all that waits in the same way. */
  #giveUp(): void {
    const { nowMs } = this;
    const patience = this.#patience;
    const overdue = this.overdue();
    const ended = overdue.filter((work) => {
      const due = dueMs(work, patience, nowMs);
      return due !== undefined && nowMs >= due + pauseMs(work, patience, nowMs);
    });
    if (ended.length === 0) return;
    const isGone = ended.some(({ run }) => run !== this.#run);
    const given = isGone ? [...this.works.values()].filter(({ run }) => run !== this.#run) : overdue;
    if (given.some(({ isTold, isRefused }) => isRefused || !isTold)) {
      this.#losses += 1;
      this.#lossMs = nowMs;
    }
    this.#shared.log.warn('tab.given-up', { gateway: this.gateway, attempts: given.length, losses: this.#losses });
    for (const work of given) this.#giveUpOne(work);
    this.#changed();
  }

  #giveUpOne(work: TabWork): void {
    const name = attemptName(work);
    this.#remove(work);
    this.#given.set(name, work);
    const [oldest] = this.#given.keys();
    if (this.#given.size > givenMax && oldest !== undefined) this.#given.delete(oldest);
  }

  #workOf(line: Pick<UsageLine, 'run' | 'serial'>): TabWork | undefined {
    const name = attemptName(line);
    return this.works.get(name) ?? this.#given.get(name);
  }

  #remove(work: OwnWork): void {
    const name = attemptName(work);
    this.#given.delete(name);
    const own = this.works.get(name);
    if (own === undefined) return;
    this.works.delete(name);
    this.#changes.covered(own);
  }

  /** Work whose claims are yet to be sent, or to be sent again. */
  toClaim(timesMax: number): readonly TabWork[] {
    const given = [...this.#given.values()].filter((work) => work.claims === 0 && (work.isRefused || !work.isTold));
    return [...this.overdue().filter((work) => work.claims < timesMax), ...given];
  }

  /** Why the gateway gets no more work, in milliseconds of connected time; undefined when it does. */
  refusedMs(): number | undefined {
    if (this.works.size >= worksMax) return this.uncoveredMs();
    return this.overdue().length === 0 ? undefined : this.uncoveredMs();
  }

  /** Age of the oldest work that is not covered. */
  uncoveredMs(): number {
    const { nowMs } = this;
    let sinceMs = nowMs;
    for (const work of this.works.values()) {
      if (work.isRefused || !work.isTold) sinceMs = Math.min(sinceMs, work.sinceMs);
    }
    return Math.round(nowMs - sinceMs);
  }

  /** @throws HelixFlowError FRAME_MALFORMED, FRAME_TOO_LARGE, PROTOCOL_VIOLATION */
  prove(frame: StatementFrame): ProvenStatement {
    const proven = proveStatement(frame, this.gateway, this.#shared);
    const proof = this.#chain.forkWith(proven);
    if (proof === undefined) return proven;
    this.#shared.forked(proof);
    throw violation('its gateway has forked');
  }

  /** Whether a statement names a price that is not known here yet. */
  lacksPrice({ entry }: ProvenStatement): boolean {
    return [...entry.lines, ...entry.running].some(
      ({ price }) => price.id !== '' && !this.#shared.isPriceHeld(price.id),
    );
  }

  /** Says the node's word on a statement, once that is on disk. @throws HelixFlowError PROTOCOL_VIOLATION */
  take(proven: ProvenStatement, link: WorkLink): void {
    const place = this.#chain.placeOf(proven);
    if (place.kind === 'forgotten') return;
    if (place.kind === 'repeated') {
      this.#changes.answerAgain(place.kept, link);
      return;
    }
    // Other statements were countersigned in between, by a process of whose last records the disk knows nothing.
    if (place.kind === 'gap') for (const work of [...this.works.values()]) if (work.isOld) this.#remove(work);
    const checked = checkStatement(proven.entry, {
      workOf: (line) => this.#workOf(line),
      wasCovered: ({ run, serial }) => this.#seen.has(run, serial),
      mayBeForgotten: (startMs) => startMs < this.#shared.forgottenMs,
      isPriceRight: (line) => this.#shared.isPriceRight(line),
      toleranceTokens: toleranceTokens(this.#counts.shortTokens, this.#counts.coveredTokens),
    });
    this.#apply(checked);
    this.#counts.statements += 1;
    this.#counts.lines += proven.entry.lines.length;
    this.#sign(proven, checked, link);
  }

  #apply({ refused, covered, disputed, seen, told }: CheckedStatement): void {
    const { nowMs } = this;
    for (const { work, completionTokens } of told) {
      const own = this.#workOf(work);
      own?.told(completionTokens, nowMs);
      if (own !== undefined) this.#keepRow(own);
    }
    for (const { run, serial } of seen) this.#seen.add(run, serial);
    for (const { work, line, shortTokens } of covered) {
      const own = this.#workOf(work);
      if (own !== undefined) own.coveredBy = line;
      this.#remove(work);
      this.#counts.shortTokens += shortTokens;
      this.#counts.coveredTokens += line.promptTokens + line.completionTokens;
    }
    for (const { work, reason } of disputed) {
      const own = this.#workOf(work);
      if (own === undefined) continue;
      own.refused = reason;
      this.#keepRow(own);
    }
    this.#counts.refused += refused.length;
    this.#nextDueMs = 0;
  }

  #sign(proven: ProvenStatement, { refused }: CheckedStatement, link: WorkLink): void {
    const { meshId, self, key, clock, log } = this.#shared;
    const { epoch } = proven.head.header;
    const { number } = proven.entry;
    const word = { kind: 'countersign', node: self, epoch, number, statement: proven.hash } as const;
    const signed = signCountersign(
      { ...word, refused, timeMs: clock.wallMs() },
      { meshId, gateway: this.gateway },
      key,
    );
    for (const gone of this.#chain.keep(proven, encodeUsage(signed))) this.#changes.forgotten(gone);
    const kept = this.#chain.keptAt(word);
    if (kept !== undefined) this.#changes.countersigned(kept, link);
    this.#newest = { epoch, number };
    for (const { index, reason } of refused) {
      const line = proven.entry.lines[index];
      log.warn('tab.refused', { gateway: this.gateway, attempt: line && attemptName(line), reason });
    }
    this.#changed(true);
  }

  /** Claims were signed for these attempts, which are claimed for the first time where they were not before. */
  claimed(works: readonly TabWork[]): void {
    for (const work of works) {
      if (work.claims === 0) this.#counts.claimed += 1;
      work.claims += 1;
      this.#keepRow(work);
    }
    this.#changed();
  }

  #keepRow(work: TabWork): void {
    if (work.end !== undefined && this.works.has(attemptName(work))) this.#changes.work(work);
  }

  /** So many countersignatures wait for the disk that no further statement is taken. */
  get isWriting(): boolean {
    return this.#changes.waiting >= writingMax;
  }

  /** What the disk lacks; `done` is called once it is there. */
  takeChanges(): { readonly ops: readonly StoreOp[]; done(): void } {
    return this.#changes.take(this.#record(), this.#seen.takeChanges());
  }

  #record(): GatewayRecord {
    const { shortTokens, coveredTokens, statements, lines, refused, claimed } = this.#counts;
    return {
      gateway: this.gateway,
      connectedMs: this.nowMs,
      run: this.#run,
      runSinceMs: this.#runSinceMs,
      losses: this.#losses,
      lossMs: this.#lossMs,
      shortTokens,
      coveredTokens,
      statements,
      lines,
      refused,
      claimed,
      heads: this.#chain.heads(),
    };
  }

  status(): WorkStatus {
    const { statements, lines, refused, claimed } = this.#counts;
    let running = 0;
    for (const work of this.works.values()) if (work.end === undefined) running += 1;
    return {
      gateway: this.gateway,
      running,
      uncovered: this.works.size - running,
      uncoveredMs: ms(this.uncoveredMs()),
      statements,
      lines,
      refused,
      claimed,
      ...(this.#newest === undefined ? {} : { newest: { epoch: this.#newest.epoch, number: this.#newest.number } }),
    };
  }
}
