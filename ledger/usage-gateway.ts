/**
 * What one gateway's statements come to, kept up with each of its entries: requests stay open while more may be said of
 * them, then only their serials are remembered.
 */

import { toHex } from '../protocol/crypto.ts';
import type { AuthorId, EpochId, PeerId, ProcessId } from '../protocol/ids.ts';
import { Intervals } from './intervals.ts';
import type { UsageLine } from './line.ts';
import { settleAgain, settleAttempt } from './settle.ts';
import type { Settled } from './settlement.ts';
import type { CountersignEntry, StatementEntry } from './statement.ts';
import { RequestQueue } from './usage-queue.ts';
import { OpenRequest, type Saying } from './usage-request.ts';
import { SerialTable } from './usage-serials.ts';

/** How much of one gateway is kept in memory. */
export interface UsageBounds {
  /** Settled requests that are kept, in case that more is said of them; some 0.6 kB each. */
  readonly wholeMax: number;
  /** Requests that nothing has ended yet, or whose attempts run. */
  readonly unendedMax: number;
  /** Lines of statements that wait for their countersignatures. */
  readonly unsignedLinesMax: number;
  /** Countersignatures, and counts of running attempts, of which the statement is not known yet. */
  readonly earlyMax: number;
  /** Processes of which lines may be. */
  readonly runsMax: number;
  /** Gaps between the serials of all its processes; beyond it the oldest count as settled. */
  readonly gapsMax: number;
  /** Tabs, by epoch and node. */
  readonly tabsMax: number;
}

export const usageBounds: UsageBounds = {
  wholeMax: 4_096,
  unendedMax: 16_384,
  unsignedLinesMax: 65_536,
  earlyMax: 8_192,
  runsMax: 16_384,
  gapsMax: 262_144,
  tabsMax: 65_536,
};

interface Run {
  /** Serials of settled requests that were let go. */
  readonly past: Intervals;
  readonly open: SerialTable<OpenRequest>;
}

/** A statement that waits for its node. */
export interface Unsigned {
  readonly node: PeerId;
  readonly epoch: EpochId;
  readonly hash: string;
  readonly timeMs: number;
  /** Of its lines; of one that changes nothing whatever its node says undefined. */
  readonly lines: readonly (Saying | undefined)[];
  readonly running: readonly Saying[];
}

/** Told of each settled attempt as it begins (1) and ceases (−1) to count. */
export type Count = (settled: Settled, sign: 1 | -1) => void;

/** Where a statement stands. */
export interface StatedAt {
  readonly epoch: EpochId;
  readonly timeMs: number;
  readonly hash: Uint8Array;
}

const isPast = ({ past, open }: Run, serial: number): boolean => past.has(serial) && !open.has(serial);

/** Nearly always a node's word only says what counts already. */
function countsAlike(before: readonly Settled[], after: readonly Settled[]): boolean {
  const [a, b] = [before[0], after[0]];
  if (a === undefined || b === undefined || before.length > 1 || after.length > 1 || a.line !== b.line) return false;
  const isMarked = ({ state }: Settled): boolean => state === 'refused' || state === 'lower';
  if (isMarked(a) || isMarked(b)) return false;
  return a.amountMicro === b.amountMicro && a.completionTokens === b.completionTokens && a.isBilled === b.isBilled;
}

const signName = (epoch: EpochId, node: PeerId, hash: string): string => `${epoch} ${node} ${hash}`;

function setBounded<T>(map: Map<string, T>, name: string, value: T, max: number): void {
  map.set(name, value);
  if (map.size <= max) return;
  const [oldest] = map.keys();
  if (oldest !== undefined) map.delete(oldest);
}

/** One gateway's usage. */
export class GatewayUsage {
  readonly author: AuthorId;
  readonly #count: Count;
  readonly #bounds: UsageBounds;
  readonly #runs = new Map<ProcessId, Run>();
  /** Statement numbers by epoch and node. */
  readonly #tabs = new Map<string, Intervals>();
  readonly #unsigned = new Map<string, Unsigned>();
  #unsignedLines = 0;
  /** Countersignatures that came before their statements, and running counts before their attempts. */
  readonly #earlySigns = new Map<string, CountersignEntry>();
  readonly #earlyCounts = new Map<string, number>();
  readonly #whole: RequestQueue;
  readonly #unended: RequestQueue;
  #gaps = 0;
  /** Statements that nobody waits for any more. */
  #abandoned = 0;
  #statements = 0;
  #newestMs = 0;
  readonly #changed = new Set<OpenRequest>();

