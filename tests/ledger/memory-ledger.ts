/** An issuer's ledger in memory, for tests of what grants over it: entries count once `disk` has let them through. */

import { authorIdOf, type BlockHeader } from '../../ledger/block.ts';
import { type Entry, encodeEntry } from '../../ledger/entry.ts';
import type { EntryPlace, HeldEntry } from '../../ledger/feeds.ts';
import type { Ledger } from '../../ledger/ledger.ts';
import { createStanding, type Standing } from '../../ledger/standing.ts';
import type { AuthorId, EpochId } from '../../protocol/ids.ts';
import type { NewMesh } from '../../protocol/mesh.ts';
import { createRoots } from '../../protocol/peer/create-roots.ts';
import type { Roots } from '../../protocol/peer/roots.ts';
import type { Clock } from '../../protocol/ports.ts';
import { tokens } from '../protocol/mesh-fixture.ts';

type Granting = Pick<Ledger, 'append' | 'standing' | 'authorsOf' | 'roots' | 'holdsBefore'>;

export interface MemoryLedgerParts {
  readonly mesh: NewMesh;
  readonly clock: Pick<Clock, 'wallMs'>;
  /** What was on disk when the process started. */
  readonly held?: readonly HeldEntry[];
  /** Settles as the write does. */
  readonly disk?: () => Promise<void>;
}

/** One process: an epoch of its own, and everything that others wrote before it began. */
export class MemoryLedger implements Granting {
  readonly standing: Standing = createStanding(() => true);
  readonly roots: Roots;
  readonly author: AuthorId;
  readonly held: HeldEntry[] = [];
  readonly #parts: MemoryLedgerParts;
  readonly #place: Pick<BlockHeader, 'author' | 'epoch' | 'generation'>;
  #number = 0;
  #tail: Promise<unknown> = Promise.resolve();
  #line: readonly AuthorId[] = [];

  private constructor(parts: MemoryLedgerParts, roots: Roots) {
    this.#parts = parts;
    this.roots = roots;
    this.author = authorIdOf(parts.mesh.issuer.key.publicKey);
    this.#line = [this.author];
    const generation = Math.max(-1, ...(parts.held ?? []).map(({ place }) => place.generation)) + 1;
    const epoch = generation.toString(16).padStart(32, '0') as EpochId;
    this.#place = { author: this.author, generation, epoch };
    for (const held of parts.held ?? []) this.take(held);
  }

  static async open(parts: MemoryLedgerParts): Promise<MemoryLedger> {
    const { meshId, rootPublicKey } = parts.mesh.mesh;
    const roots = createRoots({ tokens }, { meshId, rootPublicKey });
    await roots.take({ kind: 'issuer', token: parts.mesh.issuer.certificate });
    return new MemoryLedger(parts, roots);
  }

  /** Entries, as they were written. */
  get entries(): readonly Entry[] {
    return this.held.map(({ entry }) => entry);
  }

  /** Also what comes from elsewhere. */
  take(held: HeldEntry): void {
    this.held.push(held);
    this.standing.apply(held);
  }

  /** From now on this is the line of every issuer that it names. */
  succeed(...line: readonly AuthorId[]): void {
    this.#line = line;
  }

  /** Whether all is held that handovers name. */
  isWhole = true;

  holdsBefore(): boolean {
    return this.isWhole;
  }

  authorsOf(): readonly AuthorId[] {
    return this.#line;
  }

  async append(_as: 'issuer' | 'gateway', entries: readonly Entry[]): Promise<readonly EntryPlace[]> {
    if (entries.length === 0) return [];
    const before = this.#tail;
    const write = (async () => this.#parts.disk?.())();
    // A feed's blocks are on disk in their order, whatever the disk does.
    this.#tail = Promise.allSettled([before, write]);
    await before;
    await write;
    const block = { ...this.#place, number: this.#number, timeMs: this.#parts.clock.wallMs(), isAfterFork: false };
    this.#number += 1;
    return entries.map((entry, index) => {
      const place = { ...block, index };
      this.take({ entry, bytes: encodeEntry(entry), place });
      return place;
    });
  }
}
