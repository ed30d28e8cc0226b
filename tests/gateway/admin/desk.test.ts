/** The operators' door over a real desk, ledger and check of keys: what is granted and taken back there counts at once. */

import type { FastifyInstance } from 'fastify';
import { test } from 'vitest';
import { keyLedgerOf } from '../../../gateway/access/key-ledger.ts';
import { createKeyChecker } from '../../../gateway/access/keys.ts';
import { type AdminApi, type OperationName, requestFor } from '../../../gateway/admin/operations.ts';
import { createAdminApp } from '../../../gateway/http/admin.ts';
import type { AuditRecord } from '../../../ledger/audit.ts';
import { createDesk } from '../../../ledger/create-desk.ts';
import { createNames } from '../../../ledger/names.ts';
import { seconds } from '../../../protocol/units.ts';
import { LedgerMesh } from '../../ledger/mesh-stage.ts';
import { peer, quietLog, seededRandom } from '../../protocol/mesh-fixture.ts';
import { auditLog } from './fakes.ts';

interface Gateway extends AsyncDisposable {
  readonly app: FastifyInstance;
  readonly noted: AuditRecord[];
  readonly pass: (passMs: number) => Promise<void>;
  /** Status and answer, or the code of the error. */
  ask<Name extends OperationName>(
    name: Name,
    request: AdminApi[Name]['request'],
    key: string,
  ): Promise<readonly [status: number, answer: AdminApi[Name]['response']]>;
  /** The first admin's key, made as whoever may use the data directory makes it. */
  readonly adminKey: string;
}

