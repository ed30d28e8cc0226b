/** What is held of every author, in memory: runs of blocks without a hole, forks, and whether a feed may grow. */

import { isSameBytes } from '../protocol/crypto.ts';
import type { AuthorId, EpochId } from '../protocol/ids.ts';
import type { BlockPlace, ForkProof, SignedHeader } from './block.ts';
import type { EpochHead } from './feeds.ts';

/** Blocks of an epoch that follow each other. */
interface Run {
  from: number;
  to: number;
  /** What the first of them names as the one before it. */
  before: Uint8Array;
  last: SignedHeader;
}

/**
 * How a block stands to what is held: `held` (its place is taken), `next` (it follows), `gap` (it follows nothing that is
 * held), `apart` (what is held after it follows another one), `wrong` (of another generation than its epoch).
 */
export type Fit = 'held' | 'next' | 'gap' | 'apart' | 'wrong';

/** One epoch. Blocks count here from the moment they are checked; `head` tells only what is on disk. */
export class EpochState {
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly generation: number;
  /** Written by this process: nobody else may. */
  readonly isOwn: boolean;
  /** As far as it is on disk, without a hole. */
  head: EpochHead | undefined;
  readonly #runs: Run[] = [];

  constructor(place: Pick<EpochHead, 'author' | 'epoch' | 'generation'>, isOwn: boolean) {
    this.author = place.author;
    this.epoch = place.epoch;
    this.generation = place.generation;
    this.isOwn = isOwn;
  }

  holds(number: number): boolean {
    return this.#runs.some(({ from, to }) => from <= number && number <= to);
  }

  /** True when the block behind this hash is what the one at `number + 1`, which is held, follows. */
  isVouched({ header, hash }: SignedHeader): boolean {
    const after = this.#runs.find(({ from }) => from === header.number + 1);
    return after !== undefined && isSameBytes(after.before, hash);
  }

  fitOf(head: SignedHeader): Fit {
    const { number, generation, previous } = head.header;
    if (this.holds(number)) return 'held';
    if (generation !== this.generation) return 'wrong';
    const before = this.#runs.find(({ to }) => to === number - 1);
    if (number > 0 && (before === undefined || !isSameBytes(before.last.hash, previous))) return 'gap';
    const isLast = this.#runs.every(({ from }) => from !== number + 1);
    return isLast || this.isVouched(head) ? 'next' : 'apart';
  }

  /** Adds a block that fits, or that stands behind a hole. @returns the head as it is once the block is on disk. */
  add(head: SignedHeader): EpochHead | undefined {
    const { number, previous } = head.header;
    const runs = this.#runs;
    const before = runs.findIndex(({ to }) => to === number - 1);
    const after = runs.findIndex(({ from }) => from === number + 1);
    const [low, high] = [runs[before], runs[after]];
    if (low !== undefined) {
      low.to = high?.to ?? number;
      low.last = high?.last ?? head;
      if (high !== undefined) runs.splice(after, 1);
    } else if (high !== undefined) {
      high.from = number;
      high.before = previous;
    } else {
      runs.push({ from: number, to: number, before: previous, last: head });
    }
    const { author, epoch, generation } = this;
    const first = runs.find(({ from }) => from === 0);
    return first && { author, epoch, generation, number: first.to, head: first.last };
  }
}

interface AuthorState {
  readonly epochs: Map<EpochId, EpochState>;
  /** For each epoch the fork with the lowest number. */
  readonly proofs: Map<EpochId, ForkProof>;
  readonly lifted: Set<EpochId>;
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
const isNewer = (a: EpochHead, b: EpochHead): boolean =>
  a.generation > b.generation || (a.generation === b.generation && a.epoch > b.epoch);

/** All authors. Pure: whoever changes it writes the change to disk. */
export class FeedState {
  readonly #authors = new Map<AuthorId, AuthorState>();

  #stateOf(author: AuthorId): AuthorState {
    const state = this.#authors.get(author) ?? { epochs: new Map(), proofs: new Map(), lifted: new Set() };
    this.#authors.set(author, state);
    return state;
  }

