/** One call as routing takes it. */

import type { Meter } from '../access/meter.ts';
import type { Rate } from '../access/subject.ts';
import type { BooksWork } from './books.ts';
import type { PrefixChain } from './prefix.ts';
import type { Seeker } from './seek.ts';
import type { TraceWriter } from './trace.ts';

/** What one account has under way at this gateway. */
export interface AccountLoad {
  readonly name: string;
  /** Attempts. */
  running: number;
}

/** A call that may be sent; its books are `closed` before it has `ended`, or up to `saidWithinMs` after. */
export interface DispatchWork extends BooksWork {
  /** Counts what the call uses; undefined when nobody limits it. */
  readonly meter: Meter | undefined;
  readonly rate: Rate | undefined;
  readonly trace: TraceWriter;
  readonly seeker: Seeker;
  /** What its body begins with. */
  readonly chain: PrefixChain;
  /** Whose it is: requests of one account share turns and places. */
  readonly account: AccountLoad;
  /** The client has its end, or has gone. */
  readonly ended: () => void;
}
