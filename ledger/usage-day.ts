/** The counters of one day in typed arrays: a row for each caller, model and node, found by a hash over the three. */

import type { UsageCounts } from './usage.ts';

/** The counters of a row, in their order. */
export const countNames = [
  'requests',
  'attempts',
  'promptTokens',
  'cachedTokens',
  'completionTokens',
  'accountMicro',
  'gatewayMicro',
  'refused',
  'lower',
] as const satisfies readonly (keyof UsageCounts)[];
export const countsWidth = countNames.length;
/** Where in a row its attempts stand: it is empty where there are none. */
const attemptsAt = countNames.indexOf('attempts');

/** Codes of what tells rows of a day apart. */
export interface RowCodes {
  readonly caller: number;
  readonly model: number;
  readonly node: number;
}

/** The counts that begin at `at`. */
export const readCounts = (from: Float64Array, at: number): UsageCounts => ({
  requests: from[at] as number,
  attempts: from[at + 1] as number,
  promptTokens: from[at + 2] as number,
  cachedTokens: from[at + 3] as number,
  completionTokens: from[at + 4] as number,
  accountMicro: from[at + 5] as number,
  gatewayMicro: from[at + 6] as number,
  refused: from[at + 7] as number,
  lower: from[at + 8] as number,
});

function wider<T extends Uint32Array | Float64Array>(old: T, wide: T): T {
  wide.set(old);
  return wide;
}

/** Adds the counts at `row` to those at `at`; written out, since it runs for each of millions. */
export function addCounts(to: Float64Array, at: number, from: Float64Array, row: number): void {
  to[at] = (to[at] as number) + (from[row] as number);
  to[at + 1] = (to[at + 1] as number) + (from[row + 1] as number);
  to[at + 2] = (to[at + 2] as number) + (from[row + 2] as number);
  to[at + 3] = (to[at + 3] as number) + (from[row + 3] as number);
  to[at + 4] = (to[at + 4] as number) + (from[row + 4] as number);
  to[at + 5] = (to[at + 5] as number) + (from[row + 5] as number);
  to[at + 6] = (to[at + 6] as number) + (from[row + 6] as number);
  to[at + 7] = (to[at + 7] as number) + (from[row + 7] as number);
  to[at + 8] = (to[at + 8] as number) + (from[row + 8] as number);
}

/** What rows are told apart by. */
export type Kept = { readonly [Name in keyof RowCodes]: boolean };

const smallest = 16;

/** One day. */
export class UsageDay {
  readonly day: number;
  size = 0;
  /** Changes with every count. */
  version = 0;
  callers = new Uint32Array(smallest);
  models = new Uint32Array(smallest);
  nodes = new Uint32Array(smallest);
  /** `countsWidth` for each row; whole numbers. */
  counts = new Float64Array(smallest * countsWidth);
  /** Rows from 1; 0 is a free place. Twice as many places as rows. */
  #places = new Uint32Array(2 * smallest);
  /** Sums over it, by what they keep, and the version that they are of. */
  readonly #sums = new Map<number, { readonly version: number; readonly sums: UsageDay | undefined }>();

  constructor(day: number) {
    this.day = day;
  }

  #placeOf({ caller, model, node }: RowCodes): number {
    const places = this.#places;
    const mask = places.length - 1;
    let hash = Math.imul(caller, 0x9e3779b1) ^ Math.imul(model + 1, 0x85ebca6b) ^ Math.imul(node + 1, 0xc2b2ae35);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    let at = (hash ^ (hash >>> 13)) & mask;
    for (;;) {
      const row = (places[at] as number) - 1;
      if (row < 0) return at;
      if (this.callers[row] === caller && this.models[row] === model && this.nodes[row] === node) return at;
      at = (at + 1) & mask;
    }
  }

  /** −1 where there is none. */
  find(codes: RowCodes): number {
    return (this.#places[this.#placeOf(codes)] as number) - 1;
  }

  /** The row of these, made where there was none. */
  rowOf(codes: RowCodes): number {
    let place = this.#placeOf(codes);
    const known = this.#places[place] as number;
    if (known > 0) return known - 1;
    if (this.size === this.callers.length) {
      this.#grow();
      place = this.#placeOf(codes);
    }
    const row = this.size;
    this.size += 1;
    this.callers[row] = codes.caller;
    this.models[row] = codes.model;
    this.nodes[row] = codes.node;
    this.#places[place] = row + 1;
    return row;
  }

  #grow(): void {
    const length = 2 * this.callers.length;
    this.callers = wider(this.callers, new Uint32Array(length));
    this.models = wider(this.models, new Uint32Array(length));
    this.nodes = wider(this.nodes, new Uint32Array(length));
    this.counts = wider(this.counts, new Float64Array(length * countsWidth));
    this.#places = new Uint32Array(2 * length);
    for (let row = 0; row < this.size; row += 1) this.#places[this.#placeOf(this.codesAt(row))] = row + 1;
  }

  codesAt(row: number): RowCodes {
    return {
      caller: this.callers[row] as number,
      model: this.models[row] as number,
      node: this.nodes[row] as number,
    };
  }

  isEmpty(row: number): boolean {
    return this.counts[row * countsWidth + attemptsAt] === 0;
  }

  /** What it is now, whatever changes later. */
  copy(): UsageDay {
    const copy = new UsageDay(this.day);
    copy.size = this.size;
    copy.version = this.version;
    copy.callers = this.callers.slice(0, this.size);
    copy.models = this.models.slice(0, this.size);
    copy.nodes = this.nodes.slice(0, this.size);
    copy.counts = this.counts.slice(0, this.size * countsWidth);
    return copy;
  }

  /**
   * The same counts, told apart by what is kept only (the other codes are 0): it is asked often, and only the newest day
   * changes much. Itself where that saves little.
   */
  summed(kept: Kept): UsageDay {
    const kind = (kept.caller ? 1 : 0) + (kept.model ? 2 : 0) + (kept.node ? 4 : 0);
    if (kind === 7) return this;
    const known = this.#sums.get(kind);
    if (known?.version === this.version) return known.sums ?? this;
    const made = this.#nearest(kind).#sum(kept);
    const sums = made.size <= this.size / 2 ? made : undefined;
    this.#sums.set(kind, { version: this.version, sums });
    return sums ?? this;
  }

  /** The smallest that keeps as much, itself among them. */
  #nearest(kind: number): UsageDay {
    let nearest: UsageDay = this;
    for (const [other, { version, sums }] of this.#sums) {
      const isWider = (other & kind) === kind && version === this.version;
      if (isWider && sums !== undefined && sums.size < nearest.size) nearest = sums;
    }
    return nearest;
  }

  #sum(kept: Kept): UsageDay {
    const sums = new UsageDay(this.day);
    for (let row = 0; row < this.size; row += 1) {
      if (this.isEmpty(row)) continue;
      const caller = kept.caller ? (this.callers[row] as number) : 0;
      const model = kept.model ? (this.models[row] as number) : 0;
      const node = kept.node ? (this.nodes[row] as number) : 0;
      const to = sums.rowOf({ caller, model, node }) * countsWidth;
      addCounts(sums.counts, to, this.counts, row * countsWidth);
    }
    return sums;
  }
}
