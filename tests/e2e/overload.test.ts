/** More requests than a node can serve, of more accounts than one, through the official SDK. */

import type OpenAI from 'openai';
import { APIError, APIUserAbortError } from 'openai';
import { afterAll, beforeAll, test } from 'vitest';
import { until } from '../support/daemons.ts';
import { ProcessMesh } from '../support/process-mesh.ts';

const ask = { model: 'synthetic', messages: [{ role: 'user' as const, content: 'hello' }], max_tokens: 10 };
const storm = 20;

let mesh: ProcessMesh;

beforeAll(async () => {
  // Eight answers a second.
  const node = ['--engine', 'synthetic', '--tokens-per-second', '40', '--slots', '2'];
  mesh = await ProcessMesh.start({ gateway: ['--waiting-max', '8'], nodes: { node } });
});

afterAll(async () => {
  await mesh[Symbol.asyncDispose]();
});

/** Counts what the SDK really sends. */
function counted(): { readonly fetch: typeof fetch; sent: number } {
  const counter = {
    sent: 0,
    fetch: (...args: Parameters<typeof fetch>): Promise<Response> => {
      counter.sent += 1;
      return fetch(...args);
    },
  };
  return counter;
}

/** A client with an account of its own. */
async function clientOf(name: string, options: object = {}): Promise<OpenAI> {
  const { id } = await mesh.at('accounts', 'create', '--name', name);
  return mesh.client(['--account', String(id)], options);
}

/** `ok`, or how it was refused. */
async function outcomeOf(client: OpenAI): Promise<'ok' | APIError> {
  try {
    await client.chat.completions.create(ask);
    return 'ok';
  } catch (error) {
    if (error instanceof APIError) return error;
    throw error;
  }
}

const many = (client: OpenAI): Promise<('ok' | APIError)[]> =>
  Promise.all(Array.from({ length: storm }, () => outcomeOf(client)));

test('who finds no place is told when to come again, and every account has its share', async ({ expect }) => {
  const [one, two, modest] = await Promise.all([
    clientOf('one'),
    clientOf('two'),
    clientOf('modest', { maxRetries: 5 }),
  ]);
  const storms = Promise.all([many(one), many(two)]);
  const answer = await modest.chat.completions.create(ask);
  expect(answer.usage?.completion_tokens).toBe(ask.max_tokens);
  for (const outcomes of await storms) {
    const refusals = outcomes.filter((outcome) => outcome !== 'ok');
    expect(outcomes.length - refusals.length).toBeGreaterThanOrEqual(2);
    expect(refusals.length).toBeGreaterThan(0);
    for (const { status, code, headers } of refusals) {
      expect([
        [429, 'rate_limit_exceeded'],
        [503, 'server_is_overloaded'],
      ]).toContainEqual([status, code]);
      expect(Number(headers?.get('retry-after'))).toBeGreaterThan(0);
      expect(Number(headers?.get('retry-after-ms'))).toBeGreaterThan(0);
    }
  }
});

test('the SDK, which comes again when it is told to, gets all of its answers in the end', async ({ expect }) => {
  const counter = counted();
  const patient = await clientOf('patient', { maxRetries: 8, fetch: counter.fetch });
  const outcomes = await many(patient);
  expect(outcomes).toEqual(Array(storm).fill('ok'));
  expect(counter.sent).toBeGreaterThan(storm);
});

test('clients that leave make room, whether their answers stream or not', async ({ expect }) => {
  const [leaving, staying] = await Promise.all([clientOf('leaving'), clientOf('staying')]);
  const long = { ...ask, max_tokens: 100_000 };
  const leave = new AbortController();
  const stream = await leaving.chat.completions.create({ ...long, stream: true }, { signal: leave.signal });
  const whole = leaving.chat.completions.create(long, { signal: leave.signal }).catch((error: unknown) => error);
  const slots = async (): Promise<[number | undefined, number | undefined]> => {
    const row = await mesh.row('node');
    return [row?.active, row?.queued];
  };
  await until(async () => ((await slots())[0] === 2 ? true : undefined));
  const answer = staying.chat.completions.create(ask);
  await until(async () => ((await slots())[1] === 1 ? true : undefined));
  leave.abort();
  expect((await answer).usage?.completion_tokens).toBe(ask.max_tokens);
  expect(await whole).toBeInstanceOf(APIUserAbortError);
  // The SDK ends a stream that is left without an error.
  for await (const { choices } of stream) expect(choices).toBeDefined();
  expect(await until(async () => ((await slots())[0] === 0 ? 'free' : undefined))).toBe('free');
});
