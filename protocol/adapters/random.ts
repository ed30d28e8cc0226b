/** Real chance: the operating system's, fetched in pages so that small draws are cheap. */

import { randomBytes, randomFillSync } from 'node:crypto';
import { drawFloat, drawInt } from '../draw.ts';
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

  #uint32 = (): number => this.#page.readUInt32LE(this.#take(4));

  int(exclusiveMax: number): number {
    return drawInt(exclusiveMax, this.#uint32);
  }

  float(): number {
    return drawFloat(this.#uint32);
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
