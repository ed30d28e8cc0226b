/** The worker's daemon without its edges: offers its engines' models on every session and serves what is opened. */

import type { NodeTabs } from '../ledger/work.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { PeerId, RequestId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { Load, Offer } from '../protocol/messages/session.ts';
import type { Cancel, Clock, Engine, EngineModel, Log } from '../protocol/ports.ts';
import type { ServedAttempt } from '../protocol/session/incoming.ts';
import type { Session } from '../protocol/session/session.ts';
import { type Asked, readAsked } from './asked.ts';
import { Lane } from './lane.ts';
import { LoadReport } from './load-report.ts';
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
  /** Absent where none is told. */
  readonly region?: string;
  /** Gateways that hold the current offer. */
  readonly offeredTo: readonly PeerId[];
  readonly served: { readonly done: number; readonly failed: number; readonly cancelled: number };
}

/** What became of the attempts that were there when a drain began. */
export interface Drained {
  /** They ended by themselves. */
  readonly finished: number;
  /** They were failed with NODE_DRAINING, so that their gateways go on with them elsewhere. */
  readonly handedOver: number;
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
  /**
   * Refuses new attempts; resolves when those under way have ended.
   * @param hurry Once it aborts, what has not ended by itself is handed over.
   */
  drain(hurry?: AbortSignal): Promise<Drained>;
  close(): void;
}

/** What a server works with. */
export interface ServerDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly tabs: Pick<NodeTabs, 'refusal' | 'begin'>;
}

export class Server implements NodeServer {
  readonly #log: Log;
  readonly #tabs: ServerDeps['tabs'];
  readonly #options: ServerOptions;
  readonly #lanes: readonly Lane[];
  readonly #report: LoadReport;
  readonly #sessions = new Map<Session, number>();
  readonly #listeners = new Set<() => void>();
  readonly #cancels: Cancel[];
  readonly #counts = { done: 0, failed: 0, cancelled: 0 };
  #revision = 1;
  #isDraining = false;
  readonly #whenIdle: (() => void)[] = [];

  constructor(deps: ServerDeps, options: ServerOptions) {
    this.#log = deps.log;
    this.#tabs = deps.tabs;
    this.#options = options;
    this.#report = new LoadReport(deps.clock, {
      load: () => this.#load(),
      send: (load) => {
        for (const session of this.#sessions.keys()) session.sendLoad(load);
      },
    });
    this.#lanes = options.engines.map(
      (engine) =>
        new Lane(deps, engine, options.queueMax, {
          changed: () => this.#changed(),
          ended: ({ requestId }, outcome, error) => {
            this.#counts[outcome] += 1;
            if (error !== undefined) this.#logFailure(requestId, error);
          },
        }),
    );
    this.#cancels = this.#lanes.map((lane) => lane.engine.onChange(() => this.#engineChanged(lane)));
  }

  models(): readonly EngineModel[] {
    const seen = new Set<string>();
    const all = this.#lanes.flatMap(({ engine }) => [...engine.models()]);
    return all.filter(({ name }) => !seen.has(name) && seen.add(name)).slice(0, limits.offerModelsMax);
  }

  status(): ServerStatus {
    const { active, queued, tokensPerSecond, draining } = this.#load();
    const { slots, region } = this.#offer();
    return {
      models: this.models(),
      active,
      queued,
      slots,
      tokensPerSecond,
      draining,
      ...(region === '' ? {} : { region }),
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
    const placed = this.#place(session, attempt);
    if (placed instanceof HelixFlowError) {
      this.#counts.failed += 1;
      this.#logFailure(attempt.open.request, placed);
      attempt.fail(placed);
      return;
    }
    const { lane, asked } = placed;
    lane.take({ attempt, asked, work: beginWork(this.#tabs, session, attempt, asked) });
  }

  async drain(hurry?: AbortSignal): Promise<Drained> {
    this.#isDraining = true;
    this.#report.now();
    const under = this.#unfinished();
    if (under > 0) await this.#idle(hurry);
    const error = new HelixFlowError('NODE_DRAINING', {});
    const handedOver = this.#lanes.reduce((sum, lane) => sum + lane.abandonAll(error), 0);
    return { finished: Math.max(0, under - handedOver), handedOver };
  }

  close(): void {
    for (const cancel of this.#cancels) cancel();
    this.#report.close();
    this.#sessions.clear();
    this.#listeners.clear();
  }

  /** The lane that has a place for an attempt, or why there is none; what costs least is asked first. */
  #place(session: Session, { open, body }: ServedAttempt): { lane: Lane; asked: Asked } | HelixFlowError {
    const uncovered = this.#tabs.refusal(session.peer);
    if (uncovered !== undefined) return uncovered;
    const lane = this.#lanes.find((one) => one.modelOf(open) !== undefined);
    if (lane === undefined) return new HelixFlowError('NODE_MODEL_MISSING', { model: open.model });
    const admission = lane.admission(open.account, this.#isDraining);
    if (admission.kind === 'refuse') {
      return admission.reason === 'draining'
        ? new HelixFlowError('NODE_DRAINING', {})
        : new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: admission.retryAfterMs });
    }
    if (open.resumeBytes > 0 && lane.modelOf(open)?.continuation === 'none') {
      return new HelixFlowError('RESUME_REFUSED', { reason: 'its engine goes on from nothing' });
    }
    try {
      const asked = readAsked(open, body);
      return lane.lateness(open, asked) ?? { lane, asked };
    } catch (error) {
      if (isHelixFlowError(error)) return error;
      throw error;
    }
  }

  #logFailure(request: RequestId, { code }: HelixFlowError): void {
    this.#log.info('attempt.failed', { request, code });
  }

  #engineChanged(lane: Lane): void {
    lane.refill();
    this.#revision += 1;
    const offer = this.#offer();
    for (const session of this.#sessions.keys()) session.sendOffer(offer);
    this.#notify();
  }

  #changed(): void {
    this.#report.changed();
    if (this.#unfinished() === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** Resolves when nothing runs or waits, or when there is no more time for it. */
  #idle(hurry: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      if (hurry?.aborted) resolve();
      hurry?.addEventListener('abort', () => resolve(), { once: true });
      this.#whenIdle.push(resolve);
    });
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #unfinished(): number {
    return this.#lanes.reduce((sum, { unfinished }) => sum + unfinished, 0);
  }

  #offer(): Offer {
    const { owner, hardware, region = '' } = this.#options;
    const slots = this.#lanes.reduce((sum, { engine }) => sum + engine.slots, 0);
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
      queued += lane.queued;
      freeSlots += lane.freeSlots;
      const stats = lane.engine.stats();
      tokensPerSecond += stats.tokensPerSecond;
      progress += stats.progress ?? 0;
    }
    tokensPerSecond = Math.round(tokensPerSecond);
    return { type: 'load', active, queued, freeSlots, tokensPerSecond, draining: this.#isDraining, progress };
  }
}

/** A node's server over loaded engines. The caller connects it to its sessions' events. */
export const createNodeServer = (deps: ServerDeps, options: ServerOptions): NodeServer => new Server(deps, options);
