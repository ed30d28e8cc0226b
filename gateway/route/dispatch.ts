/** Carries one call: tries nodes until one shows content, then stays with it to the end. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { IssuerId, KeyId, ModelDigest, PeerId, Tag } from '../../protocol/ids.ts';
import type { Delta, Done } from '../../protocol/messages/session.ts';
import type { Cancel, Clock, Log, Random } from '../../protocol/ports.ts';
import type { Attempt } from '../../protocol/session/outgoing.ts';
import type { BagItem } from '../../protocol/tables.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import type { Meter } from '../access/meter.ts';
import type { Rate } from '../access/subject.ts';
import type { NodeEntry } from '../nodes.ts';
import type { Answer, AnswerEvents, ChatCall, Served } from '../service.ts';
import { candidatesOf } from './candidates.ts';
import { chooseLiveliest, chooseNode, mayRetry } from './plan.ts';

export interface DispatchDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Where a call may go. */
export interface Target {
  /** The model's name without a pinned digest. */
  readonly name: string;
  readonly digest: ModelDigest;
  /** The digest's nodes at this moment. */
  readonly group: () => readonly NodeEntry[];
}

/** A call that may be sent. */
export interface DispatchWork {
  readonly call: ChatCall;
  readonly target: Target;
  /** `encodeChatRequest`. */
  readonly body: Uint8Array;
  /** Counts what the call uses; undefined when nobody limits it. */
  readonly meter: Meter | undefined;
  readonly rate: Rate | undefined;
  readonly ended: () => void;
}

const noneTried: ReadonlySet<PeerId> = new Set();

/** One running call. */
export class Dispatch implements Answer, BagItem {
  bagIndex = -1;
  readonly rate: Rate | undefined;
  readonly #deps: DispatchDeps;
  readonly #call: ChatCall;
  readonly #target: Target;
  readonly #body: Uint8Array;
  readonly #meter: Meter | undefined;
  readonly #events: AnswerEvents;
  readonly #ended: () => void;
  #tried: ReadonlySet<PeerId> = noneTried;
  readonly #deadlineMs: Ms;
  readonly #cancelDeadline: Cancel;
  #attempt: Attempt | undefined;
  #node: NodeEntry | undefined;
  #attempts = 0;
  #startedMs: Ms = ms(0);
  #isCommitted = false;
  #hasLostNode = false;
  #isOver = false;
  #lastError: HelixFlowError | undefined;

  constructor(deps: DispatchDeps, work: DispatchWork, events: AnswerEvents) {
    this.rate = work.rate;
    this.#deps = deps;
    this.#meter = work.meter;
    this.#call = work.call;
    this.#target = work.target;
    this.#body = work.body;
    this.#ended = work.ended;
    this.#events = events;
    this.#deadlineMs = ms(deps.clock.nowMs() + work.call.deadlineMs);
    this.#cancelDeadline = deps.clock.timer(work.call.deadlineMs, () => this.#expired());
  }

