/** The tab of a node with one gateway: work that waits to be covered, the statements that cover it, the time they may take. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { EpochId, MeshId, PeerId, PriceId, ProcessId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { StatementFrame } from '../protocol/messages/tab.ts';
import type { Clock, Log, SigningKey, StoreOp } from '../protocol/ports.ts';
import { ms, type UnixMs } from '../protocol/units.ts';
import { Allowance } from './allowance.ts';
import type { ForkProof } from './block.ts';
import { type CheckedStatement, checkStatement, ownPromptTokens } from './check-statement.ts';
import { attemptName, type UsageLine } from './line.ts';
import { encodeUsage, signCountersign } from './statement.ts';
import type { OpenWork, WorkEnd, WorkLink, WorkStart, WorkStatus } from './work.ts';
import { TabChain } from './work-chain.ts';
import { TabChanges } from './work-changes.ts';
import { type ProvenStatement, proveStatement, violation } from './work-frame.ts';
import { TabWork } from './work-own.ts';
import { toleranceTokens } from './work-patience.ts';
import type { GatewayRecord, KeptStatement, WorkRecord } from './work-rows.ts';
import { type SeenPiece, SeenWork } from './work-seen.ts';
import { WaitingWorks } from './work-waiting.ts';

/** Statements whose countersignature is on its way to the disk; others wait. */
const writingMax = 64;

/** Statements of one gateway that are looked at, 0.3 ms each: far more than there are where each holds what it may. */
export const statementPace = { perSecond: 500, burst: 4_000 };

/** While work is uncovered for longer, its age is noted so often. */
const noteEveryMs = 2_000;

/** Uncovered attempts of one gateway; it gets no more work above it. */
export const worksMax = 65_536;

/** Processes of one gateway whose first attempt is remembered. */
const runsMax = 64;

