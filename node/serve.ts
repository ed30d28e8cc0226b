/** The worker's daemon without its edges: offers its engines' models on every session and serves what is opened. */

import type { NodeTabs, OpenWork } from '../ledger/work.ts';
import { bytesPerToken, countedWithin, deliveredTokens } from '../protocol/counting.ts';
import { HelixFlowError, toHelixFlowError } from '../protocol/errors.ts';
import type { PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { type ChatRequest, parseChatRequest } from '../protocol/messages/chat.ts';
import type { Load, Offer } from '../protocol/messages/session.ts';
import type { Cancel, Clock, Engine, EngineModel, Log } from '../protocol/ports.ts';
import type { ServedAttempt } from '../protocol/session/incoming.ts';
import type { Session } from '../protocol/session/session.ts';
import { type Ms, ms } from '../protocol/units.ts';
import { admit } from './admission.ts';
import { beginWork } from './tab-work.ts';

export interface ServerOptions {
  readonly engines: readonly Engine[];
  /** Attempts that wait for a slot, per engine. */
  readonly queueMax: number;
  readonly owner: string;
  /** For people. */
  readonly hardware: string;
  /** As in `Offer`. */
  readonly region?: string;
}

/** What a node is doing, for `status` and metrics. */
export interface ServerStatus {
  readonly models: readonly EngineModel[];
  readonly active: number;
  readonly queued: number;
  readonly slots: number;
  readonly tokensPerSecond: number;
  readonly draining: boolean;
  /** Gateways that hold the current offer. */
  readonly offeredTo: readonly PeerId[];
  readonly served: { readonly done: number; readonly failed: number; readonly cancelled: number };
}

export interface NodeServer {
  /** The session became the one to use: offer on it. */
  ready(session: Session): void;
  gone(session: Session): void;
  opened(session: Session, attempt: ServedAttempt): void;
  offered(session: Session, revision: number): void;
  models(): readonly EngineModel[];
  status(): ServerStatus;
  /** Resolves once a gateway holds an offer with at least one model. */
  whenOffered(signal: AbortSignal): Promise<void>;
  /** Calls `listener` whenever `models()` changes. */
  onModels(listener: () => void): Cancel;
  /** Refuses new attempts; resolves when those under way have ended. */
  drain(): Promise<void>;
  close(): void;
}

interface Job {
  readonly attempt: ServedAttempt;
  readonly chat: ChatRequest;
  readonly arrivedMs: Ms;
  readonly abort: AbortController;
  readonly cancelDeadline: Cancel;
  /** In the tab with the gateway. */
  readonly work: OpenWork;
  /** As the engine has counted it; 0 before. */
  promptTokens: number;
  /** It has, or had, a slot. */
  isRunning: boolean;
}

/** What a server works with. */
export interface ServerDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly tabs: Pick<NodeTabs, 'refusal' | 'begin'>;
}

/** One engine with its queue. */
interface Lane {
  readonly engine: Engine;
  readonly queue: Job[];
  active: number;
  serviceMeanMs: number;
}

/** Weight of the newest answer in the mean service time. */
const serviceMeanWeight = 0.2;
const loadIntervalMs = 1_000 / limits.loadPerSecondMax;

export class Server implements NodeServer {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #tabs: ServerDeps['tabs'];
  readonly #options: ServerOptions;
  readonly #lanes: readonly Lane[];
  readonly #sessions = new Map<Session, number>();
  readonly #listeners = new Set<() => void>();
  readonly #cancels: Cancel[];
  readonly #counts = { done: 0, failed: 0, cancelled: 0 };
  #revision = 1;
  #isDraining = false;
  readonly #whenIdle: (() => void)[] = [];
  #lastLoad = '';
  #loadSentMs: Ms;
  #cancelLoad: Cancel | undefined;

