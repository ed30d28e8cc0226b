/** Web pages: none may use the door from a browser that its operator did not name, and none with credentials. */

import { describe, test } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { authorized, chatBody, type Fixture, failing, openApp } from './fakes.ts';

const page = 'https://chat.example.com';
const chatUrl = '/v1/chat/completions';

const question = ({ app }: Fixture, url: string, origin: string, headers: Record<string, string> = {}) =>
  app.inject({
    method: 'OPTIONS',
    url,
    headers: { origin, 'access-control-request-method': 'POST', ...headers },
  });

const ask = ({ app }: Fixture, headers: Record<string, string>, payload: object = chatBody()) =>
  app.inject({ method: 'POST', url: chatUrl, headers: { ...authorized, ...headers }, payload });

const corsOf = (headers: Record<string, unknown>): string[] =>
  Object.keys(headers).filter((name) => name.startsWith('access-control-'));

describe('a page that nobody named', () => {
  test.for([
    ['by default', []],
    ['where another is', [page]],
  ] as const)('gets no leave, %s', async ([, pageOrigins], { expect }) => {
    await using fixture = openApp({ pageOrigins });
    const origin = 'http://127.0.0.1:8080';
    const before = await question(fixture, chatUrl, origin);
    const { statusCode, headers } = await ask(fixture, { origin });
    expect([before.statusCode, statusCode]).toEqual([405, 200]);
    expect([...corsOf(before.headers), ...corsOf(headers)]).toEqual([]);
  });

  test.for(['null', `${page}.evil.example`, `${page}/`, 'https://CHAT.example.com', ''])(
    'is not mistaken for another: %s',
    async (origin, { expect }) => {
      await using fixture = openApp({ pageOrigins: [page] });
      expect(corsOf((await question(fixture, chatUrl, origin)).headers)).toEqual([]);
    },
  );
});

describe('a page that was named', () => {
  test('may ask as its client library does, without a key in the question', async ({ expect }) => {
    await using fixture = openApp({ pageOrigins: ['https://other.example', page] });
    const asked = 'authorization, content-type, x-stainless-lang';
    const response = await question(fixture, chatUrl, page, { 'access-control-request-headers': asked });
    expect(response.statusCode).toBe(204);
    expect(response.body).toBe('');
    expect(response.headers).toMatchObject({
      'access-control-allow-origin': page,
      'access-control-allow-methods': 'POST',
      'access-control-allow-headers': asked,
      'access-control-max-age': '600',
      vary: 'origin',
    });
    expect(response.headers['access-control-allow-credentials']).toBeUndefined();
    expect(fixture.records).toMatchObject([{ method: 'OPTIONS', status: 204, outcome: 'ok' }]);
  });

  test.for([
    ['/v1/models', 204, 'GET, HEAD'],
    ['/v1/models/org/model', 204, 'GET, HEAD'],
    ['/readyz', 204, 'GET, HEAD'],
    ['/nowhere', 404, undefined],
  ] as const)('asks about %s: %i', async ([url, status, methods], { expect }) => {
    await using fixture = openApp({ pageOrigins: [page] });
    const response = await question(fixture, url, page);
    expect([response.statusCode, response.headers['access-control-allow-methods']]).toEqual([status, methods]);
    expect(response.headers['access-control-allow-origin']).toBe(page);
  });

  test('gets no header that could break the answer', async ({ expect }) => {
    await using fixture = openApp({ pageOrigins: [page] });
    const asked = { 'access-control-request-headers': 'x-good; "bad"' };
    expect((await question(fixture, chatUrl, page, asked)).headers['access-control-allow-headers']).toBe('');
  });

  test('reads answers, streams and errors', async ({ expect }) => {
    await using fixture = openApp({ pageOrigins: [page] });
    const answers = [
      await ask(fixture, { origin: page }),
      await ask(fixture, { origin: page }, chatBody({ stream: true })),
      await ask(fixture, { origin: page, authorization: 'Bearer sk-wrong' }),
      await ask(fixture, { origin: page }, {}),
    ];
    expect(answers.map(({ statusCode }) => statusCode)).toEqual([200, 200, 401, 400]);
    for (const { headers } of answers) {
      expect(headers).toMatchObject({ 'access-control-allow-origin': page, vary: 'origin' });
      expect(headers['access-control-allow-credentials']).toBeUndefined();
    }
  });

  test('may read every header that an answer has', async ({ expect }) => {
    await using fixture = openApp({ pageOrigins: [page] });
    const left = { limit: 5, remaining: 4, resetMs: 1_000 as never };
    fixture.service.rate = { requests: left, tokens: left };
    const keyed = { origin: page, 'idempotency-key': 'once' };
    const answers = [await ask(fixture, keyed), await ask(fixture, keyed)];
    const retryAfterMs = 2_000;
    fixture.service.script = failing(new HelixFlowError('GATEWAY_DRAINING', { retryAfterMs }));
    answers.push(await ask(fixture, { origin: page }));
    fixture.service.script = failing(new HelixFlowError('GATEWAY_FAILED', {}));
    answers.push(await ask(fixture, { origin: page }));
    const exposed = new Set(String(answers[0]?.headers['access-control-expose-headers']).split(', '));
    const ours = answers
      .flatMap(({ headers }) => Object.keys(headers))
      .filter((name) => /^(x-|retry-|openai-)/.test(name));
    expect(ours).toEqual(expect.arrayContaining(['x-helixflow-idempotent-replay', 'retry-after-ms', 'x-request-id']));
    expect(ours.filter((name) => !exposed.has(name) && name !== 'x-accel-buffering')).toEqual([]);
  });
});

test('all pages may be let in, still without credentials', async ({ expect }) => {
  await using fixture = openApp({ pageOrigins: ['*'] });
  const { headers } = await ask(fixture, { origin: 'https://anyone.example' });
  expect(headers['access-control-allow-origin']).toBe('*');
  expect(headers['access-control-allow-credentials']).toBeUndefined();
  expect(headers.vary).toBeUndefined();
});
