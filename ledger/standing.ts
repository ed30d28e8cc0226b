/** How everyone stands: what all entries known here come to, whatever order they came in. */

import type { KeyGrant, KeyRole, KeyTerms, RateLimits, Role } from '../protocol/grants.ts';
import type { AccountId, AuthorId, KeyId, OwnerId, PeerId } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { HeldEntry } from './feeds.ts';

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
