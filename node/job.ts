/** One attempt on its way through a lane: what it asks for, what may end it early, and its one end. */

import type { OpenWork } from '../ledger/work.ts';
import { bytesPerToken, countedWithin, deliveredTokens } from '../protocol/counting.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { RequestId } from '../protocol/ids.ts';
import type { Cancel, Clock, EngineDelta, EngineDone, GenerateRequest } from '../protocol/ports.ts';
import type { ServedAttempt } from '../protocol/session/incoming.ts';
import { type Ms, ms } from '../protocol/units.ts';
import type { Asked } from './asked.ts';

export interface JobAsked {
  readonly attempt: ServedAttempt;
  readonly asked: Asked;
  /** In the tab with the gateway. */
  readonly work: OpenWork;
}

export interface JobEvents {
  /** It is to end early. One that runs ends when its engine has let go; one that waits has to be ended. */
  stopped(job: Job, reason: unknown): void;
  /** @param error Why it failed; undefined for the other two. */
  ended(job: Job, outcome: Outcome, error: HelixFlowError | undefined): void;
}

/** How a job ended: counted by these names. */
export type Outcome = 'done' | 'failed' | 'cancelled';

export class Job {
  readonly account: string;
  readonly #attempt: ServedAttempt;
  readonly #asked: Asked;
  readonly #work: OpenWork;
  readonly #clock: Clock;
  readonly #events: JobEvents;
  readonly #abort = new AbortController();
  readonly #arrivedMs: Ms;
  readonly #cancelDeadline: Cancel;
  #startedMs: Ms | undefined;
  /** As the engine has counted it; 0 before. */
  #promptTokens = 0;
  #isEnded = false;
  /** Lets an engine go on that waits for credit. */
  #release: () => void = () => {};

  constructor(clock: Clock, { attempt, asked, work }: JobAsked, events: JobEvents) {
    this.account = attempt.open.account;
    this.#attempt = attempt;
    this.#asked = asked;
    this.#work = work;
    this.#clock = clock;
    this.#events = events;
    this.#arrivedMs = clock.nowMs();
    const { deadlineMs } = attempt.open;
    this.#cancelDeadline = clock.timer(deadlineMs, () =>
      this.#stop(new HelixFlowError('DEADLINE_EXCEEDED', { deadlineMs })),
    );
    if (attempt.signal.aborted) this.#abort.abort(attempt.signal.reason);
    else attempt.signal.addEventListener('abort', () => this.#stop(attempt.signal.reason), { once: true });
  }

  get request(): GenerateRequest {
    const { chat, resume } = this.#asked;
    const { model } = this.#attempt.open;
    return resume === undefined ? { model, chat } : { model, chat, resume };
  }

  /** For the engine: aborts when the job is to end early. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get requestId(): RequestId {
    return this.#attempt.open.request;
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** What is left of its time. */
  get leftMs(): number {
    return this.#arrivedMs + this.#attempt.open.deadlineMs - this.#clock.nowMs();
  }

  /** As `Asked.tokensLeft`. */
  get tokensLeft(): number | undefined {
    return this.#asked.tokensLeft;
  }

  /** It has a slot. */
  started(): void {
    this.#startedMs = this.#clock.nowMs();
  }

  /** For the engine. Nothing is sent of a job that has ended. */
  emit(delta: EngineDelta): Promise<void> | undefined {
    if (this.#isEnded) return undefined;
    this.#promptTokens ||= delta.promptTokens ?? 0;
    const taken = this.#attempt.emit(delta);
    if (taken === undefined || this.signal.aborted) return undefined;
    // A client that takes nothing must not hold up the end of its own answer.
    return new Promise((resolve, reject) => {
      this.#release = resolve;
      taken.then(resolve, reject);
    });
  }

  /** The answer is whole. */
  done(done: EngineDone): void {
    if (!this.#finish()) return;
    const { promptTokens, cachedTokens, completionTokens } = done;
    this.#work.end({ kind: 'done', promptTokens, cachedTokens, completionTokens });
    this.#attempt.done(done, ms((this.#startedMs ?? this.#arrivedMs) - this.#arrivedMs));
    this.#events.ended(this, 'done', undefined);
  }

  /** Ends it without an answer: as cancelled where its gateway wants no more, else with this error. */
  fail(error: HelixFlowError): void {
    if (!this.#finish()) return;
    if (this.#attempt.signal.aborted) {
      const completionTokens = deliveredTokens(countedWithin(this.#attempt.sent(), this.#asked.tokensLeft));
      const promptTokens = this.#promptOf();
      this.#work.end({ kind: 'cancelled', promptTokens, completionTokens });
      this.#attempt.cancelled(completionTokens, promptTokens);
      this.#events.ended(this, 'cancelled', undefined);
      return;
    }
    this.#work.end({ kind: 'failed' });
    this.#events.ended(this, 'failed', error);
    this.#attempt.fail(error);
  }

  /** Ends it now; its engine learns of it, and what it still does is not sent. */
  abandon(error: HelixFlowError): void {
    this.fail(error);
    this.#abort.abort(error);
    this.#release();
  }

  #finish(): boolean {
    if (this.#isEnded) return false;
    this.#isEnded = true;
    this.#cancelDeadline();
    return true;
  }

  #stop(reason: unknown): void {
    if (this.#isEnded) return;
    this.#abort.abort(reason);
    this.#release();
    this.#events.stopped(this, reason);
  }

  /** An engine that had begun worked on the prompt, also where it tells no count before the end. */
  #promptOf(): number {
    const isGuessed = this.#promptTokens === 0 && this.#startedMs !== undefined;
    return isGuessed ? Math.ceil(this.#asked.chatBytes / bytesPerToken) : this.#promptTokens;
  }
}
