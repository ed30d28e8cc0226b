/** The nodes this gateway holds sessions with, and what it knows of each: the only state that routing looks at. */

import type { ModelDigest, OwnerId, PeerId } from '../protocol/ids.ts';
import type { Load, Offer } from '../protocol/messages/session.ts';
import { isPinned } from '../protocol/model-reference.ts';
import type { Clock, EngineModel } from '../protocol/ports.ts';
import type { Session } from '../protocol/session/session.ts';
import { Memory } from '../protocol/tables.ts';
import { type Ms, ms } from '../protocol/units.ts';
import type { Healths, ServingHealth } from './route/health.ts';
import type { RoutedNode } from './route/score.ts';
import { Speeds } from './speeds.ts';

/** Until a node that was full tells something new, or for this long, it counts as full. */
const overloadedMs = 1_000;
/** A node that tells of its load without a pause has calls that wait look for a place no more often. */
const newsEveryMs = 20;
/** Models at nodes whose speeds are remembered, also while they are away. */
const speedsMax = 16_384;

/** One node: what it offers and reports, and how it has done for this gateway. Lives as long as its session is in use. */
export class NodeEntry {
  readonly session: Session;
  readonly owner: OwnerId | undefined;
  /** Attempts of ours under way there. */
  running = 0;
  readonly counts = { attempts: 0, done: 0, failed: 0, cancelled: 0 };
  readonly #clock: Clock;
  #offer: Offer | undefined;
  #models: ReadonlyMap<string, EngineModel> = new Map();
  #load: Load | undefined;
  #progressAtMs: Ms;
  #newsMs = Number.NEGATIVE_INFINITY;
  /** What it reported last when it refused for being full, and until when that counts. */
  #full: { readonly load: Load | undefined; readonly untilMs: Ms } | undefined;

  constructor(session: Session, owner: OwnerId | undefined, clock: Clock) {
    this.#clock = clock;
    this.session = session;
    this.owner = owner;
    this.#progressAtMs = clock.nowMs();
  }

  get peer(): PeerId {
    return this.session.peer;
  }

  get models(): ReadonlyMap<string, EngineModel> {
    return this.#models;
  }

  get slots(): number {
    return this.session.offer?.slots ?? 0;
  }

  get active(): number {
    return Math.max(this.session.load?.active ?? 0, this.running);
  }

  get queued(): number {
    return this.isFull ? Number.POSITIVE_INFINITY : (this.session.load?.queued ?? 0);
  }

