/** Carries one call: tries nodes until one shows content, then stays with it to the end; each attempt leaves its line. */

import type { AttemptEnd } from '../../ledger/tabs.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { IssuerId, KeyId, PeerId } from '../../protocol/ids.ts';
import { assert } from '../../protocol/invariant.ts';
import type { Cancelled, Delta, Done } from '../../protocol/messages/session.ts';
import type { Cancel, Clock, Log, Random } from '../../protocol/ports.ts';
import type { Attempt } from '../../protocol/session/outgoing.ts';
import type { BagItem } from '../../protocol/tables.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import type { Meter } from '../access/meter.ts';
import type { Rate } from '../access/subject.ts';
import type { AccountingDeps } from '../accounting.ts';
import type { NodeEntry } from '../nodes.ts';
import type { Answer, AnswerEvents, Served } from '../service.ts';
import { owedOf, type RunningAttempt } from './attempt.ts';
import { Books, type BooksWork, type Durable } from './books.ts';
import { candidatesOf } from './candidates.ts';
import { chooseLiveliest, chooseNode, mayRetry } from './plan.ts';

export interface DispatchDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly accounting: AccountingDeps;
}

/** A call that may be sent; its books are `closed` before it has `ended`, or up to `saidWithinMs` after. */
export interface DispatchWork extends BooksWork {
  /** Counts what the call uses; undefined when nobody limits it. */
  readonly meter: Meter | undefined;
  readonly rate: Rate | undefined;
  /** The client has its end, or has gone. */
  readonly ended: () => void;
}

const noneTried: ReadonlySet<PeerId> = new Set();
/** So long a node may take to say how far it had come with an attempt that was stopped. */
export const saidWithinMs = ms(2_000);
const ignore = (): void => {};

/**
 * `waiting` for money, then `trying` nodes; `ending` when the last attempt has ended but its line is not on disk;
 * `over` when the client has heard its end, or has gone.
 */
type Phase = 'waiting' | 'trying' | 'ending' | 'over';

/** One running call. */
export class Dispatch implements Answer, BagItem {
  bagIndex = -1;
  readonly rate: Rate | undefined;
  readonly #deps: DispatchDeps;
  readonly #work: DispatchWork;
  readonly #books: Books;
  readonly #events: AnswerEvents;
  readonly #deadlineMs: Ms;
  readonly #cancelDeadline: Cancel;
  #phase: Phase = 'waiting';
  #tried: ReadonlySet<PeerId> = noneTried;
  #running: RunningAttempt | undefined;
  #attempts = 0;
  #isCommitted = false;
  #hasLostNode = false;
  #lastError: HelixFlowError | undefined;

  constructor(deps: DispatchDeps, work: DispatchWork, events: AnswerEvents) {
    this.rate = work.rate;
    this.#deps = deps;
    this.#work = work;
    this.#books = new Books(deps.accounting, work);
    this.#events = events;
    this.#deadlineMs = ms(deps.clock.nowMs() + work.call.deadlineMs);
    this.#cancelDeadline = deps.clock.timer(work.call.deadlineMs, () => this.#expired());
  }

  get isBilled(): boolean {
    return this.#books.isBilled;
  }

