/** Usage for operators: whom tags stand for, sums that add up, names for those whom they are for, and its bounds. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { runOperation } from '../../../gateway/admin/operations.ts';
import { createOwners, type Tagged } from '../../../gateway/admin/owners.ts';
import { groupUsage, sumsOf } from '../../../gateway/admin/usage-rows.ts';
import type { Named } from '../../../ledger/desk.ts';
import type { AccountStanding, KeyStanding, Standing } from '../../../ledger/standing.ts';
import { addCounts, noCounts, type UsageDimension, type UsageRow, usageDimensions } from '../../../ledger/usage.ts';
import { fromHex } from '../../../protocol/crypto.ts';
import type { AccountId, AuthorId, KeyId, Tag } from '../../../protocol/ids.ts';
import { peerIdOf } from '../../../protocol/peer/identity.ts';
import { unixMs } from '../../../protocol/units.ts';
import { failure } from '../../protocol/mesh-fixture.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import '../../support/seed.ts';
import { grantOf, otherIssuer, stage } from './fakes.ts';
import { counts, dayMs, gateways, node, recordsStage, sheet } from './records-stage.ts';

const by = 'a1'.repeat(32) as AuthorId;
const first = 'acc-0' as AccountId;
const [key0, key1] = ['0000000000000000', '0000000000000001'] as KeyId[] as [KeyId, KeyId];
const operator = grantOf('operator');

/** An account with two keys, and what the second account is. */
async function opened() {
  const made = stage();
  await made.desk.createAccount({ name: 'team', limits: {}, strict: false }, 'local');
  const terms = { models: [], limits: {} };
  for (const name of ['laptop', 'server']) {
    await made.desk.createKey({ name, account: first, role: 'user', terms, gateways: [] }, 'local');
  }
  const { standing } = made.context.ledger;
  const records = await recordsStage(standing, by, made.clock);
  return { ...made, ...records, context: { ...made.context, records: records.records } };
}

const row = (changes: object = {}) => ({ ...sumsOf(counts()), ...changes });

