/** The issuer's desk over the ledger: each step is checked, written, and only then handed out. */

import { toHex } from '../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import { issuerIdOf, type KeyGrant, type KeyTerms, type RateLimits, signKey } from '../protocol/grants.ts';
import { type AccountId, type AuthorId, type IssuerId, isPeerId, type KeyId, type PeerId } from '../protocol/ids.ts';
import { type Invite, signInvite } from '../protocol/invites.ts';
import { limits } from '../protocol/limits.ts';
import type { IssuerRecord, MeshRecord } from '../protocol/mesh.ts';
import type { Clock, Random, Tokens } from '../protocol/ports.ts';
import { type Ms, type UnixMs, unixMs } from '../protocol/units.ts';
import type { Audit, AuditAction } from './audit.ts';
import { authorIdOf } from './block.ts';
import type { Actor, Desk, InviteRequest, KeyRequest, Named, NewKey } from './desk.ts';
import {
  checkGateways,
  checkInviteRequest,
  checkName,
  checkRates,
  checkSpan,
  checkTerms,
  invalid,
} from './desk-checks.ts';
import type { AccountEntry, Entry, KeyEntry } from './entry.ts';
import { createLanes, type InLane } from './feed-lanes.ts';
import type { Ledger } from './ledger.ts';
import type { NamedThing, Names } from './names.ts';
import type { AccountStanding, KeyStanding } from './standing.ts';
import { accountIn, accountsIn, keyIn, keysIn } from './succession.ts';

export interface DeskDeps {
  readonly ledger: Pick<Ledger, 'append' | 'standing' | 'authorsOf' | 'roots'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly tokens: Tokens;
  readonly names: Names;
  readonly audit: Audit;
}

export interface DeskOptions {
  readonly mesh: Pick<MeshRecord, 'meshId' | 'rootPublicKey'>;
  readonly issuer: IssuerRecord;
  /** The mesh is open: anyone may be let in without being named. */
  readonly isOpen: boolean;
}

/** Bans that one `unban` may name. */
const unbansAtOnce = 64;

const unknown = (kind: string, id: string): HelixFlowError => new HelixFlowError('SUBJECT_UNKNOWN', { kind, id });

/** What the audit log hears of. */
type Deed = readonly [action: AuditAction, object: string];

interface KeyAccount extends Pick<AccountEntry, 'account' | 'strict'> {
  readonly before: readonly AccountEntry[];
  readonly isNew: boolean;
}

/** A key to make, checked. */
interface KeyPlan extends Pick<KeyGrant, 'role' | 'gateways' | 'account' | 'strict'> {
  readonly terms: KeyTerms;
  readonly replaces?: KeyId;
}

/** A key that is made, and not yet handed out. */
interface MadeKey extends NewKey {
  readonly entry: KeyEntry;
}

class IssuerDesk implements Desk {
  readonly issuer: IssuerId;
  readonly #deps: DeskDeps;
  readonly #options: DeskOptions;
  readonly #author: AuthorId;
  /** What is read and then changed is done by one at a time. */
  readonly #inLane: InLane = createLanes();

  constructor(deps: DeskDeps, options: DeskOptions) {
    this.#deps = deps;
    this.#options = options;
    this.issuer = issuerIdOf(options.issuer.key.publicKey);
    this.#author = authorIdOf(options.issuer.key.publicKey);
  }

  #id(bytes: number): string {
    return toHex(this.#deps.random.bytes(bytes));
  }

