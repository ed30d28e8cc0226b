/** How everyone stands: what all entries known here come to, whatever order they came in. */

import type { KeyGrant, KeyRole, KeyTerms, RateLimits, Role } from '../protocol/grants.ts';
import type { AccountId, AuthorId, KeyId, OwnerId, PeerId } from '../protocol/ids.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import type { AccountEntry, BanEntry, KeyEntry, MemberEntry, RevokeEntry, TermsEntry, UnbanEntry } from './entry.ts';
import type { EntryPlace, HeldEntry } from './feeds.ts';
import { narrowLimits, narrowTerms } from './narrow.ts';

/** A key as its issuer's entries tell of it. */
export interface KeyStanding {
  readonly key: KeyId;
  /** Its issuer's author; entries of others about it do not count. */
  readonly by: AuthorId;
  /** From its `key` entry, when that is known. */
  readonly made?: {
    readonly account: AccountId;
    readonly role: KeyRole;
    readonly gateways: readonly PeerId[];
    readonly terms: KeyTerms;
    readonly atMs: UnixMs;
    readonly replaces?: KeyId;
  };
  /**
   * What counts in place of the token's terms; undefined without a `terms` entry. After a fork of the issuer the
   * narrowest of what its branches say.
   */
  readonly terms?: KeyTerms;
  /** The earliest revocation. */
  readonly revoked?: { readonly fromMs: UnixMs; readonly cut: boolean };
}

export interface AccountStanding {
  readonly account: AccountId;
  readonly by: AuthorId;
  readonly limits: RateLimits;
  readonly strict: boolean;
  readonly createdMs: UnixMs;
}

export interface MemberStanding {
  readonly peer: PeerId;
  readonly by: AuthorId;
  readonly role: Role;
  readonly owner: OwnerId;
  readonly invite: string;
  readonly admittedMs: UnixMs;
  readonly expiresMs: UnixMs;
}

/** What an entry changed. */
export type StandingChange =
  | { readonly kind: 'key'; readonly key: KeyId; readonly by: AuthorId }
  | { readonly kind: 'account'; readonly account: AccountId; readonly by: AuthorId }
  | { readonly kind: 'ban' | 'unban' | 'member'; readonly peer: PeerId };

/** Live views; every look-up is a map's, cheap enough for each request. */
export interface Standing {
  /** An issuer's key; `by` is the author of the issuer that signed its token (or of its successor, asked in turn). */
  key(key: KeyId, by: AuthorId): KeyStanding | undefined;
  keys(): readonly KeyStanding[];
  account(account: AccountId, by: AuthorId): AccountStanding | undefined;
  accounts(): readonly AccountStanding[];
  isBanned(peer: PeerId): boolean;
  /** Bans in force, by peer; the ids are what an `unban` names. */
  bans(): ReadonlyMap<PeerId, readonly string[]>;
  members(): readonly MemberStanding[];
  /** Peers that an invite of this author has admitted. */
  admittedBy(invite: string, by: AuthorId): readonly PeerId[];
  /** Takes one more entry; taking one twice changes nothing. */
  apply(held: HeldEntry): StandingChange | undefined;
}

/** Terms and limits that count for a grant now: the token's, unless an entry replaced them. */
export const termsOf = (grant: KeyGrant, standing: KeyStanding | undefined): KeyTerms => standing?.terms ?? grant;

/** An entry, and the place that says how much it counts. */
interface Placed<E> {
  readonly entry: E;
  readonly place: EntryPlace;
}

const textOf = ({ epoch, number, index }: EntryPlace): string => `${epoch}/${number}/${index}`;

/** Later places of one author outrank earlier ones. */
function compare(a: EntryPlace, b: EntryPlace): number {
  if (a.generation !== b.generation) return a.generation - b.generation;
  if (a.epoch !== b.epoch) return a.epoch < b.epoch ? -1 : 1;
  return a.number - b.number || a.index - b.index;
}

/** Entries of one kind about one thing, by place: one that is told again (after a fork) takes the place of itself. */
class Placing<E> {
  readonly #all = new Map<string, Placed<E>>();

  /** @returns false when it says nothing new. */
  add(entry: E, place: EntryPlace): boolean {
    const text = textOf(place);
    const known = this.#all.get(text);
    if (known !== undefined && (known.place.isAfterFork || !place.isAfterFork)) return false;
    this.#all.set(text, { entry, place });
    return true;
  }

  get size(): number {
    return this.#all.size;
  }

