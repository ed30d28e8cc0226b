/** One tab of a gateway: attempts that run at a node, lines that no statement holds yet, and the chain of its statements. */

import type { HelixFlowError } from '../protocol/errors.ts';
import type { PeerId, ProcessId } from '../protocol/ids.ts';
import { assert } from '../protocol/invariant.ts';
import { limits } from '../protocol/limits.ts';
import { type Ms, ms, type UnixMs } from '../protocol/units.ts';
import { encodeEntry } from './entry.ts';
import { LineSize } from './gateway-tab-size.ts';
import { durationMaxMs, lineTokensMax, type UsageLine } from './line.ts';
import type { LogRow } from './line-log.ts';
import {
  addTotals,
  noTotals,
  type Progress,
  type StatementEntry,
  statementHash,
  statementMaxBytes,
  type TabTotals,
} from './statement.ts';
import { progressMax } from './statement-rows.ts';
import type { AttemptEnd, AttemptStart, OpenLine } from './tabs.ts';

/** Attempts that end before this age are told by their line alone. */
const runningAfterMs = 1_000;
/** Of those, told for the first time in one statement. */
const runningMax = 256;
/** Everything in a statement but its rows and tables. */
const headBytes = 256;
/** No more lines than these wait for a node that countersigns nothing. */
const linesPressureMax = 4_096;

/** Whoever writes lines down. */
export interface TabOwner {
  readonly run: ProcessId;
  now(): Ms;
  ended(tab: Tab, line: UsageLine, durable: (error?: HelixFlowError<'STORE_FAILED'>) => void): void;
}

/** A durable line that no statement holds yet. */
export interface PendingLine {
  readonly line: UsageLine;
  readonly row: LogRow;
  isStated: boolean;
}

/** The last statement of a tab in the epoch that is written now. */
interface ChainTip {
  readonly number: number;
  readonly hash: Uint8Array;
  readonly totals: TabTotals;
}

/** A statement before it stands in the feed. */
export interface Draft {
  readonly tab: Tab;
  readonly entry: StatementEntry;
  readonly bytes: number;
  readonly lines: readonly PendingLine[];
  readonly told: readonly (readonly [Attempt, number])[];
  readonly tip: ChainTip;
}

const whole = (value: number, max: number): number => (value > 0 ? Math.min(Math.round(value), max) : 0);

/** What others could not read would end the feed for them, so every number is brought within its bounds. */
function finishedLine(running: UsageLine, end: AttemptEnd): UsageLine {
  const promptTokens = whole(end.promptTokens, lineTokensMax);
  const { nodeTokens, outcome } = end;
  return {
    ...running,
    firstMs: ms(whole(end.firstMs, durationMaxMs)),
    promptTokens,
    cachedTokens: whole(end.cachedTokens, promptTokens),
    completionTokens: whole(end.completionTokens, lineTokensMax),
    ...(nodeTokens === undefined ? {} : { nodeTokens: whole(nodeTokens, lineTokensMax) }),
    outcome,
  };
}

/** What could not be written would keep all other lines from the disk. */
const isWritable = ({ model, digest, request, caller, price, lease }: AttemptStart): boolean =>
  model.length <= limits.modelNameMaxChars &&
  digest.length === 64 &&
  request.length === 32 &&
  caller.account.length === 16 &&
  caller.key.length === 16 &&
  (lease === undefined || lease.length === 16) &&
  (price.id.length === 16 || price.prompt + price.cached + price.completion === 0);

class Attempt implements OpenLine {
  readonly serial: number;
  readonly startMs: UnixMs;
  /** By the clock that never goes back. */
  readonly beganMs: Ms;
  tokens = 0;
  /** What the statements of this epoch have told; -1 when none named it yet. */
  told = -1;
  readonly #tab: Tab;
  readonly #start: AttemptStart;
  #isOver = false;