  /** It has refused an attempt for being full, and nothing has changed there since. */
  get isFull(): boolean {
    if (this.#full === undefined) return false;
    if (this.#full.load === this.session.load && this.#clock.nowMs() < this.#full.untilMs) return true;
    this.#full = undefined;
    return false;
  }

  get isDraining(): boolean {
    return this.session.load?.draining ?? false;
  }

  /** When its engines last told of work done; undefined where they never do. */
  get progressAtMs(): Ms | undefined {
    return (this.#load?.progress ?? 0) === 0 ? undefined : this.#progressAtMs;
  }

  /** False where it has told something only just now: calls that wait look at all nodes every few milliseconds anyway. */
  isNews(): boolean {
    const nowMs = this.#clock.nowMs();
    if (nowMs < this.#newsMs + newsEveryMs) return false;
    this.#newsMs = nowMs;
    return true;
  }

  /** It has refused an attempt for being full. */
  overloaded(): void {
    this.#full = { load: this.session.load, untilMs: ms(this.#clock.nowMs() + overloadedMs) };
  }

  /** Takes what the session last heard. @returns true when the models on offer are others. */
  refresh(): boolean {
    const { offer, load } = this.session;
    if (load !== undefined && load.progress !== this.#load?.progress) this.#progressAtMs = this.#clock.nowMs();
    this.#load = load;
    if (offer === this.#offer) return false;
    this.#offer = offer;
    // A name that looks like a pinned one would receive requests for the digest it names.
    const models = (offer?.models ?? []).filter(({ name }) => !isPinned(name));
    this.#models = new Map(models.map((model) => [model.name, model]));
    return true;
  }
}

/** One model at one node, as routing looks at it. */
export class Serving implements RoutedNode {
  readonly node: NodeEntry;
  readonly model: EngineModel;
  readonly health: ServingHealth;
  readonly speeds: Speeds;

  constructor(node: NodeEntry, model: EngineModel, known: { readonly health: ServingHealth; readonly speeds: Speeds }) {
    this.node = node;
    this.model = model;
    this.health = known.health;
    this.speeds = known.speeds;
  }

  get peer(): PeerId {
    return this.node.peer;
  }

  get digest(): ModelDigest {
    return this.model.digest;
  }

  get region(): string {
    return this.node.session.offer?.region ?? '';
  }

  get contextTokens(): number {
    return this.model.contextTokens;
  }

  get continuation(): EngineModel['continuation'] {
    return this.model.continuation;
  }

  get slots(): number {
    return this.node.slots;
  }

  get active(): number {
    return this.node.active;
  }

  get queued(): number {
    return this.node.queued;
  }

  get roundTripMs(): number {
    return this.node.session.roundTripMs ?? 0;
  }

  get overheadMs(): number {
    return this.speeds.overheadMs;
  }

  get prefillMsPerByte(): number {
    return this.speeds.prefillMsPerByte;
  }

  get tokenMs(): number {
    return this.speeds.tokenMs;
  }

  get answerMeanMs(): number {
    return this.speeds.answerMeanMs;
  }

  get lastHeardMs(): number {
    return this.node.session.lastHeardMs;
  }

  get isDraining(): boolean {
    return this.node.isDraining;
  }

  get bodyMaxBytes(): number {
    return this.node.session.limits.requestBodyMaxBytes;
  }

  get isResponsive(): boolean {
    return this.node.session.isResponsive;
  }

  get isAllowed(): boolean {
    return this.health.isAllowed;
  }

  get warmth(): number {
    return this.health.warmth;
  }
}

/** All nodes by peer, and by model name and digest. */
export class NodeTable {
  readonly #clock: Clock;
  readonly #healths: Healths;
  readonly #speeds = new Memory<Speeds>(speedsMax);
  readonly #byPeer = new Map<PeerId, NodeEntry>();
  readonly #byName = new Map<string, Map<ModelDigest, Serving[]>>();

  constructor(clock: Clock, healths: Healths) {
    this.#clock = clock;
    this.#healths = healths;
  }

  all(): readonly NodeEntry[] {
    return [...this.#byPeer.values()];
  }

  get(peer: PeerId): NodeEntry | undefined {
    return this.#byPeer.get(peer);
  }

  names(): readonly string[] {
    return [...this.#byName.keys()];
  }

  /** Nodes that offer `name`, by digest. */
  groups(name: string): ReadonlyMap<ModelDigest, readonly Serving[]> | undefined {
    return this.#byName.get(name);
  }

  add(entry: NodeEntry): void {
    this.#byPeer.set(entry.peer, entry);
    entry.refresh();
    this.#index();
  }

  remove(session: Session): void {
    if (this.#byPeer.get(session.peer)?.session !== session) return;
    this.#byPeer.delete(session.peer);
    this.#index();
  }

  /** @returns true when the models on offer changed. */
  changed(session: Session): boolean {
    const entry = this.#byPeer.get(session.peer);
    if (entry?.session !== session || !entry.refresh()) return false;
    this.#index();
    return true;
  }

  /** Offers change seldom, requests are routed often: the index is made anew at each change. */
  #index(): void {
    this.#byName.clear();
    for (const entry of this.#byPeer.values()) {
      for (const model of entry.models.values()) {
        const groups = this.#byName.get(model.name) ?? new Map<ModelDigest, Serving[]>();
        this.#byName.set(model.name, groups);
        const { peer } = entry;
        const health = this.#healths.of(peer, model.digest);
        const serving = new Serving(entry, model, { health, speeds: this.#speedsOf(peer, model.digest) });
        const group = groups.get(model.digest);
        if (group === undefined) groups.set(model.digest, [serving]);
        else group.push(serving);
      }
    }
  }

  #speedsOf(peer: PeerId, digest: ModelDigest): Speeds {
    const name = `${peer}/${digest}`;
    const known = this.#speeds.get(name);
    if (known !== undefined) return known;
    const speeds = new Speeds(this.#clock);
    this.#speeds.set(name, speeds);
    return speeds;
  }
}
