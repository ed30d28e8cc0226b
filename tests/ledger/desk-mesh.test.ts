/** The desk's bans and invites, what becomes of it after a handover, and how it fares with many keys. */

import { describe, test } from 'vitest';
import { authorIdOf } from '../../ledger/block.ts';
import type { Entry } from '../../ledger/entry.ts';
import { createNames, type Names } from '../../ledger/names.ts';
import { createStanding } from '../../ledger/standing.ts';
import { keyOf } from '../../ledger/succession.ts';
import { issuerIdOf, type KeyGrant, signCertificate } from '../../protocol/grants.ts';
import type { AccountId, AuthorId, EpochId, IssuerId, KeyId } from '../../protocol/ids.ts';
import { checkInvite } from '../../protocol/invites.ts';
import { createIdentity } from '../../protocol/mesh.ts';
import { signRevocation } from '../../protocol/root-tokens.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { seededRandom } from '../protocol/mesh-fixture.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { anyTerms, gateway, linesOf, nobodysKey, nodeInvite, openStage, type Stage, userKey } from './desk-stage.ts';
import { banOf } from './mesh-stage.ts';

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
        heads: () => [],
        read: () => Promise.resolve([]),
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
      heads: () => [],
      read: () => Promise.resolve([]),
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