  constructor(tab: Tab, start: AttemptStart, place: { readonly serial: number; readonly startMs: UnixMs }) {
    this.#tab = tab;
    this.#start = start;
    this.serial = place.serial;
    this.startMs = place.startMs;
    this.beganMs = tab.owner.now();
  }

  received(completionTokens: number): void {
    if (completionTokens > this.tokens) this.tokens = completionTokens;
  }

  end(end: AttemptEnd, durable: (error?: HelixFlowError<'STORE_FAILED'>) => void): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#tab.ended(this, finishedLine(this.line(), end), durable);
  }

  drop(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#tab.running.delete(this.serial);
  }

  /** As it stands now. */
  line(): UsageLine {
    const { serial, startMs } = this;
    const { first = serial, request, model, digest, caller, price, lease, payer } = this.#start;
    const { owner } = this.#tab;
    return {
      run: owner.run,
      serial,
      first,
      request,
      model,
      digest,
      caller,
      price,
      ...(lease === undefined ? {} : { lease }),
      payer,
      startMs,
      firstMs: ms(0),
      durationMs: ms(whole(owner.now() - this.beganMs, durationMaxMs)),
      promptTokens: 0,
      cachedTokens: 0,
      completionTokens: whole(this.tokens, lineTokensMax),
      outcome: 'running',
    };
  }
}

/** What a round of statements may say of a tab. */
export interface DraftOptions {
  /** All there is is told; else only statements that are full. */
  readonly isDue: boolean;
  readonly statementsMax: number;
  readonly bytesMax: number;
}

export class Tab {
  readonly node: PeerId;
  readonly owner: TabOwner;
  /** By serial, in the order of serials. */
  readonly running = new Map<number, Attempt>();
  /** In the order in which they became durable. */
  lines: PendingLine[] = [];
  /** Lines that are not durable yet. */
  writing = 0;
  statements = 0;
  stated = 0;
  refused = 0;
  /** Statements of this process without a countersignature that have not waited for `limits.attestWaitMs`. */
  #young: { readonly number: number; readonly atMs: Ms }[] = [];
  #tip: ChainTip | undefined;

  constructor(node: PeerId, owner: TabOwner) {
    this.node = node;
    this.owner = owner;
  }

  begin(start: AttemptStart, place: { readonly serial: number; readonly startMs: UnixMs }): Attempt {
    assert(isWritable(start), 'an attempt is told in words that others can read');
    const attempt = new Attempt(this, start, place);
    this.running.set(place.serial, attempt);
    return attempt;
  }

  ended(attempt: Attempt, line: UsageLine, durable: (error?: HelixFlowError<'STORE_FAILED'>) => void): void {
    this.running.delete(attempt.serial);
    this.writing += 1;
    this.owner.ended(this, line, durable);
  }

  /** Nothing is to be told, or waited for. */
  get isIdle(): boolean {
    return this.running.size === 0 && this.lines.length === 0 && this.writing === 0;
  }

  /** Lines that are stated without waiting for the others. */
  get isFull(): boolean {
    return this.lines.length >= limits.statementLinesMax;
  }

  /** How many statements wait for a word of their node, and are young. */
  waiting(): number {
    const oldestMs = this.owner.now() - limits.attestWaitMs;
    const fresh = this.#young.findIndex(({ atMs }) => atMs > oldestMs);
    if (fresh !== 0) this.#young.splice(0, fresh === -1 ? this.#young.length : fresh);
    return this.#young.length;
  }

  /** A node that is there and says nothing is given no more than it can answer. */
  statementsMax(isConnected: boolean): number {
    if (!isConnected) return Number.POSITIVE_INFINITY;
    const tooMany = Math.ceil((this.lines.length + 1 - linesPressureMax) / limits.statementLinesMax);
    return Math.max(0, tooMany, limits.statementsInFlightMax - this.waiting());
  }