describe('usage', () => {
  test('is one sum where nothing tells rows apart', async ({ expect }) => {
    const { context, use } = await opened();
    use({ account: first, key: key0 });
    use({ account: first, key: key1, daysAgo: 2, counts: { gatewayMicro: 7, refused: 1 } });
    expect(await runOperation('usage.show', context, {}, operator)).toEqual({
      data: [],
      hasMore: false,
      total: sumsOf(addCounts(counts(), counts({ gatewayMicro: 7, refused: 1 }))),
      newestMs: 1_700_000_000_000,
    });
  });

  test('tells accounts and keys by their ids and names, over all days and gateways', async ({ expect }) => {
    const { context, use } = await opened();
    use({ account: first, key: key0 });
    use({ account: first, key: key0, daysAgo: 1, gateway: gateways[1] });
    use({ account: first, key: key1 });
    const byAccount = await runOperation('usage.show', context, { by: 'account' }, operator);
    const three = addCounts(addCounts(counts(), counts()), counts());
    expect(byAccount.data).toEqual([{ id: first, account: first, accountName: 'team', ...sumsOf(three) }]);
    const byKey = await runOperation('usage.show', context, { by: ['key', 'key'] }, operator);
    expect(byKey.data).toEqual([
      { id: key0, key: key0, keyName: 'laptop', ...sumsOf(addCounts(counts(), counts())) },
      { id: key1, key: key1, keyName: 'server', ...row() },
    ]);
  });

  test('of whom nobody can tell stands under a tag', async ({ expect }) => {
    const { context, use, usage } = await opened();
    use({ account: first, key: key0, isOwnTag: true });
    use({ account: first, key: key0, isOwnTag: true, gateway: gateways[1] });
    use({ account: 'acc-gone' as AccountId, key: key1 });
    const { data } = await runOperation('usage.show', context, { by: 'account' }, operator);
    const tags = usage.all.slice(1).map(([{ account }]) => account);
    expect(data).toEqual([
      ...tags.toSorted().map((tag) => ({ id: `(${tag})`, accountTag: tag, ...row() })),
      { id: first, account: first, accountName: 'team', ...row() },
    ]);
  });

  test('keeps names from those whom the issuer does not answer to', async ({ expect }) => {
    const { context, use } = await opened();
    use({ account: first, key: key0 });
    const rival = grantOf('operator', { issuer: otherIssuer });
    const { data } = await runOperation('usage.show', context, { by: 'account,key' }, rival);
    expect(data).toEqual([{ id: `${first}/${key0}`, account: first, key: key0, ...row() }]);
    const elsewhere = await runOperation('usage.show', { ...context, desk: undefined }, { by: 'account' }, 'local');
    expect(elsewhere.data).toEqual([{ id: first, account: first, ...row() }]);
  });

  test('tells days, models, nodes and gateways apart, in this order', async ({ expect }) => {
    const { context, use, clock } = await opened();
    use({ account: first, key: key0 });
    use({ account: first, key: key0, daysAgo: 1, model: 'a/b c', gateway: gateways[1] });
    const today = Math.floor(clock.wallMs() / dayMs) * dayMs;
    const [own, next] = gateways.map((author) => peerIdOf(fromHex(author)));
    const { data } = await runOperation('usage.show', context, { by: 'day,model,node,gateway' }, operator);
    expect(data).toEqual([
      {
        id: `${today - dayMs}/a%2Fb%20c/${node}/${next}`,
        dayMs: today - dayMs,
        model: 'a/b c',
        node,
        gateway: next,
        ...row(),
      },
      { id: `${today}/qwen3/${node}/${own}`, dayMs: today, model: 'qwen3', node, gateway: own, ...row() },
    ]);
  });

  test('comes in pages, each row once, with the sum of all on each', async ({ expect }) => {
    const { context, use } = await opened();
    for (let daysAgo = 0; daysAgo < 5; daysAgo += 1) use({ account: first, key: key0, daysAgo });
    const ids: string[] = [];
    for (let after: string | undefined; ; ) {
      const input = { by: 'day', limit: 2, ...(after === undefined ? {} : { after }) };
      const { data, hasMore, total } = await runOperation('usage.show', context, input, operator);
      expect(total.requests).toBe(5);
      ids.push(...data.map(({ id }) => id));
      after = data.at(-1)?.id;
      if (!hasMore) break;
    }
    expect(ids).toEqual([...new Set(ids)].toSorted());
    expect(ids).toHaveLength(5);
  });

  test('is filtered by whole days, account, key, model and node', async ({ expect }) => {
    const { context, use, usage, clock, desk } = await opened();
    for (const daysAgo of [0, 1, 2]) use({ account: first, key: key0, daysAgo });
    use({ account: 'acc-9' as AccountId, key: key1 });
    await desk.createAccount({ name: 'idle', limits: {}, strict: false }, 'local');
    const requests = async (input: object) =>
      (await runOperation('usage.show', context, input, operator)).total.requests;
    const nowMs = clock.wallMs();
    expect(await requests({ account: first })).toBe(3);
    expect(await requests({ key: key1 })).toBe(1);
    expect(await requests({ account: first, key: key1 })).toBe(0);
    expect(await requests({ account: 'acc-1' })).toBe(0);
    expect(await requests({ sinceMs: nowMs - dayMs })).toBe(3);
    expect(await requests({ sinceMs: String(nowMs - dayMs), untilMs: Math.floor(nowMs / dayMs) * dayMs })).toBe(1);
    expect(await requests({ model: 'other' })).toBe(0);
    expect(await requests({ node })).toBe(4);
    expect(usage.asked.at(-1)).toEqual({ node });
  });

  test.for([
    [{ by: 'colour' }, 'by[0]'],
    [{ by: 5 }, 'by'],
    [{ sinceMs: -1 }, 'sinceMs'],
    [{ sinceMs: 1.5 }, 'sinceMs'],
    [{ untilMs: '12x' }, 'untilMs'],
    [{ untilMs: 1e300 }, 'untilMs'],
    [{ account: '../x' }, 'account'],
    [{ limit: 10_001 }, 'limit'],
    [{ after: 'x'.repeat(1_025) }, 'after'],
    [{ node: 'x' }, 'node'],
    [{ model: '' }, 'model'],
  ] as const)('is not asked for with %j', async ([input, param], { expect }) => {
    const { context } = await opened();
    const outcome = await failure(() => runOperation('usage.show', context, input, operator));
    expect(outcome).toMatchObject({ code: 'REQUEST_MALFORMED', param });
  });

  test('of an account or key that nobody has heard of, or that was erased, is an error', async ({ expect }) => {
    const { context, desk } = await opened();
    const asked = (input: object) => failure(() => runOperation('usage.show', context, input, operator));
    const unknown = 'ff'.repeat(8) as KeyId;
    expect(await asked({ account: 'nobody' })).toEqual({ code: 'SUBJECT_UNKNOWN', kind: 'account', id: 'nobody' });
    expect(await asked({ key: unknown })).toEqual({ code: 'SUBJECT_UNKNOWN', kind: 'key', id: unknown });
    expect([await asked({ account: first }), await asked({ key: key0 })]).toEqual(Array(2).fill('nothing was thrown'));
    desk.opened.set(first, { ...(desk.opened.get(first) as AccountStanding & Named), isErased: true });
    expect(await asked({ account: first })).toMatchObject({ code: 'SUBJECT_UNKNOWN' });
    expect(await asked({ key: key0 })).toMatchObject({ code: 'SUBJECT_UNKNOWN' });
    const exported = await runOperation('accounts.export', context, { account: first }, 'local');
    expect(exported).toMatchObject({ account: { state: 'erased' }, usage: [] });
  });

  test('does not end before it begins', async ({ expect }) => {
    const { context } = await opened();
    const outcome = await failure(() => runOperation('usage.show', context, { sinceMs: 5, untilMs: 5 }, operator));
    expect(outcome).toMatchObject({ code: 'REQUEST_MALFORMED' });
  });

  test('is unknown on the directory of a node', async ({ expect }) => {
    const { context } = stage({ records: undefined });
    for (const name of ['usage.show', 'prices.list'] as const) {
      expect(await failure(() => runOperation(name, context, {}, 'local'))).toMatchObject({ code: 'SUBJECT_UNKNOWN' });
    }
  });
});

