/** What an issuer's desk does with money, and with what is told of accounts: budgets, prices, write-offs, exports, erasure. */

import { describe, test } from 'vitest';
import { keyLedgerOf } from '../../gateway/access/key-ledger.ts';
import { createOwners } from '../../gateway/admin/owners.ts';
import { authorIdOf } from '../../ledger/block.ts';
import type { OpenLease, PriceRequest } from '../../ledger/desk.ts';
import { type Entry, parseEntry } from '../../ledger/entry.ts';
import { type Budget, budgetMaxMicro, type PriceEntry } from '../../ledger/money.ts';
import { maxPriceMicro } from '../../ledger/price.ts';
import { createTags } from '../../ledger/tag-keys.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { AccountId, EpochId, LeaseId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { createIdentity } from '../../protocol/mesh.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { peer, seededRandom } from '../protocol/mesh-fixture.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { anyTerms, diskOf, linesOf, openStage, type Stage, userKey } from './desk-stage.ts';

const monthly: Budget = { amountMicro: 10_000_000, period: 'month' };
const team = { name: 'Zoë’s team', limits: { rpm: 5 }, strict: false };
const price: PriceRequest = { model: 'qwen3', prompt: 150_000, cached: 75_000, completion: 600_000, fromMs: undefined };
const lease: OpenLease = {
  lease: '1e'.repeat(16) as LeaseId,
  epoch: 'e0'.repeat(16) as EpochId,
  amountMicro: 1_000_000,
  spentMicro: 250_000,
};

/** What the issuer's feed holds, but for who writes it. */
async function written({ run, site, mesh }: Stage): Promise<Entry[]> {
  const by = authorIdOf(mesh.mesh.issuer.key.publicKey);
  const told: Entry[] = [];
  for (const { author, epoch, number } of site.ledger.heads()) {
    if (author !== by) continue;
    for (const block of await run(site.ledger.read(author, epoch, 0, (number + 1) * limits.blockMaxBytes))) {
      if ('entries' in block) told.push(...block.entries.map(parseEntry));
    }
  }
  return told.filter(({ kind }) => kind !== 'author');
}

describe('a budget', () => {
  test('is an account’s from its beginning, or set and taken away later', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, noted } = stage;
    const made = await run(desk.createAccount({ ...team, budget: monthly }, 'local'));
    expect(made).toMatchObject({ limits: { rpm: 5 }, budget: monthly });
    const { account } = made;
    await run(desk.setAccount(account, { strict: true }, 'local'));
    expect(await run(desk.accounts())).toMatchObject([{ account, strict: true, budget: monthly }]);
    const daily: Budget = { amountMicro: 0, period: 'day' };
    expect(await run(desk.setAccount(account, { budget: daily }, 'local'))).toMatchObject({ budget: daily });
    const none = await run(desk.setAccount(account, { budget: null }, 'local'));
    expect(none).not.toHaveProperty('budget');
    expect(none).toMatchObject({ limits: { rpm: 5 }, strict: true });
    expect(linesOf(noted).map(([action]) => action)).toEqual(['account.create', ...Array(3).fill('account.set')]);
    expect((await written(stage)).map((entry) => (entry.kind === 'account' ? entry.budget : entry))).toEqual([
      monthly,
      monthly,
      daily,
      undefined,
    ]);
  });

  test('stays with an account that a new issuer takes over', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, mesh, site } = stage;
    const { account } = await run(desk.createAccount({ ...team, budget: monthly }, 'local'));
    const entries: Entry[] = [];
    const other = createIdentity(seededRandom('successor'));
    const heir = stage.deskWith({
      ledger: {
        standing: site.ledger.standing,
        roots: site.ledger.roots,
        authorsOf: () => [mesh.issuer, authorIdOf(other.publicKey)],
        heads: () => [],
        read: () => Promise.resolve([]),
        append: async (_, appended) => {
          entries.push(...appended);
          return [];
        },
      },
    });
    await run(heir.setAccount(account, { limits: { rpm: 9 } }, 'local'));
    expect(entries).toEqual([{ kind: 'account', account, limits: { rpm: 9 }, strict: false, budget: monthly }]);
  });

  test.for([
    { amountMicro: -1, period: 'month' },
    { amountMicro: 0.5, period: 'month' },
    { amountMicro: budgetMaxMicro + 1, period: 'total' },
    { amountMicro: Number.NaN, period: 'day' },
    { amountMicro: 1, period: 'week' },
  ])('is not %j', async (budget, { expect }) => {
    await using stage = await openStage();
    const { desk, run, fails } = stage;
    const { account } = await run(desk.createAccount(team, 'local'));
    const before = await written(stage);
    const refusals = [
      await fails(() => desk.createAccount({ ...team, budget: budget as Budget }, 'local')),
      await fails(() => desk.setAccount(account, { budget: budget as Budget }, 'local')),
    ];
    expect(refusals).toEqual(Array(2).fill(expect.objectContaining({ code: 'CONFIG_INVALID' })));
    expect(await written(stage)).toEqual(before);
  });
});

