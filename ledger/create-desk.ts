/** The issuer's desk over the ledger: each step is checked, written, and only then handed out. */

import { toHex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import { issuerIdOf, type KeyTerms } from '../protocol/grants.ts';
import {
  type AccountId,
  type AuthorId,
  type IssuerId,
  isPeerId,
  type KeyId,
  type LeaseId,
  type PeerId,
  type PriceId,
} from '../protocol/ids.ts';
import { type Invite, signInvite } from '../protocol/invites.ts';
import { limits } from '../protocol/limits.ts';
import type { IssuerRecord, MeshRecord } from '../protocol/mesh.ts';
import type { Clock, Random, Tokens } from '../protocol/ports.ts';
import { type Ms, type UnixMs, unixMs } from '../protocol/units.ts';
import { entriesAbout } from './account-entries.ts';
import type { Audit } from './audit.ts';
import { authorIdOf } from './block.ts';
import type {
  AccountChange,
  AccountExport,
  AccountRequest,
  Actor,
  Desk,
  Erased,
  InviteRequest,
  KeyRequest,
  Named,
  NewKey,
  OpenLease,
  PriceRequest,
} from './desk.ts';
import {
  checkBudget,
  checkGateways,
  checkInviteRequest,
  checkName,
  checkPrice,
  checkRates,
  checkSpan,
  checkSpent,
  checkTerms,
  invalid,
} from './desk-checks.ts';
import { type AccountTerms, accountEntry, type KeyPlan, type MadeKey, makeKey } from './desk-entries.ts';
import { type Deed, DeskWriter } from './desk-write.ts';
import type { AccountEntry, Entry } from './entry.ts';
import { erasureOf } from './erase.ts';
import { createLanes, type InLane } from './feed-lanes.ts';
import type { Ledger } from './ledger.ts';
import type { PriceEntry, WriteOffEntry } from './money.ts';
import type { NamedThing, Names } from './names.ts';
import type { AccountStanding, KeyStanding } from './standing.ts';
import { accountIn, accountsIn, inCareOf, keyIn, keysIn } from './succession.ts';

export interface DeskDeps {
  readonly ledger: Pick<Ledger, 'append' | 'standing' | 'authorsOf' | 'roots' | 'heads' | 'read'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly tokens: Tokens;
  readonly names: Names;
  readonly audit: Audit;
  /** Where this process keeps the budgets of accounts. */
  readonly openLease?: (lease: LeaseId) => OpenLease | undefined;
}

export interface DeskOptions {
  readonly mesh: Pick<MeshRecord, 'meshId' | 'rootPublicKey' | 'name'>;
  readonly issuer: IssuerRecord;
  /** The mesh is open: anyone may be let in without being named. */
  readonly isOpen: boolean;
}

/** Entries that one export may hold. */
const exportedMax = 15_000;
/** Bans that one `unban` may name. */
const unbansAtOnce = 64;

const unknown = (kind: string, id: string): HelixFlowError => new HelixFlowError('SUBJECT_UNKNOWN', { kind, id });

interface KeyAccount extends Pick<AccountEntry, 'account' | 'strict'> {
  readonly before: readonly AccountEntry[];
  readonly isNew: boolean;
}

class IssuerDesk implements Desk {
  readonly issuer: IssuerId;
  readonly #deps: DeskDeps;
  readonly #options: DeskOptions;
  readonly #author: AuthorId;
  readonly #writer: DeskWriter;
  /** What is read and then changed is done by one at a time. */
  readonly #inLane: InLane = createLanes();

  constructor(deps: DeskDeps, options: DeskOptions) {
    this.#deps = deps;
    this.#options = options;
    this.issuer = issuerIdOf(options.issuer.key.publicKey);
    this.#author = authorIdOf(options.issuer.key.publicKey);
    this.#writer = new DeskWriter(deps);
  }

  #id(bytes: number): string {
    return toHex(this.#deps.random.bytes(bytes));
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

  /** One that can still be changed, and have keys. */
  #liveAccount(account: AccountId): AccountStanding {
    const found = this.#account(account);
    if (found.isErased === true) throw invalid(`the account ${account} was erased; open a new one`);
    return found;
  }

  /** A new account and its entry. The id is drawn: it stands in feeds for ever, so it may name nobody. */
  #newAccount(terms: AccountTerms): AccountEntry {
    return accountEntry(`acct-${this.#id(8)}` as AccountId, terms);
  }

  async createAccount(request: AccountRequest, actor: Actor): Promise<AccountStanding & Named> {
    const { name, strict, budget } = request;
    checkName(name);
    const entry = this.#newAccount({
      limits: checkRates(request.limits),
      strict,
      budget: budget && checkBudget(budget),
    });
    const object = `account:${entry.account}` as const;
    await this.#writer.audited(actor, [['account.create', object]], () =>
      this.#writer.appendNamed([[object, name]], entry),
    );
    return await this.#namedAccount(entry.account);
  }

  async setAccount(account: AccountId, change: AccountChange, actor: Actor): Promise<AccountStanding & Named> {
    const object = `account:${account}`;
    await this.#inLane(object, async () => {
      await this.#writer.ready();
      const now = this.#liveAccount(account);
      const limits = checkRates(change.limits ?? now.limits);
      const strict = change.strict ?? now.strict;
      const budget = change.budget === undefined ? now.budget : (change.budget ?? undefined);
      const entry = accountEntry(account, { limits, strict, budget: budget && checkBudget(budget) });
      await this.#writer.audited(actor, [['account.set', object]], () => this.#writer.append(entry));
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
    const known = asked === undefined ? undefined : this.#liveAccount(asked);
    const { account, ...terms } = known ?? this.#newAccount({ limits: {}, strict: false });
    const isTold = this.#deps.ledger.standing.account(account, this.#author) !== undefined;
    const before = isTold ? [] : [accountEntry(account, terms)];
    return { account, strict: terms.strict, before, isNew: known === undefined };
  }

  async eraseAccount(account: AccountId, actor: Actor): Promise<Erased> {
    const object = `account:${account}`;
    return await this.#inLane(object, async () => {
      await this.#writer.ready();
      this.#account(account);
      const { keys, entries } = erasureOf(this.#deps.ledger, { account, issuer: this.issuer }, this.#countsFrom());
      const deeds: readonly Deed[] = [
        ...keys.map((key): Deed => ['key.revoke', `key:${key}`]),
        ['account.erase', object],
      ];
      await this.#writer.audited(actor, deeds, async () => {
        for (const some of entries) await this.#writer.append(...some);
        await this.#deps.names.eraseAll([`account:${account}`, ...keys.map((key) => `key:${key}` as const)]);
      });
      return { account, keys };
    });
  }

  exportAccount(account: AccountId, actor: Actor): Promise<AccountExport> {
    return this.#writer.audited(actor, [['account.export', `account:${account}`]], async () => {
      const { ledger } = this.#deps;
      const named = await this.#namedAccount(account);
      const keys = (await this.keys()).filter(({ made }) => made?.account === account);
      const authors = new Set(inCareOf(ledger, this.issuer).flatMap((issuer) => ledger.authorsOf(issuer)));
      const about = { account, keys: new Set(keys.map(({ key }) => key)) };
      return { account: named, keys, ...(await entriesAbout(ledger, authors, about, exportedMax)) };
    });
  }

  async setPrice(request: PriceRequest, actor: Actor): Promise<PriceEntry> {
    const price = checkPrice(request, this.#deps.clock.wallMs());
    const entry: PriceEntry = { kind: 'price', id: this.#id(8) as PriceId, ...price };
    await this.#writer.audited(actor, [['price.set', `price:${entry.id}`]], () => this.#writer.append(entry));
    return entry;
  }

  writeOff(lease: LeaseId, spentMicro: number | undefined, actor: Actor): Promise<WriteOffEntry> {
    return this.#inLane(`lease:${lease}`, async () => {
      await this.#writer.ready();
      const open = this.#deps.openLease?.(lease);
      if (open === undefined) throw new HelixFlowError('LEASE_UNKNOWN', { lease });
      const spent = checkSpent(spentMicro ?? Math.min(open.spentMicro, open.amountMicro), open.amountMicro);
      const entry: WriteOffEntry = { kind: 'writeoff', lease, epoch: open.epoch, spentMicro: spent };
      await this.#writer.audited(actor, [['lease.writeoff', `lease:${lease}`]], () => this.#writer.append(entry));
      return entry;
    });
  }

  /** A gateway whose clock is behind, as far as clocks may be, has to refuse a key at once, too. */
  #countsFrom(): UnixMs {
    return unixMs(Math.max(0, this.#deps.clock.wallMs() - limits.clockSkewMaxMs));
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
    return await this.#writer.audited(actor, deeds, async () => {
      await this.#writer.appendNamed(
        deeds.map(([, object]) => [object as NamedThing, name]),
        ...before,
        made.entry,
      );
      return { text: made.text, grant: made.grant };
    });
  }

  #make(plan: Omit<KeyPlan, 'keyId'>): Promise<MadeKey> {
    const { tokens, clock } = this.#deps;
    const signing = { ...this.#options, tokens, nowMs: clock.wallMs() };
    return makeKey({ keyId: this.#id(8) as KeyId, ...plan }, signing);
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
    await this.#writer.audited(actor, [[kind === 'key' ? 'key.set' : 'account.set', thing]], async () => {
      if (name === undefined) await this.#deps.names.erase(thing);
      else await this.#deps.names.give(thing, name);
    });
  }

  async setKey(key: KeyId, terms: KeyTerms, actor: Actor): Promise<KeyStanding & Named> {
    this.#key(key);
    const checked = checkTerms(terms);
    await this.#writer.audited(actor, [['key.set', `key:${key}`]], () =>
      this.#writer.append({ kind: 'terms', key, terms: checked }),
    );
    return await this.key(key);
  }

  rotateKey(key: KeyId, grace: Ms, actor: Actor): Promise<NewKey & { readonly oldUntilMs: UnixMs }> {
    return this.#inLane(`key:${key}`, () => this.#rotate(key, grace, actor));
  }

  async #rotate(key: KeyId, grace: Ms, actor: Actor): Promise<NewKey & { readonly oldUntilMs: UnixMs }> {
    await this.#writer.ready();
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
    await this.#writer.audited(actor, deeds, () =>
      this.#writer.appendNamed(name === undefined ? [] : [[object, name]], ...before, made.entry, revoke),
    );
    return { text: made.text, grant: made.grant, oldUntilMs };
  }

  async revokeKey(key: KeyId, cut: boolean, actor: Actor): Promise<KeyStanding & Named> {
    const object = `key:${key}`;
    await this.#inLane(object, async () => {
      this.#key(key);
      const entry: Entry = { kind: 'revoke', key, fromMs: this.#countsFrom(), cut };
      await this.#writer.audited(actor, [['key.revoke', object]], () => this.#writer.append(entry));
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
      ...(mesh.name === undefined ? {} : { meshName: mesh.name }),
      isOpen,
    };
    const token = await this.#writer.audited(actor, [['invite.create', `invite:${inviteId}`]], async () => {
      this.#checkInOffice();
      return await signInvite(invite, issuer.key, { tokens: this.#deps.tokens, nowMs });
    });
    return { token, inviteId, expiresMs };
  }

  async ban(peer: PeerId, actor: Actor): Promise<void> {
    if (!isPeerId(peer)) throw invalid('a ban names a peer by its id');
    await this.#writer.audited(actor, [['member.ban', `peer:${peer}`]], async () => {
      await this.#writer.ready();
      // Another issuer's ban ends with that issuer, so it does not stand for this one's.
      if (this.#deps.ledger.standing.isBanned(peer, this.#author)) return;
      await this.#writer.append({ kind: 'ban', peer, ban: this.#id(16) });
    });
  }

  async unban(peer: PeerId, actor: Actor): Promise<void> {
    await this.#writer.ready();
    const bans = this.#deps.ledger.standing.bans().get(peer);
    if (bans === undefined) throw unknown('ban of', peer);
    const entries: Entry[] = [];
    for (let at = 0; at < bans.length; at += unbansAtOnce) {
      entries.push({ kind: 'unban', peer, bans: bans.slice(at, at + unbansAtOnce) });
    }
    await this.#writer.audited(actor, [['member.unban', `peer:${peer}`]], () => this.#writer.append(...entries));
  }
}

/** Opens the desk of an issuer whose key is here. */
export const createDesk = (deps: DeskDeps, options: DeskOptions): Desk => new IssuerDesk(deps, options);