  /** The next statements, in their order; nothing changes before they are `settled`. */
  drafts({ isDue, statementsMax, bytesMax }: DraftOptions): readonly Draft[] {
    const drafts: Draft[] = [];
    if (statementsMax === 0) return drafts;
    const lines = this.lines.filter(({ isStated }) => !isStated);
    const [untold, further] = isDue ? this.#progress() : [[], []];
    let tip = this.#tip;
    let bytes = 0;
    while (drafts.length < statementsMax && bytes < bytesMax) {
      const hasMore = lines.length + untold.length + further.length > 0;
      if (!(hasMore && (isDue || lines.length >= limits.statementLinesMax))) break;
      const draft = this.#draft({ lines, untold, further }, tip);
      drafts.push(draft);
      tip = draft.tip;
      bytes += draft.bytes;
    }
    return drafts;
  }

  #progress(): [Attempt[], Attempt[]] {
    const bornMs = this.owner.now() - runningAfterMs;
    const untold: Attempt[] = [];
    const further: Attempt[] = [];
    for (const attempt of this.running.values()) {
      if (attempt.told === -1) {
        if (attempt.beganMs <= bornMs) untold.push(attempt);
      } else if (attempt.tokens > attempt.told) further.push(attempt);
    }
    return [untold, further];
  }

  /** Takes out of `left` what the statement holds. */
  #draft(left: { lines: PendingLine[]; untold: Attempt[]; further: Attempt[] }, before: ChainTip | undefined): Draft {
    const { node } = this;
    const size = new LineSize(
      { linesMax: limits.statementLinesMax + runningMax, bytesMax: statementMaxBytes },
      headBytes,
    );
    const lines: PendingLine[] = [];
    for (const pending of left.lines) {
      if (lines.length === limits.statementLinesMax || !size.take(pending.line, node)) break;
      lines.push(pending);
    }
    left.lines.splice(0, lines.length);
    const told: [Attempt, number][] = [];
    const running: UsageLine[] = [];
    for (const attempt of left.untold) {
      const line = attempt.line();
      if (running.length === runningMax || !size.take(line, node)) break;
      running.push(line);
      told.push([attempt, line.completionTokens]);
    }
    left.untold.splice(0, running.length);
    const progress: Progress[] = [];
    for (const attempt of left.further) {
      const completionTokens = whole(attempt.tokens, lineTokensMax);
      if (progress.length === progressMax || !size.takePair(attempt.serial, completionTokens)) break;
      progress.push({ serial: attempt.serial, completionTokens });
      told.push([attempt, completionTokens]);
    }
    left.further.splice(0, progress.length);
    const ended = lines.map(({ line }) => line);
    const entry: StatementEntry = {
      kind: 'statement',
      node,
      number: before === undefined ? 0 : before.number + 1,
      previous: before?.hash ?? new Uint8Array(32),
      run: this.owner.run,
      lines: ended,
      running,
      progress,
      totals: addTotals(before?.totals ?? noTotals, ended),
    };
    const bytes = encodeEntry(entry);
    const tip = { number: entry.number, hash: statementHash(bytes), totals: entry.totals };
    return { tab: this, entry, bytes: bytes.length, lines, told, tip };
  }

  /** The statement stands in the feed. Its lines go with `prune`. */
  settled({ entry, told, tip }: Draft): void {
    this.#tip = tip;
    this.statements += 1;
    this.stated += entry.lines.length;
    for (const [attempt, tokens] of told) attempt.told = tokens;
    this.#young.push({ number: entry.number, atMs: this.owner.now() });
  }

  /** Lets go of lines that are stated. */
  prune(): void {
    if (this.lines.some(({ isStated }) => isStated)) this.lines = this.lines.filter(({ isStated }) => !isStated);
  }

  /** The node has said its word on a statement of this epoch. */
  countersigned(number: number): void {
    const at = this.#young.findIndex((young) => young.number === number);
    if (at !== -1) this.#young.splice(at, 1);
  }

  /** The feed goes on in another epoch: chains begin anew there, and everything that runs is told again. */
  beginEpoch(): void {
    this.#tip = undefined;
    this.#young = [];
    for (const attempt of this.running.values()) attempt.told = -1;
  }
}