describe('a price', () => {
  test('is an entry with an id of its own, from now or from a moment to come', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, noted } = stage;
    const nowMs = stage.site.ports.clock.wallMs();
    const first = await run(desk.setPrice(price, 'key:00000000000000aa'));
    const later = unixMs(nowMs + 86_400_000);
    const node = peer('node');
    const second = await run(desk.setPrice({ ...price, model: '*', node, fromMs: later }, 'local'));
    const { fromMs: _, ...numbers } = price;
    expect(first).toEqual({ kind: 'price', id: expect.stringMatching(/^[0-9a-f]{16}$/), ...numbers, fromMs: nowMs });
    expect(second).toMatchObject({ model: '*', node, fromMs: later });
    expect(second.id).not.toBe(first.id);
    expect(await written(stage)).toEqual([first, second] satisfies PriceEntry[]);
    expect(noted.map(({ action, object, actor }) => [action, object, actor])).toEqual([
      ['price.set', `price:${first.id}`, 'key:00000000000000aa'],
      ['price.set', `price:${second.id}`, 'local'],
    ]);
  });

  test.for([
    ['of no model', { model: '' }],
    ['of a pattern', { model: 'qwen*' }],
    ['of a model that nobody sees', { model: '\u0000' }],
    ['of a name that is too long', { model: 'm'.repeat(limits.modelNameMaxChars + 1) }],
    ['of a node that is none', { node: '!' as never }],
    ['below nothing', { prompt: -1 }],
    ['of a fraction', { completion: 0.5 }],
    ['that nobody believes', { cached: maxPriceMicro + 1 }],
    ['for work that was done', { fromMs: unixMs(epochMs - 120_000) }],
    ['from no moment', { fromMs: unixMs(Number.NaN) }],
  ] as const)('%s is refused', async ([, change], { expect }) => {
    await using stage = await openStage();
    const { desk, fails, noted } = stage;
    const refusal = await fails(() => desk.setPrice({ ...price, ...change } as PriceRequest, 'local'));
    expect(refusal).toMatchObject({ code: 'CONFIG_INVALID' });
    expect([await written(stage), noted]).toEqual([[], []]);
  });
});

describe('a write-off', () => {
  test('names the lease and its run, and what was spent: what its lines come to, unless it is said', async ({
    expect,
  }) => {
    await using stage = await openStage();
    const { run, noted } = stage;
    const desk = stage.deskWith({ openLease: (asked) => (asked === lease.lease ? lease : undefined) });
    const entry = { kind: 'writeoff', lease: lease.lease, epoch: lease.epoch } as const;
    expect(await run(desk.writeOff(lease.lease, undefined, 'local'))).toEqual({ ...entry, spentMicro: 250_000 });
    expect(await run(desk.writeOff(lease.lease, 1_000_000, 'local'))).toEqual({ ...entry, spentMicro: 1_000_000 });
    expect(linesOf(noted)).toEqual(Array(2).fill(['lease.writeoff', `lease:${lease.lease}`, 'done']));
    expect(await written(stage)).toHaveLength(2);
  });

  test('is of an open lease, and of no more than it was given for', async ({ expect }) => {
    await using stage = await openStage();
    const { fails } = stage;
    const desk = stage.deskWith({ openLease: (asked) => (asked === lease.lease ? lease : undefined) });
    const other = '2e'.repeat(16) as LeaseId;
    expect(await fails(() => desk.writeOff(other, undefined, 'local'))).toEqual({
      code: 'LEASE_UNKNOWN',
      lease: other,
    });
    const elsewhere = await fails(() => stage.desk.writeOff(lease.lease, 0, 'local'));
    expect(elsewhere).toEqual({ code: 'LEASE_UNKNOWN', lease: lease.lease });
    for (const spent of [-1, 0.5, 1_000_001]) {
      expect(await fails(() => desk.writeOff(lease.lease, spent, 'local'))).toMatchObject({ code: 'CONFIG_INVALID' });
    }
    expect(await written(stage)).toEqual([]);
  });
});

