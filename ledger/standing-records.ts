/** What one author has said about keys, accounts, members and invites, folded as it comes. */

import type { KeyTerms, RateLimits, Succession } from '../protocol/grants.ts';
import type { AccountId, AuthorId, EpochId, KeyId, PeerId } from '../protocol/ids.ts';
import { unixMs } from '../protocol/units.ts';
import type { AccountEntry, EraseEntry, KeyEntry, MemberEntry, RevokeEntry, TermsEntry } from './entry.ts';
import type { EntryPlace } from './feeds.ts';
import type { Budget } from './money.ts';
import { narrowBudget, narrowLimits, narrowTerms } from './narrow.ts';
import { comparePlaced, comparePlaces, type Placed, Placing } from './placed.ts';
import type { AccountStanding, KeyStanding, MemberStanding } from './standing.ts';

/** Where an author's authority lies at this moment. `era` changes whenever another answer became possible. */
interface Authority {
  readonly era: number;
  mayGive(place: EntryPlace): boolean;
}

/** A view that is made once for each change, since some are asked for with every request. */
class View<T> {
  #value: T | undefined;
  #era = -1;

  get(authority: Authority, make: () => T): T {
    if (this.#value === undefined || this.#era !== authority.era) {
      this.#value = make();
      this.#era = authority.era;
    }
    return this.#value;
  }

  drop(): void {
    this.#value = undefined;
  }
}

/** Of two entries that begin something, the one that stands first. */
const earlier = <E extends KeyEntry | MemberEntry>(known: Placed<E> | undefined, told: Placed<E>): Placed<E> =>
  known !== undefined && comparePlaced(known, told) <= 0 ? known : told;

class KeyRecord {
  readonly #key: KeyId;
  readonly #by: AuthorId;
  readonly #terms = new Placing<TermsEntry>();
  readonly #view = new View<KeyStanding>();
  #made: Placed<KeyEntry> | undefined;
  #revoked: KeyStanding['revoked'];

  constructor(key: KeyId, by: AuthorId) {
    this.#key = key;
    this.#by = by;
  }

  apply(entry: KeyEntry | TermsEntry | RevokeEntry, place: EntryPlace): boolean {
    const isNews = this.#take(entry, place);
    if (isNews) this.#view.drop();
    return isNews;
  }

  #take(entry: KeyEntry | TermsEntry | RevokeEntry, place: EntryPlace): boolean {
    switch (entry.kind) {
      case 'terms':
        return this.#terms.add({ entry, place });
      case 'revoke': {
        const before = this.#revoked;
        this.#revoked = joinRevoked(before, entry);
        return before?.fromMs !== this.#revoked.fromMs || before.cut !== this.#revoked.cut;
      }
      case 'key': {
        const before = this.#made;
        this.#made = earlier(before, { entry, place });
        return before !== this.#made;
      }
    }
  }

  standing(authority: Authority): KeyStanding {
    return this.#view.get(authority, () => this.#make(authority));
  }

  #make(authority: Authority): KeyStanding {
    const terms = this.#termsUnder(authority);
    return {
      key: this.#key,
      by: this.#by,
      ...(this.#made === undefined ? {} : { made: madeOf(this.#made) }),
      ...(terms === undefined ? {} : { terms }),
      ...(this.#revoked === undefined ? {} : { revoked: this.#revoked }),
    };
  }

  /** Where nothing but narrowing is left, it narrows what the key was made with. */
  #termsUnder(authority: Authority): KeyTerms | undefined {
    const { said, hasBase } = this.#terms.counting((place) => authority.mayGive(place));
    const terms = said.map((entry) => entry.terms);
    if (terms.length === 0) return undefined;
    const made = this.#made?.entry.terms;
    return (hasBase || made === undefined ? terms : [made, ...terms]).reduce(narrowTerms);
  }
}

type Revoked = NonNullable<KeyStanding['revoked']>;

/** The earliest counts, and a cut sticks. */
export const joinRevoked = (a: Revoked | undefined, { fromMs, cut }: Revoked): Revoked => ({
  fromMs: unixMs(Math.min(fromMs, a?.fromMs ?? fromMs)),
  cut: cut || a?.cut === true,
});

function madeOf({ entry, place }: Placed<KeyEntry>): NonNullable<KeyStanding['made']> {
  const { account, role, gateways, terms, replaces } = entry;
  const made = { account, role, gateways, terms, atMs: unixMs(place.timeMs) };
  return replaces === undefined ? made : { ...made, replaces };
}

type AccountTerms = { readonly limits: RateLimits; readonly strict: boolean; readonly budget?: Budget | undefined };

const narrowAccount = (a: AccountTerms, b: AccountTerms): AccountTerms => ({
  limits: narrowLimits(a.limits, b.limits),
  strict: a.strict || b.strict,
  budget: narrowBudget(a.budget, b.budget),
});

class AccountRecord {
  readonly #account: AccountId;
  readonly #said = new Placing<AccountEntry>();
  readonly #view = new View<AccountStanding>();
  #createdMs = Number.POSITIVE_INFINITY;
  #isErased = false;

  constructor(account: AccountId) {
    this.#account = account;
  }

