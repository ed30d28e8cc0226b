/** The gateway's service over its sessions: names models, admits calls, sends each on its way. */

import type { Price } from '../ledger/price.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { IssuerId, KeyId, ModelDigest, OwnerId, PeerId, ProcessId } from '../protocol/ids.ts';
import { encodeChatRequest } from '../protocol/messages/chat.ts';
import { parseModelReference } from '../protocol/model-reference.ts';
import type { Session } from '../protocol/session/session.ts';
import { Bag, Memory } from '../protocol/tables.ts';
import { ms } from '../protocol/units.ts';
import type { Access } from './access/judge.ts';
import { createLimits, defaultHoldTokens, type Limits } from './access/limits.ts';
import { Meter } from './access/meter.ts';
import type { Rate, Request } from './access/subject.ts';
import type { AccountingDeps } from './accounting.ts';
import { ModelNames } from './names.ts';
import { NodeEntry, NodeTable, type Serving } from './nodes.ts';
import { createRouteCounts, type RouteCounts } from './route/counts.ts';
import { Dispatch } from './route/dispatch.ts';
import type { Need } from './route/funds.ts';
import { type BreakerState, createHealths, type Healths } from './route/health.ts';
import { createLateness } from './route/lateness.ts';
import { type RoutePolicy, usualPolicy } from './route/plan.ts';
import { mergePreferences } from './route/preferences.ts';
import { createPrefixMemory } from './route/prefix.ts';
import type { RouteDeps } from './route/route.ts';
import { Seeker } from './route/seek.ts';
import { createTraces, type Traces } from './route/trace.ts';
import { createWaitingRoom } from './route/waiting.ts';
import type { AccountLoad } from './route/work.ts';
import type { Answer, AnswerEvents, ChatCall, GatewayService, ListedModel } from './service.ts';

export interface GatewayOptions {
  /** True once a search for nodes has been completed: only then does an unknown model not exist. */
  readonly isDiscoveryComplete: () => boolean;
  /** Calls under way at a time; more are refused. */
  readonly callsMax: number;
  /** Of these, those that may wait for a node. */
  readonly waitingMax?: number;
  readonly policy?: Partial<RoutePolicy>;
  /** Accounts share what nodes remember of the beginnings of their requests. */
  readonly sharesPrefixes?: boolean;
}

/** What the service works with. */
export interface GatewayDeps extends Pick<RouteDeps, 'clock' | 'random' | 'log'> {
  readonly accounting: AccountingDeps;
}

/** A node as `status` shows it. */
export interface NodeStatus {
  readonly peer: PeerId;
  readonly owner: string | undefined;
  readonly models: readonly { readonly name: string; readonly digest: ModelDigest; readonly build: string }[];
  readonly hardware: string;
  readonly slots: number;
  readonly active: number;
  readonly queued: number;
  readonly draining: boolean;
  readonly responsive: boolean;
  readonly roundTripMs: number;
  readonly counts: {
    readonly attempts: number;
    readonly done: number;
    readonly failed: number;
    readonly cancelled: number;
  };
}

/** The service, and what feeds it. */
export interface Gateway extends GatewayService {
  /** A session with a node became the one to use. `owner` is who its membership names. */
  ready(session: Session, owner: OwnerId | undefined): void;
  gone(session: Session): void;
  /** An offer, load or liveness changed. */
  changed(session: Session): void;
  nodes(): readonly NodeStatus[];
  /** Calls under way. */
  calls(): number;
  /** Ends the calls under way that came with this key, with KEY_REVOKED. @returns how many there were. */
  cut(key: KeyId, issuer: IssuerId): number;
  /** What became of the newest requests, and why. */
  readonly traces: Traces;
  /** What routing has done since the start. */
  readonly counts: RouteCounts;
  /** Requests that wait for a node. */
  waiting(): number;
  /** Models at nodes, by the state of their breakers. */
  breakers(): Readonly<Record<BreakerState, number>>;
  /** What is held for keys and accounts with limits. */
  limits(): ReturnType<Limits['counts']>;
  /** Refuses new calls; resolves when those under way have ended, and have their lines. */
  drain(): Promise<void>;
}