  /** Tries the next node, or ends the call with the last error. */
  next(): void {
    if (this.#isOver) return;
    const candidates = candidatesOf(this.#target.group(), { tried: this.#tried, bodyBytes: this.#body.length });
    const node = this.#hasLostNode ? chooseLiveliest(candidates) : chooseNode(candidates, this.#deps.random);
    if (node === undefined) {
      const { name } = this.#target;
      this.#fail(this.#lastError ?? new HelixFlowError('MODEL_UNAVAILABLE', { model: name, retryAfterMs: 1_000 }));
      return;
    }
    this.#tried = this.#attempts === 0 ? new Set([node.peer]) : new Set([...this.#tried, node.peer]);
    this.#attempts += 1;
    this.#node = node;
    this.#startedMs = this.#deps.clock.nowMs();
    node.counts.attempts += 1;
    node.running += 1;
    try {
      this.#attempt = node.session.open(
        {
          request: this.#call.request,
          model: this.#target.name,
          digest: this.#target.digest,
          deadlineMs: ms(Math.max(1, this.#deadlineMs - this.#startedMs)),
          body: this.#body,
          serial: 1,
          account: '0000000000000000' as Tag,
          price: '',
        },
        {
          delta: (delta) => this.#delta(node, delta),
          done: (done) => this.#done(node, done),
          failed: (error) => this.#failed(node, error),
        },
      );
    } catch (error) {
      if (!(error instanceof HelixFlowError)) throw error;
      this.#failed(node, error);
      return;
    }
    this.#meter?.opened();
  }

  cancel(): void {
    if (this.#isOver) return;
    this.#stop('cancelled');
  }

  /** Ends the call with `error`, after first content too: what made it possible has been taken back. */
  cut(error: HelixFlowError): void {
    if (this.#isOver) return;
    this.#stop('cancelled');
    this.#events.failed(error);
  }

  /** True when the call came with this key. */
  isOf(key: KeyId, issuer: IssuerId): boolean {
    const { caller } = this.#call;
    return caller.keyId === key && caller.issuer === issuer;
  }

  consumed(bytes: number): void {
    this.#attempt?.consumed(bytes);
  }

  #served(node: NodeEntry): Served {
    return { node: node.peer, digest: this.#target.digest, attempts: this.#attempts };
  }

  #commit(node: NodeEntry): void {
    if (this.#isCommitted) return;
    this.#isCommitted = true;
    node.firstContentAfter(ms(this.#deps.clock.nowMs() - this.#startedMs));
    this.#events.committed(this.#served(node));
  }

  #delta(node: NodeEntry, delta: Delta): void {
    if (this.#isOver) return;
    this.#meter?.delivered(delta.text, delta.tokenIds.length);
    if (delta.text === '') {
      // It cost credit all the same, and nobody downstream will report it as taken.
      this.#attempt?.consumed(0);
      return;
    }
    this.#commit(node);
    this.#events.delta(delta.text);
  }

  #done(node: NodeEntry, done: Done): void {
    if (this.#isOver) return;
    this.#commit(node);
    this.#release(node);
    node.counts.done += 1;
    node.answeredAfter(ms(this.#deps.clock.nowMs() - this.#startedMs));
    const { finish, promptTokens, cachedTokens, completionTokens } = done;
    this.#meter?.done(promptTokens, completionTokens);
    this.#over();
    this.#events.done({ finish, promptTokens, cachedTokens, completionTokens, served: this.#served(node) });
  }

  #failed(node: NodeEntry, error: HelixFlowError): void {
    if (this.#isOver) return;
    this.#release(node);
    node.counts.failed += 1;
    this.#attempt = undefined;
    this.#deps.log.info('attempt.failed', {
      request: this.#call.request,
      node: node.peer,
      code: error.code,
      attempt: this.#attempts,
      committed: this.#isCommitted,
    });
    this.#hasLostNode ||= error.code === 'NODE_LOST';
    this.#lastError = moreTelling(this.#lastError, error);
    if (mayRetry(error, this.#attempts, this.#isCommitted)) this.next();
    else this.#fail(this.#lastError);
  }

  #fail(error: HelixFlowError): void {
    this.#meter?.failed();
    this.#over();
    this.#events.failed(this.#isCommitted ? new HelixFlowError('STREAM_INTERRUPTED', {}, { cause: error }) : error);
  }

  #expired(): void {
    if (this.#isOver) return;
    this.#lastError = new HelixFlowError('DEADLINE_EXCEEDED', { deadlineMs: this.#call.deadlineMs });
    this.#stop('failed');
    this.#fail(this.#lastError);
  }

  /** Takes the running attempt away from its node. */
  #stop(outcome: 'cancelled' | 'failed'): void {
    if (this.#node !== undefined && this.#attempt !== undefined) {
      this.#release(this.#node);
      this.#node.counts[outcome] += 1;
    }
    this.#attempt?.cancel();
    this.#meter?.stopped();
    this.#over();
  }

  #release(node: NodeEntry): void {
    node.running -= 1;
  }

  #over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#cancelDeadline();
    this.#ended();
  }
}

/** A refusal with a reason beats "the node was lost": it tells the client more. */
function moreTelling(earlier: HelixFlowError | undefined, later: HelixFlowError): HelixFlowError {
  return earlier !== undefined && later.code === 'NODE_LOST' ? earlier : later;
}
