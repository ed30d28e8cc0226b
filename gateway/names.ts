/** The models that this gateway's nodes offer, by the names they go by, and which digest each name stands for now. */

import type { ModelDigest } from '../protocol/ids.ts';
import type { Clock } from '../protocol/ports.ts';
import type { Ms } from '../protocol/units.ts';
import type { NodeTable, Serving } from './nodes.ts';
import { chooseGroup, type HeldGroup } from './route/groups.ts';
import type { ListedModel } from './service.ts';

/** A name is remembered this long after its last node went: it is then unavailable, not unknown. */
const nameMemoryMs = 600_000;
/** Names remembered, offered ones aside. */
const namesMax = 4_096;
/** Digests remembered of one name: those that were offered last. */
const digestsMax = 16;
const forgetEveryMs = 10_000;

interface NameRecord {
  readonly firstSeenS: number;
  lastSeenMs: Ms;
  held: HeldGroup | undefined;
  /** Those that it was offered with. */
  readonly digests: Set<ModelDigest>;
}

/** Moves `newest` to the end of `digests`, and drops what is too many from its beginning. */
function remember(digests: Set<ModelDigest>, newest: Iterable<ModelDigest>): void {
  for (const digest of newest) {
    digests.delete(digest);
    digests.add(digest);
  }
  for (const digest of digests) {
    if (digests.size <= digestsMax) return;
    digests.delete(digest);
  }
}

export class ModelNames {
  readonly #clock: Clock;
  readonly #nodes: NodeTable;
  readonly #records = new Map<string, NameRecord>();
  #forgotMs: Ms;

  constructor(clock: Clock, nodes: NodeTable) {
    this.#clock = clock;
    this.#nodes = nodes;
    this.#forgotMs = clock.nowMs();
  }

  /** It is offered, or was lately, with a digest that begins so. */
  has(name: string, digestPrefix = ''): boolean {
    const record = this.#records.get(name);
    return record !== undefined && [...record.digests].some((digest) => digest.startsWith(digestPrefix));
  }

  /** Nodes that are silent do not count. */
  list(): readonly ListedModel[] {
    return [...this.#nodes.names()].sort().flatMap((name) => {
      const record = this.#records.get(name);
      const groups = this.#nodes.groups(name);
      const digest = record?.held?.digest;
      const group = digest === undefined ? undefined : groups?.get(digest)?.filter(({ isResponsive }) => isResponsive);
      const model = group?.[0]?.model;
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

  /** The one digest of `name` that begins so. */
  digestLike(name: string, prefix: string): ModelDigest | undefined {
    const matches = [...(this.#nodes.groups(name)?.keys() ?? [])].filter((digest) => digest.startsWith(prefix));
    return matches.length === 1 ? matches[0] : undefined;
  }

  /** The group that `name` is served from now. */
  digestOf(name: string): ModelDigest | undefined {
    const record = this.#records.get(name);
    const digest = record?.held?.digest;
    if (record === undefined || digest === undefined) return undefined;
    if (this.#nodes.groups(name)?.has(digest)) return digest;
    record.held = this.#choose(name, record.held);
    return record.held?.digest;
  }

  /** Keeps the records of these names in step with what the nodes offer. */
  note(names: Iterable<string>): void {
    const nowMs = this.#clock.nowMs();
    for (const name of names) {
      const groups = this.#nodes.groups(name);
      const isOffered = groups !== undefined;
      let record = this.#records.get(name);
      if (record === undefined) {
        if (!isOffered) continue;
        const firstSeenS = Math.floor(this.#clock.wallMs() / 1_000);
        record = { firstSeenS, lastSeenMs: nowMs, held: undefined, digests: new Set() };
        this.#records.set(name, record);
      }
      if (isOffered) record.lastSeenMs = nowMs;
      remember(record.digests, groups?.keys() ?? []);
      record.held = this.#choose(name, record.held);
    }
    this.#forget(nowMs);
  }

  #choose(name: string, held: HeldGroup | undefined): HeldGroup | undefined {
    const groups = this.#nodes.groups(name) ?? new Map<ModelDigest, readonly Serving[]>();
    const sizes = [...groups].map(([digest, nodes]) => ({
      digest,
      nodes: nodes.length,
      owners: new Set(nodes.map(({ node }) => node.owner ?? node.peer)).size,
    }));
    return chooseGroup(sizes, held, this.#clock.nowMs());
  }

  /** Drops names that nobody has offered for long, and the longest gone ones when there are too many. */
  #forget(nowMs: Ms): void {
    const isDue = nowMs - this.#forgotMs >= forgetEveryMs;
    if (!isDue && this.#records.size <= namesMax) return;
    this.#forgotMs = nowMs;
    const gone = [...this.#records].filter(([name]) => this.#nodes.groups(name) === undefined);
    gone.sort(([, a], [, b]) => a.lastSeenMs - b.lastSeenMs);
    // Room for a while, so that a full memory is not sorted at every change.
    const excess = this.#records.size > namesMax ? this.#records.size - namesMax / 2 : 0;
    for (const [index, [name, { lastSeenMs }]] of gone.entries()) {
      if (index < excess || nowMs - lastSeenMs > nameMemoryMs) this.#records.delete(name);
    }
  }
}