/** What a client is told to wait when the mesh has no node for its model now. */
const retryAfterMs = 1_000;
const waitingMax = 1_024;
/** Of the places to wait, what one account may hold even while others are free. */
const accountShare = 0.5;
const tracesMax = 4_096;
const stepsMax = 64;
/** Accounts whose load is remembered. */
const accountsMax = 65_536;
/** How often calls under way look at the time. */
const tickMs = ms(25);

/** Which of two prices is the lower one, for equal work of both kinds. */
const orderOf = ({ prompt, completion }: Price): number => prompt + completion;

/** Tells of a refusal in a later turn, unless the client has gone by then. */
function refuse(error: HelixFlowError, rate: Rate | undefined, events: AnswerEvents): Answer {
  let isGone = false;
  queueMicrotask(() => {
    if (!isGone) events.failed(error);
  });
  return {
    rate,
    isBilled: false,
    cancel: () => {
      isGone = true;
    },
    consumed: () => {},
  };
}

class MeshGateway implements Gateway {
  readonly traces: Traces;
  readonly counts: RouteCounts;
  readonly #deps: RouteDeps;
  readonly #options: GatewayOptions;
  readonly #healths: Healths;
  readonly #nodes: NodeTable;
  readonly #accounts = new Memory<AccountLoad>(accountsMax);
  /** Which process each node was when it last had a session: another one holds nothing of what that had computed. */
  readonly #processes = new Memory<ProcessId>(accountsMax);
  readonly #names: ModelNames;
  readonly #calls = new Bag<Dispatch>();
  readonly #limits: Limits;
  #isDraining = false;
  /** Calls whose books are open: some of them have ended for their clients. */
  #open = 0;
  readonly #whenIdle: (() => void)[] = [];

  #isTicking = false;

