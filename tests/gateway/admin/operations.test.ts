/** The operations of the admin API, whatever door they come in by: what they take, what they do, who may. */

import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { operationTables } from '../../../gateway/admin/describe.ts';
import type { Caller } from '../../../gateway/admin/operation.ts';
import {
  type AdminApi,
  findOperation,
  type OperationName,
  operationNames,
  operationRows,
  requestFor,
  runOperation,
} from '../../../gateway/admin/operations.ts';
import type { KeyId } from '../../../protocol/ids.ts';
import { failure, peer } from '../../protocol/mesh-fixture.ts';
import {
  grantOf,
  issuer,
  openLease,
  otherGateway,
  otherIssuer,
  predecessor,
  self,
  servedRequest,
  stage,
  stranger,
} from './fakes.ts';

const admin = grantOf('admin');
const unknownKey = 'ffffffffffffffff' as KeyId;

/** A good request for each operation; keys and accounts are those that `furnished` makes. */
const goodInputs: { readonly [Name in OperationName]: AdminApi[Name]['request'] } = {
  status: {},
  'ledger.status': {},
  'ledger.counters': { day: 1 },
  'ledger.heads': {},
  'ledger.rows': {},
  'peers.list': {},
  'members.list': { limit: 1 },
  'bans.list': {},
  'bans.create': { peer: stranger },
  'bans.remove': { peer: peer('banned') },
  'invites.create': { role: 'node' },
  'audit.tail': { lines: 5 },
  'audit.verify': {},
  'keys.create': { name: 'app' },
  'keys.list': {},
  'keys.show': { key: '0000000000000000' as KeyId },
  'keys.set': { key: '0000000000000000' as KeyId, limits: { rpm: 5 } },
  'keys.rotate': { key: '0000000000000000' as KeyId },
  'keys.revoke': { key: '0000000000000000' as KeyId },
  'accounts.create': { name: 'team' },
  'accounts.list': {},
  'accounts.set': { account: 'acc-0' as never, strict: true },
  'accounts.show': { account: 'acc-0' as never },
  'accounts.export': { account: 'acc-0' as never },
  'accounts.erase': { account: 'acc-0' as never },
  'leases.writeOff': { lease: openLease },
  'prices.set': { model: 'qwen3', prompt: 150_000, completion: 600_000 },
  'prices.list': {},
  'usage.show': { by: 'account,day', sinceMs: 0 },
  'requests.list': { limit: 2 },
  'requests.why': { request: servedRequest },
};

async function furnished(changes: Parameters<typeof stage>[0] = {}) {
  const made = stage(changes);
  await made.desk.createAccount({ name: 'team', limits: { rpm: 10, tpm: 20 }, strict: false }, 'local');
  const terms = { models: ['helix*'], limits: { rpm: 1, tpm: 2 } };
  await made.desk.createKey({ name: 'first', account: undefined, role: 'user', terms, gateways: [] }, 'local');
  made.desk.told.length = 0;
  return made;
}

