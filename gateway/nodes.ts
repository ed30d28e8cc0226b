/** The nodes this gateway holds sessions with, and what it knows of each: the only state that routing looks at. */

import type { ModelDigest, OwnerId, PeerId } from '../protocol/ids.ts';
import type { EngineModel } from '../protocol/ports.ts';
import type { Session } from '../protocol/session/session.ts';
import type { Ms } from '../protocol/units.ts';
import type { RoutedNode } from './route/score.ts';

/** Weight of the newest sample in a running mean. */
const meanWeight = 0.2;

/** One node: what it offers and reports, and how it has done for this gateway. */
export class NodeEntry implements RoutedNode {
  readonly session: Session;
  readonly owner: OwnerId | undefined;
  /** Attempts of ours that its last load report cannot know yet, less those that ended since. */
  unreported = 0;
  firstContentMeanMs = 0;
  answerMeanMs = 0;
  readonly counts = { attempts: 0, done: 0, failed: 0, cancelled: 0 };
  #models: ReadonlyMap<string, EngineModel> = new Map();

  constructor(session: Session, owner: OwnerId | undefined) {
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
    return (this.session.load?.active ?? 0) + this.unreported;
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

  get isDraining(): boolean {
    return this.session.load?.draining ?? false;
  }

  get isResponsive(): boolean {
    return this.session.isResponsive;
  }

  /** The session's offer or load changed. @returns true when the models did. */
  refresh(): boolean {
    this.unreported = 0;
    const offered = this.session.offer?.models ?? [];
    const before = [...this.#models.values()];
    if (offered.length === before.length && offered.every((model, index) => model === before[index])) return false;
    this.#models = new Map(offered.map((model) => [model.name, model]));
    return true;
  }

  firstContentAfter(elapsedMs: Ms): void {
    this.firstContentMeanMs = nextMean(this.firstContentMeanMs, elapsedMs);
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
