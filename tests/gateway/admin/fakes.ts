/** An issuer's desk in memory, and one gateway's context for the operations of the admin API. */

import type { AdminContext, AuditReader } from '../../../gateway/admin/operation.ts';
import { createOwners } from '../../../gateway/admin/owners.ts';
import type { AuditLine } from '../../../ledger/audit.ts';
import type { Desk, InviteRequest, KeyRequest, Named, NewKey } from '../../../ledger/desk.ts';
import type { LedgerStatus } from '../../../ledger/ledger.ts';
import type { AccountStanding, KeyStanding, MemberStanding, Standing } from '../../../ledger/standing.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { KeyGrant } from '../../../protocol/grants.ts';
import type {
  AccountId,
  AuthorId,
  EpochId,
  IssuerId,
  KeyId,
  LeaseId,
  OwnerId,
  PeerId,
  PriceId,
  RequestId,
} from '../../../protocol/ids.ts';
import { unixMs } from '../../../protocol/units.ts';
import { newMesh, peer } from '../../protocol/mesh-fixture.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { FakeUsage } from './records-stage.ts';

export const self = peer('gateway');
export const otherGateway = peer('othergateway');
export const stranger = peer('stranger');
/** The one lease that can be written off. */
export const openLease = '1e'.repeat(16) as LeaseId;
/** The one request that is remembered. */
export const servedRequest = '5e'.repeat(16) as RequestId;
export const issuer = '12'.repeat(16) as IssuerId;
export const otherIssuer = '34'.repeat(16) as IssuerId;
/** Took over from `issuer`. */
export const predecessor = '56'.repeat(16) as IssuerId;
/** Whose entries count for the keys of an issuer. */
export const authors = new Map<IssuerId, AuthorId[]>([
  [issuer, ['a1'.repeat(32) as AuthorId]],
  [otherIssuer, ['b2'.repeat(32) as AuthorId]],
  [predecessor, ['c3'.repeat(32) as AuthorId, 'a1'.repeat(32) as AuthorId]],
]);
const mesh = await newMesh('admin');

export const grantOf = (role: KeyGrant['role'], changes: Partial<KeyGrant> = {}): KeyGrant => ({
  keyId: '00000000000000aa' as KeyId,
  issuer,
  account: 'ops' as AccountId,
  role,
  models: [],
  limits: {},
  gateways: role === 'user' ? [] : [self],
  strict: false,
  ...changes,
});

/** What a desk was asked to do: method, arguments. */
export type Told = readonly [method: string, ...rest: readonly unknown[]];

export class FakeDesk implements Desk {
  readonly issuer = issuer;
  readonly told: Told[] = [];
  readonly known = new Map<KeyId, KeyStanding & Named>();
  readonly opened = new Map<AccountId, AccountStanding & Named>();
  readonly banned: Map<PeerId, readonly string[]>;
  readonly #clock: ManualClock;

  constructor(clock: ManualClock, banned: Map<PeerId, readonly string[]>) {
    this.#clock = clock;
    this.banned = banned;
  }

  get by(): AuthorId {
    return authors.get(issuer)?.[0] as AuthorId;
  }