  /** Sets the money aside, where the account has a budget, then goes to a node. */
  start(): void {
    const refusal = this.#phase === 'over' ? undefined : this.#books.open();
    if (refusal instanceof Promise) void refusal.then((error) => this.#opened(error));
    else this.#opened(refusal);
  }

  cancel(): void {
    if (this.#phase === 'over') return;
    if (this.#phase !== 'ending') this.#stop();
    this.#over();
  }

  /**
   * Ends the call with `error`, after first content too: what made it possible has been taken back.
   * @returns false when nothing was left to end.
   */
  cut(error: HelixFlowError): boolean {
    if (this.#phase === 'over' || this.#phase === 'ending') return false;
    this.#stop();
    this.#over();
    this.#events.failed(error);
    return true;
  }

  /** True when the call came with this key. */
  isOf(key: KeyId, issuer: IssuerId): boolean {
    const { caller } = this.#work.call;
    return caller.keyId === key && caller.issuer === issuer;
  }

  consumed(bytes: number): void {
    this.#running?.attempt?.consumed(bytes);
  }

  #opened(refusal: HelixFlowError | undefined): void {
    if (this.#phase === 'over') {
      this.#books.close();
      return;
    }
    this.#phase = 'trying';
    if (refusal === undefined) this.#next();
    else this.#fail(refusal);
  }

  /** Tries the next node, or ends the call with the last error. */
  #next(): void {
    const { target, body, call } = this.#work;
    const candidates = candidatesOf(target.group(), { tried: this.#tried, bodyBytes: body.length });
    const node = this.#hasLostNode ? chooseLiveliest(candidates) : chooseNode(candidates, this.#deps.random);
    if (node === undefined) {
      const { name: model } = target;
      this.#fail(this.#lastError ?? new HelixFlowError('MODEL_UNAVAILABLE', { model, retryAfterMs: 1_000 }));
      return;
    }
    const startedMs = this.#deps.clock.nowMs();
    const running = this.#books.begin(node, startedMs);
    if (running instanceof HelixFlowError) {
      this.#fail(this.#lastError ?? running);
      return;
    }
    this.#tried = this.#attempts === 0 ? new Set([node.peer]) : new Set([...this.#tried, node.peer]);
    this.#attempts += 1;
    node.counts.attempts += 1;
    node.running += 1;
    this.#running = running;
    try {
      running.attempt = node.session.open(
        {
          request: call.request,
          model: target.name,
          digest: target.digest,
          deadlineMs: ms(Math.max(1, this.#deadlineMs - startedMs)),
          body,
          serial: running.line.serial,
          account: running.account,
          price: running.price.id,
        },
        {
          delta: (delta) => this.#delta(running, delta),
          done: (done) => this.#done(running, done),
          failed: (error) => this.#failed(running, error),
        },
      );
    } catch (error) {
      if (!(error instanceof HelixFlowError)) throw error;
      running.line.drop();
      this.#left(running, error);
      if (this.#mayRetry(error)) this.#next();
      else this.#fail(this.#lastError ?? error);
      return;
    }
    this.#books.left(running);
    this.#work.meter?.opened();
  }

  #served(node: NodeEntry): Served {
    return { node: node.peer, digest: this.#work.target.digest, attempts: this.#attempts };
  }

  #commit(running: RunningAttempt): void {
    if (this.#isCommitted) return;
    this.#isCommitted = true;
    const { node, startedMs } = running;
    const firstMs = ms(this.#deps.clock.nowMs() - startedMs);
    running.began(firstMs);
    node.firstContentAfter(firstMs);
    this.#events.committed(this.#served(node));
  }

  #delta(running: RunningAttempt, delta: Delta): void {
    if (this.#phase !== 'trying') return;
    const tokens = running.received(delta);
    this.#work.meter?.delivered(tokens);
    if (delta.text === '') {
      // It cost credit all the same, and nobody downstream will report it as taken.
      running.attempt?.consumed(0);
      return;
    }
    this.#commit(running);
    this.#events.delta(delta.text);
    // The client may have gone in the same turn.
    if (!this.#books.reaches(tokens) && this.#running === running) this.#outOfMoney(running);
  }

  /** The answer ends here, as one that has reached its bound. */
  #outOfMoney(running: RunningAttempt): void {
    this.#work.meter?.stopped();
    this.#phase = 'ending';
    this.#cancelDeadline();
    this.#takeAway(running, 'done', (said) => {
      const end = running.cancelledEnd(said, this.#books.within);
      this.#write(running, end, (error) => this.#recorded(running, { ...end, finish: 'length' }, error));
    });
  }

  #done(running: RunningAttempt, done: Done): void {
    if (this.#phase !== 'trying') return;
    this.#running = undefined;
    const { node, startedMs } = running;
    node.running -= 1;
    node.counts.done += 1;
    node.answeredAfter(ms(this.#deps.clock.nowMs() - startedMs));
    const end = running.doneEnd(done, this.#books.within);
    this.#work.meter?.done(end.promptTokens, end.completionTokens);
    this.#write(running, end, (error) => this.#recorded(running, { ...end, finish: done.finish }, error));
  }

  /** The last line of the call: its client hears of the end once that is on disk. */
  #write(running: RunningAttempt, end: AttemptEnd, durable: Durable): void {
    this.#phase = 'ending';
    this.#cancelDeadline();
    this.#books.write(running, end, (error) => {
      if (this.#phase !== 'over') durable(error);
    });
    this.#books.close();
  }

  /** The line of an answer with a good end is on disk, or can never be. */
  #recorded(
    running: RunningAttempt,
    end: AttemptEnd & Pick<Done, 'finish'>,
    error: HelixFlowError<'STORE_FAILED'> | undefined,
  ): void {
    if (error !== undefined) {
      this.#tell(new HelixFlowError('USAGE_UNRECORDED', {}, { cause: error }));
      return;
    }
    this.#commit(running);
    this.#over();
    const { promptTokens, cachedTokens, completionTokens } = owedOf(end);
    const { finish } = end;
    const served = this.#served(running.node);
    this.#events.done({ finish, promptTokens, cachedTokens, completionTokens, served });
  }

  #failed(running: RunningAttempt, error: HelixFlowError): void {
    if (this.#phase !== 'trying') return;
    this.#left(running, error);
    const end = running.failedEnd(error.code === 'NODE_LOST' ? 'lost' : 'failed', this.#books.within);
    if (this.#mayRetry(error)) {
      this.#books.write(running, end, ignore);
      this.#next();
      return;
    }
    this.#work.meter?.failed();
    this.#endBadly(running, end, this.#lastError ?? error);
  }

  /** Nothing of an answer that nobody has seen is charged, so that its client need not wait for the line. */
  #endBadly(running: RunningAttempt, end: AttemptEnd, error: HelixFlowError): void {
    if (this.#isCommitted) {
      // A line that cannot be written changes nothing for the client: the error is told as it is.
      this.#write(running, end, () => this.#tell(error));
      return;
    }
    this.#books.write(running, end, ignore);
    this.#books.close();
    this.#tell(error);
  }

  /** The node has the attempt no more. */
  #left({ node }: RunningAttempt, error: HelixFlowError): void {
    node.running -= 1;
    node.counts.failed += 1;
    this.#running = undefined;
    this.#deps.log.info('attempt.failed', {
      request: this.#work.call.request,
      node: node.peer,
      code: error.code,
      attempt: this.#attempts,
      committed: this.#isCommitted,
    });
    this.#hasLostNode ||= error.code === 'NODE_LOST';
    this.#lastError = moreTelling(this.#lastError, error);
  }

  #mayRetry(error: HelixFlowError): boolean {
    return mayRetry(error, this.#attempts, this.#isCommitted);
  }

  #fail(error: HelixFlowError): void {
    this.#work.meter?.failed();
    this.#books.close();
    this.#tell(error);
  }

  #tell(error: HelixFlowError): void {
    this.#over();
    this.#events.failed(this.#isCommitted ? new HelixFlowError('STREAM_INTERRUPTED', {}, { cause: error }) : error);
  }

  #expired(): void {
    if (this.#phase === 'over' || this.#phase === 'ending') return;
    const error = new HelixFlowError('DEADLINE_EXCEEDED', { deadlineMs: this.#work.call.deadlineMs });
    this.#work.meter?.stopped();
    const running = this.#running;
    if (running === undefined) {
      if (this.#phase === 'trying') this.#books.close();
      this.#tell(error);
      return;
    }
    this.#takeAway(running, 'failed');
    this.#endBadly(running, running.failedEnd('cut', this.#books.within), error);
  }

  /** The client, or whoever gave it its key, wants no more of it. */
  #stop(): void {
    this.#work.meter?.stopped();
    const running = this.#running;
    if (running === undefined) {
      // Money that was asked for comes later, and goes back then.
      if (this.#phase === 'trying') this.#books.close();
      return;
    }
    this.#books.isBilled = true;
    this.#takeAway(running, 'cancelled', (said) => {
      this.#books.write(running, running.cancelledEnd(said, this.#books.within), ignore);
      this.#books.close();
    });
  }

  /** Stops the attempt at its node. @param tell Hears what that says of it, or nothing when it is gone or takes too long. */
  #takeAway(
    { node, attempt }: RunningAttempt,
    count: 'done' | 'failed' | 'cancelled',
    tell?: (said: Cancelled | Done | undefined) => void,
  ): void {
    this.#running = undefined;
    node.running -= 1;
    node.counts[count] += 1;
    assert(attempt !== undefined, 'an attempt that runs has left');
    if (tell === undefined) attempt.cancel();
    else this.#ask(attempt, tell);
  }

  /** Stops an attempt, and hears once what its node says of it: nothing, when it is gone or takes too long. */
  #ask(attempt: Attempt, tell: (said: Cancelled | Done | undefined) => void): void {
    let isTold = false;
    const once = (said: Cancelled | Done | undefined): void => {
      if (isTold) return;
      isTold = true;
      cancelWait();
      tell(said);
    };
    const cancelWait = this.#deps.clock.timer(saidWithinMs, () => once(undefined));
    attempt.cancel(once);
  }

  #over(): void {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.#cancelDeadline();
    this.#work.ended();
  }
}

/** A refusal with a reason beats "the node was lost": it tells the client more. */
function moreTelling(earlier: HelixFlowError | undefined, later: HelixFlowError): HelixFlowError {
  return earlier !== undefined && later.code === 'NODE_LOST' ? earlier : later;
}