describe('sums', () => {
  const tag = fc.constantFrom('aa', 'bb', 'cc').map((byte) => byte.repeat(8) as Tag);
  const number = fc.nat(9);
  const someRow: fc.Arbitrary<UsageRow> = fc.tuple(
    fc.record({
      day: fc.integer({ min: 20_000, max: 20_003 }),
      tagDay: fc.constantFrom(0, 20_000, 20_001),
      account: tag,
      key: tag,
      model: fc.constantFrom('a', 'b'),
      node: fc.constant(node),
      gateway: fc.constantFrom(...gateways),
    }),
    fc.record({
      requests: number,
      attempts: number,
      promptTokens: number,
      cachedTokens: number,
      completionTokens: number,
      accountMicro: number,
      gatewayMicro: number,
      refused: number,
      lower: number,
    }),
  );
  const nobody = createOwners({
    tags: { accountTags: () => [], keyTags: () => [] },
    standing: { accounts: () => [], keys: () => [] },
    clock: new ManualClock(),
    self: gateways[0],
  });

  test('of all rows are the total, whatever tells them apart and in whatever order', ({ expect }) => {
    const dimensions = fc.uniqueArray(fc.constantFrom(...usageDimensions), { minLength: 1 });
    fc.assert(
      fc.property(fc.array(someRow, { maxLength: 30 }), dimensions, (rows, dims: UsageDimension[]) => {
        const { rows: views, total } = groupUsage(rows, dims, nobody);
        expect(total).toEqual(sumsOf(rows.reduce((sum, [, each]) => addCounts(sum, each), noCounts)));
        expect(views.reduce((sum, each) => sum + each.costMicro, 0)).toBe(total.costMicro);
        expect(views.reduce((sum, each) => sum + each.requests, 0)).toBe(total.requests);
        expect(new Set(views.map(({ id }) => id)).size).toBe(views.length);
        expect(groupUsage(rows.toReversed(), dims, nobody)).toEqual({ rows: views, total });
      }),
    );
  });
});

