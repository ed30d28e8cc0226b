/** What was leased of every account's budget, what of it came back, and what is left: the same whatever order entries came in. */

import type { AccountId, AuthorId, LeaseId, PeerId } from '../protocol/ids.ts';
import { peerOf } from './authors.ts';
import type { EntryPlace, HeldEntry } from './feeds.ts';
import type { LeaseEntry, WriteOffEntry } from './money.ts';
import { comparePlaces } from './placed.ts';
import type { CloseEntry } from './statement.ts';

/** A lease with everything that counts of it. */
export interface LeaseFacts extends Omit<LeaseEntry, 'kind'> {
  readonly state: 'open' | 'closed' | 'written-off';
  /** What it takes from the budget: all of an open one. */
  readonly takenMicro: number;
  /** What lines known here, or its end, say that was spent. */
  readonly spentMicro: number;
}

export interface BookRules {
  /** True for the issuer of these budgets, those that it took over from, and those that took over from them. */
  readonly isOurs: (author: AuthorId) => boolean;
  /** True where this issuer's word may give something back at this place: not after the end of its authority. */
  readonly mayGive: (place: EntryPlace) => boolean;
  /** True where only the process that held a lease can close it, and nobody may guess what it did at its end. */
  readonly isStrict: (lease: LeaseEntry) => boolean;
  /** What lines known here have taken from a lease. */
  readonly spentFrom: (lease: LeaseEntry) => number;
}

interface Said<E> {
  readonly entry: E;
  readonly place: EntryPlace;
}

/** A record is about 0.4 kB; those of periods that are over are dropped. */
interface LeaseRecord {
  /** Of the entries of each issuer about it, the one with the largest amount. */
  readonly leases: Map<AuthorId, LeaseEntry>;
  closes: Said<CloseEntry>[];
  writeOffs: Said<WriteOffEntry>[];
}

const isSamePlace = (a: EntryPlace, b: EntryPlace): boolean =>
  a.author === b.author && a.epoch === b.epoch && a.number === b.number && a.index === b.index;

/** Once for each place and branch; that it stands after a fork is never forgotten. */
function note<E extends CloseEntry | WriteOffEntry>(all: Said<E>[], told: Said<E>): void {
  const at = all.findIndex(
    ({ place, entry }) => isSamePlace(place, told.place) && entry.spentMicro === told.entry.spentMicro,
  );
  if (at < 0) all.push(told);
  else if (told.place.isAfterFork) all[at] = told;
}

/** The book of one authority. */
export class LeaseBook {
  readonly #rules: BookRules;
  readonly #records = new Map<LeaseId, LeaseRecord>();
  readonly #ofAccount = new Map<AccountId, Set<LeaseId>>();
  /** Leases may only come from these; gateways write `lease` entries in vain. */
  readonly #issuers = new Set<AuthorId>();
  /** Told by authors that have not shown yet that they are issuers. */
  readonly #early = new Map<AuthorId, Pick<HeldEntry, 'entry' | 'place'>[]>();
  readonly #gateways = new Set<AuthorId>();

  constructor(rules: BookRules) {
    this.#rules = rules;
  }

  /** Takes one more entry, of any kind; taking one twice changes nothing. @returns the account that it is about. */
  apply(held: Pick<HeldEntry, 'entry' | 'place'>): AccountId | undefined {
    const { entry, place } = held;
    switch (entry.kind) {
      case 'author':
        this.#learn(entry.role, place.author);
        return undefined;
      case 'close':
        note(this.#record(entry.lease).closes, { entry, place });
        return this.of(entry.lease)?.account;
      case 'lease':
      case 'writeoff':
        if (this.#issuers.has(place.author)) return this.#take(entry, place);
        if (!this.#gateways.has(place.author)) this.#wait(held);
        return undefined;
      default:
        return undefined;
    }
  }

  #learn(role: 'issuer' | 'gateway', author: AuthorId): void {
    if (role === 'gateway') {
      this.#gateways.add(author);
      return;
    }
    this.#issuers.add(author);
    const early = this.#early.get(author) ?? [];
    this.#early.delete(author);
    for (const held of early) this.apply(held);
  }

  #wait(held: Pick<HeldEntry, 'entry' | 'place'>): void {
    const { author } = held.place;
    this.#early.set(author, [...(this.#early.get(author) ?? []), held]);
  }

  #record(lease: LeaseId): LeaseRecord {
    let record = this.#records.get(lease);
    if (record === undefined) {
      record = { leases: new Map(), closes: [], writeOffs: [] };
      this.#records.set(lease, record);
    }
    return record;
  }

