/** What one request has used so far, so that what its limits hold can be settled however it ends. */

import { bytesPerToken } from '../../protocol/counting.ts';
import type { Hold } from './limits.ts';

/** An answer that outgrows what was set aside for it takes this much more at a time. */
const growTokens = 1_024;

export class Meter {
  readonly #hold: Hold;
  #allowed: number;
  #isOpen = false;
  #tokens = 0;

  constructor(hold: Hold) {
    this.#hold = hold;
    this.#allowed = hold.request.completionTokens;
  }

  /** A node has the request. What an earlier one made of it was never shown. */
  opened(): void {
    this.#isOpen = true;
    this.#tokens = 0;
  }

  /** So many tokens of its answer have come by now. */
  delivered(tokens: number): void {
    this.#tokens = tokens;
    if (tokens <= this.#allowed) return;
    const more = Math.max(growTokens, tokens - this.#allowed);
    this.#allowed += more;
    this.#hold.grow(more);
  }

  /** Ended well, with what is charged for it. */
  done(promptTokens: number, completionTokens: number): void {
    this.#hold.settle(promptTokens + completionTokens);
  }

  /** Ended by whoever asked, by the deadline, or because the key was taken back: the prompt may have been worked on. */
  stopped(): void {
    this.#hold.settle(this.#isOpen ? this.#promptEstimate() + this.#tokens : 0);
  }

  /** Failed through no doing of the client's: what it got counts, and without that nothing but the request itself. */
  failed(): void {
    this.#hold.settle(this.#tokens === 0 ? 0 : this.#promptEstimate() + this.#tokens);
  }

  #promptEstimate(): number {
    return Math.ceil(this.#hold.request.promptBound / bytesPerToken);
  }
}
