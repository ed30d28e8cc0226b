/** Keys on real gateways, with the official SDK: everywhere at once, revoked everywhere, limited, and watched over. */

import OpenAI, { RateLimitError } from 'openai';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { type Daemon, Daemons, until } from '../support/daemons.ts';

const ask = { model: 'synthetic', messages: [{ role: 'user' as const, content: 'hello' }], max_tokens: 3 };
/** For news to reach a gateway that is connected; measured times stand in the documents. */
const newsMs = 15_000;

let daemons: Daemons;
let issuer: Daemon;
let first: Daemon;
let second: Daemon;

const urlOf = (daemon: Daemon): string => String(daemon.ready['baseUrl']);
const clientOf = (daemon: Daemon, key: string): OpenAI =>
  new OpenAI({ baseURL: urlOf(daemon), apiKey: key, maxRetries: 0 });

const atIssuer = (...words: string[]): Promise<Record<string, unknown>> =>
  daemons.json([...words, '--data-dir', issuer.dir]);
const newKey = async (...options: string[]): Promise<{ id: string; key: string }> =>
  (await atIssuer('keys', 'create', ...options)) as never;
const inviteFor = async (role: string): Promise<string> =>
  String((await atIssuer('mesh', 'invite', '--role', role))['token']);

const modelsAt = (daemon: Daemon, key: string): Promise<Response> =>
  fetch(`${urlOf(daemon)}/models`, { headers: { authorization: `Bearer ${key}` } });

/** Status and code of a look at the models. */
async function standingAt(daemon: Daemon, key: string): Promise<string> {
  const response = await modelsAt(daemon, key);
  await response.arrayBuffer();
  return `${response.status} ${response.headers.get('x-helixflow-error') ?? ''}`.trim();
}

const becomes = (daemon: Daemon, key: string, standing: string): Promise<true> =>
  until(async () => ((await standingAt(daemon, key)) === standing ? true : undefined), newsMs);

const startGateway = async (name: string): Promise<Daemon> =>
  daemons.start(name, ['gateway', '--port', '0', '--join', '-'], await inviteFor('gateway'));

/** The gateway has a node to serve with. */
const hasNode = (daemon: Daemon): Promise<true> =>
  until(async () => {
    const { nodes } = (await daemon.status())['gateway'] as { nodes: readonly unknown[] };
    return nodes.length > 0 ? true : undefined;
  }, newsMs);

beforeAll(async () => {
  daemons = new Daemons();
  await daemons.json(['mesh', 'create', '--data-dir', daemons.path('issuer')]);
  issuer = await daemons.start('issuer', ['gateway', '--port', '0', '--admin-listen', '127.0.0.1:0']);
  const node = ['node', '--join', '-', '--engine', 'synthetic', '--tokens-per-second', '20'];
  await daemons.start('node', node, await inviteFor('node'));
});

afterAll(async () => {
  await daemons[Symbol.asyncDispose]();
});

describe('one key', () => {
  test('works on two gateways that have never spoken to each other', async ({ expect }) => {
    const { key } = await newKey('--name', 'app');
    const answers: number[] = [];
    first = await startGateway('first');
    await hasNode(first);
    answers.push((await clientOf(first, key).chat.completions.create(ask)).usage?.completion_tokens ?? 0);
    first.kill('SIGTERM');
    await first.exited();
    second = await startGateway('second');
    await hasNode(second);
    answers.push((await clientOf(second, key).chat.completions.create(ask)).usage?.completion_tokens ?? 0);
    expect(answers).toEqual([3, 3]);
    first = await daemons.start('first', ['gateway', '--port', '0']);
  });

  test('stops on both once it is revoked', async ({ expect }) => {
    const { id, key } = await newKey();
    expect([await standingAt(first, key), await standingAt(second, key)]).toEqual(['200', '200']);
    expect(await atIssuer('keys', 'revoke', id)).toMatchObject({ id, state: 'revoked' });
    await Promise.all([issuer, first, second].map((gateway) => becomes(gateway, key, '401 KEY_REVOKED')));
    await expect(clientOf(first, key).models.list()).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' });
  });

  test('revoked with --cut ends the stream that runs elsewhere, in-band', async ({ expect }) => {
    const { id, key } = await newKey();
    await hasNode(first);
    const stream = await clientOf(first, key).chat.completions.create({ ...ask, max_tokens: 2_000, stream: true });
    let revoking: Promise<unknown> | undefined;
    const read = async (): Promise<void> => {
      for await (const chunk of stream) {
        if (chunk.choices[0]?.delta.content) revoking ??= atIssuer('keys', 'revoke', id, '--cut');
      }
    };
    await expect(read()).rejects.toMatchObject({ code: 'invalid_api_key' });
    await revoking;
  });

  test('is replaced by another; the old one stays good for its grace', async ({ expect }) => {
    const { id, key } = await newKey('--name', 'rotated', '--models', 'synthetic');
    const next = await atIssuer('keys', 'rotate', id, '--grace', '1h');
    expect(next).toMatchObject({ replaces: id, models: ['synthetic'], oldUntil: expect.any(String) });
    const standings = [await standingAt(second, key), await standingAt(second, String(next['key']))];
    expect(standings).toEqual(['200', '200']);
    const { keys } = (await atIssuer('keys', 'ls')) as { keys: readonly Record<string, unknown>[] };
    expect(keys.find((row) => row['id'] === id)).toMatchObject({ name: 'rotated', revokedFrom: next['oldUntil'] });
    expect(JSON.stringify(keys)).not.toContain('sk-hx-');
  });
});

describe('limits', () => {
  test('answer 429 with headers that say when to come again, until the key is given more', async ({ expect }) => {
    const { id, key } = await newKey('--rpm', '2');
    await hasNode(second);
    const client = clientOf(second, key);
    const { response } = await client.chat.completions.create(ask).withResponse();
    expect(response.headers.get('x-ratelimit-limit-requests')).toBe('2');
    expect(response.headers.get('x-ratelimit-remaining-requests')).toBe('1');
    await client.chat.completions.create(ask);
    const error: unknown = await client.chat.completions.create(ask).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RateLimitError);
    const { headers, code } = error as RateLimitError;
    expect(code).toBe('rate_limit_exceeded');
    expect(Number(headers?.get('retry-after'))).toBeGreaterThan(0);
    await atIssuer('keys', 'set', id, '--rpm', 'none');
    const passes = async (): Promise<true | undefined> => {
      const answer = await client.chat.completions.create(ask).catch(() => undefined);
      return answer === undefined ? undefined : true;
    };
    expect(await until(passes, newsMs)).toBe(true);
  });
});

describe('the admin listener', () => {
  const admin = (path: string, key: string, body?: object): Promise<Response> =>
    fetch(`${String(issuer.ready['adminUrl'])}/${path}`, {
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    });

  test('takes operators and admins of its gateway, each for what their role allows', async ({ expect }) => {
    const roles = ['user', 'operator', 'admin'];
    const keys = await Promise.all(roles.map(async (role) => (await newKey('--role', role)).key));
    const statuses = async (path: string, body?: object): Promise<number[]> =>
      Promise.all(keys.map(async (key) => (await admin(path, key, body)).status));
    expect(await statuses('peers')).toEqual([403, 200, 200]);
    expect(await statuses('keys', { name: 'made over TCP' })).toEqual([403, 403, 200]);
    const [, operator = ''] = keys;
    // An operator's key is good at the gateway that it names, and at no other.
    expect(await standingAt(first, operator)).toBe('403 KEY_NOT_HERE');
  });
});
