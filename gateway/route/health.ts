/** Whether a model at a node is fit for requests: a breaker with half-open probes, and a slow start for newcomers. */

import type { ErrorCode } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId } from '../../protocol/ids.ts';

export type BreakerState = 'closed' | 'open' | 'half-open';

/** The health of one model at one node; it outlives the node's sessions, so that one that comes and goes is known. */
export interface ServingHealth {
  readonly state: BreakerState;
  /** An attempt may go there now: closed, or half-open with no probe under way. */
  readonly isAllowed: boolean;
  /** As in `RoutedNode`. */
  readonly warmth: number;
  /** When an open breaker lets a probe pass, on the monotonic clock; undefined while it is not open. */
  readonly probeAtMs: number | undefined;
  /** Why it opened last. */
  readonly openedBy: ErrorCode | undefined;
  /** An attempt leaves for it; of a half-open one this is the probe. @returns what to tell of its end, exactly once. */
  began(): AttemptHealth;
}

/** One attempt, as its node's health sees it; only the first call counts. */
export interface AttemptHealth {
  /** Content came, or a whole answer: the node works. */
  worked(): void;
  /** It ended with this error; only codes whose row blames the node tell against it. */
  failed(code: ErrorCode): void;
  /** It was taken away for reasons of its own. */
  dropped(): void;
}

/** All that a gateway knows of its nodes' health. */
export interface Healths {
  of(peer: PeerId, digest: ModelDigest): ServingHealth;
  /** The node's session is there anew: it starts slowly. */
  arrived(peer: PeerId): void;
}
