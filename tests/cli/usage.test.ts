/** `helixflow usage`, `prices` and the budgets of `accounts`: what they take, and what they print. */

import { describe, test } from 'vitest';
import { accountSheetValue, accountText } from '../../cli/account-text.ts';
import { openAdmin } from '../../cli/admin.ts';
import { createMeshIn } from '../../cli/commands/mesh-create.ts';
import { moment, span } from '../../cli/config/values.ts';
import { locateDataDir } from '../../cli/data-dir.ts';
import { parseArguments } from '../../cli/program.ts';
import { priceTable, type UsageReport, usageCsv, usageTable, usageValue } from '../../cli/usage-text.ts';
import type { AccountSheetView } from '../../gateway/admin/account-operations.ts';
import type { PriceView } from '../../gateway/admin/price-operations.ts';
import { sumsOf, type UsageView } from '../../gateway/admin/usage-rows.ts';
import type { AccountId, KeyId, LeaseId, PeerId, PriceId, Tag } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';
import { failure } from '../protocol/mesh-fixture.ts';
import { runHere } from './in-process.ts';
import { tempDir } from './temp-dir.ts';

const counts = {
  requests: 3,
  attempts: 4,
  promptTokens: 1_200,
  cachedTokens: 200,
  completionTokens: 80,
  accountMicro: 1_500_000,
  gatewayMicro: 0,
  refused: 0,
  lower: 0,
};
const row = (changes: Partial<UsageView>): UsageView => ({
  id: JSON.stringify(changes),
  ...sumsOf(counts),
  ...changes,
});
const node = '12D3KooWBgpqLfE1AQ2' as PeerId;
const day = Date.UTC(2026, 10, 1);
const report = (by: UsageReport['by'], rows: readonly UsageView[], changes: object = {}): UsageReport => ({
  by,
  range: { sinceMs: day, untilMs: day + 2 * 86_400_000 },
  rows,
  total: sumsOf({ ...counts, ...changes }),
});

