/** Whether a model at a node is fit for requests: a breaker with half-open probes, and a slow start for newcomers. */

import { type ErrorCode, errorRow } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { Clock, Random } from '../../protocol/ports.ts';
import { Memory } from '../../protocol/tables.ts';

export type BreakerState = 'closed' | 'open' | 'half-open';

/** The health of one model at one node; it outlives the node's sessions, so that one that comes and goes is known. */
export interface ServingHealth {
  readonly state: BreakerState;
  /** An attempt may go there now: closed, or half-open with no probe under way. */
  readonly isAllowed: boolean;
  /** As in `RoutedNode`. */
  readonly warmth: number;
  /** When an open breaker lets a probe pass, on the monotonic clock; undefined while it is not open. */
  readonly probeAtMs: number | undefined;
  /** Why it opened last. */
  readonly openedBy: ErrorCode | undefined;
  /** An attempt leaves for it; of a half-open one this is the probe. @returns what to tell of it. */
  began(): AttemptHealth;
}

/** One attempt, as its node's health sees it. Its end is told once, by `failed` or `dropped`, or by `worked` if all went well. */
export interface AttemptHealth {
  /** Content came, or a whole answer: the node works. Counts once; an attempt that fails afterwards counts as failed. */
  worked(): void;
  /** It ended with this error; only codes whose row blames the node tell against it. */
  failed(code: ErrorCode): void;
  /** It was taken away for reasons of its own. */
  dropped(): void;
}

/** All that a gateway knows of its nodes' health. */
export interface Healths {
  of(peer: PeerId, digest: ModelDigest): ServingHealth;
  /** The node's session is there anew: it starts slowly, unless it was warm and is back within `cutMs`. */
  arrived(peer: PeerId): void;
  /** The node's session is gone. */
  gone(peer: PeerId): void;
}

export interface HealthDeps {
  readonly clock: Pick<Clock, 'nowMs'>;
  readonly random: Pick<Random, 'float'>;
}

export interface HealthOptions {
  /** Nodes remembered, also while they are away. */
  readonly peersMax?: number;
}

/** Failures without a success between them that open a breaker. */
export const rowMax = 3;
/** Of so many attempts or more within `windowMs`, the share of failures that opens it. */
export const windowMin = 10;
export const failureShare = 0.5;
export const windowMs = 30_000;
/** How long it stays open: at first, and after failed probes; more or less by `jitter`, so that gateways do not probe together. */
export const openMinMs = 2_000;
export const openMaxMs = 60_000;
export const jitter = 0.2;
/** A newcomer's share of its slots, and how soon it has all of them: by time or by attempts that worked. */
export const warmthMin = 0.25;
export const warmMs = 10_000;
export const warmAttempts = 8;
/** A node that is back so soon has its models still loaded. */
export const cutMs = 30_000;

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

class Breaker implements ServingHealth {
  readonly #deps: HealthDeps;
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

  constructor(deps: HealthDeps) {
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
    this.row = Math.max(this.row, attempt.row) + 1;
    this.strikes = Math.max(this.strikes, attempt.strikes);
    this.#outcomes.add(true, this.#deps.clock.nowMs());
    const isEnough = code === 'NODE_STALLED' || this.row >= rowMax || this.#outcomes.isBad;
    if (isEnough || attempt.strikes > 0) this.#open(code);
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
  openings: number;
  /** What its first content has ended and made good; it counts again if the attempt fails after all. */
  row = 0;
  strikes = 0;
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

/** One node over its sessions. */
class PeerHealth {
  readonly breakers = new Map<ModelDigest, Breaker>();
  /** Since when it has been away; undefined while it is there. */
  awayMs: number | undefined = Number.NEGATIVE_INFINITY;
}

/** Health in the memory of one process, forgotten of nodes that have long been away. */
export function createHealths(deps: HealthDeps, options: HealthOptions = {}): Healths {
  const peers = new Memory<PeerHealth>(options.peersMax ?? 4_096);
  const peerOf = (peer: PeerId): PeerHealth => {
    const known = peers.get(peer);
    if (known !== undefined) return known;
    const fresh = new PeerHealth();
    peers.set(peer, fresh);
    return fresh;
  };
  return {
    of: (peer, digest) => {
      const { breakers } = peerOf(peer);
      const known = breakers.get(digest);
      if (known !== undefined) return known;
      // A node that offers ever new models has only its newest remembered.
      const [oldest] = breakers.keys();
      if (breakers.size >= 2 * limits.offerModelsMax && oldest !== undefined) breakers.delete(oldest);
      const breaker = new Breaker(deps);
      breakers.set(digest, breaker);
      return breaker;
    },
    arrived: (peer) => {
      const health = peerOf(peer);
      const { awayMs } = health;
      health.awayMs = undefined;
      // One session may take over from another before that is gone.
      if (awayMs === undefined) return;
      const isBack = deps.clock.nowMs() - awayMs < cutMs;
      for (const breaker of health.breakers.values()) {
        if (isBack) breaker.back();
        else breaker.cool();
      }
    },
    gone: (peer) => {
      const health = peerOf(peer);
      health.awayMs = deps.clock.nowMs();
      for (const breaker of health.breakers.values()) breaker.gone();
    },
  };
}
