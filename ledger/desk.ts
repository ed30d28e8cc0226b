/** The issuer's desk: what may be done with an issuer's key, each step an entry before anything leaves. */

import type { KeyGrant, KeyRole, KeyTerms, NetworkKind, RateLimits, Role } from '../protocol/grants.ts';
import type { AccountId, IssuerId, KeyId, LeaseId, OwnerId, PeerId } from '../protocol/ids.ts';
import type { Contact } from '../protocol/ports.ts';
import type { Ms, UnixMs } from '../protocol/units.ts';
import type { ToldEntry } from './account-entries.ts';
import type { Budget, LeaseEntry, PriceEntry, WriteOffEntry } from './money.ts';
import type { NamedThing } from './names.ts';
import type { AccountStanding, KeyStanding } from './standing.ts';

/** A name that people gave; kept beside the ledger, in a table that can be erased. */
export interface Named {
  readonly name: string | undefined;
}

export interface AccountRequest {
  readonly name: string;
  readonly limits: RateLimits;
  readonly strict: boolean;
  /** Absent: as much as it likes. */
  readonly budget?: Budget;
}

/** What is absent stays. */
export interface AccountChange {
  readonly limits?: RateLimits;
  readonly strict?: boolean;
  /** Null takes it away. */
  readonly budget?: Budget | null;
}

/** What a million tokens cost, in micro-credits. */
export interface PriceRequest extends Pick<PriceEntry, 'model' | 'node' | 'prompt' | 'cached' | 'completion'> {
  /** From when on it counts; undefined: from now on. */
  readonly fromMs: UnixMs | undefined;
}

/** A money lease that is neither closed nor written off. */
export interface OpenLease extends Pick<LeaseEntry, 'lease' | 'epoch' | 'amountMicro'> {
  /** What the lines that are known here have taken from it. */
  readonly spentMicro: number;
}

/** What the issuer holds of an account; no key's text, since that is kept nowhere. */
export interface AccountExport {
  readonly account: AccountStanding & Named;
  readonly keys: readonly (KeyStanding & Named)[];
  /** Oldest first. */
  readonly entries: readonly ToldEntry[];
  /** False where there are more entries than these. */
  readonly isComplete: boolean;
}

/** What was taken from the data of an account. */
export interface Erased {
  readonly account: AccountId;
  /** Its keys; none of them counts any more. */
  readonly keys: readonly KeyId[];
}

export interface KeyRequest {
  /** For people, 1 to 64 characters; never leaves this machine. */
  readonly name: string;
  /** An account of this issuer; undefined opens one of that name's own. */
  readonly account: AccountId | undefined;
  readonly role: KeyRole;
  readonly terms: KeyTerms;
  /** As `KeyGrant.gateways`. */
  readonly gateways: readonly PeerId[];
}

/** A key just made; `text` is shown once and kept nowhere. */
export interface NewKey {
  readonly text: string;
  readonly grant: KeyGrant;
}

export interface InviteRequest {
  readonly role: Role;
  /** Undefined: each peer answers for itself. */
  readonly owner: OwnerId | undefined;
  /** 0: any number, on a mesh that is open. */
  readonly uses: number;
  readonly ttl: Ms;
  readonly network: NetworkKind;
  readonly gateways: readonly Contact[];
}

/** Who asked, for the audit log: `local`, or `key:<id>`. */
export type Actor = string;

/**
 * What an issuer can do, for its own keys and accounts and those of the issuers it took over from. Every method that
 * changes something writes its entries (synced, all or none) before it resolves, and tells the audit log; an invite is no
 * entry. Times that end a key or an invite are cut to whole seconds.
 * @throws HelixFlowError (all) as `Ledger.append`; SUBJECT_UNKNOWN for what this issuer does not know; CONFIG_INVALID for
 *   what is out of bounds, before anything is written; of invites GATEWAY_UNKNOWN (none named), INVITE_INVALID (too long).
 */
export interface Desk {
  readonly issuer: IssuerId;
  createAccount(request: AccountRequest, actor: Actor): Promise<AccountStanding & Named>;
  /** One that was erased is refused (CONFIG_INVALID), here and where keys are made. */
  setAccount(account: AccountId, change: AccountChange, actor: Actor): Promise<AccountStanding & Named>;
  accounts(): Promise<readonly (AccountStanding & Named)[]>;
  /**
   * Ends every key of the account with what it has under way, closes the account for good, and forgets its name and those
   * of its keys. Done again, it forgets names that were given since.
   */
  eraseAccount(account: AccountId, actor: Actor): Promise<Erased>;
  exportAccount(account: AccountId, actor: Actor): Promise<AccountExport>;
  setPrice(request: PriceRequest, actor: Actor): Promise<PriceEntry>;
  /**
   * Gives up on a lease whose holder does not close it: all of it but `spentMicro` (undefined: what its lines come to here)
   * is free again. What the holder spends from it nevertheless is the gateway's own. @throws HelixFlowError LEASE_UNKNOWN
   */
  writeOff(lease: LeaseId, spentMicro: number | undefined, actor: Actor): Promise<WriteOffEntry>;
  createKey(request: KeyRequest, actor: Actor): Promise<NewKey>;
  keys(): Promise<readonly (KeyStanding & Named)[]>;
  key(key: KeyId): Promise<KeyStanding & Named>;
  /** Gives a key or an account of this issuer another name, or erases the one it has; nothing of it enters the ledger. */
  rename(thing: NamedThing, name: string | undefined, actor: Actor): Promise<void>;
  setKey(key: KeyId, terms: KeyTerms, actor: Actor): Promise<KeyStanding & Named>;
  /**
   * A new key with the same account, role, gateways and terms; the old one is good for `grace` more. One that was revoked,
   * rotated before, or has expired is refused (CONFIG_INVALID).
   */
  rotateKey(key: KeyId, grace: Ms, actor: Actor): Promise<NewKey & { readonly oldUntilMs: UnixMs }>;
  /** From `limits.clockSkewMaxMs` ago on, so that it counts at once wherever it is heard. */
  revokeKey(key: KeyId, cut: boolean, actor: Actor): Promise<KeyStanding & Named>;
  createInvite(
    request: InviteRequest,
    actor: Actor,
  ): Promise<{ readonly token: string; readonly inviteId: string; readonly expiresMs: UnixMs }>;
  /** Where this issuer has banned the peer already, nothing is written. */
  ban(peer: PeerId, actor: Actor): Promise<void>;
  /** Takes back every ban that is known here, whoever made it. */
  unban(peer: PeerId, actor: Actor): Promise<void>;
}
