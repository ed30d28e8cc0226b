/** The fingerprint of a run: two runs of one seed that did the same have the same hash. */

import { sha256, toHex } from '../protocol/crypto.ts';

const pageLength = 4_096;

/** A running hash over numbers, hashed a page at a time. */
export class Trace {
  #state: Uint8Array = new Uint8Array(32);
  readonly #page = new Float64Array(pageLength);
  #used = 0;

  add(value: number): void {
    if (this.#used === pageLength) this.#fold();
    this.#page[this.#used] = value;
    this.#used += 1;
  }

  /** Adds what the bytes say, cheaply: a 32-bit FNV-1a and their number. */
  addBytes(bytes: Uint8Array): void {
    let hash = 0x811c9dc5;
    for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
    this.add(hash);
    this.add(bytes.length);
  }

  #fold(): void {
    this.#state = sha256(this.#state, new Uint8Array(this.#page.buffer, 0, this.#used * 8));
    this.#used = 0;
  }

  /** 16 hex characters over everything added so far. */
  hash(): string {
    this.#fold();
    return toHex(this.#state).slice(0, 16);
  }
}
