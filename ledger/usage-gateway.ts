/**
 * What one gateway's statements come to, kept up with each of its entries: requests stay open while more may be said of
 * them, then only their serials are remembered.
 */

import { toHex } from '../protocol/crypto.ts';
import type { EpochId, PeerId, ProcessId } from '../protocol/ids.ts';
import type { UsageLine } from './line.ts';
import { settleAgain, settleAttempt } from './settle.ts';
import type { Settled } from './settlement.ts';
import { type CountersignEntry, type StatementEntry, statementHash } from './statement.ts';
import { RequestQueue } from './usage-queue.ts';
import { OpenRequest, type Saying } from './usage-request.ts';
import { type GatewayState, type Run, setBounded, signName, tabName, type Unsigned } from './usage-state.ts';

/** Told of each settled attempt as it begins (1) and ceases (−1) to count. */
export type Count = (settled: Settled, sign: 1 | -1) => void;

/** Where a statement stands, and its bytes. */
export interface StatedAt {
  readonly epoch: EpochId;
  readonly timeMs: number;
  readonly bytes: Uint8Array;
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

/** One gateway's usage. */
export class GatewayUsage {
  readonly state: GatewayState;
  readonly #count: Count;
  readonly #whole: RequestQueue;
  readonly #unended: RequestQueue;
  readonly #changed = new Set<OpenRequest>();

  /** @param state What is known so far, and counted. */
  constructor(state: GatewayState, count: Count) {
    this.state = state;
    this.#count = count;
    this.#whole = new RequestQueue(state.bounds.wholeMax);
    this.#unended = new RequestQueue(state.bounds.unendedMax);
    for (const request of state.requests()) {
      const run = state.runs.get(request.run);
      if (run === undefined) continue;
      request.settled = request.settle((first) => isPast(run, first));
      this.#queue(request, run);
    }
  }

  /** Statements from before `beforeMs` that their node has not countersigned. */
  unattested(beforeMs: number): number {
    let waiting = this.state.abandoned;
    for (const { timeMs } of this.state.unsigned.values()) if (timeMs < beforeMs) waiting += 1;
    return waiting;
  }

  /** Takes a statement; one that is known changes nothing. */
  take(entry: StatementEntry, { epoch, timeMs, bytes }: StatedAt): void {
    const { node, run } = entry;
    if (this.state.tabOf(tabName(epoch, node))?.add(entry.number) !== true) return;
    this.state.statements += 1;
    const lines = entry.lines.map((line) => this.#say(node, line));
    const running = entry.running.flatMap((line) => this.#say(node, line) ?? []);
    for (const { serial, completionTokens } of entry.progress) this.#progress({ node, run, serial }, completionTokens);
    const unsigned = { node, epoch, timeMs, hash: toHex(statementHash(bytes)), lines, running };
    const early = this.#takeEarly(unsigned);
    if (early === undefined) this.#wait(unsigned);
    else this.#signed(unsigned, early);
    this.#settleChanged();
  }

  /** Undefined where it changes nothing. */
  #say(node: PeerId, line: UsageLine): Saying | undefined {
    this.state.newestMs = Math.max(this.state.newestMs, line.startMs + line.durationMs);
    const run = this.state.runOf(line.run);
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
    if (this.state.earlyCounts.size > 0) this.#takeEarlyCount(request, node, line);
    return saying;
  }

  #refuse(node: PeerId, line: UsageLine): void {
    const said = { line, isCountersigned: true, refused: 'unknown' } as const;
    const settled = settleAttempt({ author: this.state.author, node, said: [said] });
    if (settled !== undefined && line.outcome !== 'running') this.#count(settled, 1);
  }

