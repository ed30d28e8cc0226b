/** Seeded chance: the same seed and labels give the same draws, however many were made elsewhere. */

import { sha256 } from '../protocol/crypto.ts';
import { drawFloat, drawInt } from '../protocol/draw.ts';
import type { Random } from '../protocol/ports.ts';

/** A small fast counter-mixed generator (sfc32) whose seed is a hash of the path of labels. */
export class SimRandom implements Random {
  readonly #path: string;
  readonly #forks = new Map<string, number>();
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;
  readonly #draw = (): number => this.uint32();

  /** @param path The seed, or the seed and the labels below it. */
  constructor(path: string) {
    this.#path = path;
    const seed = new DataView(sha256('helixflow-sim', path).buffer);
    this.#a = seed.getInt32(0);
    this.#b = seed.getInt32(4);
    this.#c = seed.getInt32(8);
    for (let round = 0; round < 12; round += 1) this.uint32();
  }

  uint32(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    return sum >>> 0;
  }

  int(exclusiveMax: number): number {
    return drawInt(exclusiveMax, this.#draw);
  }

  float(): number {
    return drawFloat(this.#draw);
  }

  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    for (let at = 0; at < count; at += 1) bytes[at] = this.uint32() & 0xff;
    return bytes;
  }

  /** The n-th fork of one label has the same draws in every run; draws in between do not matter. */
  fork(label: string): SimRandom {
    const nth = this.#forks.get(label) ?? 0;
    this.#forks.set(label, nth + 1);
    return new SimRandom(`${this.#path}/${label}${nth === 0 ? '' : `#${nth}`}`);
  }

  /** True with this probability; for fault plans. */
  chance(probability: number): boolean {
    return this.float() < probability;
  }

  /** Uniform between two bounds. */
  between(low: number, high: number): number {
    return low + this.float() * (high - low);
  }
}
