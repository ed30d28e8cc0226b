/** The issuer's desk: every step is an entry before anything leaves, within its bounds, and told to the audit log. */

import { describe, test } from 'vitest';
import type { AuditRecord } from '../../ledger/audit.ts';
import { authorIdOf } from '../../ledger/block.ts';
import { createDesk, type DeskDeps } from '../../ledger/create-desk.ts';
import type { Desk, InviteRequest, KeyRequest } from '../../ledger/desk.ts';
import type { Entry } from '../../ledger/entry.ts';
import { createNames, type Names } from '../../ledger/names.ts';
import { createStanding } from '../../ledger/standing.ts';
import { keyOf } from '../../ledger/succession.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { checkKey, issuerIdOf, type KeyGrant, signCertificate } from '../../protocol/grants.ts';
import type { AccountId, AuthorId, EpochId, IssuerId, KeyId, OwnerId } from '../../protocol/ids.ts';
import { checkInvite } from '../../protocol/invites.ts';
import { limits } from '../../protocol/limits.ts';
import { createIdentity, type IssuerRecord } from '../../protocol/mesh.ts';
import { signRevocation } from '../../protocol/root-tokens.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { failure, peer, seededRandom } from '../protocol/mesh-fixture.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { banOf, LedgerMesh, type Site } from './mesh-stage.ts';

const gateway = peer('gateway');
const anyTerms = { models: [], limits: {} };
const userKey: KeyRequest = {
  name: 'Zoë’s laptop',
  account: undefined,
  role: 'user',
  terms: anyTerms,
  gateways: [],
};
const nodeInvite: InviteRequest = {
  role: 'node',
  owner: 'alice' as OwnerId,
  uses: 1,
  ttl: ms(3_600_000),
  network: 'lan',
  gateways: [{ peer: gateway, addresses: ['/ip4/127.0.0.1/tcp/4001'] }],
};
const nobodysKey = '00000000000000aa' as KeyId;

interface Stage extends AsyncDisposable {
  readonly mesh: LedgerMesh;
  readonly site: Site;
  readonly desk: Desk;
  readonly names: Names;
  readonly noted: AuditRecord[];
  run<T>(work: Promise<T>): Promise<T>;
  /** Code and details of what the work fails with. */
  fails(work: () => Promise<unknown>): Promise<unknown>;
  /** Another desk of the same issuer, with some of it changed. */
  deskWith(changes: Partial<DeskDeps>, isOpen?: boolean): Desk;
  check(text: string): Promise<KeyGrant>;
}

async function openStage(mesh?: LedgerMesh, issuer?: IssuerRecord): Promise<Stage> {
  const stage = mesh ?? (await LedgerMesh.create());
  const record = issuer ?? stage.mesh.issuer;
  const site = await stage.addIssuer(record);
  const { clock, random, tokens, store } = site.ports;
  const noted: AuditRecord[] = [];
  const audit = { note: (line: AuditRecord) => void noted.push(line) };
  const names = createNames(store);
  const deps: DeskDeps = { ledger: site.ledger, clock, random: random.fork('desk'), tokens, names, audit };
  const options = { mesh: stage.mesh.mesh, issuer: record, isOpen: false };
  const run = <T>(work: Promise<T>): Promise<T> => stage.run(work);
  return {
    ...{ mesh: stage, site, names, noted, run, desk: createDesk(deps, options) },
    fails: (work) => failure(() => run(work())),
    deskWith: (changes, isOpen = false) => createDesk({ ...deps, ...changes }, { ...options, isOpen }),
    check: (text) => {
      const { issuers, meshId } = site.ledger.roots;
      return run(checkKey(text, { tokens, meshId, issuers, nowMs: clock.wallMs() }));
    },
    [Symbol.asyncDispose]: () => (mesh === undefined ? stage[Symbol.asyncDispose]() : Promise.resolve()),
  };
}

/** Everything on the disk of a site, as bytes of rows whose keys begin so. */
async function diskOf({ run, site }: Stage, prefix: string): Promise<Buffer> {
  const read = async (): Promise<Buffer> => {
    const parts: Uint8Array[] = [];
    const range = { gte: new TextEncoder().encode(prefix), lt: new TextEncoder().encode(`${prefix}\uffff`) };
    for await (const [row, value] of site.ports.store.range(range)) parts.push(row, value);
    return Buffer.concat(parts);
  };
  return await run(read());
}