  constructor(deps: GatewayDeps, options: GatewayOptions) {
    const { clock } = deps;
    const random = deps.random.fork('route');
    const policy = { ...usualPolicy, ...options.policy };
    this.#options = options;
    this.#healths = createHealths({ clock, random: random.fork('health') });
    this.#nodes = new NodeTable(clock, this.#healths);
    this.#names = new ModelNames(clock, this.#nodes);
    this.traces = createTraces({ tracesMax, stepsMax }, () => clock.wallMs());
    this.counts = createRouteCounts();
    this.#deps = {
      ...deps,
      random,
      policy,
      counts: this.counts,
      prefixes: createPrefixMemory({ random: random.fork('prefix') }),
      lateness: createLateness(policy),
      waiting: createWaitingRoom({ clock }, { placesMax: options.waitingMax ?? waitingMax, accountShare }),
    };
    this.#limits = createLimits(deps.clock, deps.accounting.share);
  }

  ready(session: Session, owner: OwnerId | undefined): void {
    const entry = new NodeEntry(session, owner, this.#deps.clock);
    const { peer, peerProcess } = session;
    if (peerProcess !== undefined && this.#processes.get(peer) !== peerProcess) {
      this.#processes.set(peer, peerProcess);
      this.#deps.prefixes.forget(peer);
    }
    this.#healths.arrived(peer);
    this.#nodes.add(entry);
    this.#names.note(entry.models.keys());
    this.#callNext(session);
  }

  gone(session: Session): void {
    const names = this.#namesOf(session);
    if (this.#nodes.get(session.peer)?.session === session) this.#healths.gone(session.peer);
    this.#names.note(names);
    this.#nodes.remove(session);
    this.#names.note(names);
  }

  changed(session: Session): void {
    const before = this.#namesOf(session);
    if (this.#nodes.changed(session)) this.#names.note(new Set([...before, ...this.#namesOf(session)]));
    this.#callNext(session);
  }

  models(): readonly ListedModel[] {
    return this.#names.list();
  }

  chat(call: ChatCall, events: AnswerEvents): Answer {
    const { caller, chat } = call;
    const target = this.#refusal() ?? this.#resolve(call.model);
    if (target instanceof HelixFlowError) return this.#refused(call, target, events);
    const { name, digest } = target;
    const body = encodeChatRequest(chat);
    const need = (): Request & Need => this.#needOf(chat.maxTokens, body.length, target);
    const hold = this.#limits.take(caller, need);
    if (hold instanceof HelixFlowError) return this.#refused(call, hold, events);
    this.#open += 1;
    const group = (): readonly Serving[] => this.#nodes.groups(name)?.get(digest) ?? [];
    const account = this.#loadOf(caller);
    this.#deps.lateness.asked();
    const scope = this.#options.sharesPrefixes === true ? '' : account.name;
    const chain = this.#deps.prefixes.chainOf(scope, digest, body);
    const dispatch: Dispatch = new Dispatch(
      this.#deps,
      {
        call,
        target: { name, digest, group },
        body,
        chain,
        account,
        trace: this.traces.begin(call.request, name, digest),
        seeker: new Seeker(this.#deps, {
          group,
          bodyBytes: body.length,
          chain,
          preferences: mergePreferences(caller.preferences, call.preferences),
          priceOf: ({ peer }) => orderOf(this.#deps.accounting.priceOf(name, peer)),
        }),
        need,
        meter: hold === undefined ? undefined : new Meter(hold),
        rate: hold?.rate,
        ended: () => this.#ended(dispatch),
        closed: () => this.#closed(),
      },
      events,
    );
    this.#calls.add(dispatch);
    this.#tickSoon();
    queueMicrotask(() => dispatch.start());
    return dispatch;
  }

  rateOf(caller: Access): Rate | undefined {
    return this.#limits.rateOf(caller);
  }

  cut(key: KeyId, issuer: IssuerId): number {
    const calls = this.#calls.all().filter((call) => call.isOf(key, issuer));
    return calls.filter((call) => call.cut(new HelixFlowError('KEY_REVOKED', {}))).length;
  }

  limits(): ReturnType<Limits['counts']> {
    return this.#limits.counts();
  }

  readiness(): { ready: boolean; degraded: boolean; nodes: number } {
    const nodes = this.#nodes.all().filter(({ session }) => session.isResponsive).length;
    return { ready: !this.#isDraining, degraded: nodes === 0, nodes };
  }

  nodes(): readonly NodeStatus[] {
    return this.#nodes.all().map((node) => ({
      peer: node.peer,
      owner: node.owner,
      models: [...node.models.values()].map(({ name, digest, build }) => ({ name, digest, build })),
      hardware: node.session.offer?.hardware ?? '',
      slots: node.slots,
      active: node.active,
      queued: node.queued,
      draining: node.isDraining,
      responsive: node.session.isResponsive,
      roundTripMs: node.session.roundTripMs ?? 0,
      counts: { ...node.counts },
    }));
  }

  waiting(): number {
    return this.#deps.waiting.size;
  }

  breakers(): Readonly<Record<BreakerState, number>> {
    const counts: Record<BreakerState, number> = { closed: 0, open: 0, 'half-open': 0 };
    for (const name of this.#nodes.names()) {
      for (const servings of this.#nodes.groups(name)?.values() ?? []) {
        for (const { health } of servings) counts[health.state] += 1;
      }
    }
    return counts;
  }

  calls(): number {
    return this.#calls.size;
  }

  async drain(): Promise<void> {
    this.#isDraining = true;
    if (this.#calls.size + this.#open === 0) return;
    await new Promise<void>((resolve) => {
      this.#whenIdle.push(resolve);
    });
  }

  /** Before any node was thought of. */
  #refused({ request, model, caller }: ChatCall, error: HelixFlowError, events: AnswerEvents): Answer {
    this.traces.begin(request, model, undefined).add({ kind: 'ended', atMs: ms(0), code: error.code });
    return refuse(error, this.#limits.rateOf(caller), events);
  }

  #refusal(): HelixFlowError | undefined {
    if (this.#isDraining) return new HelixFlowError('GATEWAY_DRAINING', { retryAfterMs });
    if (this.#calls.size >= this.#options.callsMax) return new HelixFlowError('NODE_OVERLOADED', { retryAfterMs });
    return undefined;
  }

  #loadOf({ issuer, account }: Access): AccountLoad {
    const name = `${issuer}/${account}`;
    let load = this.#accounts.get(name);
    if (load === undefined) {
      load = { name, running: 0 };
      this.#accounts.set(name, load);
    }
    return load;
  }

  #tickSoon(): void {
    if (this.#isTicking) return;
    this.#isTicking = true;
    this.#deps.clock.timer(tickMs, () => this.#tick());
  }

  #tick(): void {
    this.#isTicking = false;
    const nowMs = this.#deps.clock.nowMs();
    for (const call of this.#calls.all()) call.tick(nowMs);
    // Breakers let probes pass, and newcomers grow warm, without a word from anybody.
    const { waiting } = this.#deps;
    for (const name of waiting.size === 0 ? [] : this.#nodes.names()) {
      for (const digest of this.#nodes.groups(name)?.keys() ?? []) waiting.changed(digest);
    }
    if (this.#calls.size > 0) this.#tickSoon();
  }

  /** Something changed at a node: whoever waits for it may go. */
  #callNext({ peer }: Session): void {
    const { waiting } = this.#deps;
    if (waiting.size === 0 || this.#nodes.get(peer)?.isNews() !== true) return;
    for (const { digest } of this.#nodes.get(peer)?.models.values() ?? []) waiting.changed(digest);
  }

  #ended(dispatch: Dispatch): void {
    this.#calls.delete(dispatch);
    this.#checkIdle();
  }

  #closed(): void {
    this.#open -= 1;
    this.#checkIdle();
  }

  #checkIdle(): void {
    if (this.#calls.size + this.#open === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** What the call may use at worst. Nodes cap an answer at the context, so no more than that is ever held for it. */
  #needOf(
    maxTokens: number | undefined,
    promptBound: number,
    { name, digest }: { readonly name: string; readonly digest: ModelDigest },
  ): Request & Need {
    const nodes = this.#nodes.groups(name)?.get(digest) ?? [];
    const contextTokens = nodes.reduce((most, node) => Math.max(most, node.contextTokens), 0);
    const mostTokens = Math.min(maxTokens ?? contextTokens, contextTokens);
    const completionTokens = Math.min(maxTokens ?? defaultHoldTokens, contextTokens);
    return { promptBound, completionTokens, mostTokens, isExplicit: maxTokens !== undefined };
  }

  /** The name and digest that a call goes to, or why it cannot go anywhere. */
  #resolve(model: string): { name: string; digest: ModelDigest } | HelixFlowError {
    const { name, digestPrefix } = parseModelReference(model);
    const digest =
      digestPrefix === undefined ? this.#names.digestOf(model) : this.#names.digestLike(name, digestPrefix);
    // Where nothing can be written down nothing is served; but what does not exist is told first.
    if (digest !== undefined) return this.#deps.accounting.refusal() ?? { name, digest };
    const isKnown = this.#names.has(name, digestPrefix);
    if (isKnown || !this.#options.isDiscoveryComplete()) {
      return new HelixFlowError('MODEL_UNAVAILABLE', { model, retryAfterMs });
    }
    return new HelixFlowError('MODEL_NOT_FOUND', { model });
  }

  #namesOf(session: Session): string[] {
    return [...(this.#nodes.get(session.peer)?.models.keys() ?? [])];
  }
}

/** Creates the service; the caller connects it to the events of its sessions. */
export const createGateway = (deps: GatewayDeps, options: GatewayOptions): Gateway => new MeshGateway(deps, options);
