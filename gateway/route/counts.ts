/** What routing has done, as plain counters: read by metrics, written on the hot path. */

import type { AttemptPurpose } from './trace.ts';

/** Upper bounds of the buckets of `SettleTimes`, in milliseconds. */
export const settleBucketsMs = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_000] as const;

/** How long nodes took to say that a cancelled attempt's slot was free: a histogram. */
export class SettleTimes {
  readonly counts: number[] = new Array(settleBucketsMs.length + 1).fill(0);
  sumMs = 0;
  total = 0;
  /** Nodes that were gone, or said nothing in time. */
  unheard = 0;

  add(elapsedMs: number): void {
    const at = settleBucketsMs.findIndex((bound) => elapsedMs <= bound);
    const bucket = at < 0 ? settleBucketsMs.length : at;
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1;
    this.sumMs += elapsedMs;
    this.total += 1;
  }
}

/** Of one gateway, since its start. */
export interface RouteCounts {
  readonly attempts: Record<AttemptPurpose, number>;
  /** Answers that another node went on with, and those that none could. */
  readonly splices: { resumed: number; failed: number };
  readonly hedges: { won: number; lost: number };
  /** Requests that waited for a place, and those that were refused one. */
  readonly waits: { begun: number; refused: number; expired: number };
  /** Attempts that were found stalled. */
  stalled: number;
  /** First attempts at a node that should hold a part of the request, and bytes that were expected there. */
  readonly prefix: { hits: number; misses: number; heldBytes: number; bytes: number };
  readonly settles: SettleTimes;
}

export const createRouteCounts = (): RouteCounts => ({
  attempts: { first: 0, retry: 0, splice: 0, restart: 0, hedge: 0 },
  splices: { resumed: 0, failed: 0 },
  hedges: { won: 0, lost: 0 },
  waits: { begun: 0, refused: 0, expired: 0 },
  stalled: 0,
  prefix: { hits: 0, misses: 0, heldBytes: 0, bytes: 0 },
  settles: new SettleTimes(),
});