describe('every operation', () => {
  test('is found by the request that its client writes, with the same input', ({ expect }) => {
    for (const name of operationNames) {
      const { method, url, body } = requestFor(name, goodInputs[name]);
      const found = findOperation({ method, url, body: body === undefined ? undefined : JSON.parse(body) });
      expect(found.operation.name).toBe(name);
      const asText = method === 'GET' ? (value: unknown) => String(value) : (value: unknown) => value;
      const sent = Object.entries(goodInputs[name]).map(([field, value]) => [field, asText(value)]);
      expect(found.input).toEqual(Object.fromEntries(sent));
    }
  });

  test.for(operationNames)('%s answers whoever may use the data directory, and an admin', async (name, { expect }) => {
    for (const caller of ['local', admin] as const) {
      const { context } = await furnished();
      expect(await failure(() => runOperation(name, context, goodInputs[name], caller))).toBe('nothing was thrown');
    }
  });

  test.for(operationRows)('$name refuses the roles that its row does not name', async ({ name, roles }, { expect }) => {
    for (const role of ['user', 'operator', 'admin'] as const) {
      const { context, desk } = await furnished();
      const outcome = await failure(() => runOperation(name, context, goodInputs[name], grantOf(role)));
      const refusal = { code: 'KEY_ROLE_NOT_ALLOWED', role, allowed: roles.join(' or ') };
      expect(outcome).toEqual(roles.includes(role) ? 'nothing was thrown' : refusal);
      if (!roles.includes(role)) expect(desk.told).toEqual([]);
    }
  });

  test.for(operationNames)('%s refuses a field that it does not know', async (name, { expect }) => {
    const { context, desk } = await furnished();
    for (const field of ['issuer', 'isAdmin', '__proto__', 'constructor', 'toString']) {
      const input = JSON.parse(JSON.stringify(goodInputs[name]).replace(/\}$/, `,"${field}":1}`).replace('{,', '{'));
      expect(await failure(() => runOperation(name, context, input, admin))).toMatchObject({
        code: 'REQUEST_MALFORMED',
        param: field,
      });
    }
    expect(desk.told).toEqual([]);
  });

  test('refuses whatever JSON it gets, or takes it, but fails with nothing else', async ({ expect }) => {
    const codes = new Set<string>();
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...operationNames), fc.jsonValue(), async (name, input) => {
        const { context } = await furnished();
        const outcome = await failure(() => runOperation(name, context, input, admin));
        codes.add(typeof outcome === 'string' ? outcome : (outcome as { code: string }).code);
      }),
      { numRuns: 300 },
    );
    expect([...codes].filter((code) => code !== 'nothing was thrown' && code !== 'REQUEST_MALFORMED')).toEqual([]);
  });

  test('that needs the issuer says so where its key is not', async ({ expect }) => {
    const withoutDesk = new Set<string>();
    for (const name of operationNames) {
      const { context } = await furnished({ desk: undefined });
      const outcome = await failure(() => runOperation(name, context, goodInputs[name], 'local'));
      if (outcome === 'nothing was thrown') continue;
      expect(outcome).toEqual({ code: 'ISSUER_MISSING', meshId: context.meshId });
      withoutDesk.add(name);
    }
    const needing = operationNames.filter((name) => /^(keys|accounts|invites|leases)\./.test(name));
    expect([...withoutDesk].sort()).toEqual([...needing, 'bans.create', 'bans.remove', 'prices.set'].sort());
  });

  test('of an issuer is refused to keys of other issuers, not to those of one that it took over from', async ({
    expect,
  }) => {
    const outcomes = async (caller: Caller): Promise<unknown[]> => {
      const { context } = await furnished();
      const names = ['keys.list', 'keys.show', 'keys.revoke', 'accounts.set', 'bans.create', 'invites.create'] as const;
      return Promise.all(names.map((name) => failure(() => runOperation(name, context, goodInputs[name], caller))));
    };
    const { context } = stage();
    const refused = { code: 'ISSUER_MISSING', meshId: context.meshId };
    expect(await outcomes(grantOf('admin', { issuer: otherIssuer }))).toEqual(Array(6).fill(refused));
    expect(await outcomes(grantOf('admin', { issuer }))).toEqual(Array(6).fill('nothing was thrown'));
    expect(await outcomes(grantOf('admin', { issuer: predecessor }))).toEqual(Array(6).fill('nothing was thrown'));
  });
});