describe('usage', () => {
  test('is a table with a sum; names where they are known, tags where nobody can tell', ({ expect }) => {
    const shown = report(
      ['account', 'model'],
      [
        row({ account: 'acct-1' as AccountId, accountName: 'team', model: 'qwen3', requests: 12 }),
        row({ account: 'acct-2' as AccountId, model: 'qwen3', cost: '0.000001' }),
        row({ accountTag: 'ab12ab12ab12ab12' as Tag, model: 'llama' }),
      ],
    );
    expect(usageTable(shown)).toBe(
      [
        '2026-11-01 to 2026-11-02 (UTC), at all gateways that this one has heard of',
        'ACCOUNT                 MODEL  REQUESTS  ATTEMPTS  PROMPT  CACHED  COMPLETION  COST (USD)',
        'team (acct-1)           qwen3        12         4    1200     200          80         1.5',
        'acct-2                  qwen3         3         4    1200     200          80    0.000001',
        '(tag ab12ab12ab12ab12)  llama         3         4    1200     200          80         1.5',
        'total                                 3         4    1200     200          80         1.5',
      ].join('\n'),
    );
  });

  test('shows what gateways pay and what was disputed only where there is any', ({ expect }) => {
    const disputed = report(
      ['day', 'node', 'gateway', 'key'],
      [row({ dayMs: unixMs(day), node, gateway: node, key: '0a'.repeat(8) as KeyId, gatewayMicro: 5, refused: 1 })],
      { gatewayMicro: 5, refused: 1, lower: 2 },
    );
    const [, head, first, total] = usageTable(disputed).split('\n');
    expect(head).toMatch(/^DAY +NODE +GATEWAY +KEY .* COST \(USD\) +GATEWAY PAYS +REFUSED +LOWER$/);
    expect(first).toMatch(/^2026-11-01 +12D3Koo\w+qLfE1AQ2 +12D3Koo\w+qLfE1AQ2 +(0a){8} .* 1\.5 +0\.000005 +1 +0$/);
    expect(total).toMatch(/^total .* 1\.5 +0\.000005 +1 +2$/);
  });

  test('from a day that is to come is refused by the name of that option', async ({ expect }) => {
    const invocation = parseArguments(['usage', '--since', '2999-01-01']);
    if (invocation.kind === 'print') throw new Error('no command');
    const ran = invocation.command.run({ flags: invocation.flags, env: {}, file: undefined }, (common) => ({
      common,
      output: { json: true, data: () => {}, note: () => {} },
      readLine: () => Promise.resolve(''),
      readSecret: () => Promise.resolve(undefined),
    }));
    await expect(ran).rejects.toMatchObject({ details: { reason: '--since lies in the future' } });
  });

  test('without anything that tells rows apart is the sum alone', ({ expect }) => {
    expect(usageTable(report([], [])).split('\n').slice(1)).toEqual([
      'REQUESTS  ATTEMPTS  PROMPT  CACHED  COMPLETION  COST (USD)',
      '       3         4    1200     200          80         1.5',
    ]);
    expect(usageCsv(report([], [])).split('\n')).toEqual([
      'requests,attempts,prompt_tokens,cached_tokens,completion_tokens,cost_usd,cost_micro,gateway_micro,refused,lower',
      '3,4,1200,200,80,1.5,1500000,0,0,0',
    ]);
  });

  test('has what costs most first, where one thing tells rows apart', ({ expect }) => {
    const rows = [
      row({ model: 'aa', costMicro: 5 }),
      row({ model: 'bb', costMicro: 9 }),
      row({ model: 'cc', costMicro: 5, promptTokens: 9_999 }),
    ].map((each) => ({ ...each, dayMs: unixMs(day) }));
    const models = (by: UsageReport['by']) => usageTable(report(by, rows)).match(/\b(aa|bb|cc)\b/g);
    expect(models(['model'])).toEqual(['bb', 'cc', 'aa']);
    expect(models(['day', 'model'])).toEqual(['aa', 'bb', 'cc']);
  });

  test('as CSV quotes what has to be, and starts no formula', ({ expect }) => {
    const rows = [
      row({ model: 'a,"b"', account: 'acct-1' as AccountId, accountName: 'two\nlines', dayMs: unixMs(day) }),
      row({ model: '=HYPERLINK("http://x")', accountTag: 'ab'.repeat(8) as Tag, dayMs: unixMs(day) }),
    ];
    const [head, ...lines] = usageCsv(report(['day', 'account', 'model'], rows)).split(/\n(?=\d|day)/);
    expect(head?.startsWith('day,account,account_name,account_tag,model,requests,')).toBe(true);
    expect(lines.map((line) => line.slice(0, line.indexOf(',3,4,')))).toEqual([
      '2026-11-01,acct-1,"two\nlines",,"a,""b"""',
      `2026-11-01,,,${'ab'.repeat(8)},"'=HYPERLINK(""http://x"")"`,
    ]);
  });

  test('as JSON has days by their dates, and integers beside the decimal', ({ expect }) => {
    const value = usageValue(report(['day'], [row({ dayMs: unixMs(day) })]));
    expect(JSON.parse(JSON.stringify(value))).toEqual({
      by: ['day'],
      since: '2026-11-01T00:00:00.000Z',
      until: '2026-11-03T00:00:00.000Z',
      rows: [{ day: '2026-11-01', ...sumsOf(counts) }],
      total: sumsOf(counts),
    });
  });

  test('is asked of a directory by whole days', async ({ expect }) => {
    await using temp = await tempDir();
    await createMeshIn(locateDataDir(temp.path), { name: 'm', network: 'lan' });
    const run = (...args: string[]) => runHere(['usage', '--data-dir', temp.path, ...args]);
    const { value } = await run('--by', 'day,model', '--by', 'key', '--since', '2026-02', '--until', '2026-02-28');
    expect(value).toMatchObject({
      by: ['day', 'model', 'key'],
      since: '2026-02-01T00:00:00.000Z',
      until: '2026-03-01T00:00:00.000Z',
      rows: [],
      total: { requests: 0, cost: '0' },
    });
    const month = (await run('--since', '2026-02', '--until', '2026-02')).value;
    expect([month['since'], month['until']]).toEqual(['2026-02-01T00:00:00.000Z', '2026-03-01T00:00:00.000Z']);
    const week = (await run('--since', '7d')).value;
    expect(Date.parse(String(week['until'])) - Date.parse(String(week['since']))).toBe(8 * 86_400_000);
    for (const args of [
      ['--by', 'colour'],
      ['--since', 'x'],
      ['--csv'],
      ['--since', '2026-03', '--until', '2026-02'],
    ]) {
      expect((await run(...args)).error).toBe('CONFIG_INVALID');
    }
  });
});