const linesOf = (noted: readonly AuditRecord[]) =>
  noted.map(({ action, object, outcome }) => [action, object, outcome]);

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
    const terms = { models: ['b*'], limits: { concurrency: 2 } };
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

describe('bans', () => {
  test('stand for this issuer even where another one banned before, and one unban ends them all', async ({
    expect,
  }) => {
    await using stage = await openStage();
    const { desk, run, noted, site } = stage;
    const { standing } = site.ledger;
    const author = authorIdOf(stage.mesh.mesh.issuer.key.publicKey);
    const other = 'cd'.repeat(32) as AuthorId;
    const foreign = createStanding(() => true);
    const place = { author: other, epoch: '0a'.repeat(16) as EpochId, generation: 0, number: 0, index: 0 };
    foreign.apply({ entry: banOf(gateway), place: { ...place, timeMs: 0, isAfterFork: false } });
    const appended: Entry[] = [];
    const { ledger } = site;
    const beside = stage.deskWith({
      ledger: {
        standing: foreign,
        roots: ledger.roots,
        authorsOf: (issuer) => ledger.authorsOf(issuer),
        append: async (_, entries) => {
          appended.push(...entries);
          return [];
        },
      },
    });
    await run(beside.ban(gateway, 'local'));
    expect(appended).toMatchObject([{ kind: 'ban', peer: gateway }]);
    noted.length = 0;
    await run(desk.ban(gateway, 'local'));
    await run(desk.ban(gateway, 'local'));
    expect(standing.bans().get(gateway)).toHaveLength(1);
    expect([standing.isBanned(gateway, author), standing.isBanned(gateway, other)]).toEqual([true, false]);
    await run(
      site.ledger.append(
        'issuer',
        Array.from({ length: 150 }, () => banOf(gateway)),
      ),
    );
    expect(standing.bans().get(gateway)).toHaveLength(151);
    await run(desk.unban(gateway, 'local'));
    expect(standing.isBanned(gateway)).toBe(false);
    expect(linesOf(noted)).toEqual([
      ['member.ban', `peer:${gateway}`, 'done'],
      ['member.ban', `peer:${gateway}`, 'done'],
      ['member.unban', `peer:${gateway}`, 'done'],
    ]);
    await run(desk.ban(gateway, 'local'));
    expect(standing.isBanned(gateway)).toBe(true);
  });
});

describe('an invite', () => {
  test('checks as what it was made as, and the audit log hears of its id only', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, noted, site } = stage;
    const { clock, tokens } = site.ports;
    const { token, inviteId, expiresMs } = await run(desk.createInvite({ ...nodeInvite, uses: 3 }, 'local'));
    const invite = await run(checkInvite(token, { tokens, nowMs: clock.wallMs() }));
    const { role, owner, network, gateways } = nodeInvite;
    expect(invite).toMatchObject({ inviteId, role, owner, uses: 3, network, gateways, expiresMs, issuer: desk.issuer });
    expect(linesOf(noted)).toEqual([['invite.create', `invite:${inviteId}`, 'done']]);
    expect(JSON.stringify(noted)).not.toContain(token.slice(-40));
  });

  test('is for any number of nodes of anybody where the mesh is open', async ({ expect }) => {
    await using stage = await openStage();
    const { run, deskWith, site } = stage;
    const { clock, tokens } = site.ports;
    const open = deskWith({}, true);
    const { token } = await run(open.createInvite({ ...nodeInvite, uses: 0, owner: undefined }, 'local'));
    const invite = await run(checkInvite(token, { tokens, nowMs: clock.wallMs() }));
    expect([invite.uses, invite.owner]).toEqual([0, undefined]);
  });

  test('is not made by an issuer that was taken back', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, fails, site, mesh, noted } = stage;
    const { meshId } = mesh.mesh.mesh;
    const signing = { tokens: site.ports.tokens, nowMs: site.ports.clock.wallMs() };
    const token = await run(signRevocation({ meshId, issuer: desk.issuer }, mesh.mesh.root.key, signing));
    await run(site.ledger.roots.take({ kind: 'revocation', token }));
    const retired = { code: 'ISSUER_RETIRED', issuer: desk.issuer, reason: 'revoked' };
    expect(await fails(() => desk.createInvite(nodeInvite, 'local'))).toEqual(retired);
    expect(await fails(() => desk.createKey(userKey, 'local'))).toEqual(retired);
    expect(new Set(noted.map(({ outcome, reason }) => `${outcome} ${reason}`))).toEqual(
      new Set(['failed ISSUER_RETIRED']),
    );
  });
});

