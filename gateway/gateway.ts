/** The gateway's service over its sessions: names models, admits calls, sends each on its way. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { IssuerId, KeyId, ModelDigest, OwnerId, PeerId } from '../protocol/ids.ts';
import { encodeChatRequest } from '../protocol/messages/chat.ts';
import { parseModelReference } from '../protocol/model-reference.ts';
import type { Session } from '../protocol/session/session.ts';
import { Bag } from '../protocol/tables.ts';
import type { Ms } from '../protocol/units.ts';
import type { Access } from './access/judge.ts';
import { createLimits, defaultHoldTokens, type Limits } from './access/limits.ts';
import { Meter } from './access/meter.ts';
import type { Rate, Request } from './access/subject.ts';
import { NodeEntry, NodeTable } from './nodes.ts';
import { Dispatch, type DispatchDeps } from './route/dispatch.ts';
import type { Need } from './route/funds.ts';
import { chooseGroup, type HeldGroup } from './route/groups.ts';
import type { Answer, AnswerEvents, ChatCall, GatewayService, ListedModel } from './service.ts';

interface GatewayOptions {
  /** True once a search for nodes has been completed: only then does an unknown model not exist. */
  readonly isDiscoveryComplete: () => boolean;
  /** Calls under way at a time; more are refused. */
  readonly callsMax: number;
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
  /** What is held for keys and accounts with limits. */
  limits(): ReturnType<Limits['counts']>;
  /** Refuses new calls; resolves when those under way have ended, and have their lines. */
  drain(): Promise<void>;
}

/** A name is remembered this long after its last node went: it is then unavailable, not unknown. */
const nameMemoryMs = 600_000;
/** Names remembered, offered ones aside. */
const namesMax = 4_096;
const forgetEveryMs = 10_000;
/** What a client is told to wait when the mesh has no node for its model now. */
const retryAfterMs = 1_000;

