/** Whether one model at one node is fit for requests: what attempts there came to, and what follows from it. */

import { type ErrorCode, errorRow } from '../../protocol/errors.ts';
import type { Clock, Random } from '../../protocol/ports.ts';
import type { AttemptHealth, BreakerState, ServingHealth } from './health.ts';

export interface BreakerDeps {
  readonly clock: Pick<Clock, 'nowMs'>;
  readonly random: Pick<Random, 'float'>;
}

/** Failures without a success between them that open a breaker. */
const rowMax = 3;
/** Of so many attempts or more within `windowMs`, the share of failures that opens it. */
const windowMin = 10;
const failureShare = 0.5;
const windowMs = 30_000;
/** How long it stays open: at first, and after failed probes; more or less by `jitter`, so that gateways do not probe together. */
export const openMinMs = 2_000;
export const openMaxMs = 60_000;
const jitter = 0.2;
/** Who has sent an answer for so long has made good what was against it before. */
export const servedMs = 2_000;
/** A newcomer's share of its slots, and how soon it has all of them: by time or by attempts that worked. */
const warmthMin = 0.25;
export const warmMs = 10_000;
export const warmAttempts = 8;
const sliceMs = 5_000;
const slices = windowMs / sliceMs;

/** What one attempt after the other came to, of the last `windowMs`. */
class Outcomes {
  readonly #failed = new Uint32Array(slices);
  readonly #all = new Uint32Array(slices);
  #slice = 0;

  add(hasFailed: boolean, nowMs: number): void {
    this.#turn(nowMs);
    const at = this.#slice % slices;
    this.#all[at] = (this.#all[at] ?? 0) + 1;
    if (hasFailed) this.#failed[at] = (this.#failed[at] ?? 0) + 1;
  }

  get isBad(): boolean {
    let failed = 0;
    let all = 0;
    for (let at = 0; at < slices; at += 1) {
      failed += this.#failed[at] ?? 0;
      all += this.#all[at] ?? 0;
    }
    return all >= windowMin && failed >= failureShare * all;
  }

  clear(): void {
    this.#failed.fill(0);
    this.#all.fill(0);
  }

  #turn(nowMs: number): void {
    const slice = Math.floor(nowMs / sliceMs);
    if (slice - this.#slice >= slices) this.clear();
    else {
      for (let old = this.#slice + 1; old <= slice; old += 1) {
        this.#failed[old % slices] = 0;
        this.#all[old % slices] = 0;
      }
    }
    this.#slice = slice;
  }
}

/** Of one model at one node. */
export class Breaker implements ServingHealth {
  readonly #deps: BreakerDeps;
  readonly #outcomes = new Outcomes();
  openedBy: ErrorCode | undefined;
  /** Failures in a row. */
  row = 0;
  /** Cuts so far: the attempts that one cut has ended count as one. */
  cuts = 0;
  /** Times that it has opened, ever: what began before tells nothing of how it is now. */
  openings = 0;
  /** Times in a row that it has opened without a probe that worked. */
  strikes = 0;
  #probeAtMs: number | undefined;
  #probe: AttemptOfBreaker | undefined;
  #coldMs: number;
  #warmLeft = warmAttempts;
  /** It had all of its slots when its node went. */
  #wasWarm = false;

  constructor(deps: BreakerDeps) {
    this.#deps = deps;
    this.#coldMs = deps.clock.nowMs();
  }