  /** Authors of whom a block is held. */
  get size(): number {
    return [...this.#authors.values()].filter(({ epochs }) => epochs.size > 0).length;
  }

  isKnown(author: AuthorId): boolean {
    return (this.#authors.get(author)?.epochs.size ?? 0) > 0;
  }

  epochsOf(author: AuthorId): number {
    return this.#authors.get(author)?.epochs.size ?? 0;
  }

  epoch(author: AuthorId, epoch: EpochId): EpochState | undefined {
    return this.#authors.get(author)?.epochs.get(epoch);
  }

  /** The epoch of a block that is about to be added. */
  begin(place: Pick<EpochHead, 'author' | 'epoch' | 'generation'>, isOwn = false): EpochState {
    const { epochs } = this.#stateOf(place.author);
    const state = epochs.get(place.epoch) ?? new EpochState(place, isOwn);
    epochs.set(place.epoch, state);
    return state;
  }

  heads(): EpochHead[] {
    const all = [...this.#authors.values()].flatMap(({ epochs }) =>
      [...epochs.values()].flatMap(({ head }) => head ?? []),
    );
    return all.sort((a, b) => compare(a.author, b.author) || a.generation - b.generation || compare(a.epoch, b.epoch));
  }

  newestOf(author: AuthorId): EpochHead | undefined {
    let newest: EpochHead | undefined;
    for (const { head } of this.#authors.get(author)?.epochs.values() ?? []) {
      if (head !== undefined && (newest === undefined || isNewer(head, newest))) newest = head;
    }
    return newest;
  }

  /** The highest generation of which anything is known, blocks behind holes and proofs included; −1 for none. */
  newestGeneration(author: AuthorId): number {
    const state = this.#authors.get(author);
    const held = [...(state?.epochs.values() ?? [])].map(({ generation }) => generation);
    const proven = [...(state?.proofs.values() ?? [])].map(({ a, b }) =>
      Math.max(a.header.generation, b.header.generation),
    );
    return [...held, ...proven].reduce((max, generation) => Math.max(max, generation), -1);
  }

  proofs(): ForkProof[] {
    const all = [...this.#authors].sort(([a], [b]) => compare(a, b));
    return all.flatMap(([, { proofs }]) => [...proofs].sort(([a], [b]) => compare(a, b)).map(([, proof]) => proof));
  }

  /**
   * Takes a valid proof in, unless it says nothing new. A second one of an epoch does when it is of a lower place that is
   * held; one of an epoch of which nothing is held does only while the author is not frozen, so that nobody can
   * fill the disk with proofs.
   */
  prove(proof: ForkProof): boolean {
    const { author, epoch, number } = proof.a.header;
    const { proofs } = this.#stateOf(author);
    const known = proofs.get(epoch);
    const held = this.epoch(author, epoch);
    const isNews =
      known === undefined
        ? held !== undefined || !this.isFrozen(author)
        : number < known.a.header.number && held?.holds(number) === true;
    if (isNews) proofs.set(epoch, proof);
    return isNews;
  }

  /** As `prove`, for what was found on disk. */
  setProof(proof: ForkProof): void {
    this.#stateOf(proof.a.header.author).proofs.set(proof.a.header.epoch, proof);
  }

  lift(author: AuthorId, epoch: EpochId): void {
    this.#stateOf(author).lifted.add(epoch);
  }

  isLifted(author: AuthorId, epoch: EpochId): boolean {
    return this.#authors.get(author)?.lifted.has(epoch) === true;
  }

  isFrozen(author: AuthorId): boolean {
    const state = this.#authors.get(author);
    return state !== undefined && [...state.proofs.keys()].some((epoch) => !state.lifted.has(epoch));
  }

  hasForkedIn(author: AuthorId, epoch: EpochId): boolean {
    return this.#authors.get(author)?.proofs.has(epoch) === true;
  }

  isAfterFork({ author, epoch, number }: BlockPlace): boolean {
    const proof = this.#authors.get(author)?.proofs.get(epoch);
    return proof !== undefined && proof.a.header.number <= number;
  }
}
