/** How long a node waits for work to be covered, and when it gives it up: pure rules of time, in connected time (design §6). */

import type { ProcessId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';

/** What one gateway has shown so far. */
export interface Patience {
  /** Its process, as far as known, and since when another one was. */
  readonly run: ProcessId | undefined;
  readonly runSinceMs: number | undefined;
  /** How often its work was given up, and when lately. */
  readonly losses: number;
  readonly lossMs: number;
}

/** What of an attempt decides how long it is waited for. */
export interface Waiting {
  readonly run: ProcessId;
  /** It comes from an earlier process of this node, whose disk may have lost what has covered it since. */
  readonly isOld: boolean;
  /** All that was done before is covered. */
  readonly sinceMs: number;
  /** When it ended; undefined while it runs. */
  readonly endedMs: number | undefined;
  /** Running counts of the gateway reach as far as our own. */
  readonly isTold: boolean;
  readonly isRefused: boolean;
}

/** After a gateway left work uncovered for good; grows with each time that it did. */
const firstPauseMs = 600_000;
const pauseGrowth = 4;
const pauseMaxMs = 86_400_000;
/** A loss is forgotten after so long. */
const lossMemoryMs = 86_400_000;

/** Work that is overdue for so long is claimed: what was on its way when a connection broke has come by then. */
export const claimAfterMs = 20_000;

/** How old uncovered work may be. A gateway that has started again may not sign before it knows what it wrote. */
export function ageMaxMs({ runSinceMs }: Patience, nowMs: number): number {
  const { uncoveredMaxMs, recoveryWaitMs } = limits;
  const isRecovering = runSinceMs !== undefined && nowMs < runSinceMs + recoveryWaitMs + uncoveredMaxMs;
  return isRecovering ? uncoveredMaxMs + recoveryWaitMs : uncoveredMaxMs;
}

/** When work has waited for too long; undefined while nothing of it is uncovered. */
export function dueMs(work: Waiting, patience: Patience, nowMs: number): number | undefined {
  const maxMs = ageMaxMs(patience, nowMs);
  if (work.isRefused || !work.isTold) return work.sinceMs + maxMs;
  // Its tokens are covered, its prompt is not.
  return work.endedMs === undefined ? undefined : work.endedMs + maxMs;
}

/** Losses that still count. */
export const lossesAt = ({ losses, lossMs }: Patience, nowMs: number): number =>
  Math.max(0, losses - Math.floor(Math.max(0, nowMs - lossMs) / lossMemoryMs));

/** One of the two processes between which it was done is gone, and what it knew of it. */
export const mayBeLost = (work: Waiting, { run }: Patience): boolean =>
  (run !== undefined && run !== work.run) || (work.isOld && !work.isRefused);

/**
 * For how long nothing is taken from the gateway before overdue work is given up. What ran when a process ended, on
 * either side, may have left no line or no record: this must not stop an honest gateway, nor pay one that starts again
 * and again.
 */
export function pauseMs(work: Waiting, patience: Patience, nowMs: number): number {
  const losses = lossesAt(patience, nowMs);
  if (!mayBeLost(work, patience)) return Math.min(pauseMaxMs, firstPauseMs * pauseGrowth ** losses);
  return losses === 0 ? 0 : Math.min(pauseMaxMs, limits.recoveryWaitMs * pauseGrowth ** (losses - 1));
}

/** What a gateway may leave out from the start, where the node has not done as much for it in a window of time. */
const shortFreeTokens = 1_024;
/** Of what it covers. */
const shortShare = 1 / 16;

/** What lines have left out so far. */
export interface Shortage {
  /** The most tokens that the node did for the gateway within `limits.uncoveredMaxMs`. */
  readonly windowTokens: number;
  readonly shortTokens: number;
  readonly coveredTokens: number;
}

/**
 * Tokens that a gateway may still leave out of attempts that it let go. What is on its way when a client leaves is lost
 * to the node, honestly; a gateway that lets go of everything just before its end comes no further than this.
 */
export const toleranceTokens = ({ windowTokens, shortTokens, coveredTokens }: Shortage): number =>
  Math.max(0, Math.floor(Math.max(shortFreeTokens, windowTokens) + coveredTokens * shortShare - shortTokens));