interface NameRecord {
  readonly firstSeenS: number;
  lastSeenMs: Ms;
  held: HeldGroup | undefined;
}

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
  readonly #deps: DispatchDeps;
  readonly #options: GatewayOptions;
  readonly #nodes = new NodeTable();
  readonly #names = new Map<string, NameRecord>();
  readonly #calls = new Bag<Dispatch>();
  readonly #limits: Limits;
  #forgotMs: Ms;
  #isDraining = false;
  /** Calls whose books are open: some of them have ended for their clients. */
  #open = 0;
  readonly #whenIdle: (() => void)[] = [];

  constructor(deps: DispatchDeps, options: GatewayOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#limits = createLimits(deps.clock, deps.accounting.share);
    this.#forgotMs = deps.clock.nowMs();
  }

  ready(session: Session, owner: OwnerId | undefined): void {
    const entry = new NodeEntry(session, owner, this.#deps.clock);
    this.#nodes.add(entry);
    this.#noteNames(entry.models.keys());
  }

  gone(session: Session): void {
    const names = this.#namesOf(session);
    this.#noteNames(names);
    this.#nodes.remove(session);
    this.#noteNames(names);
  }

  changed(session: Session): void {
    const before = this.#namesOf(session);
    if (this.#nodes.changed(session)) this.#noteNames(new Set([...before, ...this.#namesOf(session)]));
  }

  models(): readonly ListedModel[] {
    return [...this.#nodes.names()].sort().flatMap((name) => {
      const record = this.#names.get(name);
      const groups = this.#nodes.groups(name);
      const digest = record?.held?.digest;
      const group = digest === undefined ? undefined : groups?.get(digest);
      const model = group?.[0]?.models.get(name);
      if (record === undefined || groups === undefined || group === undefined || model === undefined) return [];
      return [
        {
          name,
          digest: model.digest,
          contextTokens: model.contextTokens,
          nodes: group.length,
          otherDigests: [...groups.keys()].filter((other) => other !== model.digest).sort(),
          firstSeenS: record.firstSeenS,
        },
      ];
    });
  }

  chat(call: ChatCall, events: AnswerEvents): Answer {
    const { caller, chat } = call;
    const target = this.#refusal() ?? this.#resolve(call.model);
    if (target instanceof HelixFlowError) return refuse(target, this.#limits.rateOf(caller), events);
    const { name, digest } = target;
    const body = encodeChatRequest(chat);
    const need = (): Request & Need => this.#needOf(chat.maxTokens, body.length, target);
    const hold = this.#limits.take(caller, need);
    if (hold instanceof HelixFlowError) return refuse(hold, this.#limits.rateOf(caller), events);
    this.#open += 1;
    const dispatch: Dispatch = new Dispatch(
      this.#deps,
      {
        call,
        target: { name, digest, group: () => this.#nodes.groups(name)?.get(digest) ?? [] },
        body,
        need,
        meter: hold === undefined ? undefined : new Meter(hold),
        rate: hold?.rate,
        ended: () => this.#ended(dispatch),
        closed: () => this.#closed(),
      },
      events,
    );
    this.#calls.add(dispatch);
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
    const nodes = this.#nodes.size;
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
      responsive: node.isResponsive,
      roundTripMs: node.roundTripMs,
      counts: { ...node.counts },
    }));
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

  #refusal(): HelixFlowError | undefined {
    if (this.#isDraining) return new HelixFlowError('GATEWAY_DRAINING', { retryAfterMs });
    if (this.#calls.size >= this.#options.callsMax) return new HelixFlowError('NODE_OVERLOADED', { retryAfterMs });
    return undefined;
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
    const contextTokens = nodes.reduce((most, { models }) => Math.max(most, models.get(name)?.contextTokens ?? 0), 0);
    const mostTokens = Math.min(maxTokens ?? contextTokens, contextTokens);
    const completionTokens = Math.min(maxTokens ?? defaultHoldTokens, contextTokens);
    return { promptBound, completionTokens, mostTokens, isExplicit: maxTokens !== undefined };
  }

  /** The name and digest that a call goes to, or why it cannot go anywhere. */
  #resolve(model: string): { name: string; digest: ModelDigest } | HelixFlowError {
    const { name, digestPrefix } = parseModelReference(model);
    const digest = digestPrefix === undefined ? this.#digestOf(model) : this.#digestLike(name, digestPrefix);
    // Where nothing can be written down nothing is served; but what does not exist is told first.
    if (digest !== undefined) return this.#deps.accounting.refusal() ?? { name, digest };
    const isKnown = this.#names.has(name);
    if (isKnown || !this.#options.isDiscoveryComplete()) {
      return new HelixFlowError('MODEL_UNAVAILABLE', { model, retryAfterMs });
    }
    return new HelixFlowError('MODEL_NOT_FOUND', { model });
  }

  /** The one digest of `name` that begins so. */
  #digestLike(name: string, prefix: string): ModelDigest | undefined {
    const matches = [...(this.#nodes.groups(name)?.keys() ?? [])].filter((digest) => digest.startsWith(prefix));
    return matches.length === 1 ? matches[0] : undefined;
  }

  /** The group that `name` is served from now. */
  #digestOf(name: string): ModelDigest | undefined {
    const record = this.#names.get(name);
    const digest = record?.held?.digest;
    if (record === undefined || digest === undefined) return undefined;
    if (this.#nodes.groups(name)?.has(digest)) return digest;
    record.held = this.#choose(name, record.held);
    return record.held?.digest;
  }

  #choose(name: string, held: HeldGroup | undefined): HeldGroup | undefined {
    const groups = this.#nodes.groups(name) ?? new Map<ModelDigest, readonly NodeEntry[]>();
    const sizes = [...groups].map(([digest, nodes]) => ({
      digest,
      nodes: nodes.length,
      owners: new Set(nodes.map(({ owner, peer }) => owner ?? peer)).size,
    }));
    return chooseGroup(sizes, held, this.#deps.clock.nowMs());
  }

  #namesOf(session: Session): string[] {
    return [...(this.#nodes.get(session.peer)?.models.keys() ?? [])];
  }

  /** Keeps the records of these names in step with what the nodes offer. */
  #noteNames(names: Iterable<string>): void {
    const nowMs = this.#deps.clock.nowMs();
    for (const name of names) {
      const isOffered = this.#nodes.groups(name) !== undefined;
      let record = this.#names.get(name);
      if (record === undefined) {
        if (!isOffered) continue;
        const firstSeenS = Math.floor(this.#deps.clock.wallMs() / 1_000);
        record = { firstSeenS, lastSeenMs: nowMs, held: undefined };
        this.#names.set(name, record);
      }
      if (isOffered) record.lastSeenMs = nowMs;
      record.held = this.#choose(name, record.held);
    }
    this.#forgetNames(nowMs);
  }

  /** Drops names that nobody has offered for long, and the longest gone ones when there are too many. */
  #forgetNames(nowMs: Ms): void {
    const isDue = nowMs - this.#forgotMs >= forgetEveryMs;
    if (!isDue && this.#names.size <= namesMax) return;
    this.#forgotMs = nowMs;
    const gone = [...this.#names].filter(([name]) => this.#nodes.groups(name) === undefined);
    gone.sort(([, a], [, b]) => a.lastSeenMs - b.lastSeenMs);
    // Room for a while, so that a full memory is not sorted at every change.
    const excess = this.#names.size > namesMax ? this.#names.size - namesMax / 2 : 0;
    for (const [index, [name, { lastSeenMs }]] of gone.entries()) {
      if (index < excess || nowMs - lastSeenMs > nameMemoryMs) this.#names.delete(name);
    }
  }
}

/** Creates the service; the caller connects it to the events of its sessions. */
export const createGateway = (deps: DispatchDeps, options: GatewayOptions): Gateway => new MeshGateway(deps, options);