  async createAccount(...[request, actor]: Parameters<Desk['createAccount']>): Promise<AccountStanding & Named> {
    this.told.push(['createAccount', request, actor]);
    const account = `acc-${this.opened.size}` as AccountId;
    const standing = { account, by: this.by, ...request, createdMs: this.#clock.wallMs() };
    this.opened.set(account, standing);
    return standing;
  }

  async setAccount(...[account, change, actor]: Parameters<Desk['setAccount']>): Promise<AccountStanding & Named> {
    this.told.push(['setAccount', account, change, actor]);
    const standing = this.opened.get(account);
    if (standing === undefined) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'account', id: account });
    const { budget: before, ...rest } = standing;
    const { budget = before, ...terms } = change;
    const changed = { ...rest, ...terms, ...(budget == null ? {} : { budget }) };
    this.opened.set(account, changed);
    return changed;
  }

  async accounts(): Promise<readonly (AccountStanding & Named)[]> {
    return [...this.opened.values()];
  }

  async eraseAccount(...[account, actor]: Parameters<Desk['eraseAccount']>): ReturnType<Desk['eraseAccount']> {
    this.told.push(['eraseAccount', account, actor]);
    if (!this.opened.has(account)) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'account', id: account });
    const keys = [...this.known.values()].filter(({ made }) => made?.account === account).map(({ key }) => key);
    return { account, keys };
  }

  async exportAccount(...[account, actor]: Parameters<Desk['exportAccount']>): ReturnType<Desk['exportAccount']> {
    this.told.push(['exportAccount', account, actor]);
    const found = this.opened.get(account);
    if (found === undefined) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'account', id: account });
    const keys = [...this.known.values()].filter(({ made }) => made?.account === account);
    return { account: found, keys, entries: [], isComplete: true };
  }

  async setPrice(...[request, actor]: Parameters<Desk['setPrice']>): ReturnType<Desk['setPrice']> {
    this.told.push(['setPrice', request, actor]);
    const { fromMs = this.#clock.wallMs(), ...price } = request;
    return { kind: 'price', id: 'ac'.repeat(8) as PriceId, ...price, fromMs };
  }

  async writeOff(...[lease, spentMicro, actor]: Parameters<Desk['writeOff']>): ReturnType<Desk['writeOff']> {
    this.told.push(['writeOff', lease, spentMicro, actor]);
    if (lease !== openLease) throw new HelixFlowError('LEASE_UNKNOWN', { lease });
    return { kind: 'writeoff', lease, epoch: 'e0'.repeat(16) as EpochId, spentMicro: spentMicro ?? 7 };
  }

  async createKey(request: KeyRequest, actor: string): Promise<NewKey> {
    this.told.push(['createKey', request, actor]);
    const { name, role, terms, gateways } = request;
    const key = `00000000000000${String(this.known.size).padStart(2, '0')}` as KeyId;
    const account = request.account ?? ('own' as AccountId);
    const made = { account, role, gateways, terms, atMs: this.#clock.wallMs() };
    this.known.set(key, { key, by: this.by, made, name });
    return {
      text: `sk-hx-${key}`,
      grant: { keyId: key, issuer, account, role, gateways, strict: false, ...terms },
    };
  }

  async keys(): Promise<readonly (KeyStanding & Named)[]> {
    return [...this.known.values()];
  }

  async key(key: KeyId): Promise<KeyStanding & Named> {
    const standing = this.known.get(key);
    if (standing === undefined) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'key', id: key });
    return standing;
  }

  async rename(...[thing, name, actor]: Parameters<Desk['rename']>): Promise<void> {
    this.told.push(['rename', thing, name, actor]);
  }

  async setKey(...[key, terms, actor]: Parameters<Desk['setKey']>): Promise<KeyStanding & Named> {
    this.told.push(['setKey', key, terms, actor]);
    const changed = { ...(await this.key(key)), terms };
    this.known.set(key, changed);
    return changed;
  }

  async rotateKey(...[key, grace, actor]: Parameters<Desk['rotateKey']>): ReturnType<Desk['rotateKey']> {
    const { name = '', made } = await this.key(key);
    if (made === undefined) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'key', id: key });
    const { account, role, terms, gateways } = made;
    this.told.push(['rotateKey', key, grace, actor]);
    const next = await this.createKey({ name, account, role, terms, gateways }, actor);
    return { ...next, oldUntilMs: unixMs(this.#clock.wallMs() + grace) };
  }

  async revokeKey(...[key, cut, actor]: Parameters<Desk['revokeKey']>): Promise<KeyStanding & Named> {
    this.told.push(['revokeKey', key, cut, actor]);
    const revoked = { ...(await this.key(key)), revoked: { fromMs: this.#clock.wallMs(), cut } };
    this.known.set(key, revoked);
    return revoked;
  }

  async createInvite(request: InviteRequest, actor: string): ReturnType<Desk['createInvite']> {
    this.told.push(['createInvite', request, actor]);
    const expiresMs = unixMs(this.#clock.wallMs() + request.ttl);
    return { token: 'hx-invite-x', inviteId: 'ef'.repeat(16), expiresMs };
  }

  async ban(target: PeerId, actor: string): Promise<void> {
    this.told.push(['ban', target, actor]);
    this.banned.set(target, ['0f'.repeat(16)]);
  }

  async unban(target: PeerId, actor: string): Promise<void> {
    this.told.push(['unban', target, actor]);
    this.banned.delete(target);
  }
}

const line: AuditLine = {
  number: 0,
  time: unixMs(1_700_000_001_000),
  previous: '0'.repeat(64),
  action: 'key.create',
  actor: 'local',
  object: 'key:00000000000000aa',
  outcome: 'done',
  reason: '',
};

export const auditLog: AuditReader = {
  tail: async (lines) => [line].slice(0, lines),
  verify: async () => ({ ok: true, lines: 1, reason: '' }),
};

const ledgerStatus = { authors: 1, blocks: 2, frozen: [], issuers: [], writing: 'ready' } as unknown as LedgerStatus;

export interface Stage {
  readonly context: AdminContext;
  readonly desk: FakeDesk;
  readonly clock: ManualClock;
}

/** One gateway that holds an issuer's key, with one member connected and one that was banned. */
export function stage(changes: Partial<AdminContext> = {}): Stage {
  const clock = new ManualClock();
  const banned = new Map<PeerId, readonly string[]>([[peer('banned'), ['aa'.repeat(16)]]]);
  const desk = new FakeDesk(clock, banned);
  const admitted = (name: string): MemberStanding => ({
    peer: peer(name),
    by: desk.by,
    role: 'node',
    owner: 'alice' as OwnerId,
    invite: 'ef'.repeat(16),
    admittedMs: unixMs(1),
    expiresMs: unixMs(2),
  });
  const standing = {
    members: () => [admitted('node'), admitted('banned')],
    isBanned: (target: PeerId) => banned.has(target),
    bans: () => banned,
    accounts: () => [...desk.opened.values()],
    keys: () => [...desk.known.values()],
  } as Partial<Standing> as Standing;
  const connection = {
    peer: peer('node'),
    direction: 'inbound',
    path: 'direct',
    remoteAddress: '/ip4/192.0.2.1/tcp/1',
  };
  const membership = { role: 'node', owner: 'alice' };
  const context: AdminContext = {
    self,
    meshId: mesh.mesh.meshId,
    network: 'lan',
    clock,
    ledger: { standing, status: () => ledgerStatus, authorsOf: (asked) => authors.get(asked) ?? [], heads: () => [] },
    feeds: new MemoryStore(),
    member: { admitted: () => [[connection, { membership }]] as never },
    desk,
    audit: auditLog,
    records: {
      usage: new FakeUsage(),
      prices: { list: () => [] },
      owners: createOwners({
        tags: { accountTags: () => [], keyTags: () => [] },
        standing,
        clock,
        self: desk.by,
      }),
      sheet: () => undefined,
    },
    traces: {
      get: (request) =>
        request === servedRequest
          ? { request, model: 'm', digest: undefined, startMs: 0, steps: [], dropped: { count: 0, after: 0 } }
          : undefined,
      newest: () => [],
    },
    status: () => ({ schemaVersion: 1 }),
    contacts: () => [{ peer: self, addresses: ['/ip4/192.0.2.9/tcp/4001'] }],
    ...changes,
  };
  return { context, desk, clock };
}