/** What all tabs of a node share. */
export interface TabShared {
  readonly clock: Clock;
  readonly log: Log;
  readonly meshId: MeshId;
  readonly self: PeerId;
  readonly key: SigningKey;
  /** Work that began by then may have been done, and forgotten, by a process before this one. */
  readonly forgottenMs: UnixMs;
  /** There was one. */
  readonly hasForgotten: boolean;
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
  readonly waiting: WaitingWorks;
  readonly #pace: Allowance;
  readonly #links = new Set<WorkLink>();
  readonly #shared: TabShared;
  readonly #chain = new TabChain();
  readonly #seen = new SeenWork();
  readonly #changes: TabChanges;
  readonly #counts = {
    statements: 0,
    lines: 0,
    refused: 0,
    claimed: 0,
    windowTokens: 0,
    shortTokens: 0,
    coveredTokens: 0,
  };
  /** The present window of time, and the tokens of work that ended in it. */
  #window = { at: 0, tokens: 0 };
  /** Of each process of the gateway, the first attempt that came to this process. */
  readonly #firsts = new Map<ProcessId, number>();
  #newest: { readonly epoch: EpochId; readonly number: number } | undefined;
  /** Connected time, up to a moment of the clock. */
  #connectedMs = 0;
  #observedMs: number;
  /** What of it the disk knows. */
  #notedMs = 0;
  constructor(gateway: PeerId, shared: TabShared, { record, works, kept, pieces }: TabRecords) {
    this.gateway = gateway;
    this.#shared = shared;
    this.#observedMs = shared.clock.nowMs();
    this.#pace = new Allowance(shared.clock, statementPace);
    this.#changes = new TabChanges(gateway);
    this.#chain.load(record?.heads ?? [], kept);
    this.#seen.load(pieces);
    this.waiting = new WaitingWorks({ gateway, log: shared.log, changes: this.#changes });
    if (record === undefined) return;
    this.waiting.load(works.map(TabWork.load), record);
    const { statements, lines, refused, claimed, windowTokens, shortTokens, coveredTokens } = record;
    Object.assign(this.#counts, { statements, lines, refused, claimed, windowTokens, shortTokens, coveredTokens });
    this.#newest = this.#chain.newest();
    const sinceMs = Math.max(0, ...works.map((work) => Math.max(work.sinceMs, work.endedMs)));
    // The clock is written now and then only; it never runs behind what was.
    this.#connectedMs = Math.max(record.connectedMs, sinceMs);
  }

  /** Time with a link to the gateway on which it answers, over all processes of this node. */
  get nowMs(): number {
    const clockMs = this.#shared.clock.nowMs();
    const isLive = ({ isResponsive = true, isStale = false }: WorkLink): boolean => isResponsive && !isStale;
    if ([...this.#links].some(isLive)) this.#connectedMs += clockMs - this.#observedMs;
    this.#observedMs = clockMs;
    return this.#connectedMs;
  }

  ready(link: WorkLink): void {
    const { nowMs } = this;
    this.#links.add(link);
    this.#connectedMs = nowMs;
    if (link.peerProcess !== undefined) this.#noteRun(link.peerProcess);
  }

  gone(link: WorkLink): void {
    this.#connectedMs = this.nowMs;
    this.#links.delete(link);
    this.#changed();
  }

  #noteRun(run: ProcessId): void {
    if (this.waiting.noteRun(run, this.nowMs)) this.#changed();
  }

  #changed(isUrgent = false): void {
    this.#shared.changed(this, isUrgent);
  }

  /** @throws HelixFlowError PROTOCOL_VIOLATION where the gateway has used the attempt's name before. */
  begin(start: WorkStart): OpenWork {
    if (this.waiting.find(start) !== undefined || this.#seen.has(start.run, start.serial)) {
      throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'the serial of an attempt is used twice' });
    }
    this.#noteRun(start.run);
    this.#noteFirst(start);
    const work = TabWork.begin(start, this.#shared.clock.wallMs(), this.nowMs);
    this.waiting.add(work);
    return { end: (end) => this.#end(work, end) };
  }

  #noteFirst({ run, serial }: WorkStart): void {
    if (this.#firsts.has(run)) return;
    this.#firsts.set(run, serial);
    const [oldest] = this.#firsts.keys();
    if (this.#firsts.size > runsMax && oldest !== undefined) this.#firsts.delete(oldest);
  }

  #end(work: TabWork, end: WorkEnd): void {
    if (work.end !== undefined) return;
    work.finish(end, this.nowMs);
    this.#did(work.tokens + ownPromptTokens(work));
    const { coveredBy } = work;
    if (coveredBy !== undefined) {
      // Its line came first, and could not be held against what the node has told of the prompt since.
      if (coveredBy.outcome !== 'cancelled') return;
      this.#counts.shortTokens += Math.max(0, ownPromptTokens(work) - coveredBy.promptTokens);
      return;
    }
    // Its line may charge a guess of the prompt.
    if (work.isWorthless) this.waiting.waitNoMore(work);
    else this.waiting.changed(work);
    this.#changed();
  }

  #did(tokens: number): void {
    const at = Math.floor(this.nowMs / limits.uncoveredMaxMs);
    this.#window = { at, tokens: tokens + (at === this.#window.at ? this.#window.tokens : 0) };
    this.#counts.windowTokens = Math.max(this.#counts.windowTokens, this.#window.tokens);
  }

  /** Time passes. */
  watch(): void {
    const { nowMs } = this;
    this.waiting.watch(nowMs);
    const isLate = this.waiting.uncoveredMs(nowMs) >= noteEveryMs;
    if (isLate && nowMs >= this.#notedMs + noteEveryMs) this.#changed();
  }

  /** Why the gateway gets no more work, in milliseconds of connected time; undefined when it does. */
  refusedMs(): number | undefined {
    const { nowMs } = this;
    const isRefused = this.waiting.size >= worksMax || this.waiting.isOverdue(nowMs);
    return isRefused ? this.waiting.uncoveredMs(nowMs) : undefined;
  }

  /** One more statement may be looked at. */
  mayProve(): boolean {
    return this.#pace.take(1);
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
    if (place.kind === 'gap') this.waiting.removeOld();
    const checked = checkStatement(proven.entry, {
      workOf: (line) => this.waiting.find(line),
      wasCovered: ({ run, serial }) => this.#seen.has(run, serial),
      mayBeForgotten: (line) => this.#mayBeForgotten(line),
      isPriceRight: (line) => this.#shared.isPriceRight(line),
      toleranceTokens: toleranceTokens(this.#counts) + this.#runningTokens(proven.entry.lines),
    });
    this.#apply(checked);
    this.#counts.statements += 1;
    this.#counts.lines += proven.entry.lines.length;
    this.#sign(proven, checked, link);
  }

  /** A gateway's clock may be wrong, its serials are not: what it opened before the first one that came here was for an earlier process. */
  #mayBeForgotten({ run, serial, startMs }: Pick<UsageLine, 'run' | 'serial' | 'startMs'>): boolean {
    const { forgottenMs, hasForgotten } = this.#shared;
    return startMs <= forgottenMs || (hasForgotten && serial < (this.#firsts.get(run) ?? Number.POSITIVE_INFINITY));
  }

  /** Of work that has ended at the gateway and not yet here. */
  #runningTokens(lines: readonly UsageLine[]): number {
    const works = lines.flatMap((line) => this.waiting.find(line) ?? []);
    return works.reduce((sum, { end, tokens }) => sum + (end === undefined ? tokens : 0), 0);
  }

  #apply({ refused, covered, disputed, seen, told }: CheckedStatement): void {
    const { nowMs } = this;
    for (const { work, completionTokens } of told) {
      const own = this.waiting.find(work);
      own?.told(completionTokens, nowMs);
      if (own !== undefined) this.waiting.changed(own);
    }
    for (const { run, serial } of seen) this.#seen.add(run, serial);
    for (const { work, line, shortTokens } of covered) {
      const own = this.waiting.find(work);
      if (own !== undefined) {
        own.coveredBy = line;
        this.waiting.remove(own);
      }
      this.#counts.shortTokens += shortTokens;
      this.#counts.coveredTokens += line.promptTokens + line.completionTokens;
    }
    for (const { work, reason } of disputed) {
      const own = this.waiting.find(work);
      if (own === undefined) continue;
      own.refused = reason;
      this.waiting.changed(own);
    }
    this.#counts.refused += refused.length;
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
      this.waiting.changed(work);
    }
    this.#changed();
  }

  /** So many countersignatures wait for the disk that no further statement is taken. */
  get isWriting(): boolean {
    return this.#changes.waiting >= writingMax;
  }

  /** Countersignatures wait for the disk. */
  get hasUnsent(): boolean {
    return this.#changes.waiting > 0;
  }

  /** What the disk lacks; `done` is called once it is there. */
  takeChanges(): { readonly ops: readonly StoreOp[]; done(): void } {
    this.#notedMs = this.nowMs;
    return this.#changes.take(this.#record(), this.#seen.takeChanges());
  }

  #record(): GatewayRecord {
    return {
      gateway: this.gateway,
      connectedMs: this.nowMs,
      ...this.waiting.patience,
      ...this.#counts,
      heads: this.#chain.heads(),
    };
  }

  status(): WorkStatus {
    const { statements, lines, refused, claimed } = this.#counts;
    const running = this.waiting.running();
    return {
      gateway: this.gateway,
      running,
      uncovered: this.waiting.size - running,
      uncoveredMs: ms(this.waiting.uncoveredMs(this.nowMs)),
      statements,
      lines,
      refused,
      claimed,
      ...(this.#newest === undefined ? {} : { newest: { epoch: this.#newest.epoch, number: this.#newest.number } }),
    };
  }
}