describe('a request that no operation takes', () => {
  const find = (method: string, url: string, body?: unknown) => failure(() => findOperation({ method, url, body }));

  test.for([
    '/admin/v1/nothing',
    '/admin/v1',
    '/admin/v1/',
    '/admin/v2/keys',
    '/ADMIN/v1/keys',
    '/admin/v1/Keys',
    '//admin/v1/keys',
    '/admin//v1/keys',
    '/admin/v1/keys/',
    '/admin/v1/%6beys',
    '/admin/v1/./keys',
    '/admin/v1/bans/../keys',
    '/admin/v1/%2e%2e/v1/keys',
    '/admin/v1/keys;a=b',
    '/admin/v1/keys%3Flimit=1',
    'http://x/admin/v1/keys',
    `/admin/v1/keys/${'x'.repeat(3_000)}`,
    '',
    '*',
  ])('%s is no route', async (url, { expect }) => {
    expect(await find('GET', url)).toMatchObject({ code: 'ROUTE_NOT_FOUND' });
  });

  test.for([
    ['PUT', '/admin/v1/keys', 'POST, GET'],
    ['HEAD', '/admin/v1/keys', 'POST, GET'],
    ['get', '/admin/v1/status', 'GET'],
    ['DELETE', '/admin/v1/keys/0000000000000000', 'GET, PATCH'],
    ['GET', '/admin/v1/keys/0000000000000000/revoke', 'POST'],
  ] as const)('%s %s names the methods that there are', async ([method, url, allowed], { expect }) => {
    expect(await find(method, url)).toMatchObject({ code: 'METHOD_NOT_ALLOWED', allowed });
  });

  test('says nothing in the path again in the body, and nothing twice in the query', async ({ expect }) => {
    const spoken = await find('POST', '/admin/v1/keys/0000000000000000/revoke', { key: unknownKey });
    expect(spoken).toMatchObject({ code: 'REQUEST_MALFORMED', param: 'key' });
    expect(await find('GET', '/admin/v1/keys?limit=1&limit=2')).toMatchObject({ param: 'limit' });
  });

  test.for([[[]], ['text'], [5], [null]])('has a body that is no object: %j', async ([body], { expect }) => {
    expect(await find('POST', '/admin/v1/keys', body)).toMatchObject({ code: 'REQUEST_MALFORMED' });
  });

  test('a path with escapes reaches nothing: they stay part of the id', async ({ expect }) => {
    const { context } = await furnished();
    for (const id of ['..%2fkeys', '0000000000000000%2frevoke', '%00', '0000000000000000%20', 'ＦＦ']) {
      const { operation, input } = findOperation({ method: 'GET', url: `/admin/v1/keys/${id}`, body: undefined });
      expect(await failure(() => runOperation(operation.name, context, input, admin))).toMatchObject({
        code: 'REQUEST_MALFORMED',
        param: 'key',
      });
    }
  });
});

