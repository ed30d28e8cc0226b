/** `GET /v1/usage`: the shape that OpenAI's clients read, whole days, and nothing of anybody else. */

import OpenAI from 'openai';
import { describe, test } from 'vitest';
import { createGatewayApp } from '../../../gateway/http/app.ts';
import { gatewayAppDefaults } from '../../../gateway/http/options.ts';
import { unknownRoute } from '../../../gateway/http/routes.ts';
import type { UsageQuery } from '../../../gateway/openai/usage.ts';
import { parseUsageQuery } from '../../../gateway/openai/usage.ts';
import type { AccountStanding, KeyStanding } from '../../../ledger/standing.ts';
import { fromHex } from '../../../protocol/crypto.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import { issuerIdOf } from '../../../protocol/grants.ts';
import type { AccountId, AuthorId, KeyId } from '../../../protocol/ids.ts';
import { unixMs } from '../../../protocol/units.ts';
import { quietLog, seededRandom } from '../../protocol/mesh-fixture.ts';
import { accessOf } from '../../support/access.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { dayMs, gateways, recordsStage } from '../admin/records-stage.ts';
import { bearing, openAdmin } from './admin-door.ts';
import { FakeService } from './fakes.ts';

const by = 'a1'.repeat(32) as AuthorId;
const issuer = issuerIdOf(fromHex(by));
const [team, other] = ['acct-1', 'acct-2'] as AccountId[] as [AccountId, AccountId];
const [mine, beside, foreign] = ['01', '02', '03'].map((byte) => byte.repeat(8)) as KeyId[] as [KeyId, KeyId, KeyId];
const callers: Readonly<Record<string, ReturnType<typeof accessOf>>> = {
  'sk-hx-mine': accessOf({ issuer, account: team, keyId: mine }),
  'sk-hx-beside': accessOf({ issuer, account: team, keyId: beside }),
  'sk-hx-foreign': accessOf({ issuer, account: other, keyId: foreign }),
  'sk-hx-admin': accessOf({ issuer, account: other, keyId: foreign, role: 'admin' }),
};
const made = (account: AccountId) => ({ account, role: 'user', gateways: [], terms: {}, atMs: unixMs(0) });
const standing = {
  accounts: () => [team, other].map((account) => ({ account, by }) as unknown as AccountStanding),
  keys: () =>
    [
      { key: mine, by, made: made(team) },
      { key: beside, by, made: made(team) },
      { key: foreign, by, made: made(other) },
    ] as unknown as KeyStanding[],
};

async function openUsage() {
  const clock = new ManualClock();
  const stage = await recordsStage(standing, by, clock);
  const app = createGatewayApp(
    {
      service: new FakeService(),
      idempotency: { claim: () => Promise.reject(new Error('nobody chats here')) },
      keys: { check: (text) => callers[text] ?? callers['sk-hx-foreign'] ?? accessOf() },
      clock,
      random: seededRandom('usage'),
      log: quietLog,
      records: stage.records,
    },
    gatewayAppDefaults,
  );
  const ask = async (query = '', key = 'sk-hx-mine', path = '/v1/usage') => {
    const response = await app.inject({ url: `${path}${query}`, headers: { authorization: `Bearer ${key}` } });
    return { status: response.statusCode, headers: response.headers, body: response.json() };
  };
  const today = Math.floor(clock.wallMs() / dayMs);
  return { ...stage, app, clock, ask, today, [Symbol.asyncDispose]: () => app.close() };
}

const result = (changes: object = {}) => ({
  object: 'organization.usage.completions.result',
  input_tokens: 10,
  output_tokens: 5,
  input_cached_tokens: 4,
  num_model_requests: 1,
  project_id: null,
  user_id: null,
  api_key_id: null,
  model: null,
  batch: null,
  helixflow: { attempts: 1, cost_micro_credits: 1_500, cost_credits: '0.0015' },
  ...changes,
});
const twice = {
  input_tokens: 20,
  output_tokens: 10,
  input_cached_tokens: 8,
  num_model_requests: 2,
  helixflow: { attempts: 2, cost_micro_credits: 3_000, cost_credits: '0.003' },
};
const bucket = (day: number, ...results: object[]) => ({
  object: 'bucket',
  start_time: day * 86_400,
  end_time: (day + 1) * 86_400,
  results,
});

test('a week by days, today last, for the caller’s own key', async ({ expect }) => {
  await using door = await openUsage();
  const { today, use, ask } = door;
  use({ account: team, key: mine });
  use({ account: team, key: mine, model: 'llama', gateway: gateways[1] });
  use({ account: team, key: mine, daysAgo: 3 });
  use({ account: team, key: mine, daysAgo: 7 });
  use({ account: team, key: beside });
  use({ account: other, key: foreign });
  const { status, headers, body } = await ask();
  expect([status, headers['cache-control']]).toEqual([200, 'no-store']);
  expect(body).toEqual({
    object: 'page',
    data: [
      bucket(today - 6),
      bucket(today - 5),
      bucket(today - 4),
      bucket(today - 3, result()),
      bucket(today - 2),
      bucket(today - 1),
      bucket(today, result(twice)),
    ],
    has_more: false,
    next_page: null,
  });
  expect((await ask('', 'sk-hx-mine', '/v1/organization/usage/completions')).body).toEqual(body);
});

