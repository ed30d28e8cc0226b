/** The gateway's HTTP surface without a network: every shape, every refusal. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { errorRow, HelixFlowError } from '../../../protocol/errors.ts';
import { peer } from '../../protocol/mesh-fixture.ts';
import { accessOf } from '../../support/access.ts';
import {
  answering,
  authorized,
  chatBody,
  digest,
  end,
  eventsOf,
  type Fixture,
  failing,
  listed,
  openApp,
  otherDigest,
  served,
} from './fakes.ts';

const chatUrl = '/v1/chat/completions';
const post = ({ app }: Fixture, payload: unknown, headers: Record<string, string> = authorized) =>
  app.inject({
    method: 'POST',
    url: chatUrl,
    headers: { 'content-type': 'application/json', ...headers },
    payload: typeof payload === 'string' ? payload : JSON.stringify(payload),
  });

describe('a whole answer', () => {
  test('has every key that OpenAI requires, and ours beside them', async ({ expect }) => {
    await using fixture = openApp();
    const response = await post(fixture, chatBody());
    const [call] = fixture.service.calls;
    expect(response.statusCode).toBe(200);
    expect(response.json()).toEqual({
      id: `chatcmpl-${call?.call.request}`,
      object: 'chat.completion',
      created: Math.floor(fixture.clock.wallMs() / 1_000),
      model: 'helix-tiny',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'Hello world', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: {
        prompt_tokens: 7,
        completion_tokens: 2,
        total_tokens: 9,
        prompt_tokens_details: { cached_tokens: 3 },
      },
      system_fingerprint: `fp_${digest.slice(0, 10)}`,
      helixflow: {
        nodes: [served.node],
        attempts: 2,
        splices: 0,
        digest,
        timings: { first_token_ms: 0, total_ms: 0 },
      },
    });
    expect(response.headers).toMatchObject({
      'content-type': 'application/json; charset=utf-8',
      'x-request-id': call?.call.request,
      'openai-version': '2020-10-01',
      'openai-processing-ms': '0',
      'x-helixflow-node': served.node,
      'x-helixflow-attempts': '2',
    });
  });

  test('lets the node send on with every byte it has taken', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.script = answering('Grüße', ' 🌍');
    await post(fixture, chatBody());
    expect(fixture.service.calls[0]?.consumedBytes).toBe(Buffer.byteLength('Grüße 🌍'));
  });

  test('has nothing of what was said before it began again', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.script = ({ events }) => {
      events.committed(served);
      events.delta('Good mor');
      events.restarted?.();
      events.delta('Hello');
      events.done(end);
    };
    const { choices } = (await post(fixture, chatBody())).json();
    expect(choices[0].message.content).toBe('Hello');
  });

  test('is empty when the model says nothing', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.script = answering();
    const { choices } = (await post(fixture, chatBody())).json();
    expect(choices[0].message.content).toBe('');
  });
});

describe('a streamed answer', () => {
  test('is these bytes', async ({ expect }) => {
    await using fixture = openApp();
    const response = await post(fixture, chatBody({ stream: true }));
    const id = `chatcmpl-${fixture.service.calls[0]?.call.request}`;
    const created = Math.floor(fixture.clock.wallMs() / 1_000);
    const head = `data: {"id":"${id}","object":"chat.completion.chunk","created":${created},"model":"helix-tiny","system_fingerprint":"fp_ababababab","choices":[{"index":0,"delta":`;
    const tail = ',"logprobs":null,"finish_reason":null}]}\n\n';
    const provenance = `{"nodes":["${served.node}"],"attempts":2,"splices":0,"digest":"${digest}","timings":{"first_token_ms":0,"total_ms":0}}`;
    expect(response.body).toBe(
      [
        `${head}{"role":"assistant","content":"","refusal":null}${tail}`,
        `${head}{"content":"Hello"}${tail}`,
        `${head}{"content":" world"}${tail}`,
        `${head}{},"logprobs":null,"finish_reason":"stop"}],"helixflow":${provenance}}\n\n`,
        'data: [DONE]\n\n',
      ].join(''),
    );
    expect(response.headers).toMatchObject({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      'x-helixflow-node': served.node,
    });
  });

  test('with include_usage has null usage on every chunk but the last, which has no choices', async ({ expect }) => {
    await using fixture = openApp();
    const response = await post(fixture, chatBody({ stream: true, stream_options: { include_usage: true } }));
    const events = eventsOf(response.body) as { usage: unknown; choices: unknown[] }[];
    expect(events.slice(0, -2).map(({ usage }) => usage)).toEqual([null, null, null, null]);
    expect(events.at(-2)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9, prompt_tokens_details: { cached_tokens: 3 } },
    });
    expect(events.at(-1)).toBe('[DONE]');
  });

  test('ends in an error event without [DONE] when the node is lost', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.script = ({ events }) => {
      events.committed(served);
      events.delta('Hel');
      events.failed(new HelixFlowError('STREAM_INTERRUPTED', {}));
    };
    const response = await post(fixture, chatBody({ stream: true }));
    expect(response.statusCode).toBe(200);
    expect(response.body).not.toContain('[DONE]');
    expect(eventsOf(response.body).at(-1)).toEqual({
      error: { message: expect.any(String), type: 'server_error', param: null, code: 'stream_interrupted' },
      helixflow: { error: 'STREAM_INTERRUPTED' },
    });
    expect(fixture.records[0]).toMatchObject({ status: 200, outcome: 'failed', error: 'STREAM_INTERRUPTED', served });
  });

  test('that fails before its first content is an ordinary error', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.script = failing(new HelixFlowError('MODEL_UNAVAILABLE', { model: 'm', retryAfterMs: 2_500 }));
    const response = await post(fixture, chatBody({ stream: true }));
    expect(response.statusCode).toBe(503);
    expect(response.headers).toMatchObject({
      'content-type': 'application/json; charset=utf-8',
      'retry-after': '3',
      'retry-after-ms': '2500',
      'x-helixflow-error': 'MODEL_UNAVAILABLE',
    });
  });
});

test('passes what the client asked for to the service, with a fresh id each time', async ({ expect }) => {
  await using fixture = openApp();
  await post(fixture, chatBody({ max_completion_tokens: 5, max_tokens: 9, stop: 'x', temperature: 0, user: null }));
  await post(fixture, chatBody());
  const [first, second] = fixture.service.calls.map(({ call }) => call);
  expect(first).toEqual({
    request: expect.stringMatching(/^[0-9a-f]{32}$/),
    caller: accessOf(),
    model: 'helix-tiny',
    chat: { messages: [{ role: 'user', content: 'Hi' }], maxTokens: 5, stop: ['x'], temperature: 0 },
    deadlineMs: 600_000,
    isWhole: true,
  });
  expect(second?.request).not.toBe(first?.request);
});

test('asks nodes for what the client wants of them, and may begin again only what is not streamed', async ({
  expect,
}) => {
  await using fixture = openApp();
  const nodes = { deny: [peer('slow')] };
  await post(fixture, chatBody({ stream: true, helixflow: { prefer: 'price', nodes, region: null } }));
  const [first] = fixture.service.calls.map(({ call }) => call);
  expect(first).toMatchObject({ preferences: { prefer: 'price', nodes }, isWhole: false });
});

describe('without provenance', () => {
  for (const stream of [false, true]) {
    test(`${stream ? 'a stream' : 'a whole answer'} names no node, attempt or time`, async ({ expect }) => {
      await using fixture = openApp({ tellsProvenance: false });
      const response = await post(fixture, chatBody({ stream }));
      expect(response.body).toContain(`"helixflow":{"splices":0,"digest":"${digest}"}`);
      expect(response.body).not.toContain(served.node);
      expect(Object.keys(response.headers).filter((name) => name.startsWith('x-helixflow'))).toEqual([]);
      expect(response.headers['x-request-id']).toBe(fixture.service.calls[0]?.call.request);
      expect(fixture.records).toMatchObject([{ served }]);
    });
  }
});

describe('models', () => {
  test('are listed with their context and digest', async ({ expect }) => {
    await using fixture = openApp();
    const response = await fixture.app.inject({ url: '/v1/models', headers: authorized });
    const model = {
      id: 'helix-tiny',
      object: 'model',
      created: 1_700_000_000,
      owned_by: 'helixflow',
      max_model_len: 4_096,
      context_length: 4_096,
      helixflow: { digest, nodes: 2, other_digests: [] },
    };
    expect(response.json()).toEqual({ object: 'list', data: [model] });
  });

  test.for([
    ['/v1/models/org/model:7b', 'org/model:7b'],
    ['/v1/models/org%2Fmodel:7b', 'org/model:7b'],
    ['/v1/models/org%2Fmodel%3A7b', 'org/model:7b'],
    [`/v1/models/org/model:7b@${digest.slice(0, 8)}`, `org/model:7b@${digest.slice(0, 8)}`],
    [`/v1/models/org/model:7b@${otherDigest.slice(0, 8)}`, `org/model:7b@${otherDigest.slice(0, 8)}`],
  ] as const)('are found one by one as %s', async ([url, id], { expect }) => {
    await using fixture = openApp();
    fixture.service.listed = [listed('org/model:7b', { otherDigests: [otherDigest] })];
    const response = await fixture.app.inject({ url, headers: authorized });
    expect(response.json()).toMatchObject({ id, object: 'model' });
  });

  test.for(['/v1/models/nobody', '/v1/models/helix-tiny@00000000', '/v1/models/@abababab', '/v1/models/a@b@c'])(
    'are 404 as %s',
    async (url, { expect }) => {
      await using fixture = openApp();
      const response = await fixture.app.inject({ url, headers: authorized });
      expect([response.statusCode, response.json().error.code]).toEqual([404, 'model_not_found']);
    },
  );

  test('are seen only by keys that may use them', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.listed = [listed('big'), listed('helix-tiny')];
    const headers = { authorization: 'Bearer sk-hx-tiny' };
    const all = await fixture.app.inject({ url: '/v1/models', headers });
    const one = await fixture.app.inject({ url: '/v1/models/big', headers });
    const chat = await post(fixture, chatBody({ model: 'big' }), headers);
    expect(all.json().data.map(({ id }: { id: string }) => id)).toEqual(['helix-tiny']);
    expect(one.statusCode).toBe(404);
    expect([chat.statusCode, chat.json().error.code]).toEqual([403, 'model_not_allowed']);
  });
});

describe('keys', () => {
  test.for([
    ['Bearer sk-hx-good', 200, null],
    ['bearer  sk-hx-good ', 200, null],
    ['Bearer sk-hx-slow', 200, null],
    [undefined, 401, 'KEY_MISSING'],
    ['', 401, 'KEY_MISSING'],
    ['Bearer', 401, 'KEY_MISSING'],
    ['Basic dTpw', 401, 'KEY_MISSING'],
    ['Bearer sk-other', 401, 'KEY_INVALID'],
    ['Bearer sk-hx-wrong-slow', 401, 'KEY_INVALID'],
    ['Bearer sk-hx-old', 401, 'KEY_EXPIRED'],
  ] as const)('%s is answered with %s %s', async ([authorization, status, code], { expect }) => {
    await using fixture = openApp();
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
    const response = await post(fixture, chatBody(), headers);
    expect(response.statusCode).toBe(status);
    expect(response.headers['x-helixflow-error'] ?? null).toBe(code);
    expect(response.headers['www-authenticate'] ?? null).toBe(status === 401 ? 'Bearer' : null);
  });

  test('may come in the api-key header', async ({ expect }) => {
    await using fixture = openApp();
    expect((await post(fixture, chatBody(), { 'api-key': 'sk-hx-good' })).statusCode).toBe(200);
  });

  test('are asked for before the body is looked at', async ({ expect }) => {
    await using fixture = openApp();
    expect((await post(fixture, '{"broken', {})).statusCode).toBe(401);
  });
});

describe('what cannot be read', () => {
  const deep = (levels: number): string => `${'['.repeat(levels)}${']'.repeat(levels)}`;
  test.for([
    ['broken JSON', '{"model":', 400, null],
    ['nothing', '', 400, null],
    ['no object', '5', 400, null],
    ['deep nesting', deep(100_000), 400, null],
    ['deep nesting in an unknown field', JSON.stringify(chatBody()).replace('{', `{"x":${deep(100_000)},`), 200, null],
    ['a prototype', JSON.stringify(chatBody()).replace('{', '{"__proto__":{"a":1},'), 400, null],
    ['an escaped prototype', JSON.stringify(chatBody()).replace('{', '{"\\u005f_proto__":{"a":1},'), 400, null],
    ['a nested prototype', '{"messages":[{"__proto__":{}}]}', 400, null],
    ['a constructor', '{"constructor":{"prototype":{}}}', 400, null],
    ['no model', '{"messages":[{"role":"user","content":"Hi"}]}', 400, 'model'],
    ['a model of a wrong type', chatBody({ model: 5 }), 400, 'model'],
    ['an endless model name', chatBody({ model: 'm'.repeat(1_000) }), 400, 'model'],
    ['no messages', { model: 'm' }, 400, 'messages'],
    ['unsupported values', chatBody({ n: 2 }), 400, 'n'],
  ] as const)('%s', async ([, payload, status, param], { expect }) => {
    await using fixture = openApp();
    const response = await post(fixture, payload);
    expect(response.statusCode).toBe(status);
    if (status === 400) {
      const { error } = response.json();
      expect(error).toEqual({ message: expect.any(String), type: 'invalid_request_error', param, code: error.code });
    }
  });

  test('says where JSON breaks, and repeats nothing of it', async ({ expect }) => {
    await using fixture = openApp();
    const { message } = (await post(fixture, '{"secret":"a",}')).json().error;
    expect(message).toContain('position 14');
    expect(message).not.toContain('secret');
  });

  test.for([
    ['text/plain', 415],
    ['application/x-www-form-urlencoded', 415],
    ['multipart/form-data; boundary=x', 415],
    ['application/jsonp', 415],
    ['garbage', 415],
    ['application/json; charset=utf-8', 200],
    ['Application/JSON', 200],
  ] as const)('content-type %s: %i', async ([type, status], { expect }) => {
    await using fixture = openApp();
    const response = await post(fixture, chatBody(), { ...authorized, 'content-type': type });
    expect(response.statusCode).toBe(status);
    if (status === 415) expect(response.json().error.code).toBe('unsupported_media_type');
  });

  test('a body without content-type, or compressed', async ({ expect }) => {
    await using fixture = openApp();
    const payload = Buffer.from(JSON.stringify(chatBody()));
    const bare = await fixture.app.inject({ method: 'POST', url: chatUrl, headers: authorized, payload });
    const packed = await post(fixture, chatBody(), { ...authorized, 'content-encoding': 'gzip' });
    expect([bare.statusCode, packed.statusCode]).toEqual([415, 415]);
  });

  test('any JSON at all never makes the gateway fail', async ({ expect }) => {
    await using fixture = openApp();
    await fc.assert(
      fc.asyncProperty(fc.json({ maxDepth: 6 }), async (payload) => {
        const { statusCode, body } = await post(fixture, payload);
        expect(statusCode).toBe(400);
        expect(JSON.parse(body).error.type).toBe('invalid_request_error');
      }),
      { numRuns: 300 },
    );
  });

  test('any values of known fields give an answer or a refusal that names them', async ({ expect }) => {
    await using fixture = openApp();
    const names = [
      'messages',
      'helixflow',
      'stop',
      'n',
      'tools',
      'stream_options',
      'temperature',
      'seed',
      'response_format',
      'user',
    ];
    const message = fc.record(
      { role: fc.constantFrom('user', 'system', 'tool', 'x'), content: fc.jsonValue() },
      { requiredKeys: [] },
    );
    const value = fc.oneof(fc.jsonValue(), fc.array(message));
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), value, async (name, given) => {
        const { statusCode, body } = await post(fixture, chatBody({ [name]: given }));
        expect([200, 400]).toContain(statusCode);
        const isForbidden = /"(__proto__|constructor)":/.test(JSON.stringify(given));
        if (statusCode === 400 && !isForbidden) expect(JSON.parse(body).error.param).toMatch(new RegExp(`^${name}`));
      }),
      { numRuns: 300 },
    );
  });
});

describe('where nothing is', () => {
  test.for([
    ['GET', '/', 404, null],
    ['POST', '/chat/completions', 404, '/v1/chat/completions'],
    ['GET', '/models', 404, '/v1/models'],
    ['GET', '/v1/v1/models', 404, '/v1 too many'],
    ['POST', '/v1/embeddings', 404, 'POST /v1/chat/completions'],
    ['GET', '/v1/chat/completions', 405, 'POST'],
    ['DELETE', '/v1/models/helix-tiny', 405, 'GET'],
    ['OPTIONS', '/v1/chat/completions', 405, 'POST'],
    ['PROPFIND', '/v1/models', 405, 'GET'],
    ['GET', '/%zz', 400, null],
  ] as const)('%s %s is %i and says what to do', async ([method, url, status, hint], { expect }) => {
    await using fixture = openApp();
    const response = await fixture.app.inject({ method: method as 'GET', url, headers: authorized });
    const { error } = response.json();
    expect([response.statusCode, error.type]).toEqual([status, 'invalid_request_error']);
    expect(error.message).toContain(hint ?? '');
    expect(response.headers.allow !== undefined).toBe(status === 405);
    expect(response.headers['x-request-id']).toMatch(/^[0-9a-f]{32}$/);
  });

  test.for([
    ['DELETE', '/v1/chat/completions', '', 405],
    ['PATCH', '/v1/models', '{"broken', 405],
    ['POST', '/v1/nothing', '{"broken', 404],
  ] as const)('%s %s with the body %j is %i: the method counts before the body', async (cell, { expect }) => {
    const [method, url, payload, status] = cell;
    await using fixture = openApp();
    const headers = { ...authorized, 'content-type': 'application/json' };
    expect((await fixture.app.inject({ method, url, headers, payload })).statusCode).toBe(status);
  });

  test('the query is not repeated', async ({ expect }) => {
    await using fixture = openApp();
    const response = await fixture.app.inject({ url: '/nowhere?key=sk-hx-secret' });
    expect(response.body).not.toContain('secret');
  });

  test('one slash too many is forgiven', async ({ expect }) => {
    await using fixture = openApp();
    const urls = ['/v1//models', '/v1/models/'];
    const responses = await Promise.all(urls.map((url) => fixture.app.inject({ url, headers: authorized })));
    expect(responses.map(({ statusCode }) => statusCode)).toEqual([200, 200]);
  });
});

describe('what the service refuses', () => {
  test.for([
    new HelixFlowError('MODEL_NOT_FOUND', { model: 'm' }),
    new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 90_000 }),
    new HelixFlowError('NODE_LOST', {}),
    new HelixFlowError('ENGINE_REFUSED', { status: 422 }),
    new HelixFlowError('DEADLINE_EXCEEDED', { deadlineMs: 1 }),
    new HelixFlowError('STREAM_INTERRUPTED', {}),
    new HelixFlowError('GATEWAY_DRAINING', { retryAfterMs: 1 }),
    new HelixFlowError('REQUEST_UNSUPPORTED', { param: 'seed', reason: 'no' }),
  ])('$code is answered as its row says', async (error, { expect }) => {
    await using fixture = openApp();
    fixture.service.script = failing(error);
    const response = await post(fixture, chatBody());
    const { http, type, code } = errorRow(error.code);
    expect(response.statusCode).toBe(http);
    expect(response.json().error).toMatchObject({ type, code });
    expect(response.headers['x-helixflow-error']).toBe(error.code);
  });

  test('a prompt that is too long is told in the words that agents look for', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.script = failing(
      new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', {
        contextTokens: 10,
        requestedTokens: 30,
        promptTokens: 20,
        completionTokens: 10,
      }),
    );
    expect((await post(fixture, chatBody())).json()).toEqual({
      error: {
        message:
          "This model's maximum context length is 10 tokens. However, you requested 30 tokens (20 in the messages, 10 in the completion). Please reduce the length of the messages or completion.",
        type: 'invalid_request_error',
        param: 'messages',
        code: 'context_length_exceeded',
      },
    });
  });

  test('what is not for clients is a 500 that tells nothing, and a line in the log that tells all', async ({
    expect,
  }) => {
    await using fixture = openApp();
    const error = new HelixFlowError('STORE_FAILED', { reason: '/secret/path' });
    fixture.service.script = failing(error);
    const response = await post(fixture, chatBody());
    expect([response.statusCode, response.json().error.code]).toEqual([500, 'internal_error']);
    expect(response.body).not.toContain('secret');
    expect(response.headers['x-should-retry']).toBe('false');
    expect(fixture.lines).toMatchObject([{ fields: { request: response.headers['x-request-id'] }, error }]);
  });

  test('a service that throws is a 500 that tells nothing', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.chat = () => {
      throw new TypeError('secret');
    };
    const response = await post(fixture, chatBody());
    expect(response.statusCode).toBe(500);
    expect(response.body).not.toContain('secret');
    expect(fixture.lines).toHaveLength(1);
  });
});

describe('health', () => {
  test('is ok, degraded without nodes, 503 while draining', async ({ expect }) => {
    await using fixture = openApp();
    const ready = async () => (await fixture.app.inject('/readyz')).json().status;
    expect(await ready()).toBe('ok');
    fixture.service.nodes = 0;
    expect(await ready()).toBe('degraded');
    fixture.service.isReady = false;
    const response = await fixture.app.inject('/readyz?verbose');
    expect(response.statusCode).toBe(503);
    expect(response.json()).toEqual({ status: 'draining', nodes: 0, checks: { accepting: false, nodes: false } });
    expect((await fixture.app.inject('/livez')).json()).toEqual({ status: 'ok' });
  });

  test('while draining no chat is begun, and connections are not kept', async ({ expect }) => {
    await using fixture = openApp();
    fixture.app.exchanges.drain();
    const response = await post(fixture, chatBody());
    expect(response.statusCode).toBe(503);
    expect(response.headers).toMatchObject({ connection: 'close', 'retry-after': '1' });
    expect(fixture.service.calls).toEqual([]);
  });
});

test('every request is told to the observers once, without a word of what was said', async ({ expect }) => {
  await using fixture = openApp();
  await post(fixture, chatBody());
  await post(fixture, chatBody(), {});
  await fixture.app.inject('/nowhere');
  expect(fixture.records).toMatchObject([
    { route: chatUrl, status: 200, outcome: 'ok', model: 'helix-tiny', isStream: false, served, end },
    { route: chatUrl, status: 401, outcome: 'failed', error: 'KEY_MISSING' },
    { route: 'unknown', status: 404, outcome: 'failed', error: 'ROUTE_NOT_FOUND' },
  ]);
});
