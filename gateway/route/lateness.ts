/** When a request is late against its model's own times, and how many hedges that is worth: bounded, and forgetting. */

import type { ModelDigest } from '../../protocol/ids.ts';
import { Memory } from '../../protocol/tables.ts';
import { type Ms, ms } from '../../protocol/units.ts';

/** The times of one gateway. */
export interface Lateness {
  /** First content came `firstMs` after its attempt left, where `expectedMs` were expected (`Score.firstMs`). */
  note(digest: ModelDigest, expectedMs: number, firstMs: Ms): void;
  /** From the start of an attempt until it is late: beyond what 95 of 100 took; undefined while too little is known. */
  lateAfterMs(digest: ModelDigest, expectedMs: number): Ms | undefined;
  /** A request has come: the budget for hedges grows by its share. */
  asked(): void;
  /** Takes a hedge from the budget. @returns false when there is none left. */
  takeHedge(): boolean;
}

export interface LatenessOptions {
  /** As in `RoutePolicy`. */
  readonly hedgeShare: number;
  /** Models whose times are remembered. */
  readonly modelsMax?: number;
}

/** Nothing is late before this many times are known. */
const samplesMin = 32;
/** Nothing is late before this. */
export const lateMinMs = 30;
/** The share of requests that are in time. */
const inTimeShare = 0.95;
/** So many times later, one counts half. */
const halfLifeSamples = 256;
/** Hedges that may be saved up. */
export const hedgesMax = 8;
/** Requests before the first hedge. */
const hedgeFreeRequests = 32;

const bucketsPerOctave = 8;

/** A distribution in logarithmic buckets; what is old fades. */
class Distribution {
  readonly #low: number;
  readonly #counts: Float64Array;
  #total = 0;
  #sinceHalved = 0;
  #p95: number | undefined;

  /** Of values from `low` on over so many octaves; those beyond count as the nearest. */
  constructor(low: number, octaves: number) {
    this.#low = low;
    this.#counts = new Float64Array(octaves * bucketsPerOctave + 1);
  }

  add(value: number): void {
    const at = Math.ceil(bucketsPerOctave * Math.log2(Math.max(value, this.#low) / this.#low));
    const index = Math.min(at, this.#counts.length - 1);
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    this.#total += 1;
    this.#p95 = undefined;
    this.#sinceHalved += 1;
    if (this.#sinceHalved < halfLifeSamples) return;
    this.#sinceHalved = 0;
    this.#total /= 2;
    for (let bucket = 0; bucket < this.#counts.length; bucket += 1)
      this.#counts[bucket] = (this.#counts[bucket] ?? 0) / 2;
  }

  /** The upper end of the bucket below which `inTimeShare` of the values are. */
  get p95(): number {
    this.#p95 ??= this.#quantile();
    return this.#p95;
  }

  #quantile(): number {
    let above = (1 - inTimeShare) * this.#total;
    let index = this.#counts.length - 1;
    for (; index > 0; index -= 1) {
      above -= this.#counts[index] ?? 0;
      if (above < 0) break;
    }
    return this.#low * 2 ** (index / bucketsPerOctave);
  }
}

/** Of one model: both how many times longer than expected, and how much longer; small answers and large ones differ. */
class Times {
  readonly ratios = new Distribution(1 / 16, 20);
  readonly excessMs = new Distribution(1, 20);
  samples = 0;
}

const isTime = (value: number): boolean => value > 0 && Number.isFinite(value);

/** Knows nothing at first. */
export function createLateness({ hedgeShare, modelsMax = 1_024 }: LatenessOptions): Lateness {
  const byDigest = new Memory<Times>(modelsMax);
  let requests = 0;
  let hedges = 0;
  return {
    note: (digest, expectedMs, firstMs) => {
      if (!isTime(expectedMs) || !isTime(firstMs)) return;
      let times = byDigest.get(digest);
      if (times === undefined) {
        times = new Times();
        byDigest.set(digest, times);
      }
      times.samples += 1;
      times.ratios.add(firstMs / expectedMs);
      times.excessMs.add(firstMs - expectedMs);
    },
    lateAfterMs: (digest, expectedMs) => {
      const times = byDigest.get(digest);
      if (times === undefined || times.samples < samplesMin || !isTime(expectedMs)) return undefined;
      // Only what both call late is: else up to twice as many requests would be.
      return ms(Math.max(lateMinMs, expectedMs * times.ratios.p95, expectedMs + times.excessMs.p95));
    },
    asked: () => {
      requests += 1;
      hedges = Math.min(hedgesMax, hedges + hedgeShare);
    },
    takeHedge: () => {
      if (requests <= hedgeFreeRequests || hedges < 1) return false;
      hedges -= 1;
      return true;
    },
  };
}
