/** How long answers take at one engine, lately: what an honest wait is made of, and what an answer can be expected to take. */

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
   * What this share of the answers lately seen would have taken at most, had they ended after so many tokens.
   * 0 while nothing is known.
   */
  answerMs(tokensMax: number | undefined, share: number): number {
    const times = this.#paces.map(
      ({ prefillMs, tokens, tokenMs }) =>
        prefillMs + Math.max(0, Math.min(tokensMax ?? Number.POSITIVE_INFINITY, tokens) - 1) * tokenMs,
    );
    times.sort((a, b) => a - b);
    return times[Math.ceil(times.length * share) - 1] ?? 0;
  }
}