describe('after a handover', () => {
  /** A predecessor with a key, its successor, and both ledgers connected. */
  async function handOver(): Promise<{ old: Stage; next: Stage; made: KeyGrant }> {
    const old = await openStage();
    const { mesh, run, desk } = old;
    const { account } = await run(desk.createAccount({ name: 'team', limits: { rpm: 7 }, strict: true }, 'local'));
    const { grant: made } = await run(desk.createKey({ ...userKey, account }, 'local'));
    await run(desk.setKey(made.keyId, { models: ['a'], limits: { tpm: 5 } }, 'local'));
    const key = createIdentity(seededRandom('successor'));
    const { meshId } = mesh.mesh.mesh;
    const succeeds = { issuer: desk.issuer };
    const grant = { meshId, issuer: issuerIdOf(key.publicKey), publicKey: key.publicKey, succeeds };
    const signing = { tokens: old.site.ports.tokens, nowMs: unixMs(epochMs) };
    const certificate = await run(signCertificate(grant, mesh.mesh.root.key, signing));
    const next = await openStage(mesh, { meshId, key, certificate });
    await mesh.link(next.site, old.site);
    await mesh.until(() => next.site.ledger.standing.key(made.keyId, mesh.issuer) !== undefined);
    await mesh.until(() => old.site.ledger.authorsOf(desk.issuer).length === 2);
    return { old, next, made };
  }

  test('the successor shows, sets and revokes the keys it took over, and gateways count that', async ({ expect }) => {
    const { old, next, made } = await handOver();
    await using _ = old;
    const { keyId } = made;
    const { desk, run, site } = next;
    const shown = await run(desk.key(keyId));
    expect(shown).toMatchObject({ key: keyId, made: { account: made.account }, name: undefined });
    const wider = { models: ['b'], limits: {} };
    const set = await run(desk.setKey(keyId, wider, 'local'));
    expect(set).toMatchObject({ by: shown.by, made: shown.made, terms: wider });
    expect(keyOf(site.ledger, keyId, old.desk.issuer)).toMatchObject({ terms: wider });
    const revoked = await run(desk.revokeKey(keyId, true, 'local'));
    expect(revoked).toMatchObject({ terms: wider, revoked: { cut: true } });
    expect(await run(desk.keys())).toEqual([revoked]);
    await next.mesh.until(() => keyOf(old.site.ledger, keyId, old.desk.issuer)?.revoked?.cut === true);
  });

  test('a revocation of the predecessor counts whatever its successor says', async ({ expect }) => {
    const old = await openStage();
    await using _ = old;
    const { grant } = await old.run(old.desk.createKey(userKey, 'local'));
    const { revoked } = await old.run(old.desk.revokeKey(grant.keyId, false, 'local'));
    const [first, second] = ['a1', 'b2'].map((two) => two.repeat(32) as AuthorId) as [AuthorId, AuthorId];
    const standing = createStanding(() => true);
    const place = { epoch: '0a'.repeat(16) as EpochId, generation: 0, number: 0, index: 0, isAfterFork: false };
    const key = nobodysKey;
    const told: readonly (readonly [AuthorId, Entry])[] = [
      [first, { kind: 'revoke', key, fromMs: unixMs(5), cut: false }],
      [second, { kind: 'revoke', key, fromMs: unixMs(9), cut: true }],
      [second, { kind: 'terms', key, terms: { models: ['*'], limits: {} } }],
    ];
    for (const [number, [author, entry]] of told.entries()) {
      standing.apply({ entry, place: { ...place, author, number, timeMs: number } });
    }
    const ledger = { standing, authorsOf: () => [first, second] };
    expect(keyOf(ledger, key, 'ab'.repeat(16) as IssuerId)).toEqual({
      ...{ key, by: first, terms: { models: ['*'], limits: {} } },
      revoked: { fromMs: 5, cut: true },
    });
    expect(revoked?.cut).toBe(false);
  });

  test('a rotated key is the successor’s own, and its account is told of in the successor’s feed', async ({
    expect,
  }) => {
    const { old, next, made } = await handOver();
    await using _ = old;
    const { desk, run, site, mesh } = next;
    const { text, grant } = await run(desk.rotateKey(made.keyId, ms(1_000), 'local'));
    expect(await next.check(text)).toEqual(grant);
    expect(grant).toMatchObject({ issuer: desk.issuer, account: made.account, strict: true });
    const [own] = site.ledger.authorsOf(desk.issuer) as [AuthorId];
    expect(site.ledger.standing.account(made.account, own)).toMatchObject({ limits: { rpm: 7 }, strict: true });
    const keys = await run(desk.keys());
    expect(keys.map(({ key, by }) => [key, by])).toEqual([
      [made.keyId, mesh.issuer],
      [grant.keyId, own],
    ]);
    const set = await run(desk.setAccount(made.account, { limits: { rpm: 1 } }, 'local'));
    expect(set).toMatchObject({ limits: { rpm: 1 }, strict: true, by: mesh.issuer });
    expect(await run(desk.accounts())).toEqual([set]);
    expect((await run(desk.createKey({ ...userKey, account: made.account }, 'local'))).grant.strict).toBe(true);
  });

  test('the predecessor’s desk makes and changes nothing more', async ({ expect }) => {
    const { old, made } = await handOver();
    await using _ = old;
    const { desk, fails } = old;
    const retired = { code: 'ISSUER_RETIRED', issuer: desk.issuer, reason: 'succeeded' };
    expect(await fails(() => desk.createKey(userKey, 'local'))).toEqual(retired);
    expect(await fails(() => desk.setKey(made.keyId, anyTerms, 'local'))).toEqual(retired);
    expect(await fails(() => desk.createInvite(nodeInvite, 'local'))).toEqual(retired);
  });

  test('the key of an issuer that stands in no line with this one is unknown here', async ({ expect }) => {
    const old = await openStage();
    await using _ = old;
    const { mesh, run, desk } = old;
    const { grant: made } = await run(desk.createKey(userKey, 'local'));
    const key = createIdentity(seededRandom('stranger'));
    const { meshId } = mesh.mesh.mesh;
    const grant = { meshId, issuer: issuerIdOf(key.publicKey), publicKey: key.publicKey };
    const signing = { tokens: old.site.ports.tokens, nowMs: unixMs(epochMs) };
    const certificate = await run(signCertificate(grant, mesh.mesh.root.key, signing));
    const other = await openStage(mesh, { meshId, key, certificate });
    await mesh.link(other.site, old.site);
    await mesh.until(() => other.site.ledger.standing.key(made.keyId, mesh.issuer) !== undefined);
    expect(await other.fails(() => other.desk.key(made.keyId))).toMatchObject({ code: 'SUBJECT_UNKNOWN' });
    expect(await other.fails(() => other.desk.revokeKey(made.keyId, true, 'local'))).toMatchObject({
      code: 'SUBJECT_UNKNOWN',
    });
    expect([await run(other.desk.keys()), await run(other.desk.accounts())]).toEqual([[], []]);
  });
});