describe('owners', () => {
  const account = (id: string, changes: object = {}) => ({ account: id, by, ...changes }) as unknown as AccountStanding;
  const key = (id: string, of: string) => ({ key: id, by, made: { account: of } }) as unknown as KeyStanding;
  async function world(accounts: AccountStanding[], keys: KeyStanding[] = []) {
    const clock = new ManualClock();
    const standing: Pick<Standing, 'accounts' | 'keys'> = { accounts: () => accounts, keys: () => keys };
    const { records, tags, issuer } = await recordsStage(standing, by, clock);
    const today = Math.floor(clock.wallMs() / dayMs);
    const tagged = (id: string, of = id, tagDay = today, gateway = gateways[0]): Tagged => ({
      tagDay,
      account: tags.accountTag(issuer, id as AccountId, tagDay) as Tag,
      key: tags.keyTag(issuer, of as KeyId, tagDay) as Tag,
      gateway,
    });
    return { owners: records.owners, tagged, today, accounts, keys };
  }

  test('are found once they are heard of, and those that were erased are never', async ({ expect }) => {
    const { owners, tagged, accounts, keys } = await world([account('a')], [key(key0, 'gone')]);
    const [a, b, gone] = [tagged('a'), tagged('b'), tagged('gone', key0)];
    await owners.learn([a, b, gone]);
    expect([a, b, gone].map((each) => owners.accountOf(each))).toEqual(['a', undefined, undefined]);
    expect(owners.keyOf(gone)).toBe(key0);
    accounts.push(account('b'), account('gone', { isErased: true }));
    keys.push(key(key1, 'gone'));
    const later = tagged('gone', key1);
    await owners.learn([a, b, gone, later]);
    expect([a, b, gone, later].map((each) => owners.accountOf(each))).toEqual(['a', 'b', undefined, undefined]);
    expect(owners.keyOf(later)).toBeUndefined();
  });

  test('that were learnt before an erasure are forgotten with it', async ({ expect }) => {
    const { owners, tagged, accounts, keys } = await world([account('a')], [key(key0, 'a')]);
    const row = tagged('a', key0);
    await owners.learn([row]);
    expect([owners.accountOf(row), owners.keyOf(row)]).toEqual(['a', key0]);
    accounts[0] = account('a', { isErased: true });
    await owners.learn([row]);
    expect([owners.accountOf(row), owners.keyOf(row)]).toEqual([undefined, undefined]);
    expect(keys).toHaveLength(1);
  });

  test('within one account are looked for among its keys alone', async ({ expect }) => {
    const { owners, tagged } = await world([account('a'), account('b')], [key(key0, 'a'), key(key1, 'b')]);
    const [own, others] = [tagged('a', key0), tagged('b', key1)];
    await owners.learn([own, others], 'a' as AccountId);
    expect([own, others].map((each) => owners.keyOf(each))).toEqual([key0, undefined]);
    await owners.learn([own, others]);
    expect([own, others].map((each) => owners.keyOf(each))).toEqual([key0, key1]);
  });

  test('let the event loop go on while many are looked for', async ({ expect }) => {
    const { owners, tagged } = await world(Array.from({ length: 3_000 }, (_, at) => account(`a${at}`)));
    let turns = 0;
    const count = (): void => {
      turns += 1;
      setImmediate(count).unref();
    };
    setImmediate(count).unref();
    const row = tagged('a2999');
    await owners.learn([row]);
    expect(owners.accountOf(row)).toBe('a2999');
    expect(turns).toBeGreaterThanOrEqual(2);
  });
});

describe('accounts', () => {
  test('show their budget, and what it has come to where it is kept here', async ({ expect }) => {
    const { context } = await opened();
    const budget = { amountMicro: 10_000_000, period: 'month' as const };
    await runOperation('accounts.set', context, { account: first, budget }, 'local');
    const { account: _, ...rest } = sheet(first);
    expect(await runOperation('accounts.show', context, { account: first }, operator)).toEqual({
      account: first,
      state: 'open',
      name: 'team',
      limits: {},
      strict: false,
      budget,
      createdMs: expect.any(Number),
      // What lines have taken from an open lease is spent.
      sheet: { ...rest, spentMicro: 2_000_007, leasedMicro: 999_993 },
    });
    await runOperation('accounts.set', context, { account: first, budget: null }, 'local');
    const { data } = await runOperation('accounts.list', context, {}, operator);
    expect(data[0]).not.toHaveProperty('budget');
  });

  test('are exported with keys, usage and audit lines, and no secret', async ({ expect }) => {
    const { context, use, desk } = await opened();
    use({ account: first, key: key0 });
    use({ account: 'acc-9' as AccountId, key: 'ff'.repeat(8) as KeyId });
    const line = { number: 1, time: unixMs(1), previous: '', actor: 'local', outcome: 'done', reason: '' } as const;
    const audit = {
      ...context.audit,
      tail: async () => [
        { ...line, action: 'key.create', object: `key:${key0}` } as const,
        { ...line, action: 'key.create', object: 'key:ffffffffffffffff' } as const,
        { ...line, action: 'account.set', object: `account:${first}`, actor: 'key:ffffffffffffffff' } as const,
      ],
    };
    const exported = await runOperation('accounts.export', { ...context, audit }, { account: first }, 'local');
    expect(exported).toMatchObject({
      account: { account: first, name: 'team' },
      keys: [{ key: key0 }, { key: key1 }],
      usage: [{ key: key0, model: 'qwen3', ...row() }],
      audit: [{ object: `key:${key0}` }, { object: `account:${first}` }],
      isComplete: true,
    });
    expect(JSON.stringify(exported)).not.toMatch(/sk-hx-|acc-9/);
    expect(desk.told.at(-1)).toEqual(['exportAccount', first, 'local']);
  });
});
