/** The issuer's desk: every step is an entry before anything leaves, within its bounds, and told to the audit log. */

import { describe, test } from 'vitest';
import { authorIdOf } from '../../ledger/block.ts';
import type { DeskDeps } from '../../ledger/create-desk.ts';
import type { InviteRequest, KeyRequest } from '../../ledger/desk.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { AccountId, OwnerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { peer } from '../protocol/mesh-fixture.ts';
import { anyTerms, diskOf, gateway, linesOf, nobodysKey, nodeInvite, openStage, userKey } from './desk-stage.ts';
import { banOf, type Site } from './mesh-stage.ts';

describe('a key', () => {
  test('verifies offline as what it was made as, in an account of its own', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, noted, site } = stage;
    const terms = { models: ['qwen*'], limits: { rpm: 5 }, expiresMs: unixMs(epochMs + 86_400_999) };
    const before = site.ledger.status().blocks;
    const { text, grant } = await run(desk.createKey({ ...userKey, terms }, 'local'));
    expect(await stage.check(text)).toEqual(grant);
    expect(grant).toMatchObject({ models: ['qwen*'], limits: { rpm: 5 }, expiresMs: epochMs + 86_400_000 });
    expect(site.ledger.status().blocks - before).toBe(1);
    const { keyId: key, account } = grant;
    const by = authorIdOf(stage.mesh.mesh.issuer.key.publicKey);
    const { expiresMs } = grant;
    const made = { account, role: 'user', gateways: [], terms: { ...terms, expiresMs }, atMs: expect.any(Number) };
    expect(await run(desk.key(key))).toEqual({ key, by, made, name: 'Zoë’s laptop' });
    expect(await run(desk.keys())).toEqual([await run(desk.key(key))]);
    expect(await run(desk.accounts())).toEqual([
      { account, by, limits: {}, strict: false, createdMs: expect.any(Number), name: 'Zoë’s laptop' },
    ]);
    expect(linesOf(noted)).toEqual([
      ['account.create', `account:${account}`, 'done'],
      ['key.create', `key:${key}`, 'done'],
    ]);
  });

  test('is nowhere but in the answer, and its name in no entry and no audit line', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, noted } = stage;
    const { text } = await run(desk.createKey(userKey, 'local'));
    const [, , signature = ''] = text.split('.');
    const disk = await diskOf(stage, '');
    expect(disk.includes(Buffer.from(signature))).toBe(false);
    expect(disk.includes(Buffer.from(signature, 'base64url'))).toBe(false);
    expect(disk.includes(Buffer.from(userKey.name))).toBe(true);
    expect((await diskOf(stage, 'f/')).includes(Buffer.from('laptop'))).toBe(false);
    expect(JSON.stringify(noted)).not.toMatch(new RegExp(`laptop|sk-hx|${signature}`));
  });

  test('belongs to the account that was named, and is as strict as that', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run } = stage;
    const { account } = await run(desk.createAccount({ name: 'team', limits: { tpm: 9 }, strict: true }, 'local'));
    const { text, grant } = await run(desk.createKey({ ...userKey, account }, 'local'));
    expect(await stage.check(text)).toEqual(grant);
    expect(grant).toMatchObject({ account, strict: true });
    expect(await run(desk.accounts())).toMatchObject([{ account, name: 'team', limits: { tpm: 9 }, strict: true }]);
  });

  test('takes the terms it is set, the last of them', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, noted } = stage;
    const { grant } = await run(desk.createKey(userKey, 'local'));
    noted.length = 0;
    await run(desk.setKey(grant.keyId, { models: ['a'], limits: { rpm: 1 } }, 'key:00000000000000aa'));
    const later = { models: ['b'], limits: {}, expiresMs: unixMs(epochMs + 5_999) };
    const set = await run(desk.setKey(grant.keyId, later, 'local'));
    expect(set.terms).toEqual({ models: ['b'], limits: {}, expiresMs: epochMs + 5_000 });
    expect(noted.map(({ actor, action }) => [actor, action])).toEqual([
      ['key:00000000000000aa', 'key.set'],
      ['local', 'key.set'],
    ]);
  });

  test('is revoked at once, the earliest time and every cut counting', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, noted, mesh } = stage;
    const { keyId } = (await run(desk.createKey(userKey, 'local'))).grant;
    noted.length = 0;
    const first = await run(desk.revokeKey(keyId, false, 'local'));
    await mesh.pass(5_000);
    const again = await run(desk.revokeKey(keyId, true, 'local'));
    expect(again.revoked).toEqual({ fromMs: first.revoked?.fromMs, cut: true });
    expect(linesOf(noted)).toEqual(Array(2).fill(['key.revoke', `key:${keyId}`, 'done']));
  });
});

