/** The attempts of one call on their nodes: opened, taken away, stopped, with what nodes and accounts have under way. */

import { HelixFlowError } from '../../protocol/errors.ts';
import { assert } from '../../protocol/invariant.ts';
import type { Cancelled, Done } from '../../protocol/messages/session.ts';
import type { AttemptEvents } from '../../protocol/session/outgoing.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import type { RunningAttempt } from './attempt.ts';
import { type RouteDeps, saidWithinMs } from './route.ts';
import type { TraceStep } from './trace.ts';
import { stalledFor, type WatchedAttempt } from './watch.ts';
import type { DispatchWork } from './work.ts';

type Said = Cancelled | Done | undefined;

/** Why the gateway stops an attempt. */
export type StopReason = Extract<TraceStep, { readonly kind: 'cancelled' }>['why'];

/** Of one call. */
export class Runs {
  readonly #deps: RouteDeps;
  readonly #work: DispatchWork;
  readonly #startMs: Ms;

  constructor(deps: RouteDeps, work: DispatchWork, startMs: Ms) {
    this.#deps = deps;
    this.#work = work;
    this.#startMs = startMs;
  }

  /** Since the call came. */
  elapsedMs(): Ms {
    return ms(this.#deps.clock.nowMs() - this.#startMs);
  }

  /**
   * Sends the attempt to its node.
   * @throws HelixFlowError as `Session.open`; it has not left then.
   */
  open(running: RunningAttempt, deadlineMs: Ms, events: AttemptEvents, resume: Uint8Array | undefined): void {
    const { call, target, body, account, trace } = this.#work;
    const { serving, line, purpose } = running;
    const { node } = serving;
    this.#deps.counts.attempts[purpose] += 1;
    node.counts.attempts += 1;
    node.running += 1;
    account.running += 1;
    running.health = serving.health.began();
    trace.add({ kind: 'attempt', atMs: this.elapsedMs(), purpose, node: serving.peer });
    running.attempt = node.session.open(
      {
        request: call.request,
        model: target.name,
        digest: target.digest,
        deadlineMs: ms(Math.max(1, deadlineMs - running.startedMs)),
        body,
        serial: line.serial,
        account: running.account,
        price: running.price.id,
        ...(resume === undefined ? {} : { resume }),
      },
      events,
    );
  }

  /** Its first content is there, or its end. */
  worked({ serving, health }: RunningAttempt): void {
    health?.worked();
    this.#deps.prefixes.note(this.#work.chain, serving.peer);
    this.#work.trace.add({ kind: 'content', atMs: this.elapsedMs(), node: serving.peer });
  }

  /** Another one was faster: how slow this one would have been nobody will know. */
  late({ serving, expectedMs, startedMs }: RunningAttempt): void {
    const elapsedMs = ms(this.#deps.clock.nowMs() - startedMs);
    serving.speeds.late(elapsedMs);
    this.#deps.lateness.note(this.#work.target.digest, expectedMs, elapsedMs);
  }

  /** It has not shown content for longer than what its model usually takes. */
  isLate({ expectedMs, startedMs }: RunningAttempt, nowMs: Ms): boolean {
    const lateMs = this.#deps.lateness.lateAfterMs(this.#work.target.digest, expectedMs);
    return lateMs !== undefined && nowMs - startedMs >= lateMs;
  }

  /** It has ended well. */
  done(running: RunningAttempt, done: Done): void {
    this.#ended(running, 'done');
    if (running.purpose !== 'splice') this.#measure(running, done);
    const { completionTokens: tokens } = done;
    this.#work.trace.add({ kind: 'done', atMs: this.elapsedMs(), node: running.serving.peer, tokens });
  }

  /** What the node has shown of itself. */
  #measure(running: RunningAttempt, done: Done): void {
    const { serving, firstMs, cachedBytes } = running;
    const { clock, prefixes, counts } = this.#deps;
    const { chain, body } = this.#work;
    const totalMs = ms(clock.nowMs() - running.startedMs);
    serving.speeds.measured({ done, bodyBytes: body.length, roundTripMs: serving.roundTripMs, firstMs, totalMs });
    if (chain.bytes === 0) return;
    counts.prefix.bytes += body.length;
    counts.prefix.heldBytes += cachedBytes;
    counts.prefix[cachedBytes === 0 ? 'misses' : 'hits'] += 1;
    const cachedShare = done.promptTokens === 0 ? 0 : done.cachedTokens / done.promptTokens;
    if (cachedBytes > 0 && 2 * cachedShare * body.length < cachedBytes) prefixes.missed(chain, serving.peer);
  }

  #watched(running: RunningAttempt, nowMs: Ms): WatchedAttempt {
    const { serving, attempt } = running;
    const hasCredit = attempt?.hasCredit ?? true;
    // Silence begins anew when the node may send again.
    if (!hasCredit) running.lastPieceMs = running.lastTextMs = nowMs;
    return {
      startedMs: running.startedMs,
      lastPieceMs: running.lastPieceMs,
      lastTextMs: running.lastTextMs,
      hasContent: running.hasContent,
      hasCredit,
      expectedMs: running.expectedMs,
      progressAtMs: serving.node.progressAtMs,
      isCrowded: serving.queued > 0,
      isSuspect: serving.health.state !== 'closed' && serving.health.openedBy === 'NODE_STALLED',
    };
  }