  apply(entry: AccountEntry | EraseEntry, place: EntryPlace): boolean {
    const isFirst = place.timeMs < this.#createdMs;
    const isNews = (entry.kind === 'erase' ? !this.#isErased : this.#said.add({ entry, place })) || isFirst;
    if (entry.kind === 'erase') this.#isErased = true;
    if (isFirst) this.#createdMs = place.timeMs;
    if (isNews) this.#view.drop();
    return isNews;
  }

  standing(by: AuthorId, authority: Authority): AccountStanding {
    return this.#view.get(authority, () => {
      const { said } = this.#said.counting((place) => authority.mayGive(place));
      const { limits, strict, budget } = said.reduce<AccountTerms>(narrowAccount, { limits: {}, strict: false });
      const about = { account: this.#account, by, limits, strict, createdMs: unixMs(this.#createdMs) };
      return {
        ...about,
        ...(budget === undefined ? {} : { budget }),
        ...(this.#isErased ? { isErased: true } : {}),
      };
    });
  }
}

class MemberRecord {
  #newest: Placed<MemberEntry>;
  #admittedMs: number;
  #standing: MemberStanding | undefined;

  constructor(first: Placed<MemberEntry>) {
    this.#newest = first;
    this.#admittedMs = first.place.timeMs;
  }

  apply(told: Placed<MemberEntry>): boolean {
    const isNewest = comparePlaced(told, this.#newest) > 0;
    const isFirst = told.place.timeMs < this.#admittedMs;
    if (isNewest) this.#newest = told;
    if (isFirst) this.#admittedMs = told.place.timeMs;
    if (isNewest || isFirst) this.#standing = undefined;
    return isNewest || isFirst;
  }

  get standing(): MemberStanding {
    const { entry, place } = this.#newest;
    const { peer, role, owner, invite, expiresMs } = entry;
    const admittedMs = unixMs(this.#admittedMs);
    this.#standing ??= { peer, by: place.author, role, owner, invite, admittedMs, expiresMs };
    return this.#standing;
  }
}

/** Peers by the place at which an invite admitted each first. */
class InviteRecord {
  readonly #places = new Map<PeerId, EntryPlace>();
  #order: readonly PeerId[] | undefined;

  apply(peer: PeerId, place: EntryPlace): void {
    const known = this.#places.get(peer);
    if (known !== undefined && comparePlaces(known, place) <= 0) return;
    this.#places.set(peer, place);
    this.#order = undefined;
  }

  get peers(): readonly PeerId[] {
    this.#order ??= [...this.#places]
      .sort(([a, left], [b, right]) => comparePlaces(left, right) || (a < b ? -1 : 1))
      .map(([peer]) => peer);
    return this.#order;
  }
}

const getOr = <K, V>(map: Map<K, V>, key: K, make: () => V): V => {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
};

/** One author. Bans are not here: they are asked for by peer, whoever said them. */
export class AuthorRecord implements Authority {
  readonly author: AuthorId;
  readonly #keys = new Map<KeyId, KeyRecord>();
  readonly #accounts = new Map<AccountId, AccountRecord>();
  readonly #members = new Map<PeerId, MemberRecord>();
  readonly #invites = new Map<string, InviteRecord>();
  readonly #generations = new Map<EpochId, number>();
  #end: Succession | undefined;
  era = 0;

  constructor(author: AuthorId) {
    this.author = author;
  }

  /** Told with every entry: places of other epochs can only be compared once their generation is known. */
  seen({ epoch, generation }: EntryPlace): void {
    if (this.#generations.has(epoch)) return;
    this.#generations.set(epoch, generation);
    this.era += 1;
  }

  /** Told before every look-up. */
  endsWith(end: Succession | undefined): this {
    if (end !== this.#end) this.era += 1;
    this.#end = end;
    return this;
  }

  mayGive(place: EntryPlace): boolean {
    return !place.isAfterFork && !this.#isPastEnd(place);
  }

  #isPastEnd(place: EntryPlace): boolean {
    if (this.#end === undefined) return false;
    const { last } = this.#end;
    if (last === undefined) return true;
    if (place.epoch === last.epoch) return place.number > last.number;
    const generation = this.#generations.get(last.epoch);
    return generation === undefined || comparePlaces(place, { ...last, generation, index: 0 }) > 0;
  }

  applyKey(entry: KeyEntry | TermsEntry | RevokeEntry, place: EntryPlace): boolean {
    return getOr(this.#keys, entry.key, () => new KeyRecord(entry.key, this.author)).apply(entry, place);
  }

  applyAccount(entry: AccountEntry | EraseEntry, place: EntryPlace): boolean {
    return getOr(this.#accounts, entry.account, () => new AccountRecord(entry.account)).apply(entry, place);
  }

  applyMember(entry: MemberEntry, place: EntryPlace): boolean {
    if (entry.invite !== '') getOr(this.#invites, entry.invite, () => new InviteRecord()).apply(entry.peer, place);
    const known = this.#members.get(entry.peer);
    if (known !== undefined) return known.apply({ entry, place });
    this.#members.set(entry.peer, new MemberRecord({ entry, place }));
    return true;
  }

  key(key: KeyId): KeyStanding | undefined {
    return this.#keys.get(key)?.standing(this);
  }

  keys(): readonly KeyStanding[] {
    return [...this.#keys.values()].map((record) => record.standing(this));
  }

  account(account: AccountId): AccountStanding | undefined {
    return this.#accounts.get(account)?.standing(this.author, this);
  }

  accounts(): readonly AccountStanding[] {
    return [...this.#accounts.values()].map((record) => record.standing(this.author, this));
  }

  member(peer: PeerId): MemberStanding | undefined {
    return this.#members.get(peer)?.standing;
  }

  members(): readonly MemberStanding[] {
    return [...this.#members.values()].map(({ standing }) => standing);
  }

  admittedBy(invite: string): readonly PeerId[] {
    return this.#invites.get(invite)?.peers ?? [];
  }
}
