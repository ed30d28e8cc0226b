/** Sets of numbers that mostly follow one another, kept as the ranges they form. */

/** Whole numbers from 0 on; costs as much as it has gaps. */
export class Ranges {
  /** First and last number of each range, in order; ranges never touch. */
  readonly #firsts: number[] = [];
  readonly #lasts: number[] = [];
  #size = 0;

  /** How many numbers there are. */
  get size(): number {
    return this.#size;
  }

  /** How many ranges they form. */
  get count(): number {
    return this.#firsts.length;
  }

  /** The lowest number; undefined when there is none. */
  get lowest(): number | undefined {
    return this.#firsts[0];
  }

  /** Position of the first range that ends at `number` or above it. */
  #find(number: number): number {
    let low = 0;
    let high = this.#lasts.length;
    // What comes next is nearly always above all that came before.
    if (high > 0 && number > (this.#lasts[high - 1] ?? 0)) return high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#lasts[middle] ?? 0) < number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  has(number: number): boolean {
    const first = this.#firsts[this.#find(number)];
    return first !== undefined && first <= number;
  }

  /** @returns false when it was there. */
  add(number: number): boolean {
    const at = this.#find(number);
    if ((this.#firsts[at] ?? Number.POSITIVE_INFINITY) <= number) return false;
    this.#size += 1;
    const joinsBefore = at > 0 && this.#lasts[at - 1] === number - 1;
    const joinsAfter = this.#firsts[at] === number + 1;
    if (joinsBefore && joinsAfter) {
      this.#lasts[at - 1] = this.#lasts[at] ?? number;
      this.#firsts.splice(at, 1);
      this.#lasts.splice(at, 1);
    } else if (joinsBefore) this.#lasts[at - 1] = number;
    else if (joinsAfter) this.#firsts[at] = number;
    else {
      this.#firsts.splice(at, 0, number);
      this.#lasts.splice(at, 0, number);
    }
    return true;
  }

  /** @returns false when it was not there. */
  delete(number: number): boolean {
    const at = this.#find(number);
    const [first, last] = [this.#firsts[at], this.#lasts[at]];
    if (first === undefined || last === undefined || first > number) return false;
    this.#size -= 1;
    if (first === last) {
      this.#firsts.splice(at, 1);
      this.#lasts.splice(at, 1);
    } else if (first === number) this.#firsts[at] = number + 1;
    else if (last === number) this.#lasts[at] = number - 1;
    else {
      this.#lasts[at] = number - 1;
      this.#firsts.splice(at + 1, 0, number + 1);
      this.#lasts.splice(at + 1, 0, last);
    }
    return true;
  }

  /** Takes the lowest range away. @returns how many numbers went with it. */
  deleteLowest(): number {
    const first = this.#firsts.shift();
    const last = this.#lasts.shift();
    if (first === undefined || last === undefined) return 0;
    this.#size -= last - first + 1;
    return last - first + 1;
  }

  /** The lowest number above `number`. */
  above(number: number): number | undefined {
    const first = this.#firsts[this.#find(number + 1)];
    return first === undefined ? undefined : Math.max(first, number + 1);
  }
}