  constructor(author: AuthorId, count: Count, bounds: UsageBounds = usageBounds) {
    this.author = author;
    this.#count = count;
    this.#bounds = bounds;
    this.#whole = new RequestQueue(bounds.wholeMax);
    this.#unended = new RequestQueue(bounds.unendedMax);
  }

  get statements(): number {
    return this.#statements;
  }

  get newestMs(): number {
    return this.#newestMs;
  }

  /** Statements from before `beforeMs` that their node has not countersigned. */
  unattested(beforeMs: number): number {
    let waiting = this.#abandoned;
    for (const { timeMs } of this.#unsigned.values()) if (timeMs < beforeMs) waiting += 1;
    return waiting;
  }

  /** Takes a statement; one that is known changes nothing. */
  state(entry: StatementEntry, { epoch, timeMs, hash }: StatedAt): void {
    if (!this.#isNew(entry, epoch)) return;
    const { node, run } = entry;
    this.#statements += 1;
    const lines = entry.lines.map((line) => this.#say(node, line));
    const running = entry.running.flatMap((line) => this.#say(node, line) ?? []);
    for (const { serial, completionTokens } of entry.progress) this.#progress({ node, run, serial }, completionTokens);
    const unsigned = { node, epoch, timeMs, hash: toHex(hash), lines, running };
    const early = this.#takeEarly(unsigned);
    if (early === undefined) this.#wait(unsigned);
    else this.#signed(unsigned, early);
    this.#settleChanged();
  }

  #isNew({ node, number }: StatementEntry, epoch: EpochId): boolean {
    const name = `${epoch} ${node}`;
    const known = this.#tabs.get(name);
    if (known !== undefined) return known.add(number);
    if (this.#tabs.size >= this.#bounds.tabsMax) return false;
    const numbers = new Intervals(this.#bounds.earlyMax);
    this.#tabs.set(name, numbers);
    return numbers.add(number);
  }

  #runOf(id: ProcessId): Run | undefined {
    const known = this.#runs.get(id);
    if (known !== undefined || this.#runs.size >= this.#bounds.runsMax) return known;
    const run = { past: new Intervals(this.#bounds.gapsMax), open: new SerialTable<OpenRequest>() };
    this.#runs.set(id, run);
    return run;
  }

  /** Undefined where it changes nothing. */
  #say(node: PeerId, line: UsageLine): Saying | undefined {
    this.#newestMs = Math.max(this.#newestMs, line.startMs + line.durationMs);
    const run = this.#runOf(line.run);
    if (run === undefined) {
      this.#refuse(node, line);
      return undefined;
    }
    if (isPast(run, line.serial)) {
      return line.outcome === 'running' ? undefined : { line, isCountersigned: false, request: undefined };
    }
    const request = this.#requestOf(run, line);
    const saying = request.say(node, line);
    this.#changed.add(request);
    if (this.#earlyCounts.size > 0) this.#takeEarlyCount(request, node, line);
    return saying;
  }

  #refuse(node: PeerId, line: UsageLine): void {
    const said = { line, isCountersigned: true, refused: 'unknown' } as const;
    const settled = settleAttempt({ author: this.author, node, said: [said] });
    if (settled !== undefined && line.outcome !== 'running') this.#count(settled, 1);
  }

  /** The open request that a line belongs to, made where there is none. */
  #requestOf(of: Run, { run, serial, first }: UsageLine): OpenRequest {
    const { open } = of;
    const bySerial = open.get(serial);
    const byFirst = first === serial ? bySerial : open.get(first);
    const request = bySerial ?? byFirst ?? new OpenRequest(this.author, run);
    if (bySerial !== undefined && byFirst !== undefined && bySerial !== byFirst) {
      this.#changed.delete(byFirst);
      request.absorb(byFirst);
      for (const number of request.numbers) open.set(number, request);
    }
    for (const number of first === serial || isPast(of, first) ? [serial] : [serial, first]) {
      if (open.get(number) === request) continue;
      open.set(number, request);
      request.numbers.push(number);
    }
    return request;
  }

  #progress(of: { readonly node: PeerId; readonly run: ProcessId; readonly serial: number }, tokens: number): void {
    const run = this.#runs.get(of.run);
    if (run !== undefined && isPast(run, of.serial)) return;
    const request = run?.open.get(of.serial);
    const facts = request?.factsOf(of.serial, of.node);
    if (request !== undefined && facts !== undefined) {
      if (tokens <= facts.runningTokens) return;
      facts.runningTokens = tokens;
      this.#changed.add(request);
      return;
    }
    const name = `${of.run} ${of.serial} ${of.node}`;
    const known = this.#earlyCounts.get(name) ?? 0;
    if (tokens > known) setBounded(this.#earlyCounts, name, tokens, this.#bounds.earlyMax);
  }

  #takeEarlyCount(request: OpenRequest, node: PeerId, { run, serial }: UsageLine): void {
    const name = `${run} ${serial} ${node}`;
    const tokens = this.#earlyCounts.get(name);
    const facts = request.factsOf(serial, node);
    if (tokens === undefined || facts === undefined) return;
    this.#earlyCounts.delete(name);
    facts.runningTokens = Math.max(facts.runningTokens, tokens);
  }

  #takeEarly({ epoch, node, hash }: Unsigned): CountersignEntry | undefined {
    const name = signName(epoch, node, hash);
    const early = this.#earlySigns.get(name);
    this.#earlySigns.delete(name);
    return early;
  }

  #wait(unsigned: Unsigned): void {
    this.#unsigned.set(signName(unsigned.epoch, unsigned.node, unsigned.hash), unsigned);
    this.#unsignedLines += unsigned.lines.length;
    while (this.#unsignedLines > this.#bounds.unsignedLinesMax) this.#abandon();
  }

  /** The oldest stands as it does. */
  #abandon(): void {
    const [oldest] = this.#unsigned;
    if (oldest === undefined) return;
    const [name, { lines }] = oldest;
    this.#settleChanged();
    this.#unsigned.delete(name);
    this.#unsignedLines -= lines.length;
    this.#abandoned += 1;
    for (const saying of lines) if (saying?.request?.isClosed === false) this.#letGo(saying.request);
  }

  /** Takes a node's word, its signature being checked; one that is known changes nothing. */
  sign(entry: CountersignEntry): void {
    const hash = toHex(entry.statement);
    const name = signName(entry.epoch, entry.node, hash);
    const unsigned = this.#unsigned.get(name);
    if (unsigned === undefined) {
      setBounded(this.#earlySigns, name, entry, this.#bounds.earlyMax);
      return;
    }
    this.#unsigned.delete(name);
    this.#unsignedLines -= unsigned.lines.length;
    this.#signed(unsigned, entry);
    this.#settleChanged();
  }

  #signed({ node, lines, running }: Unsigned, { refused }: CountersignEntry): void {
    let next = 0;
    for (const [index, saying] of lines.entries()) {
      const verdict = refused[next]?.index === index ? refused[next] : undefined;
      if (verdict !== undefined) next += 1;
      if (saying === undefined) continue;
      saying.isCountersigned = true;
      if (verdict !== undefined) saying.refused = verdict.reason;
      if (saying.request === undefined) this.#again(node, saying);
      else if (!saying.request.isClosed) this.#changed.add(saying.request);
    }
    for (const saying of running) {
      saying.isCountersigned = true;
      if (saying.request?.isClosed === false) this.#changed.add(saying.request);
    }
  }

  /** A serial that was settled before: the node's word for it makes it the gateway's own debt. */
  #again(node: PeerId, saying: Saying): void {
    const settled = settleAgain({ author: this.author, node, said: [saying] });
    if (settled !== undefined) this.#count(settled, 1);
  }

  #settleChanged(): void {
    for (const request of this.#changed) this.#settle(request);
    this.#changed.clear();
  }

  #settle(request: OpenRequest): void {
    const run = this.#runs.get(request.run);
    if (run === undefined) return;
    const before = request.settled;
    request.settled = request.settle((first) => isPast(run, first));
    if (!countsAlike(before, request.settled)) {
      for (const settled of before) this.#count(settled, -1);
      for (const settled of request.settled) this.#count(settled, 1);
    }
    this.#queue(request, run);
  }

  #queue(request: OpenRequest, run: Run): void {
    if (request.isQueued) {
      request.isTouched = true;
      return;
    }
    const openness = request.openness((first) => isPast(run, first));
    // Those are let go with their statements.
    if (openness === 'unsigned') return;
    request.isQueued = true;
    request.isTouched = false;
    const oldest = (openness === 'whole' ? this.#whole : this.#unended).push(request);
    if (oldest !== undefined) this.#unqueue(oldest);
  }

  #unqueue(request: OpenRequest): void {
    request.isQueued = false;
    if (request.isClosed) return;
    const run = this.#runs.get(request.run);
    if (request.isTouched && run !== undefined) this.#queue(request, run);
    else this.#letGo(request);
  }

  /** From now on only its serials are known. */
  #letGo(request: OpenRequest): void {
    const run = this.#runs.get(request.run);
    if (run === undefined) return;
    request.isClosed = true;
    const before = run.past.count;
    for (const number of request.numbers) {
      run.open.delete(number);
      run.past.add(number);
    }
    this.#gaps += run.past.count - before;
    if (this.#gaps > this.#bounds.gapsMax) this.#gaps -= run.past.closeGaps();
  }
}