describe('times', () => {
  const spanOf = (text: string): unknown => span.safeParse(text).data;
  test.for([
    ['7d', { agoMs: 7 * 86_400_000 }],
    ['12h', { agoMs: 12 * 3_600_000 }],
    ['2026-11-01', { fromMs: day, toMs: day + 86_400_000 }],
    ['2026-12', { fromMs: Date.UTC(2026, 11, 1), toMs: Date.UTC(2027, 0, 1) }],
    ['2028-02', { fromMs: Date.UTC(2028, 1, 1), toMs: Date.UTC(2028, 2, 1) }],
    ['2026-11-01T12:30Z', { fromMs: day + 45_000_000, toMs: day + 45_000_000 }],
  ] as const)('%s is read', ([text, wanted], { expect }) => {
    expect(spanOf(text)).toEqual(wanted);
    expect(moment.safeParse(text).data).toBe('fromMs' in wanted ? wanted.fromMs : undefined);
  });

  test.for(['', '7', '7w', '2026', '2026-13', '2026-02-30', '2026-04-31', '2026-11-01T25:00Z', '1969-12-31', '-7d'])(
    '%j is none',
    (text, { expect }) => {
      expect([spanOf(text), moment.safeParse(text).success]).toEqual([undefined, false]);
    },
  );
});

describe('prices', () => {
  const price = (changes: Partial<PriceView>): PriceView => ({
    price: 'ac'.repeat(8) as PriceId,
    model: 'qwen3',
    prompt: 150_000,
    cached: 0,
    completion: 1_000_000_000,
    fromMs: unixMs(1_000),
    ...changes,
  });

  test('are shown with what became of them', ({ expect }) => {
    const prices = [
      price({}),
      price({ fromMs: unixMs(2_000) }),
      price({ fromMs: unixMs(9_000) }),
      price({ node, fromMs: unixMs(0) }),
    ];
    expect(
      priceTable(prices, 5_000)
        .split('\n')
        .map((line) => line.split(/ {2,}/).slice(1, 6)),
    ).toEqual([
      ['NODE', 'PROMPT', 'CACHED', 'COMPLETION', 'STATE'],
      ['all', '0.15', '0', '1000', 'over'],
      ['all', '0.15', '0', '1000', 'counts'],
      ['all', '0.15', '0', '1000', 'to come'],
      ['…qLfE1AQ2', '0.15', '0', '1000', 'counts'],
    ]);
    expect(priceTable([], 0)).toBe('no prices: everything is free');
  });

  test('are set in credits for a million tokens, and kept as integers', async ({ expect }) => {
    await using temp = await tempDir();
    await createMeshIn(locateDataDir(temp.path), { name: 'm', network: 'lan' });
    const run = (...args: string[]) => runHere(['prices', ...args, '--data-dir', temp.path]);
    const set = await run('set', 'qwen3', '--prompt', '0.15', '--completion', '0.600001');
    expect(set.value).toMatchObject({
      model: 'qwen3',
      promptMicro: 150_000,
      cachedMicro: 150_000,
      completionMicro: 600_001,
    });
    await run('set', '*', '--prompt', '0', '--completion', '0', '--cached', '0', '--from', '2099-01-01');
    const { prices } = (await run('ls')).value as { prices: object[] };
    expect(prices).toMatchObject([{ model: '*', from: '2099-01-01T00:00:00.000Z' }, { model: 'qwen3' }]);
    const bad = [
      ['set', 'qwen3', '--prompt', '1'],
      ['set', 'qwen3', '--prompt', '-1', '--completion', '1'],
      ['set', 'qwen3', '--prompt', '0.0000001', '--completion', '1'],
      ['set', 'qwen3', '--prompt', '1001', '--completion', '1'],
      ['set', 'qwen3', '--prompt', '1e2', '--completion', '1'],
      ['set', 'qwen*', '--prompt', '1', '--completion', '1'],
      ['set', 'qwen3', '--prompt', '1', '--completion', '1', '--from', '2020-01-01'],
      ['set', 'qwen3', '--prompt', '1', '--completion', '1', '--node', 'nobody'],
    ];
    const errors: unknown[] = [];
    for (const args of bad) errors.push((await run(...args)).error);
    expect(errors).toEqual([
      ...Array(5).fill('CONFIG_INVALID'),
      ...Array(2).fill('REQUEST_MALFORMED'),
      'CONFIG_INVALID',
    ]);
  });
});

