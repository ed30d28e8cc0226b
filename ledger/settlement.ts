/** What work comes to in money: the words of settlement (design §6). `settle.ts` decides. */

import type { AuthorId, PeerId } from '../protocol/ids.ts';
import type { UsageLine } from './line.ts';
import type { RefusalReason } from './statement.ts';

/** One thing that a gateway said of an attempt. */
export interface Said {
  /** A line, or (outcome `running`) a running count. */
  readonly line: UsageLine;
  /** The node has countersigned the statement it stands in. */
  readonly isCountersigned: boolean;
  /** The node refused the line. */
  readonly refused?: RefusalReason;
}

/** All that was said of one attempt, in any order. */
export interface AttemptFacts {
  /** The gateway's feed. */
  readonly author: AuthorId;
  readonly node: PeerId;
  readonly said: readonly Said[];
  /** The highest count of statements that told of it as running once more, if any did. */
  readonly runningTokens?: number;
}

/**
 * `agreed`: countersigned, both counts equal; `lower`: countersigned, the lower of two counts is paid; `refused`: the
 * node refused the line; `alone`: only the gateway has signed; `running`: no line yet, or its process died without one.
 */
export type SettledState = 'agreed' | 'lower' | 'refused' | 'alone' | 'running';

/** What an attempt comes to at one node. The node is credited exactly what its payer is debited. */
export interface Settled {
  readonly author: AuthorId;
  readonly node: PeerId;
  /** Of all that was said of it, what counts. */
  readonly line: UsageLine;
  readonly state: SettledState;
  /** Tokens that are paid; the prompt only once a request, to the attempt that ended it. */
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly amountMicro: number;
  readonly payer: UsageLine['payer'];
  /** Its request counts among the billed ones, and is counted here: of its attempts, one at most. */
  readonly isBilled: boolean;
}
