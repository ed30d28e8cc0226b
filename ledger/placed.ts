/** Entries about one thing by their places: the same list whatever order they were told in. */

import { toHex } from '../protocol/crypto.ts';
import { type Entry, encodeEntry } from './entry.ts';
import type { EntryPlace } from './feeds.ts';

/** An entry, and the place that says how much it counts. */
export interface Placed<E extends Entry> {
  readonly entry: E;
  readonly place: EntryPlace;
}

/** What counts of a list. */
export interface Counting<E extends Entry> {
  /** In the order of their places; all of them count together. */
  readonly said: readonly E[];
  /** The first of `said` stands for itself. Otherwise all of them may only take away from what was there before. */
  readonly hasBase: boolean;
}

/** Later places of one author outrank earlier ones: by generation, epoch, number, index. */
export function comparePlaces(
  a: Pick<EntryPlace, 'generation' | 'epoch' | 'number' | 'index'>,
  b: Pick<EntryPlace, 'generation' | 'epoch' | 'number' | 'index'>,
): number {
  if (a.generation !== b.generation) return a.generation - b.generation;
  if (a.epoch !== b.epoch) return a.epoch < b.epoch ? -1 : 1;
  return a.number - b.number || a.index - b.index;
}

/** Two branches of a fork hold different entries in one place, so what they say decides between them. */
export function comparePlaced(a: Placed<Entry>, b: Placed<Entry>): number {
  const order = comparePlaces(a.place, b.place);
  if (order !== 0 || a.entry === b.entry) return order;
  const [left, right] = [toHex(encodeEntry(a.entry)), toHex(encodeEntry(b.entry))];
  return left === right ? 0 : left < right ? -1 : 1;
}

/** Entries of one kind, by one author, about one thing. */
export class Placing<E extends Entry> {
  readonly #all: Placed<E>[] = [];

  /** @returns false when it says nothing new: neither the entry, nor that it stands after a fork. */
  add(told: Placed<E>): boolean {
    // Most entries are told in the order in which they were written, so the place is found from the end.
    let at = this.#all.length;
    let order = 1;
    while (at > 0) {
      order = comparePlaced(told, this.#all[at - 1] as Placed<E>);
      if (order >= 0) break;
      at -= 1;
    }
    if (at === 0 || order > 0) {
      this.#all.splice(at, 0, told);
      return true;
    }
    const known = this.#all[at - 1] as Placed<E>;
    if (known.place.isAfterFork || !told.place.isAfterFork) return false;
    this.#all[at - 1] = told;
    return true;
  }

  all(): readonly Placed<E>[] {
    return this.#all;
  }

  /**
   * The newest entry that may give something back, and all that stand behind it: those only take away.
   * @param mayGive False for places after a fork, or after the end of the author's authority.
   */
  counting(mayGive: (place: EntryPlace) => boolean): Counting<E> {
    const base = this.#all.findLastIndex(({ place }) => mayGive(place));
    let from = Math.max(base, 0);
    // Another branch's entry in the same place counts with it.
    while (from > 0 && this.#isSamePlace(from, from - 1)) from -= 1;
    return { said: this.#all.slice(from).map(({ entry }) => entry), hasBase: base >= 0 };
  }

  #isSamePlace(a: number, b: number): boolean {
    const [left, right] = [this.#all[a], this.#all[b]];
    return left !== undefined && right !== undefined && comparePlaces(left.place, right.place) === 0;
  }
}