  all(): readonly Placed<E>[] {
    return [...this.#all.values()];
  }

  /** The one that outranks all others. */
  newest(among: readonly Placed<E>[] = this.all()): Placed<E> | undefined {
    return among.reduce<Placed<E> | undefined>(
      (best, one) => (best === undefined || compare(one.place, best.place) > 0 ? one : best),
      undefined,
    );
  }

  /** What counts: the newest before any fork, narrowed by everything after it. */
  narrowest<T>(read: (entry: E) => T, narrow: (a: T, b: T) => T): T | undefined {
    const all = this.all();
    const after = all.filter(({ place }) => place.isAfterFork);
    const before = this.newest(all.filter(({ place }) => !place.isAfterFork));
    const said = [...(before === undefined ? [] : [before]), ...after].map(({ entry }) => read(entry));
    return said.length === 0 ? undefined : said.reduce(narrow);
  }
}

/** One key of one issuer. */
class KeyRecord {
  readonly #key: KeyId;
  readonly #by: AuthorId;
  readonly made = new Placing<KeyEntry>();
  readonly terms = new Placing<TermsEntry>();
  #revoked: KeyStanding['revoked'];
  /** Asked with every request, so it is made once for each change. */
  #standing: KeyStanding | undefined;

  constructor(key: KeyId, by: AuthorId) {
    this.#key = key;
    this.#by = by;
  }

  revoke({ fromMs, cut }: RevokeEntry): boolean {
    const known = this.#revoked;
    const next = { fromMs: unixMs(Math.min(fromMs, known?.fromMs ?? fromMs)), cut: cut || known?.cut === true };
    if (known?.fromMs === next.fromMs && known.cut === next.cut) return false;
    this.#revoked = next;
    return true;
  }

  changed(): void {
    this.#standing = undefined;
  }

  get standing(): KeyStanding {
    this.#standing ??= this.#make();
    return this.#standing;
  }

  #make(): KeyStanding {
    const made = this.made.newest();
    const terms = this.terms.narrowest(({ terms: said }) => said, narrowTerms);
    const revoked = this.#revoked;
    return {
      key: this.#key,
      by: this.#by,
      ...(made === undefined ? {} : { made: madeOf(made) }),
      ...(terms === undefined ? {} : { terms }),
      ...(revoked === undefined ? {} : { revoked }),
    };
  }
}

function madeOf({ entry, place }: Placed<KeyEntry>): NonNullable<KeyStanding['made']> {
  const { account, role, gateways, terms, replaces } = entry;
  const made = { account, role, gateways, terms, atMs: unixMs(place.timeMs) };
  return replaces === undefined ? made : { ...made, replaces };
}

/** One account of one issuer. */
class AccountRecord {
  readonly said = new Placing<AccountEntry>();

  standing(account: AccountId, by: AuthorId): AccountStanding {
    const read = ({ limits, strict }: AccountEntry) => ({ limits, strict });
    const { limits, strict } = this.said.narrowest(read, (a, b) => ({
      limits: narrowLimits(a.limits, b.limits),
      strict: a.strict || b.strict,
    })) ?? { limits: {}, strict: true };
    const createdMs = unixMs(Math.min(...this.said.all().map(({ place }) => place.timeMs)));
    return { account, by, limits, strict, createdMs };
  }
}

/** What one author has said. Whether it counts is asked when somebody looks. */
class AuthorRecord {
  readonly keys = new Map<KeyId, KeyRecord>();
  readonly accounts = new Map<AccountId, AccountRecord>();
  readonly members = new Map<PeerId, Placing<MemberEntry>>();
  readonly invites = new Map<string, Set<PeerId>>();
  readonly bans = new Map<PeerId, Set<string>>();
  /** Ids of bans that it took back, by the peer. */
  readonly unbans = new Map<PeerId, Placing<UnbanEntry>>();
}

const getOr = <K, V>(map: Map<K, V>, key: K, make: () => V): V => {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
};

class LiveStanding implements Standing {
  readonly #counts: (author: AuthorId) => boolean;
  readonly #authors = new Map<AuthorId, AuthorRecord>();

  constructor(counts: (author: AuthorId) => boolean) {
    this.#counts = counts;
  }

  #counting(): (readonly [AuthorId, AuthorRecord])[] {
    return [...this.#authors].filter(([author]) => this.#counts(author)).sort(([a], [b]) => (a < b ? -1 : 1));
  }

