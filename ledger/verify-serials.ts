/** Sets of numbers that come in about in order: the attempts of a process, a bit each. */

const perWord = 32;

/** Numbers from 0; those that stand close together share a word. */
export class SerialSet {
  readonly #words = new Map<number, number>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(serial: number): boolean {
    const word = this.#words.get(Math.floor(serial / perWord)) ?? 0;
    return (word & (1 << (serial % perWord))) !== 0;
  }

  /** @returns false when it was there before. */
  add(serial: number): boolean {
    const at = Math.floor(serial / perWord);
    const word = this.#words.get(at) ?? 0;
    const bit = 1 << (serial % perWord);
    if ((word & bit) !== 0) return false;
    this.#words.set(at, word | bit);
    this.#size += 1;
    return true;
  }
}