describe('keys', () => {
  test('are made with what was asked for, by whoever asked', async ({ expect }) => {
    const { context, desk, clock } = stage();
    const input = { name: 'App (staging)', models: ['qwen*'], limits: { rpm: 60 }, ttlMs: 86_400_000 };
    const made = await runOperation('keys.create', context, input, admin);
    const expiresMs = clock.wallMs() + 86_400_000;
    const terms = { models: ['qwen*'], limits: { rpm: 60 }, expiresMs };
    const request = { name: 'App (staging)', account: undefined, role: 'user', terms, gateways: [] };
    expect(desk.told).toEqual([['createKey', request, 'key:00000000000000aa']]);
    expect(made).toEqual({
      text: 'sk-hx-0000000000000000',
      key: '0000000000000000',
      account: 'own',
      role: 'user',
      gateways: [],
      models: ['qwen*'],
      limits: { rpm: 60 },
      strict: false,
      expiresMs,
    });
  });

  test('of operators and admins are good at this gateway, or at the one that is named, never at two', async ({
    expect,
  }) => {
    for (const role of ['operator', 'admin'] as const) {
      const { context } = stage();
      const create = (gateways?: (typeof self)[]) =>
        runOperation('keys.create', context, { name: 'ops', role, ...(gateways && { gateways }) }, 'local');
      expect((await create()).gateways).toEqual([self]);
      expect((await create([otherGateway])).gateways).toEqual([otherGateway]);
      expect(await failure(() => create([self, otherGateway]))).toMatchObject({ param: 'gateways' });
    }
  });

  test.for([
    [{ name: '' }, 'name'],
    [{ name: 'x'.repeat(65) }, 'name'],
    [{ name: 'red\u001b[31m' }, 'name'],
    [{ name: 'two\nlines' }, 'name'],
    [{}, 'name'],
    [{ name: 'a', role: 'root' }, 'role'],
    [{ name: 'a', ttlMs: 0 }, 'ttlMs'],
    [{ name: 'a', ttlMs: 1e18 }, 'ttlMs'],
    [{ name: 'a', ttlMs: 1500.5 }, 'ttlMs'],
    [{ name: 'a', limits: { rpm: 0 } }, 'limits.rpm'],
    [{ name: 'a', limits: { rpm: -1 } }, 'limits.rpm'],
    [{ name: 'a', limits: { rpm: 2 ** 31 } }, 'limits.rpm'],
    [{ name: 'a', limits: { rps: 1 } }, 'limits.rps'],
    [{ name: 'a', models: Array(65).fill('m') }, 'models'],
    [{ name: 'a', models: [''] }, 'models[0]'],
    [{ name: 'a', models: 'qwen' }, 'models'],
    [{ name: 'a', gateways: ['not a peer'] }, 'gateways[0]'],
    [{ name: 'a', account: '../x' }, 'account'],
  ] as const)('are not made from %j', async ([input, param], { expect }) => {
    const { context, desk } = stage();
    const outcome = await failure(() => runOperation('keys.create', context, input, admin));
    expect(outcome).toMatchObject({ code: 'REQUEST_MALFORMED', param });
    expect(desk.told).toEqual([]);
  });

  test('are listed by id in pages, without their texts', async ({ expect }) => {
    const { context, desk } = await furnished();
    const terms = { models: [], limits: {} };
    for (const name of ['second', 'third']) {
      await desk.createKey({ name, account: undefined, role: 'user', terms, gateways: [] }, 'local');
    }
    const first = await runOperation('keys.list', context, { limit: '2' }, admin);
    expect(first.data.map(({ key, name }) => [key.slice(-1), name])).toEqual([
      ['0', 'first'],
      ['1', 'second'],
    ]);
    expect(first.hasMore).toBe(true);
    const after = first.data.at(-1)?.key;
    const rest = await runOperation('keys.list', context, { limit: 2, after }, admin);
    expect([rest.data.map(({ name }) => name), rest.hasMore]).toEqual([['third'], false]);
    expect(JSON.stringify([first, rest])).not.toContain('sk-hx-');
  });

  test('keep what a change does not name, and lose what it sets to null', async ({ expect }) => {
    const { context, desk, clock } = await furnished();
    const key = '0000000000000000' as KeyId;
    await runOperation('keys.set', context, { key, limits: { rpm: 9 }, ttlMs: 5_000 }, 'local');
    const expiresMs = clock.wallMs() + 5_000;
    const narrowed = { models: ['helix*'], limits: { rpm: 9, tpm: 2 }, expiresMs };
    expect(desk.told).toEqual([['setKey', key, narrowed, 'local']]);
    await clock.advance(1_000);
    await runOperation('keys.set', context, { key, limits: { tpm: null }, models: [] }, 'local');
    expect(desk.told.at(-1)).toEqual(['setKey', key, { models: [], limits: { rpm: 9 }, expiresMs }, 'local']);
    await runOperation('keys.set', context, { key, ttlMs: null }, 'local');
    expect(desk.told.at(-1)).toEqual(['setKey', key, { models: [], limits: { rpm: 9 } }, 'local']);
  });

  test('take preferences when they are made, and change one at a time', async ({ expect }) => {
    const { context, desk } = await furnished();
    const nodes = { allow: [peer('near')], deny: [peer('slow')] };
    const preferences = { prefer: 'price', region: 'eu', nodes } as const;
    const made = await runOperation('keys.create', context, { name: 'app', preferences }, admin);
    expect(desk.told.at(-1)).toMatchObject(['createKey', { terms: { preferences } }, 'key:00000000000000aa']);
    const { key } = made;
    const set = async (change: AdminApi['keys.set']['request']['preferences']) =>
      (await runOperation('keys.set', context, { key, preferences: change }, admin)).preferences;
    expect(await set({ prefer: null, nodes: { deny: null } })).toEqual({ region: 'eu', nodes: { allow: nodes.allow } });
    expect(await set({ nodes: { allow: [] } })).toEqual({ region: 'eu', nodes: { allow: [] } });
    expect(await set({ region: 'us', nodes: { allow: null } })).toEqual({ region: 'us' });
    expect(await set({ region: null })).toBeUndefined();
    const limits = await runOperation('keys.set', context, { key, limits: { rpm: 1 } }, admin);
    expect(limits).not.toHaveProperty('preferences');
  });

  test('are active, then expired, or revoked', async ({ expect }) => {
    const { context, clock } = await furnished();
    const key = '0000000000000000' as KeyId;
    const state = async () => (await runOperation('keys.show', context, { key }, admin)).state;
    await runOperation('keys.set', context, { key, ttlMs: 2_000 }, admin);
    expect(await state()).toBe('active');
    await clock.advance(2_000);
    expect(await state()).toBe('expired');
    const revoked = await runOperation('keys.revoke', context, { key, cut: true }, admin);
    expect(revoked).toMatchObject({ state: 'revoked', revokedFromMs: clock.wallMs(), cut: true });
  });

  test('are rotated with a grace of a day, unless the request says otherwise', async ({ expect }) => {
    const { context, clock } = await furnished();
    const key = '0000000000000000' as KeyId;
    const rotated = await runOperation('keys.rotate', context, { key }, admin);
    expect(rotated).toMatchObject({ replaces: key, oldUntilMs: clock.wallMs() + 86_400_000 });
    const atOnce = await runOperation('keys.rotate', context, { key, graceMs: 0 }, admin);
    expect(atOnce.oldUntilMs).toBe(clock.wallMs());
  });

  test.for(['keys.show', 'keys.set', 'keys.rotate', 'keys.revoke'] as const)(
    'that nobody made: %s says so',
    async (name, { expect }) => {
      const { context } = await furnished();
      const outcome = await failure(() => runOperation(name, context, { key: unknownKey }, admin));
      expect(outcome).toEqual({ code: 'SUBJECT_UNKNOWN', kind: 'key', id: unknownKey });
    },
  );
});