  #record(author: AuthorId): AuthorRecord | undefined {
    return this.#counts(author) ? this.#authors.get(author) : undefined;
  }

  key(key: KeyId, by: AuthorId): KeyStanding | undefined {
    return this.#record(by)?.keys.get(key)?.standing;
  }

  keys(): readonly KeyStanding[] {
    return this.#counting().flatMap(([, { keys }]) => [...keys.values()].map(({ standing }) => standing));
  }

  account(account: AccountId, by: AuthorId): AccountStanding | undefined {
    return this.#record(by)?.accounts.get(account)?.standing(account, by);
  }

  accounts(): readonly AccountStanding[] {
    return this.#counting().flatMap(([by, { accounts }]) =>
      [...accounts].map(([account, record]) => record.standing(account, by)),
    );
  }

  /** Bans of one peer that nobody who counts has taken back. */
  #bansOf(peer: PeerId, counting: readonly (readonly [AuthorId, AuthorRecord])[]): readonly string[] {
    const bans = counting.flatMap(([, record]) => [...(record.bans.get(peer) ?? [])]);
    if (bans.length === 0) return bans;
    const lifted = new Set(
      counting.flatMap(([, { unbans }]) =>
        (unbans.get(peer)?.all() ?? []).flatMap(({ entry, place }) => (place.isAfterFork ? [] : entry.bans)),
      ),
    );
    return [...new Set(bans)].filter((ban) => !lifted.has(ban)).sort();
  }

  isBanned(peer: PeerId): boolean {
    return this.#bansOf(peer, this.#counting()).length > 0;
  }

  bans(): ReadonlyMap<PeerId, readonly string[]> {
    const counting = this.#counting();
    const peers = new Set(counting.flatMap(([, { bans }]) => [...bans.keys()]));
    const inForce = [...peers].map((peer) => [peer, this.#bansOf(peer, counting)] as const);
    return new Map(inForce.filter(([, bans]) => bans.length > 0));
  }

  members(): readonly MemberStanding[] {
    return this.#counting().flatMap(([by, { members }]) =>
      [...members.values()].flatMap((said) => {
        const newest = said.newest();
        if (newest === undefined) return [];
        const { peer, role, owner, invite, expiresMs } = newest.entry;
        return [{ peer, by, role, owner, invite, admittedMs: unixMs(newest.place.timeMs), expiresMs }];
      }),
    );
  }

  admittedBy(invite: string, by: AuthorId): readonly PeerId[] {
    return [...(this.#record(by)?.invites.get(invite) ?? [])].sort();
  }

  apply({ entry, place }: HeldEntry): StandingChange | undefined {
    const by = place.author;
    const record = getOr(this.#authors, by, () => new AuthorRecord());
    switch (entry.kind) {
      case 'key':
      case 'terms':
      case 'revoke':
        return applyKey(record, entry, place) ? { kind: 'key', key: entry.key, by } : undefined;
      case 'account': {
        const { said } = getOr(record.accounts, entry.account, () => new AccountRecord());
        return said.add(entry, place) ? { kind: 'account', account: entry.account, by } : undefined;
      }
      case 'member':
        return applyMember(record, entry, place) ? { kind: 'member', peer: entry.peer } : undefined;
      case 'ban':
        return applyBan(record, entry) ? { kind: 'ban', peer: entry.peer } : undefined;
      case 'unban': {
        const unbans = getOr(record.unbans, entry.peer, () => new Placing<UnbanEntry>());
        return unbans.add(entry, place) ? { kind: 'unban', peer: entry.peer } : undefined;
      }
      case 'author':
      case 'other':
        return undefined;
    }
  }
}

function applyKey(record: AuthorRecord, entry: KeyEntry | TermsEntry | RevokeEntry, place: EntryPlace): boolean {
  const key = getOr(record.keys, entry.key, () => new KeyRecord(entry.key, place.author));
  const isNews =
    entry.kind === 'revoke'
      ? key.revoke(entry)
      : entry.kind === 'terms'
        ? key.terms.add(entry, place)
        : key.made.add(entry, place);
  if (isNews) key.changed();
  return isNews;
}

function applyMember(record: AuthorRecord, entry: MemberEntry, place: EntryPlace): boolean {
  if (entry.invite !== '') getOr(record.invites, entry.invite, () => new Set()).add(entry.peer);
  return getOr(record.members, entry.peer, () => new Placing<MemberEntry>()).add(entry, place);
}

function applyBan(record: AuthorRecord, { peer, ban }: BanEntry): boolean {
  const bans = getOr(record.bans, peer, () => new Set<string>());
  const isNews = !bans.has(ban);
  bans.add(ban);
  return isNews;
}

/**
 * Makes an empty standing. The order in which entries are applied never matters.
 * @param counts Whether an author is an issuer that the root has named and not taken back; asked at every look-up, so
 *   that it may change at any time.
 */
export const createStanding = (counts: (author: AuthorId) => boolean): Standing => new LiveStanding(counts);
