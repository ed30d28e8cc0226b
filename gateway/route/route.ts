/** What routing works with, and the errors it ends in. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { Clock, Log, Random } from '../../protocol/ports.ts';
import type { AccountingDeps } from '../accounting.ts';
import type { ChatCall } from '../service.ts';
import type { Refusal } from './candidates.ts';
import type { RouteCounts } from './counts.ts';
import type { Lateness } from './lateness.ts';
import type { RoutePolicy } from './plan.ts';
import type { PrefixMemory } from './prefix.ts';
import type { WaitingRoom } from './waiting.ts';

/** Shared by all calls of one gateway. */
export interface RouteDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly accounting: AccountingDeps;
  readonly policy: RoutePolicy;
  readonly prefixes: PrefixMemory;
  readonly lateness: Lateness;
  readonly waiting: WaitingRoom;
  readonly counts: RouteCounts;
}

/** So long a node may take to say how far it had come with an attempt that was stopped. */
export const saidWithinMs = 2_000;

/** How the line of an attempt that ended so tells of it. */
export function failedOutcome({ code }: HelixFlowError): 'lost' | 'cut' | 'failed' {
  if (code === 'NODE_LOST') return 'lost';
  return code === 'NODE_STALLED' ? 'cut' : 'failed';
}

/** A refusal with a reason beats "the node was lost": it tells the client more. */
export function moreTelling(earlier: HelixFlowError | undefined, later: HelixFlowError): HelixFlowError {
  return earlier !== undefined && later.code === 'NODE_LOST' ? earlier : later;
}

/** Why no node could ever take the request. @param bodyBytes Of what would be sent. */
export function hopelessError(
  call: Pick<ChatCall, 'model'>,
  refusals: readonly Refusal[],
  largestBytes: number,
): HelixFlowError {
  const counts = new Map<string, number>();
  for (const { reason } of refusals) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  if (counts.size === 1 && counts.has('body-too-large')) {
    return new HelixFlowError('REQUEST_TOO_LARGE', { maxBytes: largestBytes });
  }
  const reason = [...counts].map(([why, count]) => `${why}: ${count}`).join(', ');
  return new HelixFlowError('NODES_EXCLUDED', { model: call.model, reason });
}