  #take(entry: LeaseEntry | WriteOffEntry, place: EntryPlace): AccountId | undefined {
    const record = this.#record(entry.lease);
    if (entry.kind === 'writeoff') {
      note(record.writeOffs, { entry, place });
      return this.of(entry.lease)?.account;
    }
    // Of every branch and of every predecessor the grant counts; raised, it is the largest that was ever said.
    const known = record.leases.get(place.author);
    if (known === undefined || entry.amountMicro > known.amountMicro) record.leases.set(place.author, entry);
    const ofAccount = this.#ofAccount.get(entry.account) ?? new Set();
    this.#ofAccount.set(entry.account, ofAccount.add(entry.lease));
    return entry.account;
  }

  of(lease: LeaseId): LeaseFacts | undefined {
    const record = this.#records.get(lease);
    const entry = record && this.#entryOf(record);
    return entry && this.#facts(entry, record);
  }

  /** Other issuers may have accounts of the same names: what they say is of theirs. */
  #entryOf({ leases }: LeaseRecord): LeaseEntry | undefined {
    let [largest, by]: [LeaseEntry | undefined, AuthorId | undefined] = [undefined, undefined];
    for (const [author, entry] of leases) {
      if (!this.#rules.isOurs(author)) continue;
      const moreMicro = entry.amountMicro - (largest?.amountMicro ?? 0);
      if (moreMicro > 0 || (moreMicro === 0 && by !== undefined && author < by)) [largest, by] = [entry, author];
    }
    return largest;
  }

  #facts({ kind: _, ...lease }: LeaseEntry, { closes, writeOffs }: LeaseRecord): LeaseFacts {
    const { holder, epoch, amountMicro } = lease;
    // The last word of the holder counts: what was set aside when it gave the rest back has been settled since.
    const isStrict = this.#rules.isStrict({ kind: 'lease', ...lease });
    // A later process of a holder that was killed closes by its lines; with strict accounts it cannot.
    const closed = closes
      .filter(({ place }) => !place.isAfterFork && peerOf(place.author) === holder)
      .filter(({ place }) => place.epoch === epoch || !isStrict)
      .sort((a, b) => comparePlaces(b.place, a.place))
      .slice(0, 1);
    const written = writeOffs.filter(
      ({ entry, place }) => !place.isAfterFork && entry.epoch === epoch && this.#rules.mayGive(place),
    );
    const lines = this.#rules.spentFrom({ kind: 'lease', ...lease });
    const ends = [...closed, ...written].map(({ entry }) => entry.spentMicro);
    if (ends.length === 0) {
      return { ...lease, state: 'open', takenMicro: Math.max(amountMicro, lines), spentMicro: lines };
    }
    const spentMicro = Math.max(lines, ...ends);
    return { ...lease, state: closed.length > 0 ? 'closed' : 'written-off', takenMicro: spentMicro, spentMicro };
  }

  leasesOf(account: AccountId): readonly LeaseFacts[] {
    return [...(this.#ofAccount.get(account) ?? [])].flatMap((lease) => {
      const facts = this.of(lease);
      return facts?.account === account ? [facts] : [];
    });
  }

  /** What leases of this period have taken from the account's budget. */
  takenMicro(account: AccountId, period: number): number {
    let sum = 0;
    for (const lease of this.leasesOf(account)) if (lease.period === period) sum += lease.takenMicro;
    return sum;
  }

  /** Every lease that nobody has closed or written off. */
  open(): readonly LeaseFacts[] {
    return [...this.#records.keys()].flatMap((lease) => {
      const facts = this.of(lease);
      return facts?.state === 'open' ? [facts] : [];
    });
  }

  /** True for a holder of whom a lease was written off: nothing more is expected of it. */
  isGivenUp(holder: PeerId): boolean {
    return [...this.#records.keys()].some((lease) => {
      const facts = this.of(lease);
      return facts?.holder === holder && facts.state === 'written-off';
    });
  }

  /**
   * Forgets ended leases of this account's periods before `period`: nothing is ever given from those again.
   * @param running Periods of other lengths that run now: the budget may come to have theirs again.
   */
  forgetBefore(account: AccountId, period: number, running: readonly number[]): void {
    const ofAccount = this.#ofAccount.get(account);
    for (const lease of this.leasesOf(account)) {
      if (lease.state === 'open' || lease.period >= period || running.includes(lease.period)) continue;
      ofAccount?.delete(lease.lease);
      this.#records.delete(lease.lease);
    }
  }
}
