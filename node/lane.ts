/** One engine with the jobs that run on it and those that wait for it. */

import { HelixFlowError, toHelixFlowError } from '../protocol/errors.ts';
import type { Open } from '../protocol/messages/session.ts';
import type { Clock, Engine, EngineModel, Log } from '../protocol/ports.ts';
import { type Admission, admit, isLate, retryAfterMs } from './admission.ts';
import type { Asked } from './asked.ts';
import { FairQueue } from './fair-queue.ts';
import { Job, type JobAsked, type JobEvents } from './job.ts';
import { ServiceTimes } from './service-times.ts';

/** Shares of answers: what waits is admitted where it would be in time although it is slow, and started where it is as others are. */
const nearlyAll = 0.9;
const half = 0.5;

interface LaneDeps {
  readonly clock: Clock;
  readonly log: Log;
}

interface LaneEvents {
  readonly ended: JobEvents['ended'];
  /** What runs or waits has changed. */
  changed(): void;
}

export class Lane {
  readonly engine: Engine;
  readonly #deps: LaneDeps;
  readonly #queueMax: number;
  readonly #events: LaneEvents;
  readonly #queue: FairQueue<Job>;
  /** Whoever has a slot: also a job that has ended, until its engine lets go of it. */
  readonly #running = new Set<Job>();
  readonly #times = new ServiceTimes();
  #startSumMs = 0;
  #unfinished = 0;

  constructor(deps: LaneDeps, engine: Engine, queueMax: number, events: LaneEvents) {
    this.engine = engine;
    this.#deps = deps;
    this.#queueMax = queueMax;
    this.#events = events;
    this.#queue = new FairQueue(queueMax);
  }

  get active(): number {
    return this.#running.size;
  }

  get queued(): number {
    return this.#queue.size;
  }

  /** Jobs that have not ended. */
  get unfinished(): number {
    return this.#unfinished;
  }

  get freeSlots(): number {
    return Math.max(0, this.engine.slots - this.active);
  }

  /** The model that an attempt names, if it is served here. */
  modelOf({ model, digest }: Pick<Open, 'model' | 'digest'>): EngineModel | undefined {
    return this.engine.models().find((served) => served.name === model && served.digest === digest);
  }

  /** Whether one more job of this account has a place. */
  admission(account: string, draining: boolean): Admission {
    const isOwed = this.#queue.isOwed(account);
    return admit({ ...this.#load(), active: this.active, queueMax: this.#queueMax, isOwed, draining });
  }

  /** Why an admitted job would wait in vain: it should be asked for elsewhere, as long as there is time. */
  lateness(
    { account, deadlineMs }: Pick<Open, 'account' | 'deadlineMs'>,
    { tokensLeft }: Asked,
  ): HelixFlowError | undefined {
    if (this.freeSlots > 0 && this.queued === 0) return undefined;
    const wait = {
      ahead: this.#queue.ahead(account),
      answerMs: this.#times.answerMs(tokensLeft, nearlyAll),
      deadlineMs,
    };
    return isLate(this.#load(), wait) ? this.#overloaded() : undefined;
  }

  /** Runs a job, now or when it is its turn; only what was admitted in the same turn. */
  take(asked: JobAsked): void {
    const job = new Job(this.#deps.clock, asked, {
      stopped: (stopped, reason) => this.#stopped(stopped, reason),
      ended: (...told) => {
        this.#unfinished -= 1;
        this.#events.ended(...told);
      },
    });
    this.#unfinished += 1;
    if (this.freeSlots > 0 && this.queued === 0) {
      this.#queue.started(job);
      void this.#run(job);
    } else {
      const lost = this.#queue.push(job);
      lost?.fail(this.#overloaded());
    }
    this.#events.changed();
  }

  /** The engine serves other models, or has other slots. */
  refill(): void {
    this.#fill();
    this.#events.changed();
  }

  /** Ends everything that runs or waits, now. @returns how many jobs that were. */
  abandonAll(error: HelixFlowError): number {
    const jobs = [...this.#queue.clear(), ...this.#running].filter(({ isEnded }) => !isEnded);
    for (const job of jobs) job.abandon(error);
    this.#events.changed();
    return jobs.length;
  }

  async #run(job: Job): Promise<void> {
    const { clock } = this.#deps;
    const startMs = clock.nowMs();
    this.#running.add(job);
    this.#startSumMs += startMs;
    job.started();
    try {
      const done = await this.engine.generate(job.request, (delta) => job.emit(delta), job.signal);
      this.#times.done(done);
      job.done(done);
    } catch (error) {
      job.fail(this.#failure(job.signal.aborted ? job.signal.reason : error));
    }
    const tookMs = clock.nowMs() - startMs;
    // One that its deadline has ended would have taken longer.
    this.#times.held(job.leftMs > 0 ? tookMs : Math.max(tookMs, this.#times.meanMs));
    this.#running.delete(job);
    this.#startSumMs -= startMs;
    this.#queue.ended(job);
    this.#fill();
    this.#events.changed();
  }

  /** Gives free slots to those that wait; what would most likely be late does not get one. */
  #fill(): void {
    while (this.freeSlots > 0) {
      const job = this.#queue.next();
      if (job === undefined) return;
      if (this.#times.answerMs(job.tokensLeft, half) <= job.leftMs) {
        void this.#run(job);
        continue;
      }
      this.#queue.ended(job);
      job.fail(this.#overloaded());
    }
  }

  #stopped(job: Job, reason: unknown): void {
    if (!this.#queue.remove(job)) return;
    job.fail(this.#failure(reason));
    this.#events.changed();
  }

  #overloaded(): HelixFlowError {
    return new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: retryAfterMs(this.#load()) });
  }

  #load(): Parameters<typeof retryAfterMs>[0] {
    // Long answers that have not ended yet count by how long they have run.
    const meanAgeMs = this.active === 0 ? 0 : this.#deps.clock.nowMs() - this.#startSumMs / this.active;
    const serviceMeanMs = Math.max(this.#times.meanMs, meanAgeMs);
    return { slots: this.engine.slots, queued: this.queued, serviceMeanMs };
  }

  #failure(error: unknown): HelixFlowError {
    return toHelixFlowError(error, (cause) => {
      this.#deps.log.error('engine.failed', {}, cause);
      return new HelixFlowError('ENGINE_FAILED', { reason: 'the engine threw' }, { cause });
    });
  }
}
