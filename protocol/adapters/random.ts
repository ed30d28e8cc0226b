/** Real chance: the operating system's, fetched in pages so that small draws are cheap. */

import { randomBytes, randomFillSync } from 'node:crypto';
import { assert } from '../invariant.ts';
import type { Random } from '../ports.ts';

const pageBytes = 4_096;

class SystemRandom implements Random {
  readonly #page: Buffer = Buffer.alloc(pageBytes);
  #used = pageBytes;

  /** `count` unused bytes of the page, at most a page; taken once and then wiped by the caller or left behind. */
  #take(count: number): number {
    if (this.#used + count > pageBytes) {
      randomFillSync(this.#page);
      this.#used = 0;
    }
    const at = this.#used;
    this.#used += count;
    return at;
  }

  int(exclusiveMax: number): number {
    assert(
      Number.isInteger(exclusiveMax) && exclusiveMax >= 1 && exclusiveMax <= 2 ** 32,
      'a range is from 1 to 2^32 long',
    );
    // Draws above the last whole multiple would make small results more likely.
    const fair = 2 ** 32 - (2 ** 32 % exclusiveMax);
    let value: number;
    do value = this.#page.readUInt32LE(this.#take(4));
    while (value >= fair);
    return value % exclusiveMax;
  }

  float(): number {
    const at = this.#take(8);
    const high = this.#page.readUInt32LE(at) >>> 5;
    const low = this.#page.readUInt32LE(at + 4) >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  bytes(count: number): Uint8Array {
    if (count > pageBytes / 16) return new Uint8Array(randomBytes(count));
    const at = this.#take(count);
    const bytes = new Uint8Array(this.#page.subarray(at, at + count));
    // They may become a key: no copy stays behind.
    this.#page.fill(0, at, at + count);
    return bytes;
  }

  /** Draws of one source are independent of each other, so there is nothing to split. */
  fork(_label: string): Random {
    return this;
  }
}

/** Chance fit for keys. */
export const systemRandom = (): Random => new SystemRandom();
