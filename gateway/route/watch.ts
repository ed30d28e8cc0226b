/** When an attempt has been silent for too long: a pure rule over what was heard of it, and of its node. */

import { type Ms, ms } from '../../protocol/units.ts';
import type { RoutePolicy } from './plan.ts';

/** An attempt under way, as it looks now. All times on the monotonic clock. */
export interface WatchedAttempt {
  readonly startedMs: number;
  /** When the last piece came; `startedMs` before. */
  readonly lastPieceMs: number;
  /** When the last piece with text came; `startedMs` before. */
  readonly lastTextMs: number;
  readonly hasContent: boolean;
  /** The node may send: silence is its own. */
  readonly hasCredit: boolean;
  /** To first content, as it was expected when it left; 0 when nothing was known. */
  readonly expectedMs: number;
  /** When the node's engines last told of any work done; undefined where they never tell. */
  readonly progressAtMs: number | undefined;
  /** Attempts wait there for a slot: this may be one of them. */
  readonly isCrowded: boolean;
  /** Another attempt there was found stalled, and nothing has worked since. */
  readonly isSuspect: boolean;
}

/** How much longer than expected first content may take. */
const patience = 4;

/** The longest silence that is still taken for work. */
function patienceMs(attempt: WatchedAttempt, policy: RoutePolicy): number {
  const { hasContent, progressAtMs, isCrowded, isSuspect, expectedMs } = attempt;
  if (hasContent || isSuspect) return policy.gapMs;
  // Engines that tell of their work are stuck when they tell of none; but who waits for a slot waits for others to read.
  if (progressAtMs !== undefined && !isCrowded) return policy.gapMs;
  return expectedMs > 0 ? Math.min(policy.firstContentMs, policy.gapMs + patience * expectedMs) : policy.firstContentMs;
}

/** @returns for how long the attempt has been silent, once that is too long. */
export function stalledFor(attempt: WatchedAttempt, nowMs: number, policy: RoutePolicy): Ms | undefined {
  const { startedMs, lastPieceMs, lastTextMs, hasContent, hasCredit, progressAtMs, isSuspect } = attempt;
  if (!hasCredit) return undefined;
  // Progress and pieces without text are a node's own word: with them alone it could keep a request for ever.
  const textlessMs = nowMs - lastTextMs;
  if (textlessMs >= policy.firstContentMs) return ms(textlessMs);
  const isWorking = !hasContent && !isSuspect && progressAtMs !== undefined;
  const silentMs = nowMs - Math.max(startedMs, lastPieceMs, isWorking ? progressAtMs : 0);
  return silentMs >= patienceMs(attempt, policy) ? ms(silentMs) : undefined;
}
