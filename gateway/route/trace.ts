/** What happened to a request and why: kept for the newest ones, written down as it happens, put into words when asked for. */

import type { ErrorCode } from '../../protocol/errors.ts';
import type { ModelDigest, PeerId, RequestId } from '../../protocol/ids.ts';
import type { Ms } from '../../protocol/units.ts';
import type { Refusal } from './candidates.ts';
import type { ChoiceReason } from './plan.ts';
import type { Score } from './score.ts';

/** A node that might have served, as it looked at that moment. */
export interface TracedCandidate {
  readonly peer: PeerId;
  readonly score: Score;
  readonly cachedBytes: number;
  readonly active: number;
  readonly queued: number;
}

/** What a new attempt is for. */
export type AttemptPurpose = 'first' | 'retry' | 'splice' | 'restart' | 'hedge';

/** One thing that happened, `atMs` after the request came. */
export type TraceStep =
  | {
      readonly kind: 'choice';
      readonly atMs: Ms;
      readonly purpose: AttemptPurpose;
      readonly chosen: PeerId | undefined;
      readonly reason: ChoiceReason | undefined;
      readonly candidates: readonly TracedCandidate[];
      readonly refusals: readonly Refusal[];
      /** Nodes of the group, also those that were not looked at. */
      readonly groupSize: number;
    }
  /** No node could take it: it waits. */
  | { readonly kind: 'waits'; readonly atMs: Ms; readonly ahead: number }
  | { readonly kind: 'attempt'; readonly atMs: Ms; readonly purpose: AttemptPurpose; readonly node: PeerId }
  | { readonly kind: 'content'; readonly atMs: Ms; readonly node: PeerId }
  | { readonly kind: 'failed'; readonly atMs: Ms; readonly node: PeerId; readonly code: ErrorCode; readonly tokens: number }
  /** An attempt was stopped by the gateway: a hedge that lost, or a client that left. `settledMs` later the slot was free, where the node told. */
  | {
      readonly kind: 'cancelled';
      readonly atMs: Ms;
      readonly node: PeerId;
      readonly why: 'hedge-lost' | 'client' | 'stalled' | 'deadline' | 'budget' | 'key';
      settledMs?: Ms | undefined;
    }
  | { readonly kind: 'done'; readonly atMs: Ms; readonly node: PeerId; readonly tokens: number }
  | { readonly kind: 'ended'; readonly atMs: Ms; readonly code: ErrorCode };

/** One request's story. */
export interface Trace {
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest | undefined;
  /** When it came, in ms since the epoch. */
  readonly startMs: number;
  readonly steps: readonly TraceStep[];
}

/** Writes a story. Steps beyond a bound are dropped, the last ones kept. */
export interface TraceWriter {
  add(step: TraceStep): void;
}

/** The newest stories of one gateway. */
export interface Traces {
  begin(request: RequestId, model: string, digest: ModelDigest | undefined): TraceWriter;
  get(request: RequestId): Trace | undefined;
}