describe('an account', () => {
  test('shows what its budget has come to, lines of open leases included', ({ expect }) => {
    const shown: AccountSheetView = {
      account: 'acct-1' as AccountId,
      state: 'open',
      name: 'team',
      limits: { rpm: 60 },
      strict: true,
      budget: { amountMicro: 10_000_000, period: 'month' },
      createdMs: unixMs(day),
      sheet: {
        amountMicro: 10_000_000,
        period: 'month',
        spentMicro: 2_250_000,
        leasedMicro: 750_000,
        leftMicro: 7_000_000,
        leases: [
          {
            lease: '1e'.repeat(16) as LeaseId,
            holder: node,
            amountMicro: 1_000_000,
            state: 'open',
            spentMicro: 250_000,
          },
        ],
      },
    };
    expect(accountText(shown)).toBe(
      [
        'account   acct-1  team',
        'limits    60 requests/min',
        'strict    yes',
        'budget    10usd/month',
        'spent     2.25 usd of 10 usd this month (UTC)',
        'leased    0.75 usd more, until its gateways give it back',
        'left      7 usd',
        'created   2026-11-01T00:00:00Z',
        '',
        'LEASE                             STATE  AMOUNT  SPENT  HOLDER',
        `${'1e'.repeat(16)}  open   1       0.25   ${node}`,
        '',
        'A lease of a strict account stays open where its gateway was killed: helixflow accounts writeoff <lease> frees the rest.',
      ].join('\n'),
    );
    expect(accountSheetValue(shown)).toMatchObject({ sheet: { spentMicro: 2_250_000, leasedMicro: 750_000 } });
    const { sheet: _, ...elsewhere } = shown;
    expect(accountText(elsewhere)).toContain('not known here');
  });

  test('has the budget that was set, until it is taken away', async ({ expect }) => {
    await using temp = await tempDir();
    await createMeshIn(locateDataDir(temp.path), { name: 'm', network: 'lan' });
    const run = (...args: string[]) => runHere(['accounts', ...args, '--data-dir', temp.path]);
    const made = await run('create', '--name', 'team', '--budget', '10usd/month', '--strict');
    expect(made.value).toMatchObject({ strict: true, budget: { amountMicro: 10_000_000, period: 'month' } });
    const id = String(made.value['id']);
    const shown = (await run('show', id)).value;
    expect(shown['sheet']).toEqual({
      amountMicro: 10_000_000,
      period: 'month',
      spentMicro: 0,
      leasedMicro: 0,
      leftMicro: 10_000_000,
      leases: [],
    });
    const set = (await run('set', id, '--budget', '0.000001credits/total', '--no-strict')).value;
    expect(set).toMatchObject({ strict: false, budget: { amountMicro: 1, period: 'total' } });
    expect((await run('set', id, '--budget', 'none')).value).not.toHaveProperty('budget');
    expect((await run('show', id)).value).not.toHaveProperty('sheet');
    const errors: unknown[] = [];
    for (const budget of ['10usd', '10/month', '10usd/week', '-1usd/day', '1000000001usd/day', '']) {
      errors.push((await run('set', id, '--budget', budget)).error);
    }
    expect(errors).toEqual(Array(6).fill('CONFIG_INVALID'));
    expect((await run('writeoff', 'ab'.repeat(16))).error).toBe('LEASE_UNKNOWN');
    expect((await run('writeoff', 'nonsense')).error).toBe('CONFIG_INVALID');
    expect((await run('show', 'acct-nobody')).error).toBe('SUBJECT_UNKNOWN');
  });

  test('that is exported is one JSON object with all of it', async ({ expect }) => {
    await using temp = await tempDir();
    await createMeshIn(locateDataDir(temp.path), { name: 'm', network: 'lan' });
    const run = (...args: string[]) => runHere(['accounts', ...args, '--data-dir', temp.path]);
    const id = String((await run('create', '--name', 'team')).value['id']);
    await using admin = await openAdmin(temp.path, 'test');
    const { key } = await admin.call('keys.create', { name: 'k', account: id as AccountId });
    const exported = await admin.call('accounts.export', { account: id as AccountId });
    expect(exported).toMatchObject({
      account: { account: id, name: 'team' },
      keys: [{ key, name: 'k' }],
      entries: [{ entry: { kind: 'account' } }, { entry: { kind: 'key' } }],
      usage: [],
      audit: [{ action: 'account.create' }, { action: 'key.create' }, { action: 'account.export' }],
      isComplete: true,
    });
    expect(await failure(() => admin.call('accounts.export', { account: 'acct-x' as AccountId }))).toMatchObject({
      code: 'SUBJECT_UNKNOWN',
    });
  });
});
