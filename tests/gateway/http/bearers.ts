/** Both doors of one gateway over one check of keys, and everyone who may come with a key. */

import type { FastifyInstance } from 'fastify';
import type { KeyLedger } from '../../../gateway/access/key-ledger.ts';
import { createKeyChecker, type KeyChecker } from '../../../gateway/access/keys.ts';
import { adminAppDefaults } from '../../../gateway/http/admin.ts';
import { createGatewayApp } from '../../../gateway/http/app.ts';
import { gatewayAppDefaults } from '../../../gateway/http/options.ts';
import type { AuditRecord } from '../../../ledger/audit.ts';
import { cleanRecord } from '../../../ledger/audit-record.ts';
import { type IssuerCertificate, issuerIdOf, type KeyGrant, type KeyRole, signKey } from '../../../protocol/grants.ts';
import type { AccountId, KeyId } from '../../../protocol/ids.ts';
import { issuerOf } from '../../../protocol/mesh.ts';
import { ms, unixMs } from '../../../protocol/units.ts';
import { newMesh, peer, quietLog, seededRandom, startMs, tokens } from '../../protocol/mesh-fixture.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import {
  authors,
  type FakeDesk,
  issuer,
  openLease,
  otherGateway,
  otherIssuer,
  self,
  servedRequest,
} from '../admin/fakes.ts';
import { openAdmin } from './admin-door.ts';
import { chatBody, FakeService, openIdempotency } from './fakes.ts';

/** Someone with a key, and what is to become of it before its role is looked at. */
export interface Bearer {
  readonly name: string;
  readonly text: string | undefined;
  /** Status of the refusal, when the key itself is at fault. */
  readonly fault?: number;
  readonly role: KeyRole;
  /** Good for nothing once its issuer has been silent for too long. */
  readonly isStrict: boolean;
  /** Of an issuer whose desk is elsewhere. */
  readonly isRival: boolean;
}

const mesh = await newMesh('roles');
const foreign = await newMesh('foreign');
const ours = issuerOf(mesh.issuer);
const rival: IssuerCertificate = {
  meshId: ours.meshId,
  publicKey: foreign.issuer.key.publicKey,
  issuer: issuerIdOf(foreign.issuer.key.publicKey),
};
authors.set(ours.issuer, authors.get(issuer) ?? []);
authors.set(rival.issuer, authors.get(otherIssuer) ?? []);

const revoked = 'ffff0000ffff0000' as KeyId;
const banned = { keyId: revoked };
let made = 0;
async function keyOf(role: KeyRole, changes: Partial<KeyGrant> = {}, by = mesh.issuer, meshId = ours.meshId) {
  made += 1;
  const grant: KeyGrant = {
    keyId: made.toString(16).padStart(16, '0') as KeyId,
    issuer: issuerIdOf(by.key.publicKey),
    account: 'team-a' as AccountId,
    role,
    models: [],
    limits: {},
    gateways: role === 'user' ? [] : [self],
    strict: false,
    ...changes,
  };
  return signKey({ ...grant, meshId }, by.key, { tokens, nowMs: startMs });
}

type Row = readonly [name: string, text: string | undefined, role: KeyRole, fault?: number];
const past = { expiresMs: startMs };
const there = { gateways: [otherGateway] };
const flipped = (text: string): string => `${text.slice(0, -8)}AAAAAAAA`;

const rows: readonly Row[] = [
  ['no key', undefined, 'user', 401],
  ['garbage', 'sk-hx-garbage', 'user', 401],
  ['a key of OpenAI', 'sk-proj-abcdef', 'user', 401],
  ['an expired user', await keyOf('user', past), 'user', 401],
  ['an expired admin', await keyOf('admin', past), 'admin', 401],
  ['a user of another mesh', await keyOf('user', {}, foreign.issuer, foreign.mesh.meshId), 'user', 401],
  ['an admin of another mesh', await keyOf('admin', {}, foreign.issuer, foreign.mesh.meshId), 'admin', 401],
  ['an admin with a changed signature', flipped(await keyOf('admin')), 'admin', 401],
  ['a revoked user', await keyOf('user', banned), 'user', 401],
  ['a revoked admin', await keyOf('admin', banned), 'admin', 401],
  ['user', await keyOf('user'), 'user'],
  ['strict user', await keyOf('user', { strict: true }), 'user'],
  ['user of another account', await keyOf('user', { account: 'team-b' as AccountId }), 'user'],
  ['user of this gateway alone', await keyOf('user', { gateways: [self] }), 'user'],
  ['operator', await keyOf('operator'), 'operator'],
  ['admin', await keyOf('admin'), 'admin'],
  ['admin of another issuer', await keyOf('admin', {}, foreign.issuer), 'admin'],
  ['user of another gateway', await keyOf('user', there), 'user', 403],
  ['operator of another gateway', await keyOf('operator', there), 'operator', 403],
  ['admin of another gateway', await keyOf('admin', there), 'admin', 403],
];