async function openGateway(): Promise<Gateway> {
  const stage = await LedgerMesh.create();
  const site = await stage.addIssuer();
  const { ledger, peer: self } = site;
  const { clock, random, tokens, store } = site.ports;
  const { mesh, issuer } = stage.mesh;
  const noted: AuditRecord[] = [];
  const audit = { note: (record: AuditRecord) => void noted.push(record) };
  const names = createNames(store);
  const desk = createDesk({ ledger, clock, random, tokens, names, audit }, { mesh, issuer, isOpen: false });
  const keys = createKeyChecker(
    { tokens, clock, ledger: keyLedgerOf(ledger) },
    {
      meshId: mesh.meshId,
      self,
      issuers: ledger.roots.issuers,
      maxStaleMs: seconds(600),
      staleGraceMs: seconds(86_400),
    },
  );
  const context = {
    self,
    meshId: mesh.meshId,
    network: mesh.network,
    clock,
    ledger,
    feeds: store,
    member: { admitted: () => [] },
    desk,
    audit: auditLog,
    status: () => ({}),
    contacts: () => [{ peer: self, addresses: ['/ip4/127.0.0.1/tcp/4001'] }],
  };
  const app = createAdminApp({ clock, random: seededRandom('desk'), log: quietLog, keys, context, audit });
  await app.ready();
  const terms = { models: [], limits: {} };
  const made = { name: 'ops', account: undefined, role: 'admin', terms, gateways: [self] } as const;
  const { text: adminKey } = await stage.run(desk.createKey(made, 'local'));
  return {
    app,
    noted,
    adminKey,
    pass: (passMs) => stage.pass(passMs),
    ask: async (name, request, key) => {
      const { method, url, body } = requestFor(name, request);
      const headers = {
        authorization: `Bearer ${key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      };
      const sent = app.inject({ method, url, headers, ...(body === undefined ? {} : { payload: body }) });
      const response = await stage.run(sent);
      const code = response.headers['x-helixflow-error'];
      return [response.statusCode, code ?? response.json()] as never;
    },
    [Symbol.asyncDispose]: async () => {
      await app.close();
      await stage[Symbol.asyncDispose]();
    },
  };
}

test('an admin makes a key, which works at once, and until it is revoked', async ({ expect }) => {
  await using gateway = await openGateway();
  const { ask, adminKey } = gateway;
  const [, made] = await ask('keys.create', { name: 'watcher', role: 'operator' }, adminKey);
  expect(await ask('bans.list', {}, made.text)).toEqual([200, { data: [], hasMore: false }]);
  const [, shown] = await ask('keys.show', { key: made.key }, made.text);
  expect(shown).toMatchObject({ key: made.key, name: 'watcher', role: 'operator', state: 'active' });
  expect(await ask('keys.revoke', { key: made.key }, made.text)).toEqual([403, 'KEY_ROLE_NOT_ALLOWED']);
  const [, revoked] = await ask('keys.revoke', { key: made.key }, adminKey);
  expect(revoked).toMatchObject({ key: made.key, state: 'revoked' });
  expect(await ask('bans.list', {}, made.text)).toEqual([401, 'KEY_REVOKED']);
});

test('an admin revokes the key it came with, and is out', async ({ expect }) => {
  await using gateway = await openGateway();
  const { ask, adminKey } = gateway;
  const [, { data }] = await ask('keys.list', {}, adminKey);
  expect(data.map(({ name, role }) => [name, role])).toEqual([['ops', 'admin']]);
  const [first] = data;
  expect((await ask('keys.revoke', { key: first?.key as never }, adminKey))[0]).toBe(200);
  expect(await ask('keys.list', {}, adminKey)).toEqual([401, 'KEY_REVOKED']);
});

test('a rotated key and the new one both work for the time of grace', async ({ expect }) => {
  await using gateway = await openGateway();
  const { ask, adminKey } = gateway;
  const [, { data }] = await ask('keys.list', {}, adminKey);
  const key = data[0]?.key as never;
  const [, next] = await ask('keys.rotate', { key, graceMs: 60_000 }, adminKey);
  expect(next).toMatchObject({ role: 'admin', replaces: key });
  expect((await ask('status', {}, adminKey))[0]).toBe(200);
  expect((await ask('status', {}, next.text))[0]).toBe(200);
  await gateway.pass(60_001);
  expect(await ask('status', {}, adminKey)).toEqual([401, 'KEY_REVOKED']);
  expect((await ask('status', {}, next.text))[0]).toBe(200);
  expect(await ask('keys.rotate', { key }, next.text)).toEqual([400, 'REQUEST_MALFORMED']);
});

test('accounts, terms and bans are what the ledger says of them', async ({ expect }) => {
  await using gateway = await openGateway();
  const { ask, adminKey } = gateway;
  const [, team] = await ask('accounts.create', { name: 'Team Ä', limits: { rpm: 10 } }, adminKey);
  const [, set] = await ask('accounts.set', { account: team.account, limits: { tpm: 5 }, strict: true }, adminKey);
  expect(set).toMatchObject({ name: 'Team Ä', limits: { rpm: 10, tpm: 5 }, strict: true });
  const [, made] = await ask('keys.create', { name: 'app', account: team.account, ttlMs: 60_000 }, adminKey);
  expect(made).toMatchObject({ account: team.account, strict: true });
  const [, renamed] = await ask('keys.set', { key: made.key, name: 'another' }, adminKey);
  expect(renamed).toMatchObject({ name: 'another' });
  const [, nameless] = await ask('keys.set', { key: made.key, name: null }, adminKey);
  expect(nameless).not.toHaveProperty('name');
  const [, longer] = await ask('keys.set', { key: made.key, ttlMs: null, limits: { rpm: 3 } }, adminKey);
  expect(longer).toMatchObject({ limits: { rpm: 3 } });
  expect(longer).not.toHaveProperty('expiresMs');
  expect(await ask('keys.create', { name: 'x', account: 'acct-none' as never }, adminKey)).toEqual([
    404,
    'SUBJECT_UNKNOWN',
  ]);
  const bad = peer('bad');
  expect(await ask('bans.create', { peer: bad }, adminKey)).toEqual([200, { peer: bad, banned: true }]);
  expect(await ask('bans.remove', { peer: bad }, adminKey)).toEqual([200, { peer: bad, banned: false }]);
  expect(await ask('bans.remove', { peer: bad }, adminKey)).toEqual([404, 'SUBJECT_UNKNOWN']);
});

test('an invite for any number takes an open mesh, and the caller is told so', async ({ expect }) => {
  await using gateway = await openGateway();
  const { ask, adminKey } = gateway;
  const [, invite] = await ask('invites.create', { role: 'node' }, adminKey);
  expect(invite).toMatchObject({ role: 'node', uses: 1, token: expect.stringMatching(/^hx-invite-/) });
  expect(await ask('invites.create', { role: 'node', uses: 0 }, adminKey)).toEqual([400, 'REQUEST_MALFORMED']);
});

test('what was done is in the audit log twice: by what it did, and by the request', async ({ expect }) => {
  await using gateway = await openGateway();
  const { ask, adminKey, noted } = gateway;
  noted.length = 0;
  const [, made] = await ask('keys.create', { name: 'app' }, adminKey);
  const actor = noted[0]?.actor;
  expect(actor).toMatch(/^key:[0-9a-f]{16}$/);
  expect(noted.map(({ action, object, outcome }) => [action, object, outcome])).toEqual([
    ['account.create', expect.stringMatching(/^account:/), 'done'],
    ['key.create', `key:${made.key}`, 'done'],
    ['admin.request', 'POST /admin/v1/keys', 'done'],
  ]);
  expect(new Set(noted.map((record) => record.actor))).toEqual(new Set([actor]));
  expect(JSON.stringify(noted)).not.toMatch(/app|sk-hx-/);
});