test('groups by model, key and account, and the account’s where that is asked for', async ({ expect }) => {
  await using door = await openUsage();
  const { today, use, ask } = door;
  use({ account: team, key: mine });
  use({ account: team, key: beside, model: 'llama' });
  use({ account: other, key: foreign });
  const day = async (query: string) => (await ask(`?limit=1&${query}`)).body.data;
  expect(await day('group_by=model')).toEqual([bucket(today, result({ model: 'qwen3' }))]);
  expect(await day('scope=account')).toEqual([bucket(today, result(twice))]);
  expect(await day('scope=account&group_by=model&group_by=project_id')).toEqual([
    bucket(today, result({ model: 'llama', project_id: team }), result({ model: 'qwen3', project_id: team })),
  ]);
  expect(await day('scope=account&group_by[]=api_key_id')).toEqual([
    bucket(today, result({ api_key_id: mine }), result({ api_key_id: beside })),
  ]);
  expect(await day('group_by=api_key_id,model')).toEqual([bucket(today, result({ api_key_id: mine, model: 'qwen3' }))]);
  expect(await day('scope=account&models=llama,other')).toEqual([bucket(today, result())]);
  expect(await day(`scope=account&api_key_ids=${beside}&group_by=model`)).toEqual([
    bucket(today, result({ model: 'llama' })),
  ]);
});

test('shows nothing of another account, whatever is asked', async ({ expect }) => {
  await using door = await openUsage();
  const { use, ask } = door;
  use({ account: team, key: mine });
  use({ account: team, key: beside });
  const queries = ['', '?scope=account', `?api_key_ids=${mine}`, `?scope=account&api_key_ids=${mine},${beside}`];
  for (const key of ['sk-hx-foreign', 'sk-hx-admin']) {
    for (const query of queries) {
      const { body } = await ask(query, key);
      expect(body.data.flatMap(({ results }: { results: object[] }) => results)).toEqual([]);
    }
  }
  const own = await ask(`?api_key_ids=${beside}`);
  expect(own.body.data.flatMap(({ results }: { results: object[] }) => results)).toEqual([]);
});

test('a tag that another gateway made with its own key is nobody’s here', async ({ expect }) => {
  await using door = await openUsage();
  const { today, use, ask } = door;
  use({ account: team, key: mine, isOwnTag: true });
  use({ account: team, key: mine, isOwnTag: true, gateway: gateways[1] });
  expect((await ask('?limit=1')).body.data).toEqual([bucket(today, result())]);
});

test('goes on page by page to the end, each day once', async ({ expect }) => {
  await using door = await openUsage();
  const { today, ask } = door;
  const start = (today - 9) * 86_400 + 5_000;
  const days: number[] = [];
  let query = `?start_time=${start}&limit=4`;
  for (let page: string | null = ''; page !== null; query = `?start_time=${start}&limit=4&page=${page}`) {
    const { body } = await ask(query);
    days.push(...body.data.map(({ start_time: at }: { start_time: number }) => at / 86_400 - today));
    expect(body.has_more).toBe(body.next_page !== null);
    page = body.next_page;
  }
  expect(days).toEqual([-9, -8, -7, -6, -5, -4, -3, -2, -1, 0]);
});

test('the official client reads it', async ({ expect }) => {
  await using door = await openUsage();
  const { app, use, today } = door;
  use({ account: team, key: mine });
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as { port: number };
  const client = new OpenAI({
    apiKey: 'sk-hx-mine',
    adminAPIKey: 'sk-hx-mine',
    baseURL: `http://127.0.0.1:${port}/v1`,
    maxRetries: 0,
  });
  const page = await client.admin.organization.usage.completions({
    start_time: (today - 1) * 86_400,
    bucket_width: '1d',
    group_by: ['model', 'project_id'],
    models: ['qwen3', 'llama'],
    limit: 7,
  });
  expect(page.data).toEqual([bucket(today - 1), bucket(today, result({ model: 'qwen3', project_id: team }))]);
});

test('is asked for thirty times a minute at most, by each key', async ({ expect }) => {
  await using door = await openUsage();
  const { ask, clock } = door;
  await clock.advance(97.3);
  for (let times = 0; times < 30; times += 1) expect((await ask('?limit=1')).status).toBe(200);
  const refused = await ask('?limit=1');
  expect([refused.status, refused.headers['x-helixflow-error']]).toEqual([429, 'RATE_LIMITED']);
  expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
  expect(refused.body.error.message).toMatch(/ again in \d+ ms\./);
  expect((await ask('?limit=1', 'sk-hx-beside')).status).toBe(200);
  await clock.advance(62_000);
  expect((await ask('?limit=1')).status).toBe(200);
});

