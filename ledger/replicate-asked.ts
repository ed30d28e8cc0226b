/** What one peer has been asked for and has not yet given, in the order in which it must answer. */

import { HelixFlowError } from '../protocol/errors.ts';
import { limits } from '../protocol/limits.ts';
import type { Want } from '../protocol/messages/ledger.ts';
import type { Block, OpenBlock } from './block.ts';
import type { Contradiction } from './replicate-wants.ts';
import { type EpochKey, keyOf } from './replicate-wire.ts';

/** A want under way. */
export interface Asked {
  readonly key: EpochKey;
  /** What it is for, when it is not for catching up. */
  readonly contradiction: Contradiction | undefined;
  readonly maxBytes: number;
  readonly from: number;
  /** The first block that has not come. */
  next: number;
  gotBytes: number;
}

const violation = (reason: string): HelixFlowError => new HelixFlowError('PROTOCOL_VIOLATION', { reason });

export class AskedWants {
  readonly #asked: Asked[] = [];
  #bytes = 0;

  /** Asked for, and not yet answered to the end. */
  get bytes(): number {
    return this.#bytes;
  }

  get size(): number {
    return this.#asked.length;
  }

  add(want: Want, contradiction: Contradiction | undefined): void {
    const { maxBytes, from } = want;
    this.#asked.push({ key: keyOf(want), contradiction, maxBytes, from, next: from, gotBytes: 0 });
    this.#bytes += maxBytes;
  }

  /**
   * Takes a part of the answer to the oldest one.
   * @param bytes Of the frame that brought it.
   * @throws HelixFlowError PROTOCOL_VIOLATION when it is no answer to that.
   */
  answer(blocks: readonly (Block | OpenBlock)[], isLast: boolean, bytes: number): Asked {
    const asked = this.#asked[0];
    if (asked === undefined) throw violation('blocks that nobody asked for');
    for (const { head } of blocks) {
      if (keyOf(head.header) !== asked.key || head.header.number !== asked.next) {
        throw violation('other blocks than asked for');
      }
      asked.next += 1;
    }
    asked.gotBytes += bytes;
    if (asked.gotBytes > 2 * asked.maxBytes + limits.frameMaxBytes) throw violation('more blocks than asked for');
    if (isLast) {
      this.#asked.shift();
      this.#bytes -= asked.maxBytes;
    }
    return asked;
  }
}