describe('accounts', () => {
  test('keep what a change does not name', async ({ expect }) => {
    const { context, desk } = await furnished();
    const account = 'acc-0' as never;
    const view = await runOperation('accounts.set', context, { account, limits: { rpm: null, concurrency: 3 } }, admin);
    const change = { limits: { tpm: 20, concurrency: 3 } };
    expect(desk.told).toEqual([['setAccount', account, change, 'key:00000000000000aa']]);
    expect(view).toMatchObject({ account, name: 'team', strict: false, ...change });
  });

  test('that nobody opened cannot be changed', async ({ expect }) => {
    const { context, desk } = await furnished();
    const set = () => runOperation('accounts.set', context, { account: 'acc-9' as never, strict: true }, admin);
    expect(await failure(set)).toEqual({ code: 'SUBJECT_UNKNOWN', kind: 'account', id: 'acc-9' });
    expect(desk.told).toEqual([]);
  });
});

describe('the mesh', () => {
  test('shows peers with addresses, members with bans', async ({ expect }) => {
    const { context } = stage();
    const operator = grantOf('operator');
    expect(await runOperation('peers.list', context, {}, operator)).toEqual({
      data: [
        {
          peer: peer('node'),
          role: 'node',
          owner: 'alice',
          direction: 'inbound',
          path: 'direct',
          address: '/ip4/192.0.2.1/tcp/1',
        },
      ],
      hasMore: false,
    });
    const members = await runOperation('members.list', context, {}, operator);
    expect(members.data.map(({ peer: id, banned }) => [id, banned])).toEqual([
      [peer('banned'), true],
      [peer('node'), false],
    ]);
  });

  test('bans and takes bans back, once each', async ({ expect }) => {
    const { context, desk } = stage();
    const operator = grantOf('operator');
    expect(await runOperation('bans.create', context, { peer: stranger }, operator)).toEqual({
      peer: stranger,
      banned: true,
    });
    const { data } = await runOperation('bans.list', context, {}, operator);
    expect(data.map((ban) => ban.peer)).toEqual([peer('banned'), stranger]);
    expect(await runOperation('bans.remove', context, { peer: stranger }, operator)).toMatchObject({ banned: false });
    const again = await failure(() => runOperation('bans.remove', context, { peer: stranger }, operator));
    expect(again).toMatchObject({ code: 'SUBJECT_UNKNOWN', id: stranger });
    const actor = 'key:00000000000000aa';
    expect(desk.told).toEqual([
      ['ban', stranger, actor],
      ['unban', stranger, actor],
    ]);
  });

  test('never bans the gateway that is asked to', async ({ expect }) => {
    const { context, desk } = stage();
    const outcome = await failure(() => runOperation('bans.create', context, { peer: self }, 'local'));
    expect(outcome).toMatchObject({ code: 'REQUEST_UNSUPPORTED', param: 'peer' });
    expect(desk.told).toEqual([]);
  });

  test('invites to where this gateway is reached, unless the request says otherwise', async ({ expect }) => {
    const { context, desk, clock } = stage();
    const made = await runOperation('invites.create', context, { role: 'node' }, 'local');
    const day = 86_400_000;
    const usual = { role: 'node', owner: undefined, uses: 1, ttl: day, network: 'lan', gateways: context.contacts() };
    expect(desk.told).toEqual([['createInvite', usual, 'local']]);
    expect(made).toEqual({
      token: 'hx-invite-x',
      invite: 'ef'.repeat(16),
      role: 'node',
      uses: 1,
      expiresMs: clock.wallMs() + day,
    });
    const gateways = [{ peer: otherGateway, addresses: ['/ip4/198.51.100.1/tcp/4001'] }];
    await runOperation('invites.create', context, { role: 'gateway', uses: 3, ttlMs: 60_000, gateways }, 'local');
    expect(desk.told.at(-1)?.[1]).toMatchObject({ role: 'gateway', uses: 3, ttl: 60_000, gateways });
  });
});

test('docs/admin-api.md is what the table says', async ({ expect }) => {
  const page = await readFile(new URL('../../../docs/admin-api.md', import.meta.url), 'utf8');
  expect(page).toContain(`\n${operationTables()}\n`);
});

describe('why a request went where it went', () => {
  test('is told by the id of the request, or of its answer', async ({ expect }) => {
    const { context } = await furnished();
    for (const request of [servedRequest, `chatcmpl-${servedRequest}`]) {
      expect(await runOperation('requests.why', context, { request }, grantOf('operator'))).toMatchObject({
        request: servedRequest,
      });
    }
  });

  test('of a request that nobody remembers nothing is told, nor where none are served', async ({ expect }) => {
    const request = '00'.repeat(16);
    for (const changes of [{}, { traces: undefined }]) {
      const { context } = await furnished(changes);
      const asked = () => runOperation('requests.why', context, { request }, 'local');
      expect(await failure(asked)).toEqual({ code: 'REQUEST_UNKNOWN', request });
    }
  });
});