  constructor(deps: ServerDeps, options: ServerOptions) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#tabs = deps.tabs;
    this.#options = options;
    this.#loadSentMs = ms(deps.clock.nowMs() - loadIntervalMs);
    this.#lanes = options.engines.map((engine) => ({ engine, queue: [], active: 0, serviceMeanMs: 0 }));
    this.#cancels = options.engines.map((engine) => engine.onChange(() => this.#modelsChanged()));
  }

  models(): readonly EngineModel[] {
    const seen = new Set<string>();
    const all = this.#lanes.flatMap(({ engine }) => [...engine.models()]);
    return all.filter(({ name }) => !seen.has(name) && seen.add(name)).slice(0, limits.offerModelsMax);
  }

  status(): ServerStatus {
    const load = this.#load();
    return {
      models: this.models(),
      active: load.active,
      queued: load.queued,
      slots: this.#slots(),
      tokensPerSecond: load.tokensPerSecond,
      draining: load.draining,
      offeredTo: [...this.#sessions].filter(([, revision]) => revision === this.#revision).map(([{ peer }]) => peer),
      served: { ...this.#counts },
    };
  }

  ready(session: Session): void {
    this.#sessions.set(session, 0);
    session.sendOffer(this.#offer());
    session.sendLoad(this.#load());
  }

  gone(session: Session): void {
    this.#sessions.delete(session);
  }

  offered(session: Session, revision: number): void {
    if (!this.#sessions.has(session)) return;
    this.#sessions.set(session, revision);
    this.#notify();
  }

  async whenOffered(signal: AbortSignal): Promise<void> {
    const isOffered = (): boolean => this.status().offeredTo.length > 0 && this.models().length > 0;
    while (!isOffered()) {
      await new Promise<void>((resolve, reject) => {
        signal.throwIfAborted();
        const stop = (): void => {
          cancel();
          reject(signal.reason);
        };
        const cancel = this.onModels(() => {
          cancel();
          signal.removeEventListener('abort', stop);
          resolve();
        });
        signal.addEventListener('abort', stop, { once: true });
      });
    }
  }

  onModels(listener: () => void): Cancel {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  opened(session: Session, attempt: ServedAttempt): void {
    const { open } = attempt;
    const uncovered = this.#tabs.refusal(session.peer);
    if (uncovered !== undefined) {
      this.#refuse(attempt, uncovered);
      return;
    }
    const lane = this.#lanes.find(({ engine }) =>
      engine.models().some((model) => model.name === open.model && model.digest === open.digest),
    );
    if (lane === undefined) {
      this.#refuse(attempt, new HelixFlowError('NODE_MODEL_MISSING', { model: open.model }));
      return;
    }
    const slots = lane.engine.slots;
    const { active, serviceMeanMs } = lane;
    const admission = admit({
      active,
      slots,
      queued: lane.queue.length,
      queueMax: this.#options.queueMax,
      draining: this.#isDraining,
      serviceMeanMs,
    });
    if (admission.kind === 'refuse') {
      const full = admission.reason === 'full';
      this.#refuse(
        attempt,
        full
          ? new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: admission.retryAfterMs })
          : new HelixFlowError('NODE_DRAINING', {}),
      );
      return;
    }
    let chat: ChatRequest;
    try {
      chat = parseChatRequest(attempt.body);
    } catch (error) {
      this.#refuse(attempt, this.#asFailure(error));
      return;
    }
    this.#take(lane, attempt, { chat, work: beginWork(this.#tabs, session, attempt, chat) });
  }

  async drain(): Promise<void> {
    this.#isDraining = true;
    this.#sendLoad();
    if (this.#busy() === 0) return;
    await new Promise<void>((resolve) => {
      this.#whenIdle.push(resolve);
    });
  }

  close(): void {
    for (const cancel of this.#cancels) cancel();
    this.#cancelLoad?.();
    this.#sessions.clear();
    this.#listeners.clear();
  }

  #take(lane: Lane, attempt: ServedAttempt, { chat, work }: Pick<Job, 'chat' | 'work'>): void {
    const abort = new AbortController();
    const deadlineMs = attempt.open.deadlineMs;
    const job: Job = {
      attempt,
      chat,
      work,
      arrivedMs: this.#clock.nowMs(),
      abort,
      cancelDeadline: this.#clock.timer(deadlineMs, () =>
        this.#stop(lane, job, new HelixFlowError('DEADLINE_EXCEEDED', { deadlineMs })),
      ),
      promptTokens: 0,
      isRunning: false,
    };
    if (attempt.signal.aborted) abort.abort(attempt.signal.reason);
    else attempt.signal.addEventListener('abort', () => this.#stop(lane, job, attempt.signal.reason), { once: true });
    if (lane.active < lane.engine.slots && lane.queue.length === 0) void this.#run(lane, job);
    else lane.queue.push(job);
    this.#loadChanged();
  }

  /** Ends a job early: one that waits is answered here, one that runs when its engine has let go. */
  #stop(lane: Lane, job: Job, reason: unknown): void {
    job.abort.abort(reason);
    const index = lane.queue.indexOf(job);
    if (index < 0) return;
    lane.queue.splice(index, 1);
    this.#end(job, reason);
    this.#loadChanged();
  }

  async #run(lane: Lane, job: Job): Promise<void> {
    job.isRunning = true;
    const startedMs = this.#clock.nowMs();
    const { attempt, abort } = job;
    lane.active += 1;
    try {
      const done = await lane.engine.generate(
        { model: attempt.open.model, chat: job.chat },
        (delta) => {
          job.promptTokens ||= delta.promptTokens ?? 0;
          return attempt.emit(delta);
        },
        abort.signal,
      );
      job.cancelDeadline();
      const { promptTokens, cachedTokens, completionTokens } = done;
      job.work.end({ kind: 'done', promptTokens, cachedTokens, completionTokens });
      attempt.done(done, ms(startedMs - job.arrivedMs));
      this.#counts.done += 1;
    } catch (error) {
      this.#end(job, abort.signal.aborted ? abort.signal.reason : error);
    }
    const tookMs = this.#clock.nowMs() - startedMs;
    lane.serviceMeanMs += serviceMeanWeight * (tookMs - lane.serviceMeanMs);
    lane.active -= 1;
    const next = lane.queue.shift();
    if (next !== undefined) void this.#run(lane, next);
    this.#loadChanged();
    if (this.#busy() === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  #end(job: Job, reason: unknown): void {
    job.cancelDeadline();
    const { attempt, chat, work } = job;
    if (attempt.signal.aborted) {
      this.#counts.cancelled += 1;
      const completionTokens = deliveredTokens(countedWithin(attempt.sent(), chat.maxTokens));
      const promptTokens = promptOf(job);
      work.end({ kind: 'cancelled', promptTokens, completionTokens });
      attempt.cancelled(completionTokens, promptTokens);
      return;
    }
    work.end({ kind: 'failed' });
    this.#refuse(job.attempt, this.#asFailure(reason));
  }

  #refuse(attempt: ServedAttempt, error: HelixFlowError): void {
    this.#counts.failed += 1;
    this.#log.info('attempt.failed', { request: attempt.open.request, code: error.code });
    attempt.fail(error);
  }

  #asFailure(error: unknown): HelixFlowError {
    return toHelixFlowError(error, (cause) => {
      this.#log.error('engine.failed', {}, cause);
      return new HelixFlowError('ENGINE_FAILED', { reason: 'the engine threw' }, { cause });
    });
  }

  #modelsChanged(): void {
    this.#revision += 1;
    const offer = this.#offer();
    for (const session of this.#sessions.keys()) session.sendOffer(offer);
    this.#notify();
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #slots(): number {
    return this.#lanes.reduce((sum, { engine }) => sum + engine.slots, 0);
  }

  #busy(): number {
    return this.#lanes.reduce((sum, { active, queue }) => sum + active + queue.length, 0);
  }

  #offer(): Offer {
    const { owner, hardware, region = '' } = this.#options;
    const slots = this.#slots();
    return { type: 'offer', revision: this.#revision, models: this.models(), slots, hardware, owner, region };
  }

  #load(): Load {
    let active = 0;
    let queued = 0;
    let freeSlots = 0;
    let tokensPerSecond = 0;
    let progress = 0;
    for (const lane of this.#lanes) {
      active += lane.active;
      queued += lane.queue.length;
      freeSlots += Math.max(0, lane.engine.slots - lane.active);
      const stats = lane.engine.stats();
      tokensPerSecond += stats.tokensPerSecond;
      progress += stats.progress ?? 0;
    }
    tokensPerSecond = Math.round(tokensPerSecond);
    return { type: 'load', active, queued, freeSlots, tokensPerSecond, draining: this.#isDraining, progress };
  }

  #loadChanged(): void {
    if (this.#cancelLoad !== undefined) return;
    const waitMs = this.#loadSentMs + loadIntervalMs - this.#clock.nowMs();
    if (waitMs <= 0) {
      this.#sendLoad();
      return;
    }
    this.#cancelLoad = this.#clock.timer(ms(waitMs), () => {
      this.#cancelLoad = undefined;
      this.#sendLoad();
    });
  }

  #sendLoad(): void {
    const load = this.#load();
    const text = JSON.stringify(load);
    if (text === this.#lastLoad) return;
    this.#lastLoad = text;
    this.#loadSentMs = this.#clock.nowMs();
    for (const session of this.#sessions.keys()) session.sendLoad(load);
  }
}

/** Of a job that was stopped: an engine that had begun worked on the prompt, also where it tells no count before the end. */
const promptOf = ({ promptTokens, isRunning, attempt }: Job): number =>
  promptTokens === 0 && isRunning ? Math.ceil(attempt.open.bodyBytes / bytesPerToken) : promptTokens;

/** A node's server over loaded engines. The caller connects it to its sessions' events. */
export const createNodeServer = (deps: ServerDeps, options: ServerOptions): NodeServer => new Server(deps, options);
