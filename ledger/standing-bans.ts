/** Bans, by peer: a set to which every issuer may add, and from which an unban takes what it names and nothing else. */

import type { AuthorId, PeerId } from '../protocol/ids.ts';
import type { BanEntry, UnbanEntry } from './entry.ts';
import type { EntryPlace } from './feeds.ts';
import { Placing } from './placed.ts';

/** Who counts now; asked at every look-up, so that it may change at any time. */
export interface BanRules {
  counts(author: AuthorId): boolean;
  /** False for all places of an author who does not count. */
  mayGive(place: EntryPlace): boolean;
}

interface Ban {
  readonly by: Set<AuthorId>;
  /** Each may be told before the ban. */
  readonly lifted: Map<AuthorId, Placing<UnbanEntry>>;
}

export class Bans {
  readonly #rules: BanRules;
  readonly #peers = new Map<PeerId, Map<string, Ban>>();

  constructor(rules: BanRules) {
    this.#rules = rules;
  }

  #ban(peer: PeerId, ban: string): Ban {
    const bans = this.#peers.get(peer) ?? new Map<string, Ban>();
    this.#peers.set(peer, bans);
    const known = bans.get(ban) ?? { by: new Set(), lifted: new Map() };
    bans.set(ban, known);
    return known;
  }

  ban({ peer, ban }: BanEntry, author: AuthorId): boolean {
    const { by } = this.#ban(peer, ban);
    const isNews = !by.has(author);
    by.add(author);
    return isNews;
  }

  unban(entry: UnbanEntry, place: EntryPlace): boolean {
    let isNews = false;
    for (const ban of entry.bans) {
      const { lifted } = this.#ban(entry.peer, ban);
      const told = lifted.get(place.author) ?? new Placing<UnbanEntry>();
      lifted.set(place.author, told);
      isNews = told.add({ entry, place }) || isNews;
    }
    return isNews;
  }

  #isInForce({ by, lifted }: Ban, only: AuthorId | undefined): boolean {
    const { counts, mayGive } = this.#rules;
    if (![...by].some((author) => (only === undefined || author === only) && counts(author))) return false;
    return ![...lifted.values()].some((told) => told.all().some(({ place }) => mayGive(place)));
  }

  isBanned(peer: PeerId, by: AuthorId | undefined): boolean {
    const bans = this.#peers.get(peer);
    if (bans === undefined) return false;
    for (const ban of bans.values()) if (this.#isInForce(ban, by)) return true;
    return false;
  }

  inForce(): ReadonlyMap<PeerId, readonly string[]> {
    const found = new Map<PeerId, readonly string[]>();
    for (const [peer, bans] of this.#peers) {
      const ids = [...bans].filter(([, ban]) => this.#isInForce(ban, undefined)).map(([id]) => id);
      if (ids.length > 0) found.set(peer, ids.sort());
    }
    return found;
  }
}