  /** The open request that a line belongs to, made where there is none. */
  #requestOf(of: Run, { run, serial, first }: UsageLine): OpenRequest {
    const { open } = of;
    const bySerial = open.get(serial);
    const byFirst = first === serial ? bySerial : open.get(first);
    const request = bySerial ?? byFirst ?? new OpenRequest(this.state.author, run);
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
    const run = this.state.runs.get(of.run);
    if (run !== undefined && isPast(run, of.serial)) return;
    const request = run?.open.get(of.serial);
    const facts = request?.factsOf(of.serial, of.node);
    if (request !== undefined && facts !== undefined) {
      if (tokens <= facts.runningTokens) return;
      facts.runningTokens = tokens;
      this.#changed.add(request);
      return;
    }
    const { earlyCounts, bounds } = this.state;
    const name = `${of.run} ${of.serial} ${of.node}`;
    if (tokens > (earlyCounts.get(name) ?? 0)) setBounded(earlyCounts, name, tokens, bounds.earlyMax);
  }

  #takeEarlyCount(request: OpenRequest, node: PeerId, { run, serial }: UsageLine): void {
    const name = `${run} ${serial} ${node}`;
    const tokens = this.state.earlyCounts.get(name);
    const facts = request.factsOf(serial, node);
    if (tokens === undefined || facts === undefined) return;
    this.state.earlyCounts.delete(name);
    facts.runningTokens = Math.max(facts.runningTokens, tokens);
  }

  #takeEarly({ epoch, node, hash }: Unsigned): CountersignEntry | undefined {
    const name = signName(epoch, node, hash);
    const early = this.state.earlySigns.get(name);
    this.state.earlySigns.delete(name);
    return early;
  }

  #wait(unsigned: Unsigned): void {
    const { state } = this;
    state.wait(unsigned);
    while (state.unsignedLines > state.bounds.unsignedLinesMax) this.#abandon();
  }

  /** The oldest stands as it does. */
  #abandon(): void {
    this.#settleChanged();
    const [name = ''] = this.state.unsigned.keys();
    const oldest = this.state.waited(name);
    this.state.abandoned += 1;
    for (const saying of oldest?.lines ?? []) if (saying?.request?.isClosed === false) this.#letGo(saying.request);
  }

  /** Takes a node's word, its signature being checked; one that is known changes nothing. */
  sign(entry: CountersignEntry): void {
    const { state } = this;
    const name = signName(entry.epoch, entry.node, toHex(entry.statement));
    const unsigned = state.waited(name);
    if (unsigned === undefined) {
      setBounded(state.earlySigns, name, entry, state.bounds.earlyMax);
      return;
    }
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
    const settled = settleAgain({ author: this.state.author, node, said: [saying] });
    if (settled !== undefined) this.#count(settled, 1);
  }

  #settleChanged(): void {
    for (const request of this.#changed) this.#settle(request);
    this.#changed.clear();
  }

  #settle(request: OpenRequest): void {
    const run = this.state.runs.get(request.run);
    if (run === undefined) return;
    const before = request.settled;
    request.settled = request.settle((first) => isPast(run, first));
    if (!countsAlike(before, request.settled)) {
      for (const settled of before) this.#count(settled, -1);
      for (const settled of request.settled) this.#count(settled, 1);
    }
    // All of it is looked at each time that more is said.
    if (request.sayings > this.state.bounds.sayingsMax) this.#letGo(request);
    else this.#queue(request, run);
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
    const run = this.state.runs.get(request.run);
    if (request.isTouched && run !== undefined) this.#queue(request, run);
    else this.#letGo(request);
  }

  /** From now on only its serials are known. */
  #letGo(request: OpenRequest): void {
    const { state } = this;
    const run = state.runs.get(request.run);
    if (run === undefined) return;
    request.isClosed = true;
    const before = run.past.count;
    for (const number of request.numbers) {
      run.open.delete(number);
      run.past.add(number);
    }
    state.gaps += run.past.count - before;
    if (state.gaps > state.bounds.gapsMax) state.gaps -= run.past.closeGaps();
  }

  /** Lets go of every request of which nothing is open, and nothing is known to come. */
  fold(): void {
    for (const request of this.state.requests()) {
      const run = this.state.runs.get(request.run);
      if (run !== undefined && request.openness((first) => isPast(run, first)) === 'whole') this.#letGo(request);
    }
  }
}
