/** The nodes this gateway holds sessions with, and what it knows of each: the only state that routing looks at. */

import type { ModelDigest, OwnerId, PeerId } from '../protocol/ids.ts';
import type { Offer } from '../protocol/messages/session.ts';
import { isPinned } from '../protocol/model-reference.ts';
import type { Clock, EngineModel } from '../protocol/ports.ts';
import type { Session } from '../protocol/session/session.ts';
import type { Ms } from '../protocol/units.ts';
import type { RoutedNode } from './route/score.ts';

/** Weight of the newest sample in a running mean. */
const meanWeight = 0.2;
const fadeMs = 60_000;

/** One node: what it offers and reports, and how it has done for this gateway. */
export class NodeEntry implements RoutedNode {
  readonly session: Session;
  readonly owner: OwnerId | undefined;
  /** Attempts of ours under way there. */
  running = 0;
  answerMeanMs = 0;
  readonly counts = { attempts: 0, done: 0, failed: 0, cancelled: 0 };
  readonly #clock: Clock;
  #firstContentMeanMs = 0;
  #firstContentAtMs = 0;
  #offer: Offer | undefined;
  #models: ReadonlyMap<string, EngineModel> = new Map();

  constructor(session: Session, owner: OwnerId | undefined, clock: Clock) {
    this.#clock = clock;
    this.session = session;
    this.owner = owner;
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
    return this.session.load?.queued ?? 0;
  }

  get roundTripMs(): number {
    return this.session.roundTripMs ?? 0;
  }

  get lastHeardMs(): number {
    return this.session.lastHeardMs;
  }

  get bodyMaxBytes(): number {
    return this.session.limits.requestBodyMaxBytes;
  }

  /** Fades within a minute, so that a node that was slow once is tried again. */
  get firstContentMeanMs(): number {
    const ageMs = this.#clock.nowMs() - this.#firstContentAtMs;
    return this.#firstContentMeanMs * Math.max(0, 1 - ageMs / fadeMs);
  }

  get isDraining(): boolean {
    return this.session.load?.draining ?? false;
  }

  get isResponsive(): boolean {
    return this.session.isResponsive;
  }

  /** Takes the session's offer. @returns true when it is another one. */
  refresh(): boolean {
    const { offer } = this.session;
    if (offer === this.#offer) return false;
    this.#offer = offer;
    // A name that looks like a pinned one would receive requests for the digest it names.
    const models = (offer?.models ?? []).filter(({ name }) => !isPinned(name));
    this.#models = new Map(models.map((model) => [model.name, model]));
    return true;
  }

  firstContentAfter(elapsedMs: Ms): void {
    this.#firstContentMeanMs = nextMean(this.firstContentMeanMs, elapsedMs);
    this.#firstContentAtMs = this.#clock.nowMs();
  }

  answeredAfter(elapsedMs: Ms): void {
    this.answerMeanMs = nextMean(this.answerMeanMs, elapsedMs);
  }
}

const nextMean = (mean: number, sample: number): number => (mean === 0 ? sample : mean + meanWeight * (sample - mean));

/** All nodes by peer, and by model name and digest. */
export class NodeTable {
  readonly #byPeer = new Map<PeerId, NodeEntry>();
  readonly #byName = new Map<string, Map<ModelDigest, NodeEntry[]>>();

  get size(): number {
    return this.#byPeer.size;
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
  groups(name: string): ReadonlyMap<ModelDigest, readonly NodeEntry[]> | undefined {
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
        const groups = this.#byName.get(model.name) ?? new Map<ModelDigest, NodeEntry[]>();
        this.#byName.set(model.name, groups);
        const group = groups.get(model.digest);
        if (group === undefined) groups.set(model.digest, [entry]);
        else group.push(entry);
      }
    }
  }
}