test('ten thousand keys and accounts are listed with one look at the store for their names', async ({ expect }) => {
  await using stage = await openStage();
  const { mesh, site } = stage;
  const standing = createStanding(() => true);
  const store = new MemoryStore();
  const names = createNames(store);
  const place = { author: mesh.issuer, epoch: '0a'.repeat(16) as EpochId, generation: 0, index: 0, isAfterFork: false };
  for (let number = 0; number < 10_000; number += 1) {
    const id = number.toString(16).padStart(16, '0');
    const [key, account] = [id as KeyId, `acct-${id}` as AccountId];
    const made: Entry = { kind: 'key', key, account, role: 'user', gateways: [], terms: anyTerms };
    standing.apply({ entry: made, place: { ...place, number, timeMs: number } });
    const opened: Entry = { kind: 'account', account, limits: {}, strict: false };
    standing.apply({ entry: opened, place: { ...place, number, index: 1, timeMs: number } });
    await names.give(`key:${id}`, `key ${number}`);
    await names.give(`account:acct-${id}`, `account ${number}`);
  }
  let looks = 0;
  const counted: Names = {
    ...names,
    of: (thing) => {
      looks += 1;
      return names.of(thing);
    },
    all: (kind) => {
      looks += 1;
      return names.all(kind);
    },
  };
  const { ledger } = site;
  const desk = stage.deskWith({
    names: counted,
    ledger: {
      standing,
      roots: ledger.roots,
      authorsOf: (issuer) => ledger.authorsOf(issuer),
      append: (as, entries) => ledger.append(as, entries),
    },
  });
  const [keys, accounts] = [await desk.keys(), await desk.accounts()];
  expect([keys.length, accounts.length, looks]).toEqual([10_000, 10_000, 2]);
  expect(keys[9_999]).toMatchObject({ key: '000000000000270f', name: 'key 9999' });
  expect(accounts[7]).toMatchObject({ account: 'acct-0000000000000007', name: 'account 7' });
});