describe('an account that is erased', () => {
  async function erased(stage: Stage) {
    const { desk, run } = stage;
    const { account } = await run(desk.createAccount({ ...team, budget: monthly }, 'local'));
    const keys = [];
    for (const name of ['Zoë’s laptop', 'Zoë’s server']) {
      keys.push((await run(desk.createKey({ ...userKey, name, account }, 'local'))).grant);
    }
    const rotated = (await run(desk.rotateKey(keys[0]?.keyId as never, ms(86_400_000), 'local'))).grant;
    const beside = (await run(desk.createKey({ ...userKey, name: 'kept' }, 'local'))).grant;
    stage.noted.length = 0;
    const told = await run(desk.eraseAccount(account, 'key:00000000000000aa'));
    return { account, keys: [...keys, rotated], beside, told };
  }

  test('is closed, with every key that it ever had, and others are not', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, site, noted } = stage;
    const { account, keys, beside, told } = await erased(stage);
    const ids = keys.map(({ keyId }) => keyId);
    expect({ ...told, keys: [...told.keys].sort() }).toEqual({ account, keys: [...ids].sort() });
    const ledger = keyLedgerOf(site.ledger);
    expect(ledger.account(account, desk.issuer)).toMatchObject({ isErased: true });
    const nowMs = site.ports.clock.wallMs();
    for (const { keyId, issuer } of keys) {
      const revoked = ledger.key(keyId, issuer)?.revoked;
      expect(revoked).toMatchObject({ cut: true });
      expect(revoked?.fromMs).toBeLessThanOrEqual(nowMs - limits.clockSkewMaxMs);
    }
    expect(ledger.key(beside.keyId, desk.issuer)?.revoked).toBeUndefined();
    expect(ledger.account(beside.account, desk.issuer)).not.toHaveProperty('isErased');
    expect(await run(desk.key(beside.keyId))).toMatchObject({ name: 'kept' });
    expect(linesOf(noted).map(([action]) => action)).toEqual([...Array(3).fill('key.revoke'), 'account.erase']);
    expect(noted.every(({ actor }) => actor === 'key:00000000000000aa')).toBe(true);
  });

  test('has no name any more, nor have its keys, anywhere on the disk', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run } = stage;
    const { account } = await erased(stage);
    expect((await run(desk.accounts())).find((each) => each.account === account)?.name).toBeUndefined();
    const disk = await diskOf(stage, '');
    expect(['Zoë', 'team', 'laptop', 'server', 'kept', account].map((text) => disk.includes(text))).toEqual([
      ...Array(4).fill(false),
      true,
      true,
    ]);
  });

  test('is closed at every gateway, none of which can tell it any more', async ({ expect }) => {
    await using stage = await openStage();
    const { mesh, run, desk } = stage;
    const other = await mesh.add('gateway');
    await mesh.link(other, stage.site);
    const { account } = await run(desk.createAccount(team, 'local'));
    const { keyId } = (await run(desk.createKey({ ...userKey, account }, 'local'))).grant;
    const { standing } = other.ledger;
    await mesh.until(() => standing.key(keyId, mesh.issuer) !== undefined);
    const tags = createTags({ ...other.ports, store: new MemoryStore() });
    await run(tags.open());
    const today = Math.floor(other.ports.clock.wallMs() / 86_400_000);
    await run(tags.draw(desk.issuer, [today]));
    const caller = tags.callerOf({ issuer: desk.issuer, account, key: keyId }, other.ports.clock.wallMs());
    const owners = createOwners({ tags, standing, clock: other.ports.clock, self: other.author });
    const row = { tagDay: caller.day, account: caller.account, key: caller.key, gateway: other.author };
    const told = async () => {
      await run(owners.learn([row]));
      return [owners.accountOf(row), owners.keyOf(row)];
    };
    expect(await told()).toEqual([account, keyId]);
    await run(desk.eraseAccount(account, 'local'));
    await mesh.until(() => standing.account(account, mesh.issuer)?.isErased === true);
    expect(await told()).toEqual([undefined, undefined]);
    const ledger = keyLedgerOf(other.ledger);
    expect(ledger.key(keyId, desk.issuer)?.revoked).toMatchObject({ cut: true });
    const disks = [await diskOf(stage, ''), await diskOf({ ...stage, site: other }, '')];
    for (const disk of disks) expect(['Zoë', 'team', 'laptop'].some((text) => disk.includes(text))).toBe(false);
    await run(tags.close());
  });

  test('is never opened again, has no new keys, and is erased once more without another entry', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, fails } = stage;
    const { account, keys } = await erased(stage);
    const before = await written(stage);
    const refusals = [
      await fails(() => desk.setAccount(account, { strict: true }, 'local')),
      await fails(() => desk.createKey({ ...userKey, account }, 'local')),
      await fails(() => desk.rotateKey(keys[1]?.keyId as never, ms(0), 'local')),
    ];
    expect(refusals).toEqual(Array(3).fill(expect.objectContaining({ code: 'CONFIG_INVALID' })));
    await run(desk.rename(`account:${account}`, 'Zoë again', 'local'));
    await run(desk.eraseAccount(account, 'local'));
    expect(await written(stage)).toEqual(before);
    expect((await diskOf(stage, 'name/')).includes('again')).toBe(false);
    const unknown = await fails(() => desk.eraseAccount('acct-nobody' as AccountId, 'local'));
    expect(unknown).toMatchObject({ code: 'SUBJECT_UNKNOWN' });
  });

  test('keeps its names where the feed cannot be written, so that it can be tried again', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, fails, site, noted } = stage;
    const { account } = await run(desk.createAccount(team, 'local'));
    noted.length = 0;
    const frozen = new HelixFlowError('FEED_FROZEN', { author: 'ab'.repeat(32) });
    const { ledger } = site;
    const stuck = stage.deskWith({
      ledger: {
        standing: ledger.standing,
        roots: ledger.roots,
        authorsOf: (issuer) => ledger.authorsOf(issuer),
        heads: () => ledger.heads(),
        read: (...asked) => ledger.read(...asked),
        append: () => Promise.reject(frozen),
      },
    });
    expect(await fails(() => stuck.eraseAccount(account, 'local'))).toMatchObject({ code: 'FEED_FROZEN' });
    expect(linesOf(noted)).toEqual([['account.erase', `account:${account}`, 'failed']]);
    expect(await run(desk.accounts())).toMatchObject([{ account, name: team.name }]);
  });

  test('with hundreds of keys is closed all the same', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, site } = stage;
    const { account } = await run(desk.createAccount(team, 'local'));
    const made = await run(
      Promise.all(Array.from({ length: 300 }, () => desk.createKey({ ...userKey, account, terms: anyTerms }, 'local'))),
    );
    const { keys } = await run(desk.eraseAccount(account, 'local'));
    expect(keys).toHaveLength(300);
    const ledger = keyLedgerOf(site.ledger);
    expect(made.every(({ grant }) => ledger.key(grant.keyId, desk.issuer)?.revoked?.cut)).toBe(true);
  });
});