test('a revocation counts at once where the clock is behind as far as clocks may be', async ({ expect }) => {
  await using stage = await openStage();
  const { desk, run, site } = stage;
  const { keyId } = (await run(desk.createKey(userKey, 'local'))).grant;
  const { revoked } = await run(desk.revokeKey(keyId, false, 'local'));
  expect(revoked?.fromMs).toBeLessThanOrEqual(site.ports.clock.wallMs() - limits.clockSkewMaxMs);
});

describe('a rotated key', () => {
  test('has the terms, account, role, gateways and name of the old one, which stays good for the grace', async ({
    expect,
  }) => {
    await using stage = await openStage();
    const { desk, run, noted, site } = stage;
    const gateways = [gateway];
    const { grant: old } = await run(desk.createKey({ ...userKey, role: 'operator', gateways }, 'local'));
    const preferences = { prefer: 'price', nodes: { deny: [peer('slow')] } } as const;
    const terms = { models: ['b*'], limits: { concurrency: 2 }, preferences };
    await run(desk.setKey(old.keyId, terms, 'local'));
    await run(desk.setAccount(old.account, { strict: true }, 'local'));
    noted.length = 0;
    const nowMs = site.ports.clock.wallMs();
    const next = await run(desk.rotateKey(old.keyId, ms(60_000), 'local'));
    expect(await stage.check(next.text)).toEqual(next.grant);
    const { account, role } = old;
    expect(next.grant).toMatchObject({ account, role, gateways, ...terms, strict: true });
    expect(next.oldUntilMs).toBe(nowMs + 60_000);
    expect((await run(desk.key(old.keyId))).revoked).toEqual({ fromMs: next.oldUntilMs, cut: false });
    const { keyId } = next.grant;
    expect(await run(desk.key(keyId))).toMatchObject({ made: { replaces: old.keyId, terms }, name: userKey.name });
    expect(linesOf(noted)).toEqual([
      ['key.rotate', `key:${keyId}`, 'done'],
      ['key.revoke', `key:${old.keyId}`, 'done'],
    ]);
  });

  test('is rotated by one of two who try at once', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run } = stage;
    const { keyId } = (await run(desk.createKey(userKey, 'local'))).grant;
    const both = [desk.rotateKey(keyId, ms(0), 'local'), desk.rotateKey(keyId, ms(0), 'local')];
    const outcomes = await run(Promise.allSettled(both));
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(await run(desk.keys())).toHaveLength(2);
  });

  test('is neither one that was revoked, nor one that has expired', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, fails, mesh } = stage;
    const terms = { ...anyTerms, expiresMs: unixMs(epochMs + 60_000) };
    const { keyId } = (await run(desk.createKey({ ...userKey, terms }, 'local'))).grant;
    await mesh.pass(120_000);
    expect(await fails(() => desk.rotateKey(keyId, ms(0), 'local'))).toMatchObject({ code: 'CONFIG_INVALID' });
    await run(desk.setKey(keyId, anyTerms, 'local'));
    expect(await fails(() => desk.rotateKey(keyId, ms(-1), 'local'))).toMatchObject({ code: 'CONFIG_INVALID' });
    await run(desk.revokeKey(keyId, false, 'local'));
    expect(await fails(() => desk.rotateKey(keyId, ms(0), 'local'))).toMatchObject({ code: 'CONFIG_INVALID' });
    expect(await run(desk.keys())).toHaveLength(1);
  });
});

test('changes of one account that come at once are all kept', async ({ expect }) => {
  await using stage = await openStage();
  const { desk, run, noted } = stage;
  const { account } = await run(desk.createAccount({ name: 'team', limits: { rpm: 1 }, strict: false }, 'local'));
  noted.length = 0;
  await run(
    Promise.all([
      desk.setAccount(account, { limits: { tpm: 7 } }, 'local'),
      desk.setAccount(account, { strict: true }, 'local'),
    ]),
  );
  expect(await run(desk.accounts())).toMatchObject([{ account, limits: { tpm: 7 }, strict: true, name: 'team' }]);
  expect(linesOf(noted)).toEqual(Array(2).fill(['account.set', `account:${account}`, 'done']));
});

