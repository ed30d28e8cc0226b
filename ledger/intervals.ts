/** Sets of numbers that come almost in a row: as many intervals as there are gaps, and never more than a given number. */

/** Whole numbers from 0 to `Number.MAX_SAFE_INTEGER`. */
export class Intervals {
  /** First and last of each interval, ascending; between two of them at least one number is missing. */
  readonly #from: number[] = [];
  readonly #to: number[] = [];
  readonly #max: number;

  /** @param max Above it the lowest intervals become one: what is missing between them counts as there. */
  constructor(max: number) {
    this.#max = Math.max(1, max);
  }

  /** Intervals it takes. */
  get count(): number {
    return this.#from.length;
  }

  /** The interval that holds `number`, or the one before it; −1 where all begin later. */
  #find(number: number): number {
    let low = 0;
    let high = this.#from.length - 1;
    // Most numbers are new ones.
    if (high >= 0 && (this.#from[high] as number) <= number) return high;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      if ((this.#from[middle] as number) <= number) low = middle + 1;
      else high = middle - 1;
    }
    return high;
  }

  has(number: number): boolean {
    const at = this.#find(number);
    return at >= 0 && number <= (this.#to[at] as number);
  }

  /** @returns false when it was there. */
  add(number: number): boolean {
    const at = this.#find(number);
    const to = at < 0 ? -1 : (this.#to[at] as number);
    if (at >= 0 && number <= to) return false;
    const follows = at >= 0 && to === number - 1;
    const precedes = this.#from[at + 1] === number + 1;
    if (follows && precedes) {
      this.#to[at] = this.#to[at + 1] as number;
      this.#remove(at + 1);
    } else if (follows) {
      this.#to[at] = number;
    } else if (precedes) {
      this.#from[at + 1] = number;
    } else {
      this.#from.splice(at + 1, 0, number);
      this.#to.splice(at + 1, 0, number);
      if (this.count > this.#max) this.closeGaps();
    }
    return true;
  }

  #remove(at: number, count = 1): void {
    this.#from.splice(at, count);
    this.#to.splice(at, count);
  }

  /** Closes the lowest gaps, many at once: it takes time in proportion to all of them. @returns how many. */
  closeGaps(): number {
    const gaps = Math.min(Math.ceil(this.#max / 8), this.count - 1);
    if (gaps <= 0) return 0;
    this.#to[0] = this.#to[gaps] as number;
    this.#remove(1, gaps);
    return gaps;
  }

  /** Steps from one border to the next, from 0 on: small numbers, the same for the same set. */
  steps(): number[] {
    let last = 0;
    const steps: number[] = [];
    for (const [at, from] of this.#from.entries()) {
      const to = this.#to[at] as number;
      steps.push(from - last, to - from);
      last = to;
    }
    return steps;
  }

  /** The set behind `steps`; undefined when they are of none. */
  static of(steps: readonly number[], max: number): Intervals | undefined {
    const set = new Intervals(max);
    if (steps.length % 2 !== 0 || steps.length / 2 > set.#max) return undefined;
    let last = 0;
    for (let at = 0; at < steps.length; at += 2) {
      const [gap, length] = [steps[at] as number, steps[at + 1] as number];
      const from = last + gap;
      if (at > 0 && gap < 2) return undefined;
      last = from + length;
      if (!Number.isSafeInteger(last)) return undefined;
      set.#from.push(from);
      set.#to.push(last);
    }
    return set;
  }
}
