/** The issuer's desk over the ledger: each step is checked, written, and only then handed out. */

import { toHex } from '../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import {
  type Invite,
  issuerIdOf,
  type KeyGrant,
  type KeyTerms,
  keyGatewaysMax,
  keyModelsMax,
  type RateLimits,
  rateLimitsShape,
  signInvite,
  signKey,
} from '../protocol/grants.ts';
import type { AccountId, AuthorId, IssuerId, KeyId, PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { IssuerRecord, MeshRecord } from '../protocol/mesh.ts';
import type { Clock, Random, Tokens } from '../protocol/ports.ts';
import { type Ms, type UnixMs, unixMs } from '../protocol/units.ts';
import type { Audit, AuditAction } from './audit.ts';
import type { Actor, Desk, InviteRequest, KeyRequest, Named, NewKey } from './desk.ts';
import type { Entry } from './entry.ts';
import { authorsInCareOf, joinAccounts, joinAll, joinKeys } from './in-care.ts';
import type { Ledger } from './ledger.ts';
import type { Names } from './names.ts';
import type { AccountStanding, KeyStanding } from './standing.ts';

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

const nameMaxChars = 64;
/** Bans that one `unban` may name. */
const unbansAtOnce = 64;

const invalid = (reason: string): HelixFlowError => new HelixFlowError('CONFIG_INVALID', { reason });
const unknown = (kind: string, id: string): HelixFlowError => new HelixFlowError('SUBJECT_UNKNOWN', { kind, id });

function checkName(name: string): void {
  // Control characters would garble every list that shows the name.
  if (name.length < 1 || name.length > nameMaxChars || /\p{Cc}/u.test(name)) {
    throw invalid(`a name has 1 to ${nameMaxChars} characters`);
  }
}

function checkRates(rates: RateLimits): RateLimits {
  const parsed = rateLimitsShape.safeParse(rates);
  if (!parsed.success) throw invalid('rpm, tpm and concurrency are integers from 1');
  return parsed.data;
}

function checkTerms({ models, limits: rates, expiresMs }: KeyTerms): KeyTerms {
  const fits = (model: string): boolean => model.length > 0 && model.length <= limits.modelNameMaxChars;
  if (models.length > keyModelsMax || !models.every(fits)) {
    throw invalid(`a key names at most ${keyModelsMax} model patterns of 1 to ${limits.modelNameMaxChars} characters`);
  }
  if (expiresMs !== undefined && !(Number.isSafeInteger(expiresMs) && expiresMs >= 0)) {
    throw invalid('a key ends at a time in milliseconds');
  }
  return { models, limits: checkRates(rates), ...(expiresMs === undefined ? {} : { expiresMs }) };
}

function checkGateways({ role, gateways }: Pick<KeyRequest, 'role' | 'gateways'>): void {
  if (gateways.length > keyGatewaysMax) throw invalid(`a key names at most ${keyGatewaysMax} gateways`);
  if (role !== 'user' && gateways.length !== 1) throw invalid(`a key of role ${role} names exactly one gateway`);
}

class IssuerDesk implements Desk {
  readonly issuer: IssuerId;
  readonly #deps: DeskDeps;
  readonly #options: DeskOptions;

  constructor(deps: DeskDeps, options: DeskOptions) {
    this.#deps = deps;
    this.#options = options;
    this.issuer = issuerIdOf(options.issuer.key.publicKey);
  }

  #id(bytes: number): string {
    return toHex(this.#deps.random.bytes(bytes));
  }

  /** Does it, and tells the audit log what became of it. */
  async #audited<T>(what: { action: AuditAction; object: string; actor: Actor }, act: () => Promise<T>): Promise<T> {
    const { audit } = this.#deps;
    try {
      const done = await act();
      audit.note({ ...what, outcome: 'done', reason: '' });
      return done;
    } catch (error) {
      const reason = isHelixFlowError(error) ? error.code : 'GATEWAY_FAILED';
      audit.note({ ...what, outcome: 'failed', reason });
      throw error;
    }
  }

  #append(...entries: readonly Entry[]): Promise<unknown> {
    return this.#deps.ledger.append('issuer', entries);
  }

  /** Authors whose entries count here: this issuer's own, and those it took over from. */
  #authors(): readonly AuthorId[] {
    return authorsInCareOf(this.#deps.ledger, this.issuer);
  }

  /** What each of them says, oldest first. */
  #said<T>(ask: (author: AuthorId) => T | undefined): readonly T[] {
    return this.#authors().flatMap((author) => ask(author) ?? []);
  }

  /** Rows of these authors, in their order. */
  #ours<Row extends { readonly by: AuthorId }>(rows: readonly Row[]): readonly Row[] {
    const ranks = new Map(this.#authors().map((author, rank) => [author, rank]));
    const rankOf = ({ by }: Row): number => ranks.get(by) ?? 0;
    return rows.filter(({ by }) => ranks.has(by)).toSorted((a, b) => rankOf(a) - rankOf(b));
  }

  async #namedKey(standing: KeyStanding): Promise<KeyStanding & Named> {
    return { ...standing, name: await this.#deps.names.of(`key:${standing.key}`) };
  }

  async #namedAccount(standing: AccountStanding): Promise<AccountStanding & Named> {
    return { ...standing, name: await this.#deps.names.of(`account:${standing.account}`) };
  }

  #account(account: AccountId): AccountStanding {
    const found = joinAccounts(this.#said((author) => this.#deps.ledger.standing.account(account, author)));
    if (found === undefined) throw unknown('account', account);
    return found;
  }

  #key(key: KeyId): KeyStanding {
    const found = joinKeys(this.#said((author) => this.#deps.ledger.standing.key(key, author)));
    if (found === undefined) throw unknown('key', key);
    return found;
  }

  async createAccount(
    request: { readonly name: string; readonly limits: RateLimits; readonly strict: boolean },
    actor: Actor,
  ): Promise<AccountStanding & Named> {
    checkName(request.name);
    const rates = checkRates(request.limits);
    const account = `acct-${this.#id(8)}` as AccountId;
    await this.#audited({ action: 'account.create', object: `account:${account}`, actor }, async () => {
      await this.#deps.names.give(`account:${account}`, request.name);
      await this.#append({ kind: 'account', account, limits: rates, strict: request.strict });
    });
    return this.#namedAccount(this.#account(account));
  }

  async setAccount(
    account: AccountId,
    change: { readonly limits?: RateLimits; readonly strict?: boolean },
    actor: Actor,
  ): Promise<AccountStanding & Named> {
    const now = this.#account(account);
    const rates = checkRates(change.limits ?? now.limits);
    const strict = change.strict ?? now.strict;
    await this.#audited({ action: 'account.set', object: `account:${account}`, actor }, () =>
      this.#append({ kind: 'account', account, limits: rates, strict }),
    );
    return this.#namedAccount(this.#account(account));
  }

  async accounts(): Promise<readonly (AccountStanding & Named)[]> {
    const own = joinAll(this.#ours(this.#deps.ledger.standing.accounts()), ({ account }) => account, joinAccounts);
    return await Promise.all(own.map((standing) => this.#namedAccount(standing)));
  }

  async createKey(request: KeyRequest, actor: Actor): Promise<NewKey> {
    checkName(request.name);
    checkGateways(request);
    const terms = checkTerms(request.terms);
    const standing = request.account === undefined ? undefined : this.#account(request.account);
    const account = standing ?? (await this.createAccount({ name: request.name, limits: {}, strict: false }, actor));
    const made = { account: account.account, strict: account.strict, role: request.role, gateways: request.gateways };
    return await this.#makeKey({ ...made, terms, name: request.name }, 'key.create', actor);
  }

  async #makeKey(
    made: Omit<KeyGrant, 'keyId' | 'issuer' | keyof KeyTerms> & {
      readonly terms: KeyTerms;
      readonly name: string | undefined;
      readonly replaces?: KeyId;
    },
    action: AuditAction,
    actor: Actor,
  ): Promise<NewKey> {
    const { account, role, gateways, terms, name, replaces, strict } = made;
    const { mesh, issuer } = this.#options;
    const keyId = this.#id(8) as KeyId;
    const grant: KeyGrant = { keyId, issuer: this.issuer, account, role, gateways, strict, ...terms };
    const entry: Entry = { kind: 'key', key: keyId, account, role, gateways, terms };
    return await this.#audited({ action, object: `key:${keyId}`, actor }, async () => {
      const signing = { tokens: this.#deps.tokens, nowMs: this.#deps.clock.wallMs() };
      const text = await signKey({ ...grant, meshId: mesh.meshId }, issuer.key, signing);
      if (name !== undefined) await this.#deps.names.give(`key:${keyId}`, name);
      await this.#append(replaces === undefined ? entry : { ...entry, replaces });
      return { text, grant };
    });
  }

  async keys(): Promise<readonly (KeyStanding & Named)[]> {
    const own = joinAll(this.#ours(this.#deps.ledger.standing.keys()), ({ key }) => key, joinKeys);
    return await Promise.all(own.map((standing) => this.#namedKey(standing)));
  }

  async key(key: KeyId): Promise<KeyStanding & Named> {
    return await this.#namedKey(this.#key(key));
  }

  async setKey(key: KeyId, terms: KeyTerms, actor: Actor): Promise<KeyStanding & Named> {
    this.#key(key);
    const checked = checkTerms(terms);
    await this.#audited({ action: 'key.set', object: `key:${key}`, actor }, () =>
      this.#append({ kind: 'terms', key, terms: checked }),
    );
    return await this.key(key);
  }

  async rotateKey(key: KeyId, grace: Ms, actor: Actor): Promise<NewKey & { readonly oldUntilMs: UnixMs }> {
    const old = this.#key(key);
    const { made } = old;
    if (made === undefined) throw unknown('key', key);
    if (old.revoked !== undefined) throw invalid(`the key ${key} has been revoked; make a new one`);
    const { account, role, gateways } = made;
    const { strict } = this.#account(account);
    const terms = old.terms ?? made.terms;
    const name = await this.#deps.names.of(`key:${key}`);
    const next = await this.#makeKey(
      { account, role, gateways, terms, strict, name, replaces: key },
      'key.rotate',
      actor,
    );
    const oldUntilMs = unixMs(this.#deps.clock.wallMs() + grace);
    await this.#revoke(key, oldUntilMs, false, actor);
    return { ...next, oldUntilMs };
  }

  async revokeKey(key: KeyId, cut: boolean, actor: Actor): Promise<KeyStanding & Named> {
    this.#key(key);
    await this.#revoke(key, this.#deps.clock.wallMs(), cut, actor);
    return await this.key(key);
  }

  async #revoke(key: KeyId, fromMs: UnixMs, cut: boolean, actor: Actor): Promise<void> {
    await this.#audited({ action: 'key.revoke', object: `key:${key}`, actor }, () =>
      this.#append({ kind: 'revoke', key, fromMs, cut }),
    );
  }

  async createInvite(
    request: InviteRequest,
    actor: Actor,
  ): Promise<{ readonly token: string; readonly inviteId: string; readonly expiresMs: UnixMs }> {
    const { role, owner, uses, ttl, network, gateways } = request;
    if (uses === 0 && !(this.#options.isOpen && role === 'node')) {
      throw invalid(
        'an invite without a number of uses takes an open mesh (mesh create --open), and is for nodes only',
      );
    }
    const { mesh, issuer } = this.#options;
    const inviteId = this.#id(16);
    const nowMs = this.#deps.clock.wallMs();
    const expiresMs = unixMs(nowMs + ttl);
    const { certificate } = issuer;
    const invite: Invite = {
      ...{ meshId: mesh.meshId, rootPublicKey: mesh.rootPublicKey, issuer: this.issuer, certificate },
      ...{ inviteId, role, uses, network, gateways, expiresMs },
      ...(owner === undefined ? {} : { owner }),
    };
    const token = await this.#audited({ action: 'invite.create', object: `invite:${inviteId}`, actor }, () =>
      signInvite(invite, issuer.key, { tokens: this.#deps.tokens, nowMs }),
    );
    return { token, inviteId, expiresMs };
  }

  async ban(peer: PeerId, actor: Actor): Promise<void> {
    if (this.#deps.ledger.standing.isBanned(peer)) return;
    await this.#audited({ action: 'member.ban', object: `peer:${peer}`, actor }, () =>
      this.#append({ kind: 'ban', peer, ban: this.#id(16) }),
    );
  }

  async unban(peer: PeerId, actor: Actor): Promise<void> {
    const bans = this.#deps.ledger.standing.bans().get(peer);
    if (bans === undefined) throw unknown('ban of', peer);
    const entries: Entry[] = [];
    for (let at = 0; at < bans.length; at += unbansAtOnce) {
      entries.push({ kind: 'unban', peer, bans: bans.slice(at, at + unbansAtOnce) });
    }
    await this.#audited({ action: 'member.unban', object: `peer:${peer}`, actor }, () => this.#append(...entries));
  }
}

/** Opens the desk of an issuer whose key is here. */
export const createDesk = (deps: DeskDeps, options: DeskOptions): Desk => new IssuerDesk(deps, options);