describe('what is refused', () => {
  const long = 'x'.repeat(128);
  const badKeys: readonly (readonly [string, Partial<KeyRequest>])[] = [
    ['an empty name', { name: '' }],
    ['a name of 65 characters', { name: 'x'.repeat(65) }],
    ['a name with a control character', { name: 'a\u001b[2J' }],
    ['a name that runs backwards', { name: 'a\u202eb' }],
    ['half a character', { name: '\ud800' }],
    ['an admin for every gateway', { role: 'admin' }],
    ['an operator of two gateways', { role: 'operator', gateways: [gateway, peer('other')] }],
    ['too many gateways', { gateways: Array.from({ length: 17 }, (_, at) => peer(`gateway${at}`)) }],
    ['a gateway that is none', { gateways: ['!' as never] }],
    ['too many patterns', { terms: { models: Array(65).fill('a'), limits: {} } }],
    ['an empty pattern', { terms: { models: [''], limits: {} } }],
    ['a pattern that is too long', { terms: { models: [`${long}x`], limits: {} } }],
    ['a pattern that nobody sees', { terms: { models: ['\u0000'], limits: {} } }],
    ['patterns that no client could send', { terms: { models: Array(64).fill(long), limits: {} } }],
    ['a rate of 0', { terms: { models: [], limits: { rpm: 0 } } }],
    ['a rate that is no integer', { terms: { models: [], limits: { tpm: 1.5 } } }],
    ['an unknown limit', { terms: { models: [], limits: { tps: 1 } as never } }],
    ['too many nodes', { terms: { ...anyTerms, preferences: { nodes: { allow: Array(33).fill(peer('n')) } } } }],
    ['a node that is none', { terms: { ...anyTerms, preferences: { nodes: { deny: ['!' as never] } } } }],
    ['a region that nobody can write', { terms: { ...anyTerms, preferences: { region: 'EU central' } } }],
    ['no moment', { terms: { ...anyTerms, expiresMs: unixMs(Number.NaN) } }],
    ['a moment after all dates', { terms: { ...anyTerms, expiresMs: unixMs(8_640_000_000_000_001) } }],
  ];
  test('of keys, before anything is written', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, fails, site, noted } = stage;
    for (const [what, change] of badKeys) {
      const refusal = await fails(() => desk.createKey({ ...userKey, ...change }, 'local'));
      expect(refusal, what).toMatchObject({ code: 'CONFIG_INVALID' });
    }
    expect([site.ledger.status().blocks, noted]).toEqual([0, []]);
    expect(await diskOf(stage, 'name/')).toHaveLength(0);
  });

  test('of terms and accounts', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, fails } = stage;
    const { grant } = await run(desk.createKey(userKey, 'local'));
    const wide = { models: Array.from({ length: 64 }, () => '語'.repeat(128)), limits: {} };
    const refusals = [
      await fails(() => desk.setKey(grant.keyId, wide, 'local')),
      await fails(() => desk.setKey(grant.keyId, { models: [], limits: { rpm: -1 } }, 'local')),
      await fails(() => desk.createAccount({ name: 'x', limits: { rpm: 2 ** 31 }, strict: false }, 'local')),
      await fails(() => desk.createAccount({ name: ' \n', limits: {}, strict: false }, 'local')),
      await fails(() => desk.setAccount(grant.account, { limits: { concurrency: 0 } }, 'local')),
      await fails(() => desk.ban('nobody at all' as never, 'local')),
    ];
    expect(refusals).toEqual(refusals.map(() => expect.objectContaining({ code: 'CONFIG_INVALID' })));
    expect(await run(desk.key(grant.keyId))).not.toHaveProperty('terms');
  });

  test('of invites', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, fails, deskWith } = stage;
    const ask = (change: Partial<InviteRequest>, from = desk): Promise<unknown> =>
      fails(() => from.createInvite({ ...nodeInvite, ...change }, 'local'));
    const contact = nodeInvite.gateways[0] as (typeof nodeInvite.gateways)[0];
    const refusals = [
      await ask({ uses: 0 }),
      await ask({ uses: 0, role: 'gateway' }, deskWith({}, true)),
      await ask({ uses: -1 }),
      await ask({ uses: 1.5 }),
      await ask({ uses: 10_001 }),
      await ask({ owner: 'not a label' as OwnerId }),
      await ask({ ttl: ms(999) }),
      await ask({ ttl: ms(Number.POSITIVE_INFINITY) }),
      await ask({ gateways: Array(9).fill(contact) }),
      await ask({ gateways: [{ ...contact, addresses: [] }] }),
      await ask({ gateways: [{ ...contact, addresses: Array(5).fill('/ip4/127.0.0.1/tcp/1') }] }),
    ];
    expect(refusals).toEqual(refusals.map(() => expect.objectContaining({ code: 'CONFIG_INVALID' })));
    expect(await ask({ gateways: [] })).toEqual({ code: 'GATEWAY_UNKNOWN' });
    const addresses = Array.from({ length: 4 }, (_, at) => `/dns4/${'a'.repeat(240)}${at}/tcp/1`);
    const wide = Array.from({ length: 8 }, (_, at) => ({ peer: peer(`gateway${at}`), addresses }));
    expect(await ask({ gateways: wide })).toMatchObject({ code: 'INVITE_INVALID' });
  });

  test('is everything about keys, accounts and bans that this issuer does not know', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, fails, noted } = stage;
    const account = 'acct-none' as AccountId;
    const refusals = [
      await fails(() => desk.key(nobodysKey)),
      await fails(() => desk.setKey(nobodysKey, anyTerms, 'local')),
      await fails(() => desk.rotateKey(nobodysKey, ms(0), 'local')),
      await fails(() => desk.revokeKey(nobodysKey, true, 'local')),
      await fails(() => desk.setAccount(account, { strict: true }, 'local')),
      await fails(() => desk.createKey({ ...userKey, account }, 'local')),
      await fails(() => desk.unban(gateway, 'local')),
    ];
    expect(refusals.map((refusal) => (refusal as { code: string }).code)).toEqual(Array(7).fill('SUBJECT_UNKNOWN'));
    expect(noted).toEqual([]);
  });
});

