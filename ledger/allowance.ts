/** How much work a peer may cause: a bucket that fills with time. */

import type { Clock } from '../protocol/ports.ts';

export class Allowance {
  readonly #clock: Clock;
  readonly #perSecond: number;
  readonly #burst: number;
  #left: number;
  #atMs: number;

  constructor(clock: Clock, options: { readonly perSecond: number; readonly burst: number }) {
    this.#clock = clock;
    this.#perSecond = options.perSecond;
    this.#burst = options.burst;
    this.#left = options.burst;
    this.#atMs = clock.nowMs();
  }

  /** Takes `units` of work. @returns false when the peer has used up what it may. */
  take(units: number): boolean {
    const nowMs = this.#clock.nowMs();
    this.#left = Math.min(this.#burst, this.#left + ((nowMs - this.#atMs) / 1_000) * this.#perSecond);
    this.#atMs = nowMs;
    this.#left -= units;
    return this.#left >= 0;
  }
}
