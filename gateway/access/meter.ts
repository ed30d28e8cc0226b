/** What one request has used so far, so that its hold can be settled however it ends. */

import { utf8Length } from '../../protocol/utf8.ts';
import type { Hold } from './limits.ts';

/** Of a prompt, or of an answer whose engine tells no token ids; the usual rule of thumb for English text. */
const bytesPerToken = 4;
/** An answer that outgrows what was set aside for it takes this much more at a time. */
const growTokens = 1_024;

export class Meter {
  readonly #hold: Hold;
  #allowed: number;
  #isOpen = false;
  #tokens = 0;
  #bytes = 0;

  constructor(hold: Hold) {
    this.#hold = hold;
    this.#allowed = hold.request.completionTokens;
  }

  /** A node has the request. What an earlier one made of it was never shown. */
  opened(): void {
    this.#isOpen = true;
    this.#tokens = 0;
    this.#bytes = 0;
  }

  /** Text always counts for something, also where no ids come with it. */
  delivered(text: string, ids: number): void {
    const bytes = utf8Length(text);
    this.#bytes += bytes;
    this.#tokens += ids > 0 ? ids : Math.ceil(bytes / bytesPerToken);
    if (this.#tokens <= this.#allowed) return;
    const more = Math.max(growTokens, this.#tokens - this.#allowed);
    this.#allowed += more;
    this.#hold.grow(more);
  }

  /** Ended well, with the node's counts: neither can be more than the bytes they were made from, and one end token. */
  done(promptTokens: number, completionTokens: number): void {
    const { promptBound } = this.#hold.request;
    this.#hold.settle(Math.min(promptTokens, promptBound) + Math.min(completionTokens, this.#bytes + 1));
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