  /** What is read and then changed is read once it is known what this issuer wrote before it started. */
  async #ready(): Promise<void> {
    try {
      await this.#deps.ledger.append('issuer', []);
    } catch (error) {
      // It is refused, and the audit log told, where it would be written.
      if (!isHelixFlowError(error)) throw error;
    }
  }

  /** Does it, and tells the audit log what became of it. */
  async #audited<T>(actor: Actor, deeds: readonly Deed[], act: () => Promise<T>): Promise<T> {
    const note = (outcome: 'done' | 'failed', reason: string): void => {
      for (const [action, object] of deeds) this.#deps.audit.note({ action, object, actor, outcome, reason });
    };
    try {
      const done = await act();
      note('done', '');
      return done;
    } catch (error) {
      note('failed', isHelixFlowError(error) ? error.code : 'GATEWAY_FAILED');
      throw error;
    }
  }

  async #append(...entries: readonly Entry[]): Promise<void> {
    try {
      await this.#deps.ledger.append('issuer', entries);
    } catch (error) {
      if (!isHelixFlowError(error, 'FRAME_TOO_LARGE')) throw error;
      throw invalid('the model patterns are too long together; name fewer or shorter ones');
    }
  }

  /** Writes entries about things that have names; of what was not written no name stays. */
  async #appendNamed(names: readonly (readonly [NamedThing, string])[], ...entries: readonly Entry[]): Promise<void> {
    for (const [thing, name] of names) await this.#deps.names.give(thing, name);
    try {
      await this.#append(...entries);
    } catch (error) {
      for (const [thing] of names) await this.#forget(thing);
      throw error;
    }
  }

  async #forget(thing: NamedThing): Promise<void> {
    try {
      await this.#deps.names.erase(thing);
    } catch (error) {
      // A store that has failed takes nothing more; why the entry was not written is what matters.
      if (!isHelixFlowError(error, 'STORE_FAILED')) throw error;
    }
  }

  #account(account: AccountId): AccountStanding {
    const found = accountIn(this.#deps.ledger, account, this.issuer);
    if (found === undefined) throw unknown('account', account);
    return found;
  }

  #key(key: KeyId): KeyStanding {
    const found = keyIn(this.#deps.ledger, key, this.issuer);
    if (found === undefined) throw unknown('key', key);
    return found;
  }

  async #namedAccount(account: AccountId): Promise<AccountStanding & Named> {
    const standing = this.#account(account);
    return { ...standing, name: await this.#deps.names.of(`account:${account}`) };
  }

  /** A new account and its entry. */
  #newAccount(rates: RateLimits, strict: boolean): AccountEntry {
    return { kind: 'account', account: `acct-${this.#id(8)}` as AccountId, limits: rates, strict };
  }

  async createAccount(
    request: { readonly name: string; readonly limits: RateLimits; readonly strict: boolean },
    actor: Actor,
  ): Promise<AccountStanding & Named> {
    const { name, strict } = request;
    checkName(name);
    const entry = this.#newAccount(checkRates(request.limits), strict);
    const object = `account:${entry.account}` as const;
    await this.#audited(actor, [['account.create', object]], () => this.#appendNamed([[object, name]], entry));
    return await this.#namedAccount(entry.account);
  }

  async setAccount(
    account: AccountId,
    change: { readonly limits?: RateLimits; readonly strict?: boolean },
    actor: Actor,
  ): Promise<AccountStanding & Named> {
    const object = `account:${account}`;
    await this.#inLane(object, async () => {
      await this.#ready();
      const now = this.#account(account);
      const rates = checkRates(change.limits ?? now.limits);
      const strict = change.strict ?? now.strict;
      await this.#audited(actor, [['account.set', object]], () =>
        this.#append({ kind: 'account', account, limits: rates, strict }),
      );
    });
    return await this.#namedAccount(account);
  }

  async accounts(): Promise<readonly (AccountStanding & Named)[]> {
    const names = await this.#deps.names.all('account');
    return accountsIn(this.#deps.ledger, this.issuer).map((standing) => ({
      ...standing,
      name: names.get(standing.account),
    }));
  }

  /**
   * The account of a new key, and what has to be written before that: one that was taken over is told of in this
   * issuer's own feed, since gateways know a key's account by what the key's issuer says.
   */
  #accountFor(asked: AccountId | undefined): KeyAccount {
    const known = asked === undefined ? undefined : this.#account(asked);
    const { account, limits: rates, strict } = known ?? this.#newAccount({}, false);
    const isTold = this.#deps.ledger.standing.account(account, this.#author) !== undefined;
    const before: readonly AccountEntry[] = isTold ? [] : [{ kind: 'account', account, limits: rates, strict }];
    return { account, strict, before, isNew: known === undefined };
  }

  async createKey(request: KeyRequest, actor: Actor): Promise<NewKey> {
    const { name, role, gateways } = request;
    checkName(name);
    checkGateways(request);
    const terms = checkTerms(request.terms);
    const { account, strict, before, isNew } = this.#accountFor(request.account);
    const made = await this.#make({ role, gateways, account, strict, terms });
    const deeds: Deed[] = [['key.create', `key:${made.grant.keyId}`]];
    if (isNew) deeds.unshift(['account.create', `account:${account}`]);
    return await this.#audited(actor, deeds, async () => {
      await this.#appendNamed(
        deeds.map(([, object]) => [object as NamedThing, name]),
        ...before,
        made.entry,
      );
      return { text: made.text, grant: made.grant };
    });
  }

  /** Signs a key; nobody has it before its entry is written. */
  async #make({ terms, replaces, ...plan }: KeyPlan): Promise<MadeKey> {
    const { mesh, issuer } = this.#options;
    const { role, gateways, account } = plan;
    const keyId = this.#id(8) as KeyId;
    const grant: KeyGrant = { keyId, issuer: this.issuer, ...plan, ...terms };
    const signing = { tokens: this.#deps.tokens, nowMs: this.#deps.clock.wallMs() };
    const text = await signKey({ ...grant, meshId: mesh.meshId }, issuer.key, signing);
    if (text.length > limits.tokenMaxChars) {
      throw invalid('the key would be too long for any client; name fewer or shorter model patterns');
    }
    const entry: KeyEntry = { kind: 'key', key: keyId, account, role, gateways, terms };
    return { text, grant, entry: replaces === undefined ? entry : { ...entry, replaces } };
  }

  async keys(): Promise<readonly (KeyStanding & Named)[]> {
    const names = await this.#deps.names.all('key');
    return keysIn(this.#deps.ledger, this.issuer).map((standing) => ({ ...standing, name: names.get(standing.key) }));
  }

  async key(key: KeyId): Promise<KeyStanding & Named> {
    const standing = this.#key(key);
    return { ...standing, name: await this.#deps.names.of(`key:${key}`) };
  }

  async rename(thing: NamedThing, name: string | undefined, actor: Actor): Promise<void> {
    const [kind = '', id = ''] = thing.split(':');
    if (kind === 'key') this.#key(id as KeyId);
    else this.#account(id as AccountId);
    if (name !== undefined) checkName(name);
    await this.#audited(actor, [[kind === 'key' ? 'key.set' : 'account.set', thing]], async () => {
      if (name === undefined) await this.#deps.names.erase(thing);
      else await this.#deps.names.give(thing, name);
    });
  }

  async setKey(key: KeyId, terms: KeyTerms, actor: Actor): Promise<KeyStanding & Named> {
    this.#key(key);
    const checked = checkTerms(terms);
    await this.#audited(actor, [['key.set', `key:${key}`]], () => this.#append({ kind: 'terms', key, terms: checked }));
    return await this.key(key);
  }

  rotateKey(key: KeyId, grace: Ms, actor: Actor): Promise<NewKey & { readonly oldUntilMs: UnixMs }> {
    return this.#inLane(`key:${key}`, () => this.#rotate(key, grace, actor));
  }

  async #rotate(key: KeyId, grace: Ms, actor: Actor): Promise<NewKey & { readonly oldUntilMs: UnixMs }> {
    await this.#ready();
    const nowMs = this.#deps.clock.wallMs();
    const { made: old, terms: later, revoked } = this.#key(key);
    if (old === undefined) throw unknown('key', key);
    const terms = checkTerms(later ?? old.terms);
    if (revoked !== undefined) throw invalid(`the key ${key} has been revoked; make a new one`);
    if (terms.expiresMs !== undefined && terms.expiresMs <= nowMs) {
      throw invalid(`the key ${key} has expired, and so would the new one; set its expiry first`);
    }
    const oldUntilMs = checkSpan(nowMs, grace);
    const { account, role, gateways } = old;
    const { strict, before } = this.#accountFor(account);
    const name = await this.#deps.names.of(`key:${key}`);
    const made = await this.#make({ role, gateways, account, strict, terms, replaces: key });
    const object = `key:${made.grant.keyId}` as const;
    const deeds: readonly Deed[] = [
      ['key.rotate', object],
      ['key.revoke', `key:${key}`],
    ];
    const revoke: Entry = { kind: 'revoke', key, fromMs: oldUntilMs, cut: false };
    await this.#audited(actor, deeds, () =>
      this.#appendNamed(name === undefined ? [] : [[object, name]], ...before, made.entry, revoke),
    );
    return { text: made.text, grant: made.grant, oldUntilMs };
  }

  async revokeKey(key: KeyId, cut: boolean, actor: Actor): Promise<KeyStanding & Named> {
    const object = `key:${key}`;
    await this.#inLane(object, async () => {
      this.#key(key);
      // A gateway whose clock is behind, as far as clocks may be, has to refuse the key at once, too.
      const fromMs = unixMs(Math.max(0, this.#deps.clock.wallMs() - limits.clockSkewMaxMs));
      const entry: Entry = { kind: 'revoke', key, fromMs, cut };
      await this.#audited(actor, [['key.revoke', object]], () => this.#append(entry));
    });
    return await this.key(key);
  }

  /** An invite is no entry, so what `append` would refuse is asked here. */
  #checkInOffice(): void {
    const { roots } = this.#deps.ledger;
    const isSucceeded = this.#deps.ledger.authorsOf(this.issuer).length > 1;
    const reason = roots.isRevoked(this.issuer) ? 'revoked' : isSucceeded ? 'succeeded' : undefined;
    if (reason !== undefined) throw new HelixFlowError('ISSUER_RETIRED', { issuer: this.issuer, reason });
  }

  async createInvite(
    request: InviteRequest,
    actor: Actor,
  ): Promise<{ readonly token: string; readonly inviteId: string; readonly expiresMs: UnixMs }> {
    const { mesh, issuer, isOpen } = this.#options;
    const nowMs = this.#deps.clock.wallMs();
    const expiresMs = checkInviteRequest(request, nowMs, isOpen);
    const { role, owner, uses, network, gateways } = request;
    const { certificate } = issuer;
    const inviteId = this.#id(16);
    const invite: Invite = {
      ...{ meshId: mesh.meshId, rootPublicKey: mesh.rootPublicKey, issuer: this.issuer, certificate },
      ...{ inviteId, role, uses, network, gateways, expiresMs },
      ...(owner === undefined ? {} : { owner }),
    };
    const token = await this.#audited(actor, [['invite.create', `invite:${inviteId}`]], async () => {
      this.#checkInOffice();
      return await signInvite(invite, issuer.key, { tokens: this.#deps.tokens, nowMs });
    });
    return { token, inviteId, expiresMs };
  }

  async ban(peer: PeerId, actor: Actor): Promise<void> {
    if (!isPeerId(peer)) throw invalid('a ban names a peer by its id');
    await this.#audited(actor, [['member.ban', `peer:${peer}`]], async () => {
      await this.#ready();
      // Another issuer's ban ends with that issuer, so it does not stand for this one's.
      if (this.#deps.ledger.standing.isBanned(peer, this.#author)) return;
      await this.#append({ kind: 'ban', peer, ban: this.#id(16) });
    });
  }

  async unban(peer: PeerId, actor: Actor): Promise<void> {
    await this.#ready();
    const bans = this.#deps.ledger.standing.bans().get(peer);
    if (bans === undefined) throw unknown('ban of', peer);
    const entries: Entry[] = [];
    for (let at = 0; at < bans.length; at += unbansAtOnce) {
      entries.push({ kind: 'unban', peer, bans: bans.slice(at, at + unbansAtOnce) });
    }
    await this.#audited(actor, [['member.unban', `peer:${peer}`]], () => this.#append(...entries));
  }
}

/** Opens the desk of an issuer whose key is here. */
export const createDesk = (deps: DeskDeps, options: DeskOptions): Desk => new IssuerDesk(deps, options);