export const bearers: readonly Bearer[] = rows.map(([name, text, role, fault]) => ({
  name,
  text,
  role,
  isStrict: role !== 'user' || name.startsWith('strict'),
  isRival: name.endsWith('another issuer'),
  ...(fault === undefined ? {} : { fault }),
}));

export const staleness = { maxStaleMs: ms(600_000), staleGraceMs: ms(86_400_000) };

function checkerOf(clock: ManualClock, ageMs: number): KeyChecker {
  const ledger: KeyLedger = {
    key: (key) => (key === revoked ? { revoked: { fromMs: startMs, cut: false } } : undefined),
    account: () => undefined,
    asOfMs: () => unixMs(clock.wallMs() - ageMs),
  };
  const issuers = new Map([ours, rival].map((certificate) => [certificate.issuer, certificate]));
  return createKeyChecker({ tokens, clock, ledger }, { meshId: ours.meshId, issuers, self, ...staleness });
}

export type DoorName = 'clients' | 'operators';

export interface Answered {
  readonly status: number;
  readonly body: string;
  /** Of the error. */
  readonly code: string | undefined;
  /** `x-helixflow-stale`. */
  readonly stale: string | undefined;
}

export interface Doors extends AsyncDisposable {
  readonly apps: Readonly<Record<DoorName, FastifyInstance>>;
  readonly service: FakeService;
  readonly desk: FakeDesk;
  /** What the audit log was told, by either door. */
  readonly noted: AuditRecord[];
  /** @param route Method and path; what varies in a pattern is filled in. */
  ask(door: DoorName, route: string, bearer: Bearer): Promise<Answered>;
}

const fillings: Readonly<Record<string, string>> = {
  '*': 'helix-tiny',
  ':key': '0000000000000000',
  ':account': 'acc-0',
  ':peer': peer('banned'),
  ':lease': openLease,
  ':request': servedRequest,
};
/** Good bodies, by the last part of the path that is a word. */
const bodies: Readonly<Record<string, object>> = {
  '/v1/chat/completions': chatBody(),
  '/admin/v1/bans': { peer: peer('stranger') },
  '/admin/v1/invites': { role: 'node' },
  '/admin/v1/keys': { name: 'app' },
  '/admin/v1/accounts': { name: 'team' },
  '/admin/v1/prices': { model: 'qwen3', prompt: 1, completion: 2 },
};

async function furnish(desk: FakeDesk): Promise<void> {
  await desk.createAccount({ name: 'team', limits: {}, strict: false }, 'local');
  const terms = { models: [], limits: {} };
  await desk.createKey({ name: 'first', account: undefined, role: 'user', terms, gateways: [] }, 'local');
  desk.told.length = 0;
}

/**
 * Both doors, with an account and a key at the desk.
 * @param ageMs For so long no issuer has been heard.
 */
export async function openDoors(ageMs = 0): Promise<Doors> {
  const clock = new ManualClock();
  const keys = checkerOf(clock, ageMs);
  const service = new FakeService();
  const random = seededRandom('doors');
  const noted: AuditRecord[] = [];
  const audit = { note: (record: AuditRecord) => void noted.push(cleanRecord(record).record) };
  const clients = createGatewayApp(
    { service, idempotency: openIdempotency(clock), keys, clock, random, log: quietLog, audit },
    gatewayAppDefaults,
  );
  const operators = openAdmin({ ...adminAppDefaults }, { keys, audit });
  await furnish(operators.desk);
  const apps = { clients, operators: operators.app };
  return {
    apps,
    service,
    desk: operators.desk,
    noted,
    ask: async (door, route, { text }) => {
      const [method = '', pattern = ''] = route.split(' ');
      const url = pattern.replace(/\*|:\w+/g, (part) => fillings[part] ?? part);
      const body = bodies[pattern];
      const response = await apps[door].inject({
        method: method as 'GET',
        url,
        headers: text === undefined ? {} : { authorization: `Bearer ${text}` },
        ...(method === 'GET' || body === undefined ? {} : { payload: body }),
      });
      const header = (name: string): string | undefined => response.headers[name]?.toString();
      const { statusCode: status, body: answer } = response;
      return { status, body: answer, code: header('x-helixflow-error'), stale: header('x-helixflow-stale') };
    },
    [Symbol.asyncDispose]: async () => {
      await clients.close();
      await operators.app.close();
    },
  };
}