  /** The node has it no more. */
  #ended({ serving, hasContent }: RunningAttempt, count: 'done' | 'failed' | 'cancelled'): void {
    serving.node.running -= 1;
    serving.node.counts[count] += 1;
    this.#work.account.running -= 1;
    // Most that fail at once had no slot, and leave none.
    if (hasContent || count !== 'failed') this.#deps.waiting.left(this.#work.target.digest);
  }

  /** Its node, or what lies between, has ended it. */
  failed(running: RunningAttempt, error: HelixFlowError): void {
    const { code } = error;
    const { serving } = running;
    this.#ended(running, 'failed');
    running.health?.failed(code);
    const node = serving.peer;
    this.#work.trace.add({ kind: 'failed', atMs: this.elapsedMs(), node, code, tokens: running.tokens });
    this.#deps.log.info('attempt.failed', {
      request: this.#work.call.request,
      node,
      code,
      purpose: running.purpose,
      content: running.hasContent,
    });
  }

  /** @returns why it is over with an attempt of which nothing has come for too long; its node is told to stop it. */
  silence(running: RunningAttempt, nowMs: Ms): HelixFlowError | undefined {
    const silentMs = stalledFor(this.#watched(running, nowMs), nowMs, this.#deps.policy);
    if (silentMs === undefined) return undefined;
    this.#deps.counts.stalled += 1;
    running.attempt?.cancel();
    return new HelixFlowError('NODE_STALLED', { silentMs: Math.round(silentMs) });
  }

  /** Stops it at its node. @param tell Hears once what that says of it, or nothing when it is gone or takes too long. */
  stop(
    running: RunningAttempt,
    count: 'done' | 'failed' | 'cancelled',
    why: StopReason,
    tell: (said: Said) => void,
  ): void {
    const { attempt, serving } = running;
    assert(attempt !== undefined, 'an attempt that runs has left');
    this.#ended(running, count);
    if (running.hasContent) running.health?.worked();
    else running.health?.dropped();
    const { clock, counts } = this.#deps;
    const atMs = this.elapsedMs();
    const step: TraceStep = { kind: 'cancelled', atMs, node: serving.peer, why, settledMs: undefined };
    this.#work.trace.add(step);
    let isTold = false;
    const once = (said: Said): void => {
      if (isTold) return;
      isTold = true;
      cancelWait();
      if (said === undefined) counts.settles.unheard += 1;
      else {
        step.settledMs = ms(this.elapsedMs() - atMs);
        counts.settles.add(step.settledMs);
      }
      tell(said);
    };
    const cancelWait = clock.timer(ms(saidWithinMs), () => once(undefined));
    attempt.cancel(once);
  }
}