test('a lease that is not open is 404 at the operators’ door', async ({ expect }) => {
  await using stage = openAdmin();
  const url = `/admin/v1/leases/${'ff'.repeat(16)}/write-off`;
  const response = await stage.app.inject({ method: 'POST', url, headers: bearing('sk-hx-admin'), payload: {} });
  expect([response.statusCode, response.json().error.code]).toEqual([404, 'lease_unknown']);
});

describe('a query', () => {
  const nowMs = unixMs(1_700_000_000_000);
  const today = Math.floor(nowMs / dayMs);
  const days = (search: string): number[] => {
    const { fromDay, untilDay } = parseUsageQuery(search, nowMs);
    return [fromDay - today, untilDay - today];
  };
  const refusal = (search: string): unknown => {
    try {
      return parseUsageQuery(search, nowMs);
    } catch (error) {
      return isHelixFlowError(error) ? [error.code, (error.details as { param?: string }).param] : error;
    }
  };

  test('is widened to whole days, and ends today at the latest', ({ expect }) => {
    const at = (day: number, seconds = 0): number => (today + day) * 86_400 + seconds;
    expect(days('')).toEqual([-6, 1]);
    expect(days('limit=31')).toEqual([-30, 1]);
    expect(days(`start_time=${at(-2, 5)}`)).toEqual([-2, 1]);
    expect(days(`start_time=${at(-2)}&end_time=${at(-1)}`)).toEqual([-2, -1]);
    expect(days(`start_time=${at(-2)}&end_time=${at(-1, 1)}`)).toEqual([-2, 0]);
    expect(days(`end_time=${at(-10)}`)).toEqual([-17, -10]);
    expect(days(`start_time=${at(-1)}&end_time=${at(400)}`)).toEqual([-1, 1]);
    expect(days('start_time=0')).toEqual([-today, 1]);
  });

  test('is what its defaults say', ({ expect }) => {
    expect(parseUsageQuery('', nowMs)).toEqual({
      scope: 'key',
      groupBy: new Set(),
      models: new Set(),
      keys: [],
      fromDay: today - 6,
      untilDay: today + 1,
      limit: 7,
    } satisfies UsageQuery);
  });

  test.for([
    ['bucket_width=1h', 'REQUEST_UNSUPPORTED', 'bucket_width'],
    ['bucket_width=7d', 'REQUEST_MALFORMED', 'bucket_width'],
    ['group_by=user_id', 'REQUEST_UNSUPPORTED', 'group_by'],
    ['group_by=colour', 'REQUEST_MALFORMED', 'group_by'],
    ['group_by=', 'REQUEST_MALFORMED', 'group_by'],
    ['project_ids=acct-2', 'REQUEST_UNSUPPORTED', 'project_ids'],
    ['user_ids[]=u', 'REQUEST_UNSUPPORTED', 'user_ids'],
    ['batch=true', 'REQUEST_UNSUPPORTED', 'batch'],
    ['limit=0', 'REQUEST_MALFORMED', 'limit'],
    ['limit=32', 'REQUEST_MALFORMED', 'limit'],
    ['limit=1e1', 'REQUEST_MALFORMED', 'limit'],
    ['limit=7&limit=8', 'REQUEST_MALFORMED', 'limit'],
    ['start_time=-1', 'REQUEST_MALFORMED', 'start_time'],
    ['start_time=1.5', 'REQUEST_MALFORMED', 'start_time'],
    ['start_time=9999999999999999', 'REQUEST_MALFORMED', 'start_time'],
    ['start_time=1800000000&end_time=1900000000', 'REQUEST_MALFORMED', 'start_time'],
    ['start_time=2&end_time=2', 'REQUEST_MALFORMED', 'end_time'],
    ['end_time=0', 'REQUEST_MALFORMED', 'end_time'],
    ['page=3', 'REQUEST_MALFORMED', 'page'],
    ['page=page_3', 'REQUEST_MALFORMED', 'page'],
    ['page=page_999999999', 'REQUEST_MALFORMED', 'page'],
    ['scope=all', 'REQUEST_MALFORMED', 'scope'],
    ['api_key_ids=sk-hx-x', 'REQUEST_MALFORMED', 'api_key_ids'],
    [`models=${'m'.repeat(200)}`, 'REQUEST_MALFORMED', 'models'],
    [`models=${Array.from({ length: 65 }, (_, at) => `m${at}`)}`, 'REQUEST_MALFORMED', 'models'],
    ['account=acct-2', 'REQUEST_MALFORMED', 'account'],
    ['__proto__=1', 'REQUEST_MALFORMED', '__proto__'],
  ])('%s is refused', ([search = '', ...wanted], { expect }) => {
    expect(refusal(search)).toEqual(wanted);
  });
});

test('who asks for another path hears of this one', ({ expect }) => {
  expect(unknownRoute('GET', '/v1/costs').error.details).toMatchObject({
    hint: 'This gateway serves GET /v1/models, GET /v1/usage and POST /v1/chat/completions.',
  });
});
