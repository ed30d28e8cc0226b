/** Requests that are let go once enough others came after them. */

import type { OpenRequest } from './usage-request.ts';

/** A ring that grows up to its bound. */
export class RequestQueue {
  readonly #ring: OpenRequest[] = [];
  readonly #max: number;
  #next = 0;

  constructor(max: number) {
    this.#max = Math.max(1, max);
  }

  /** @returns the oldest, when there was no more room for it. */
  push(request: OpenRequest): OpenRequest | undefined {
    if (this.#ring.length < this.#max) {
      this.#ring.push(request);
      return undefined;
    }
    const oldest = this.#ring[this.#next];
    this.#ring[this.#next] = request;
    this.#next = (this.#next + 1) % this.#max;
    return oldest;
  }

  /** Oldest first. */
  all(): readonly OpenRequest[] {
    return [...this.#ring.slice(this.#next), ...this.#ring.slice(0, this.#next)];
  }
}
