/** How everyone stands: what all entries known here come to, whatever order they came in. */

import type { KeyGrant, KeyRole, KeyTerms, RateLimits, Role, Succession } from '../protocol/grants.ts';
import type { AccountId, AuthorId, KeyId, OwnerId, PeerId } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { HeldEntry } from './feeds.ts';
import type { Budget } from './money.ts';
import { Bans } from './standing-bans.ts';
import { AuthorRecord } from './standing-records.ts';

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
   * What counts in place of the token's terms; undefined without a `terms` entry. After a fork of the issuer, or the end
   * of its authority, the narrowest of what was said last before it (or the key was made with) and everything since.
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
  /** What all its keys together may spend; absent: as much as they like. */
  readonly budget?: Budget;
  /** It was closed for good; whatever else stands here, none of its keys counts. */
  readonly isErased?: true;
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

/** Live views; every look-up is a map's, cheap enough for each request. Lists are in no order. */
export interface Standing {
  /** An issuer's key; `by` is the author of the issuer that signed its token (or of its successor, asked in turn). */
  key(key: KeyId, by: AuthorId): KeyStanding | undefined;
  keys(): readonly KeyStanding[];
  account(account: AccountId, by: AuthorId): AccountStanding | undefined;
  accounts(): readonly AccountStanding[];
  /** @param by Only by a ban of this author. */
  isBanned(peer: PeerId, by?: AuthorId): boolean;
  /** Bans in force, by peer; the ids are what an `unban` names. */
  bans(): ReadonlyMap<PeerId, readonly string[]>;
  members(): readonly MemberStanding[];
  /** A peer as this author last wrote of it. */
  member(peer: PeerId, by: AuthorId): MemberStanding | undefined;
  /** Peers that an invite of this author has admitted, in the order in which it did. */
  admittedBy(invite: string, by: AuthorId): readonly PeerId[];
  /** Takes one more entry; taking one twice changes nothing. */
  apply(held: Pick<HeldEntry, 'entry' | 'place'>): StandingChange | undefined;
}

/** Terms and limits that count for a grant now: the token's, unless an entry replaced them. */
export const termsOf = (grant: KeyGrant, standing: KeyStanding | undefined): KeyTerms => standing?.terms ?? grant;

/** What the root says of authors; asked at every look-up, so that both may change at any time. */
export interface StandingRules {
  /** An issuer that the root has named and not taken back. */
  readonly counts: (author: AuthorId) => boolean;
  /** The handover that ended its authority: what it says after that takes away, but gives nothing back. */
  readonly endOf: (author: AuthorId) => Succession | undefined;
}

class LiveStanding implements Standing {
  readonly #rules: StandingRules;
  readonly #authors = new Map<AuthorId, AuthorRecord>();
  readonly #gateways = new Set<AuthorId>();
  readonly #bans: Bans;

  constructor(rules: StandingRules) {
    this.#rules = rules;
    this.#bans = new Bans({
      counts: rules.counts,
      mayGive: (place) => this.#counting(place.author)?.mayGive(place) === true,
    });
  }

  #counting(author: AuthorId): AuthorRecord | undefined {
    const { counts, endOf } = this.#rules;
    return counts(author) ? this.#authors.get(author)?.endsWith(endOf(author)) : undefined;
  }

  #allCounting(): readonly AuthorRecord[] {
    return [...this.#authors.keys()].flatMap((author) => this.#counting(author) ?? []);
  }

  key(key: KeyId, by: AuthorId): KeyStanding | undefined {
    return this.#counting(by)?.key(key);
  }

  keys(): readonly KeyStanding[] {
    return this.#allCounting().flatMap((record) => record.keys());
  }

  account(account: AccountId, by: AuthorId): AccountStanding | undefined {
    return this.#counting(by)?.account(account);
  }

  accounts(): readonly AccountStanding[] {
    return this.#allCounting().flatMap((record) => record.accounts());
  }

  isBanned(peer: PeerId, by?: AuthorId): boolean {
    return this.#bans.isBanned(peer, by);
  }

  bans(): ReadonlyMap<PeerId, readonly string[]> {
    return this.#bans.inForce();
  }

  member(peer: PeerId, by: AuthorId): MemberStanding | undefined {
    return this.#counting(by)?.member(peer);
  }

  members(): readonly MemberStanding[] {
    return this.#allCounting().flatMap((record) => record.members());
  }

  admittedBy(invite: string, by: AuthorId): readonly PeerId[] {
    return this.#counting(by)?.admittedBy(invite) ?? [];
  }

  apply({ entry, place }: Pick<HeldEntry, 'entry' | 'place'>): StandingChange | undefined {
    const { author } = place;
    if (entry.kind === 'other') return undefined;
    if (entry.kind === 'author' && entry.role === 'gateway') this.#gateways.add(author);
    // A gateway's word on such things never counts, so a member cannot fill this memory with it. An issuer's does, also
    // of one that calls itself a gateway somewhere: else the order of its entries would matter.
    if (this.#gateways.has(author) && !this.#rules.counts(author)) return undefined;
    const record = this.#authors.get(author) ?? new AuthorRecord(author);
    this.#authors.set(author, record);
    record.seen(place);
    return this.#take(record, { entry, place });
  }

  #take(record: AuthorRecord, { entry, place }: Pick<HeldEntry, 'entry' | 'place'>): StandingChange | undefined {
    const by = record.author;
    switch (entry.kind) {
      case 'key':
      case 'terms':
      case 'revoke':
        return record.applyKey(entry, place) ? { kind: 'key', key: entry.key, by } : undefined;
      case 'account':
      case 'erase':
        return record.applyAccount(entry, place) ? { kind: 'account', account: entry.account, by } : undefined;
      case 'member':
        return record.applyMember(entry, place) ? { kind: 'member', peer: entry.peer } : undefined;
      case 'ban':
        return this.#bans.ban(entry, by) ? { kind: 'ban', peer: entry.peer } : undefined;
      case 'unban': {
        // One that turns out to stand after a fork puts bans back in force.
        const kind = place.isAfterFork ? 'ban' : 'unban';
        return this.#bans.unban(entry, place) ? { kind, peer: entry.peer } : undefined;
      }
      default:
        return undefined;
    }
  }
}

/**
 * Makes an empty standing. The order in which entries are applied never matters, nor whether the root named their author
 * before or after. Every entry about a key's terms, an account or a ban stays in memory, some 0.3 kB each: which of them count
 * may change with any fork that is proven later.
 */
export const createStanding = (
  counts: StandingRules['counts'],
  endOf: StandingRules['endOf'] = () => undefined,
): Standing => new LiveStanding({ counts, endOf });
