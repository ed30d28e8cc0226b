/** The gateway without HTTP: a checked request goes in, events of its answer come out. The simulator drives this. */

import type { HelixFlowError } from '../protocol/errors.ts';
import type { ModelDigest, PeerId, RequestId } from '../protocol/ids.ts';
import type { ChatRequest } from '../protocol/messages/chat.ts';
import type { Ms } from '../protocol/units.ts';
import type { Access } from './access/judge.ts';
import type { Rate } from './access/subject.ts';
import type { Preferences } from './route/preferences.ts';

/** A request that may be served: its key has been checked, its model is allowed. */
export interface ChatCall {
  readonly request: RequestId;
  /** Whose key it came with, as it was found good; its limits are taken here, and given back at the end. */
  readonly caller: Access;
  /** As the client wrote it: a name, or `name@digest8`. */
  readonly model: string;
  readonly chat: ChatRequest;
  /** From now to the end of the answer. */
  readonly deadlineMs: Ms;
  /** What the request asks of the nodes that serve it; its key's wishes are in `caller`. */
  readonly preferences?: Preferences;
  /** Nothing is shown before `done`: an answer that cannot be carried on may begin again (`restarted`). */
  readonly isWhole?: boolean;
}

/** Who serves an answer. */
export interface Served {
  /** Who serves it now. */
  readonly node: PeerId;
  readonly digest: ModelDigest;
  /** Attempts made so far, the serving one and hedges included. */
  readonly attempts: number;
  /** All nodes whose content is in the answer, in order; the last one is `node`. */
  readonly nodes: readonly PeerId[];
  /** Times that another node went on with it. */
  readonly splices: number;
}

/** How an answer ended well: counts as they stand in its line, which is on disk by then. */
export interface AnswerEnd {
  readonly finish: 'stop' | 'length';
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly served: Served;
}

/** What becomes of a call. After `done` or `failed`, exactly one of which comes, nothing follows. */
export interface AnswerEvents {
  /** The first content is there, or the end of an empty answer. Comes once; who goes on after a cut is told by `done`. */
  committed(served: Served): void;
  delta(text: string): void;
  /** All text so far is void, and the answer begins again: only for calls that are `isWhole`. */
  restarted?(): void;
  done(end: AnswerEnd): void;
  /**
   * Before `committed` the error may be answered with its status; afterwards it is STREAM_INTERRUPTED,
   * DEADLINE_EXCEEDED or, when the key was taken back, KEY_REVOKED, in-band.
   */
  failed(error: HelixFlowError): void;
}

/** The caller's side of a running call. */
export interface Answer {
  /** What the key and its account have left, this call counted; undefined when they have no limits. */
  readonly rate: Rate | undefined;
  /** True once anything of it may be charged: a node has delivered something, or worked on what its client then left. */
  readonly isBilled: boolean;
  /** The client has gone: the work stops, at the engine too. No event follows. */
  cancel(): void;
  /** The client has taken this many more UTF-8 bytes of text; lets the node send on. */
  consumed(bytes: number): void;
}

/** A model as clients see it. */
export interface ListedModel {
  readonly name: string;
  readonly digest: ModelDigest;
  readonly contextTokens: number;
  /** Nodes that serve this digest now. */
  readonly nodes: number;
  /** Other digests that go by the same name; each can be asked for as `name@digest8`. */
  readonly otherDigests: readonly ModelDigest[];
  /** When this gateway first saw the name, seconds since the epoch. */
  readonly firstSeenS: number;
}

export interface GatewayService {
  /** From the gateway's own view; asks nobody. Sorted by name. */
  models(): readonly ListedModel[];
  /**
   * Serves a call. Events come from later turns, never from within this function.
   * Errors come through `failed`: RATE_LIMITED, REQUEST_OVER_LIMIT, BUDGET_EXHAUSTED, BUDGET_UNAVAILABLE, USAGE_UNRECORDED, KEY_REVOKED, MODEL_NOT_FOUND, MODEL_UNAVAILABLE, NODE_OVERLOADED, NODE_LOST, ENGINE_FAILED,
   * CONTEXT_LENGTH_EXCEEDED, REQUEST_UNSUPPORTED, ENGINE_REFUSED, DEADLINE_EXCEEDED, GATEWAY_DRAINING, STREAM_INTERRUPTED.
   */
  chat(call: ChatCall, events: AnswerEvents): Answer;
  /** What the key and its account have left at this gateway; undefined when they have no limits. Counts nothing. */
  rateOf(caller: Access): Rate | undefined;
  /** False while draining. A gateway without nodes is ready, but `degraded`. */
  readiness(): { readonly ready: boolean; readonly degraded: boolean; readonly nodes: number };
}
