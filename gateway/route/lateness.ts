/** When a request is late against its model's own times, and how many hedges that is worth: bounded, and forgetting. */

import type { ModelDigest } from '../../protocol/ids.ts';
import type { Ms } from '../../protocol/units.ts';

/** The times of one gateway. */
export interface Lateness {
  /** First content came `firstMs` after its attempt left, where `expectedMs` were expected (`Score.firstMs`). */
  note(digest: ModelDigest, expectedMs: number, firstMs: Ms): void;
  /** From the start of an attempt until it is late: beyond what 95 of 100 took; undefined while too little is known. */
  lateAfterMs(digest: ModelDigest, expectedMs: number): Ms | undefined;
  /** A request has come: the budget for hedges grows by its share. */
  asked(): void;
  /** Takes a hedge from the budget. @returns false when there is none left. */
  takeHedge(): boolean;
}
