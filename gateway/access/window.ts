/** How much there was of something in the last 60 s, in slots of one second. */

import { type Ms, ms } from '../../protocol/units.ts';

export const slotMs = 1_000;
/** 60 whole seconds and the one that has begun: what lies in any 60 s up to now is in these, so the bound is never passed. */
const slots = 61;

/** A sliding sum. Time must not go back. */
export class Window {
  readonly #counts = new Float64Array(slots);
  #sum = 0;
  /** The newest slot, as a number since the clock's origin. */
  #slot = 0;
  /** The newest slot that anything was added to. */
  #lastSlot = -slots;

  /** What was added in the last 60 s, and up to one more. */
  sum(nowMs: Ms): number {
    this.#advance(nowMs);
    return this.#sum;
  }

  add(nowMs: Ms, amount: number): void {
    this.#advance(nowMs);
    if (amount === 0) return;
    const at = this.#slot % slots;
    this.#counts[at] = (this.#counts[at] ?? 0) + amount;
    this.#sum += amount;
    this.#lastSlot = this.#slot;
  }

  /** How long until the sum is `most` or less, if nothing is added; `most` is 0 or more. */
  untilAtMost(nowMs: Ms, most: number): Ms {
    this.#advance(nowMs);
    let sum = this.#sum;
    for (let slot = this.#slot - slots + 1; slot <= this.#slot; slot += 1) {
      if (sum <= most) return this.#leftBy(slot - 1, nowMs);
      if (slot >= 0) sum -= this.#counts[slot % slots] ?? 0;
    }
    return this.#leftBy(this.#slot, nowMs);
  }

  /** How long until nothing is left, if nothing is added. */
  untilEmpty(nowMs: Ms): Ms {
    return this.sum(nowMs) === 0 ? ms(0) : this.#leftBy(this.#lastSlot, nowMs);
  }

  /** How long until `slot` counts no more. */
  #leftBy(slot: number, nowMs: Ms): Ms {
    return ms(Math.max(0, (slot + slots) * slotMs - nowMs));
  }

  #advance(nowMs: Ms): void {
    const slot = Math.floor(nowMs / slotMs);
    if (slot === this.#slot) return;
    if (this.#sum > 0) {
      const gone = Math.min(slots, slot - this.#slot);
      for (let step = 1; step <= gone; step += 1) {
        const at = (this.#slot + step) % slots;
        this.#sum -= this.#counts[at] ?? 0;
        this.#counts[at] = 0;
      }
    }
    this.#slot = slot;
  }
}
