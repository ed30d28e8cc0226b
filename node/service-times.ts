/** How long answers take at one engine, lately: what an honest wait is made of, and what no answer has been faster than. */

import type { EngineDone } from '../protocol/ports.ts';

/** Weight of the newest answer in the mean service time. */
const meanWeight = 0.2;
/** Whole answers that are remembered. */
const remembered = 32;

interface Pace {
  readonly prefillMs: number;
  readonly tokens: number;
  readonly tokenMs: number;
}

export class ServiceTimes {
  #meanMs: number | undefined;
  readonly #paces: Pace[] = [];

  /** Mean time an answer, whatever its end, held its slot; 0 before the first one. */
  get meanMs(): number {
    return this.#meanMs ?? 0;
  }

  /** A slot came free. */
  held(tookMs: number): void {
    this.#meanMs = this.#meanMs === undefined ? tookMs : this.#meanMs + meanWeight * (tookMs - this.#meanMs);
  }

  /** An answer is whole. */
  done({
    prefillMs,
    decodeMs,
    completionTokens,
  }: Pick<EngineDone, 'prefillMs' | 'decodeMs' | 'completionTokens'>): void {
    const steps = completionTokens - 1;
    this.#paces.push({ prefillMs, tokens: completionTokens, tokenMs: steps > 0 ? decodeMs / steps : 0 });
    if (this.#paces.length > remembered) this.#paces.shift();
  }

  /**
   * What the quickest answer of so many tokens would take: the best of each lately seen. A guess from below, so that nothing
   * is given up that could still be done in time.
   */
  leastMs(tokensMax: number | undefined): number {
    if (this.#paces.length === 0) return 0;
    const least = (of: (pace: Pace) => number): number => Math.min(...this.#paces.map(of));
    const tokens = Math.min(
      tokensMax ?? Number.POSITIVE_INFINITY,
      least(({ tokens }) => tokens),
    );
    return least(({ prefillMs }) => prefillMs) + Math.max(0, tokens - 1) * least(({ tokenMs }) => tokenMs);
  }
}