  get state(): BreakerState {
    if (this.#probeAtMs === undefined) return 'closed';
    return this.#deps.clock.nowMs() < this.#probeAtMs ? 'open' : 'half-open';
  }

  get isAllowed(): boolean {
    if (this.#probeAtMs === undefined) return true;
    return this.#probe === undefined && this.#deps.clock.nowMs() >= this.#probeAtMs;
  }

  get probeAtMs(): number | undefined {
    return this.state === 'open' ? this.#probeAtMs : undefined;
  }

  get warmth(): number {
    if (this.#warmLeft === 0) return 1;
    const byTime = (this.#deps.clock.nowMs() - this.#coldMs) / warmMs;
    if (byTime >= 1) {
      this.#warmLeft = 0;
      return 1;
    }
    return warmthMin + (1 - warmthMin) * Math.max(byTime, 1 - this.#warmLeft / warmAttempts);
  }

  began(): AttemptHealth {
    const attempt = new AttemptOfBreaker(this);
    if (this.#probeAtMs !== undefined && this.isAllowed) this.#probe = attempt;
    return attempt;
  }

  gone(): void {
    this.#wasWarm = this.warmth === 1;
  }

  back(): void {
    if (!this.#wasWarm) this.cool();
  }

  /** It has few slots until it has shown what it does. */
  cool(): void {
    this.#coldMs = this.#deps.clock.nowMs();
    this.#warmLeft = warmAttempts;
  }

  worked(attempt: AttemptOfBreaker): void {
    attempt.workedMs = this.#deps.clock.nowMs();
    if (this.#probe === attempt) this.#close();
    else if (this.#isStale(attempt)) return;
    this.row = 0;
    if (this.#warmLeft > 0) this.#warmLeft -= 1;
    this.#outcomes.add(false, this.#deps.clock.nowMs());
  }

  failed(attempt: AttemptOfBreaker, code: ErrorCode): void {
    if (this.#probe === attempt) {
      this.#open(code);
      return;
    }
    if (this.#isStale(attempt)) return;
    if (code === 'NODE_LOST') {
      if (attempt.cuts !== this.cuts) return;
      this.cuts += 1;
    }
    const nowMs = this.#deps.clock.nowMs();
    const hasServed = attempt.workedMs !== undefined && nowMs - attempt.workedMs >= servedMs;
    const [row, strikes] = hasServed ? [0, 0] : [attempt.row, attempt.strikes];
    this.row = Math.max(this.row, row) + 1;
    this.strikes = Math.max(this.strikes, strikes);
    this.#outcomes.add(true, nowMs);
    const isEnough = code === 'NODE_STALLED' || this.row >= rowMax || this.#outcomes.isBad;
    if (isEnough || strikes > 0) this.#open(code);
  }

  /** Nothing is to be learned from it. */
  left(attempt: AttemptOfBreaker): void {
    if (this.#probe === attempt) this.#probe = undefined;
  }

  #isStale(attempt: AttemptOfBreaker): boolean {
    return this.#probeAtMs !== undefined || attempt.openings !== this.openings;
  }

  #open(code: ErrorCode): void {
    const { clock, random } = this.#deps;
    const openMs = Math.min(openMaxMs, openMinMs * 2 ** this.strikes);
    this.#probeAtMs = clock.nowMs() + openMs * (1 - jitter + 2 * jitter * random.float());
    this.#probe = undefined;
    this.strikes += 1;
    this.openings += 1;
    this.openedBy = code;
  }

  /** Forgets all that was against it; it has been away, so it starts slowly. */
  #close(): void {
    this.#probeAtMs = undefined;
    this.#probe = undefined;
    this.strikes = 0;
    this.#outcomes.clear();
    this.cool();
  }
}

class AttemptOfBreaker implements AttemptHealth {
  readonly cuts: number;
  readonly openings: number;
  /** What its first content has ended and made good; it counts again if the attempt fails after all. */
  row = 0;
  strikes = 0;
  /** When its first content came. */
  workedMs: number | undefined;
  readonly #breaker: Breaker;
  #phase: 'begun' | 'worked' | 'over' = 'begun';

  constructor(breaker: Breaker) {
    this.#breaker = breaker;
    this.cuts = breaker.cuts;
    this.openings = breaker.openings;
  }

  worked(): void {
    if (this.#phase !== 'begun') return;
    this.#phase = 'worked';
    this.row = this.#breaker.row;
    this.strikes = this.#breaker.strikes;
    this.#breaker.worked(this);
  }

  failed(code: ErrorCode): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    if (errorRow(code).blame === 'node') this.#breaker.failed(this, code);
    else this.#breaker.left(this);
  }

  dropped(): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.#breaker.left(this);
  }
}
