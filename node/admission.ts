/** Whether a node takes one more attempt: a pure rule over what it is doing. */

export interface LaneLoad {
  readonly active: number;
  readonly slots: number;
  readonly queued: number;
  readonly queueMax: number;
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

/** Start while a slot is free, wait while the queue has room, else refuse and say when a place should be free. */
export function admit(load: LaneLoad): Admission {
  if (load.draining) return { kind: 'refuse', reason: 'draining' };
  if (load.active < load.slots && load.queued === 0) return { kind: 'start' };
  if (load.queued < load.queueMax) return { kind: 'queue' };
  return { kind: 'refuse', reason: 'full', retryAfterMs: retryAfter(load) };
}

/** Until the first place in the queue comes free: one answer's time, spread over the slots. */
function retryAfter(load: LaneLoad): number {
  const expected = load.slots > 0 ? load.serviceMeanMs / load.slots : retryAfterMaxMs;
  return Math.round(Math.min(Math.max(expected, retryAfterMinMs), retryAfterMaxMs));
}