describe('when nothing can be written', () => {
  const failing = (error: HelixFlowError, { ledger }: Site): Partial<DeskDeps> => ({
    ledger: {
      standing: ledger.standing,
      heads: () => [],
      read: () => Promise.resolve([]),
      roots: ledger.roots,
      authorsOf: (issuer) => ledger.authorsOf(issuer),
      append: () => Promise.reject(error),
    },
  });

  test.for([
    new HelixFlowError('STORE_FAILED', { reason: 'full' }),
    new HelixFlowError('FEED_FROZEN', { author: 'ab'.repeat(32) }),
    new HelixFlowError('LEDGER_UNREADY', { reason: 'it is closing' }),
  ])('nothing is handed out, no name stays, and the audit log hears why', async (error, { expect }) => {
    await using stage = await openStage();
    const { desk, run, fails, noted, site, deskWith } = stage;
    const { grant } = await run(desk.createKey(userKey, 'local'));
    await run(site.ledger.append('issuer', [banOf(gateway)]));
    const names = await diskOf(stage, 'name/');
    noted.length = 0;
    const broken = deskWith(failing(error, site));
    const { keyId, account } = grant;
    const acts: (() => Promise<unknown>)[] = [
      () => broken.createKey(userKey, 'local'),
      () => broken.createKey({ ...userKey, account }, 'local'),
      () => broken.createAccount({ name: 'x', limits: {}, strict: false }, 'local'),
      () => broken.setAccount(account, { strict: true }, 'local'),
      () => broken.setKey(keyId, anyTerms, 'local'),
      () => broken.rotateKey(keyId, ms(0), 'local'),
      () => broken.revokeKey(keyId, false, 'local'),
      () => broken.ban(peer('mallory'), 'local'),
      () => broken.unban(gateway, 'local'),
    ];
    for (const act of acts) expect(await fails(act)).toMatchObject({ code: error.code });
    expect(noted.map(({ action, outcome, reason }) => [action, outcome, reason])).toEqual(
      [
        ...['account.create', 'key.create', 'key.create', 'account.create', 'account.set', 'key.set'],
        ...['key.rotate', 'key.revoke', 'key.revoke', 'member.ban', 'member.unban'],
      ].map((action) => [action, 'failed', error.code]),
    );
    expect(await diskOf(stage, 'name/')).toEqual(names);
    expect(await run(desk.keys())).toHaveLength(1);
  });

  test('of a disk that fails nothing is handed out either', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, fails, site, noted } = stage;
    await run(desk.createKey(userKey, 'local'));
    noted.length = 0;
    site.machine.disk.faults.isFull = true;
    expect(await fails(() => desk.createKey(userKey, 'local'))).toMatchObject({ code: 'STORE_FAILED' });
    expect(noted.map(({ outcome, reason }) => [outcome, reason])).toEqual(Array(2).fill(['failed', 'STORE_FAILED']));
  });
});
