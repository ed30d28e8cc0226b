/** Whether a node takes one more attempt, and whether one that waited is still worth starting: pure rules over what it is doing. */

export interface LaneLoad {
  readonly active: number;
  readonly slots: number;
  readonly queued: number;
  readonly queueMax: number;
  /** Another account holds so much more of a full queue that it has to give up a place for this attempt. */
  readonly isOwed: boolean;
  readonly draining: boolean;
  /** Mean time an answer occupied a slot, lately; 0 before the first one. */
  readonly serviceMeanMs: number;
}

export type Admission =
  | { readonly kind: 'start' }
  | { readonly kind: 'queue' }
  | { readonly kind: 'refuse'; readonly reason: 'draining' }
  | { readonly kind: 'refuse'; readonly reason: 'full'; readonly retryAfterMs: number };

const retryAfterMinMs = 250;
const retryAfterMaxMs = 60_000;

/** Start while a slot is free, wait while the queue has room or owes some, else refuse and say when to come again. */
export function admit(load: LaneLoad): Admission {
  if (load.draining) return { kind: 'refuse', reason: 'draining' };
  if (load.active < load.slots && load.queued === 0) return { kind: 'start' };
  if (load.queued < load.queueMax || load.isOwed) return { kind: 'queue' };
  return { kind: 'refuse', reason: 'full', retryAfterMs: retryAfterMs(load) };
}

/** True for an answer that has to wait, and that its wait and its usual time would make later than it may be. */
export const isLate = (
  { slots, serviceMeanMs }: Pick<LaneLoad, 'slots' | 'serviceMeanMs'>,
  wait: { readonly ahead: number; readonly answerMs: number; readonly deadlineMs: number },
): boolean => ((wait.ahead + 1) * serviceMeanMs) / slots + wait.answerMs > wait.deadlineMs;

/** Until all that wait now have their slot, and one more is free: as many answers' time, spread over the slots. */
export function retryAfterMs({
  slots,
  queued,
  serviceMeanMs,
}: Pick<LaneLoad, 'slots' | 'queued' | 'serviceMeanMs'>): number {
  const expected = slots > 0 ? (serviceMeanMs * (queued + 1)) / slots : retryAfterMaxMs;
  return Math.round(Math.min(Math.max(expected, retryAfterMinMs), retryAfterMaxMs));
}