describe('an export', () => {
  test('holds what was written of the account and its keys, and nothing of others', async ({ expect }) => {
    await using stage = await openStage();
    const { desk, run, noted } = stage;
    const { account } = await run(desk.createAccount({ ...team, budget: monthly }, 'local'));
    const { keyId } = (await run(desk.createKey({ ...userKey, account }, 'local'))).grant;
    const { grant: other, text } = await run(desk.createKey({ ...userKey, name: 'other' }, 'local'));
    await run(desk.setKey(keyId, { models: ['b*'], limits: {} }, 'local'));
    await run(desk.revokeKey(other.keyId, false, 'local'));
    await run(desk.setPrice(price, 'local'));
    noted.length = 0;
    const exported = await run(desk.exportAccount(account, 'key:00000000000000aa'));
    expect(exported).toMatchObject({
      account: { account, name: team.name, budget: monthly },
      keys: [{ key: keyId, name: userKey.name }],
      isComplete: true,
    });
    expect(exported.entries.map(({ entry, number }) => [number, entry.kind])).toEqual([
      [0, 'account'],
      [1, 'key'],
      [3, 'terms'],
    ]);
    const json = JSON.stringify(exported);
    expect(json).not.toMatch(new RegExp(`sk-hx|${other.keyId}|${other.account}|${text.slice(-20)}`));
    expect(noted).toMatchObject([
      { action: 'account.export', object: `account:${account}`, actor: 'key:00000000000000aa' },
    ]);
    const unknown = await stage.fails(() => desk.exportAccount('acct-nobody' as AccountId, 'local'));
    expect(unknown).toMatchObject({ code: 'SUBJECT_UNKNOWN' });
  });
});
