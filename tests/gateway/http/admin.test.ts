/** The operators' door: whom it lets in, what it tells the audit log, and what attacks on it come to. */

import { describe, test, vi } from 'vitest';
import { adminAppDefaults, startAdminServer } from '../../../gateway/http/admin.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { InvariantError } from '../../../protocol/invariant.ts';
import { ms, seconds } from '../../../protocol/units.ts';
import { failure, peer } from '../../protocol/mesh-fixture.ts';
import { auditLog, stranger } from '../admin/fakes.ts';
import { type AdminStage, askRaw, bearing, openAdmin } from './admin-door.ts';
import { Wire } from './sockets.ts';

const keys = '/admin/v1/keys';
const admin = bearing('sk-hx-admin');
const json = { 'content-type': 'application/json' };
const actor = 'key:00000000000000aa';

interface Asked {
  readonly method?: 'GET' | 'POST' | 'PATCH' | 'DELETE' | 'PUT' | 'HEAD' | 'OPTIONS';
  readonly url?: string;
  readonly headers?: Record<string, string>;
  readonly payload?: string | object;
  readonly remoteAddress?: string;
}

const ask = (
  { app }: AdminStage,
  { method = 'GET', url = keys, headers = admin, payload, remoteAddress }: Asked = {},
) =>
  app.inject({
    method,
    url,
    headers: { ...(payload === undefined ? {} : json), ...headers },
    ...(payload === undefined ? {} : { payload: typeof payload === 'string' ? payload : JSON.stringify(payload) }),
    ...(remoteAddress === undefined ? {} : { remoteAddress }),
  });
const outcome = async (door: AdminStage, asked?: Asked) => {
  const response = await ask(door, asked);
  return [response.statusCode, response.headers['x-helixflow-error']];
};

describe('a request with a good key', () => {
  test('is answered in JSON that nobody keeps', async ({ expect }) => {
    await using door = openAdmin();
    const response = await ask(door, { method: 'POST', payload: { name: 'app' } });
    expect(response.statusCode).toBe(200);
    expect(response.json()).toMatchObject({ text: 'sk-hx-0000000000000000', role: 'user' });
    expect(response.headers).toMatchObject({
      'content-type': 'application/json; charset=utf-8',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    expect(response.headers).not.toHaveProperty('access-control-allow-origin');
    expect(response.headers).not.toHaveProperty('set-cookie');
  });

  test('that changes something is noted with its bearer, one that looks is not', async ({ expect }) => {
    await using door = openAdmin();
    await ask(door);
    await ask(door, { method: 'POST', payload: { name: 'app' } });
    await ask(door, { method: 'POST', url: `${keys}/0000000000000000/revoke` });
    const done = { action: 'admin.request', actor, outcome: 'done', reason: '' };
    expect(door.noted).toEqual([
      { ...done, object: 'POST /admin/v1/keys' },
      { ...done, object: 'POST /admin/v1/keys/:key/revoke' },
    ]);
    expect(door.desk.told.map(([method, , ...rest]) => [method, rest.at(-1)])).toEqual([
      ['createKey', actor],
      ['revokeKey', actor],
    ]);
  });

  test('needs no body where every field has a default', async ({ expect }) => {
    await using door = openAdmin();
    await ask(door, { method: 'POST', payload: { name: 'app' } });
    expect(await outcome(door, { method: 'POST', url: `${keys}/0000000000000000/rotate` })).toEqual([200, undefined]);
    expect(await outcome(door, { method: 'DELETE', url: `/admin/v1/bans/${peer('banned')}` })).toEqual([
      200,
      undefined,
    ]);
  });
});

describe('a refusal', () => {
  test.for([
    ['', [401, 'KEY_MISSING']],
    ['sk-hx-garbage', [401, 'KEY_INVALID']],
    ['sk-hx-user', [403, 'KEY_ROLE_NOT_ALLOWED']],
    ['sk-hx-elsewhere', [403, 'KEY_NOT_HERE']],
    ['sk-hx-everywhere', [403, 'KEY_NOT_HERE']],
    ['sk-hx-both', [403, 'KEY_NOT_HERE']],
    ['sk-hx-admin', [200, undefined]],
  ] as const)('for the key "%s" is %j, and noted', async ([key, wanted], { expect }) => {
    await using door = openAdmin();
    const headers = key === '' ? {} : bearing(key);
    expect(await outcome(door, { headers })).toEqual(wanted);
    const [, reason] = wanted;
    const record = { action: 'admin.request', object: 'GET /admin/v1/keys', outcome: 'refused', reason };
    // Whom a key names is known once it has been found good.
    const known = key === '' || reason === 'KEY_INVALID' ? 'none' : actor;
    expect(door.noted).toEqual(reason === undefined ? [] : [{ ...record, actor: known }]);
  });

  test('has OpenAI’s shape and tells neither key nor address to the audit log', async ({ expect }) => {
    await using door = openAdmin();
    const response = await ask(door, { headers: bearing('sk-hx-secret-guess'), remoteAddress: '192.0.2.77' });
    expect(response.json()).toEqual({
      error: {
        message: expect.any(String),
        type: 'invalid_request_error',
        param: null,
        code: 'invalid_api_key',
      },
    });
    expect(response.headers['www-authenticate']).toBe('Bearer');
    expect(JSON.stringify(door.noted)).not.toMatch(/192\.0\.2|secret/);
  });

  test('does not tell which paths there are', async ({ expect }) => {
    await using door = openAdmin();
    const urls = [keys, `${keys}/0000000000000000`, '/admin/v1/nothing', '/', '/v1/models', `${keys}/`, '/livez'];
    const answers = await Promise.all(urls.map((url) => ask(door, { url, headers: {} })));
    expect(new Set(answers.map(({ statusCode, body }) => `${statusCode} ${body}`)).size).toBe(1);
    expect(answers[0]?.statusCode).toBe(401);
    const [one, all] = ['GET /admin/v1/keys/:key', 'GET /admin/v1/keys'];
    const places = [all, one, 'none', 'none', 'none', one, 'none'];
    expect(door.noted.map(({ object }) => object)).toEqual(places);
  });

  test('of an operation is noted with its code: refused for the caller’s faults, failed for this side’s', async ({
    expect,
  }) => {
    const tail = async (): Promise<never> => {
      throw new HelixFlowError('STORE_FAILED', { reason: 'disk full at /secret/path' });
    };
    await using door = openAdmin({}, { context: { audit: { ...auditLog, tail } } });
    expect(await outcome(door, { url: `${keys}/ffffffffffffffff` })).toEqual([404, 'SUBJECT_UNKNOWN']);
    const failed = await ask(door, { url: '/admin/v1/audit' });
    expect([failed.statusCode, failed.headers['x-helixflow-error']]).toEqual([500, 'GATEWAY_FAILED']);
    expect(failed.body).not.toContain('secret');
    expect(door.noted.map(({ outcome: how, reason }) => [how, reason])).toEqual([
      ['refused', 'SUBJECT_UNKNOWN'],
      ['failed', 'STORE_FAILED'],
    ]);
  });

  test('without the issuer’s key is a 409, while it recovers a 503 with a time to wait', async ({ expect }) => {
    await using without = openAdmin({}, { context: { desk: undefined } });
    expect(await outcome(without)).toEqual([409, 'ISSUER_MISSING']);
    await using door = openAdmin();
    door.desk.ban = async () => {
      throw new HelixFlowError('LEDGER_UNREADY', { reason: 'it still asks others what it wrote before' });
    };
    const banning = { method: 'POST', url: '/admin/v1/bans', payload: { peer: stranger } } as const;
    expect(await outcome(door, banning)).toEqual([503, 'LEDGER_UNREADY']);
  });
});

describe('wrong keys', () => {
  const limits = { failuresMax: 3, windowMs: seconds(60), addressesMax: 8 };
  const guess = (door: AdminStage, remoteAddress: string, key = 'sk-hx-guess') =>
    outcome(door, { headers: bearing(key), remoteAddress });
  const limited = [429, 'RATE_LIMITED'];

  test('make their address wait, with everything it sends, and no other', async ({ expect }) => {
    await using door = openAdmin({ failures: limits });
    for (let tries = 0; tries < 3; tries += 1) {
      expect(await guess(door, '192.0.2.1')).toEqual([401, 'KEY_INVALID']);
      await door.clock.advance(10_000);
    }
    expect(await guess(door, '192.0.2.1')).toEqual(limited);
    const response = await ask(door, { remoteAddress: '192.0.2.1' });
    expect(response.statusCode).toBe(429);
    expect(response.headers).toMatchObject({ 'retry-after': '30', 'retry-after-ms': '30000' });
    expect(response.json().error).toMatchObject({ type: 'rate_limit_error', code: 'rate_limit_exceeded' });
    expect(await outcome(door, { remoteAddress: '192.0.2.2' })).toEqual([200, undefined]);
    await door.clock.advance(29_999);
    expect(await outcome(door, { remoteAddress: '192.0.2.1' })).toEqual(limited);
    await door.clock.advance(1);
    expect(await outcome(door, { remoteAddress: '192.0.2.1' })).toEqual([200, undefined]);
  });

  test('count for keys of other gateways, not for a missing one or one of another role', async ({ expect }) => {
    await using door = openAdmin({ failures: limits });
    for (let tries = 0; tries < 5; tries += 1) {
      await outcome(door, { headers: {}, remoteAddress: '192.0.2.1' });
      await guess(door, '192.0.2.1', 'sk-hx-user');
    }
    for (let tries = 0; tries < 3; tries += 1) {
      expect(await guess(door, '192.0.2.1', 'sk-hx-elsewhere')).toEqual([403, 'KEY_NOT_HERE']);
    }
    expect(await guess(door, '192.0.2.1', 'sk-hx-elsewhere')).toEqual(limited);
  });

  test('of one IPv6 network count together, however its addresses are written', async ({ expect }) => {
    await using door = openAdmin({ failures: limits });
    const same = ['2001:db8:0:1::1', '2001:db8:0:1:ffff::2', '2001:DB8:0:1:1:2:3:4'];
    for (const address of same) expect(await guess(door, address)).toEqual([401, 'KEY_INVALID']);
    expect(await guess(door, '2001:db8:0:1::99')).toEqual(limited);
    expect(await guess(door, '2001:db8:0:2::1')).toEqual([401, 'KEY_INVALID']);
    expect(await guess(door, '2001:db8::1')).toEqual([401, 'KEY_INVALID']);
    for (let tries = 0; tries < 3; tries += 1) await guess(door, '::ffff:192.0.2.1');
    expect(await guess(door, '192.0.2.1')).toEqual(limited);
    expect(await guess(door, '::ffff:192.0.2.2')).toEqual([401, 'KEY_INVALID']);
  });

  test('of ever new addresses leave no more behind than a bounded table', async ({ expect }) => {
    await using door = openAdmin({ failures: limits });
    for (let tries = 0; tries < 3; tries += 1) await guess(door, '192.0.2.1');
    for (let host = 0; host < 20; host += 1) await guess(door, `198.51.100.${host}`);
    expect(await guess(door, '192.0.2.1')).toEqual([401, 'KEY_INVALID']);
  });
});

describe('web pages', () => {
  test.for([
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: 'http://127.0.0.1:7421' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-origin' },
  ])('with %j are refused before their key is looked at', async (more, { expect }) => {
    await using door = openAdmin();
    const posted = { method: 'POST', payload: { name: 'app' }, headers: { ...admin, ...more } } as const;
    expect(await outcome(door, posted)).toEqual([403, 'ORIGIN_REFUSED']);
    expect(door.desk.told).toEqual([]);
  });

  test('get no preflight answered', async ({ expect }) => {
    await using door = openAdmin();
    const headers = { origin: 'https://evil.example', 'access-control-request-method': 'POST' };
    const response = await ask(door, { method: 'OPTIONS', headers });
    expect(response.statusCode).toBe(403);
    expect(Object.keys(response.headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
  });

  test('cannot post with what a form may send', async ({ expect }) => {
    await using door = openAdmin();
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']) {
      const headers = { ...admin, 'content-type': type };
      expect(await outcome(door, { method: 'POST', headers, payload: '{"name":"app"}' })).toEqual([
        415,
        'MEDIA_TYPE_UNSUPPORTED',
      ]);
    }
    expect(door.desk.told).toEqual([]);
  });
});

describe('tampering with verbs', () => {
  test.for([
    ['PUT', keys, 'POST, GET'],
    ['HEAD', keys, 'POST, GET'],
    ['OPTIONS', keys, 'POST, GET'],
    ['DELETE', `${keys}/0000000000000000`, 'GET, PATCH'],
    ['GET', `${keys}/0000000000000000/revoke`, 'POST'],
    ['POST', '/admin/v1/status', 'GET'],
  ] as const)('%s %s is a 405 that names what there is', async ([method, url, allow], { expect }) => {
    await using door = openAdmin();
    const response = await ask(door, { method, url });
    expect([response.statusCode, response.headers['allow']]).toEqual([405, allow]);
    expect(door.desk.told).toEqual([]);
  });

  test('by header or query does nothing', async ({ expect }) => {
    await using door = openAdmin();
    const overrides = { 'x-http-method-override': 'DELETE', 'x-http-method': 'POST', 'x-method-override': 'POST' };
    expect(await outcome(door, { headers: { ...admin, ...overrides } })).toEqual([200, undefined]);
    expect(await outcome(door, { url: `${keys}?_method=POST` })).toEqual([400, 'REQUEST_MALFORMED']);
    expect(door.desk.told).toEqual([]);
  });
});

describe('tricks with paths', () => {
  const tricks = [
    '//admin/v1/keys',
    '/admin//v1/keys',
    '/admin/v1//keys',
    '/admin/v1/keys/',
    '/admin/v1/keys//',
    '/Admin/V1/Keys',
    '/admin/v1/KEYS',
    '/admin/v1/./keys',
    '/admin/v1/bans/../keys',
    '/admin/v1/bans/%2e%2e/keys',
    '/admin/v1/bans/..%2fkeys',
    '/admin%2fv1%2fkeys',
    '/admin/v1/%6beys',
    '/admin/v1/keys%2f',
    '/admin/v1/keys%00',
    '/admin/v1/keys%20',
    '/admin/v1/keys;x=1',
    '/admin/v1/keys%3flimit=1',
    '/admin/v1/keys\\',
    '/v1/../admin/v1/keys',
  ];

  test.for(tricks)('%s is no path to an operation', async (path, { expect }) => {
    await using door = openAdmin();
    await using server = await startAdminServer(door.deps, { host: '127.0.0.1', port: 0, option: '--admin-listen' });
    const body = JSON.stringify({ name: 'mine', role: 'admin' });
    const posted = { ...json, 'content-length': String(body.length) };
    // A way of writing that the router takes for the same path meets the same guard.
    const expected: Readonly<Record<string, readonly number[]>> = {
      'sk-hx-admin': [400, 404, 405],
      'sk-hx-operator': [400, 403, 404, 405],
      'sk-hx-user': [400, 403],
      '': [400, 401],
    };
    for (const key of Object.keys(expected)) {
      const headers = key === '' ? {} : bearing(key);
      const read = await askRaw(server.port, { method: 'GET', path, headers });
      const wrote = await askRaw(server.port, { method: 'POST', path, headers: { ...headers, ...posted }, body });
      for (const { status, body: answer } of [read, wrote]) {
        expect(expected[key]).toContain(status);
        expect(JSON.parse(answer).error.message).toEqual(expect.any(String));
      }
    }
    expect(door.desk.told).toEqual([]);
  });

  test.for(['%2e%2e%2f', '..%2frevoke', '0000000000000000%2frevoke', '%E0%A4%A', '0'.repeat(10_000)])(
    'the id %s finds no key',
    async (id, { expect }) => {
      await using door = openAdmin();
      const response = await ask(door, { url: `${keys}/${id}` });
      expect([400, 404, 414]).toContain(response.statusCode);
      expect(response.json().error.type).toBe('invalid_request_error');
    },
  );
});

describe('bodies', () => {
  const create = async (door: AdminStage, payload: string | object, headers: Record<string, string> = admin) =>
    outcome(door, { method: 'POST', payload, headers });

  test.for([
    { name: 'app', keyId: 'ffffffffffffffff' },
    { name: 'app', issuer: 'x' },
    { name: 'app', strict: true },
    { name: 'app', terms: { models: [] } },
    { name: 'app', limits: { rpm: 1, role: 'admin' } },
    '{"name":"app","__proto__":{"role":"admin"}}',
    '{"name":"app","constructor":{"prototype":{"role":"admin"}}}',
  ])('that set more than there is to set are refused: %j', async (payload, { expect }) => {
    await using door = openAdmin();
    expect(await create(door, payload)).toEqual([400, 'REQUEST_MALFORMED']);
    expect(door.desk.told).toEqual([]);
    expect(Object.prototype).not.toHaveProperty('role');
  });

  test.for(['', '{', '[]', 'null', '5', '"name"', '{"name":"a"}}', '\u0000', '{"name":"\\ud800"}', '['.repeat(60_000)])(
    'that are no such object are refused: %j',
    async (payload, { expect }) => {
      await using door = openAdmin();
      const [status] = await create(door, payload);
      expect([400, 415]).toContain(status);
      expect(door.desk.told).toEqual([]);
    },
  );

  test('that name a field twice count once, as JSON says: the last', async ({ expect }) => {
    await using door = openAdmin();
    await create(door, '{"name":"a","role":"admin","role":"user"}');
    expect(door.desk.told).toMatchObject([['createKey', { role: 'user' }, actor]]);
  });

  test('in other encodings or media types are refused', async ({ expect }) => {
    await using door = openAdmin();
    const payload = { name: 'app' };
    expect(await create(door, payload, { ...admin, 'content-encoding': 'gzip' })).toEqual([
      415,
      'MEDIA_TYPE_UNSUPPORTED',
    ]);
    for (const type of ['application/jsonp', 'application/vnd.api+json', 'application/xml', 'a'.repeat(300)]) {
      expect(await create(door, payload, { ...admin, 'content-type': type })).toEqual([415, 'MEDIA_TYPE_UNSUPPORTED']);
    }
  });

  test('that are huge are a 413, for nobody without a key are they read', async ({ expect }) => {
    await using door = openAdmin();
    const payload = { name: 'x'.repeat(70_000) };
    expect(await create(door, payload)).toEqual([413, 'REQUEST_TOO_LARGE']);
    expect(await create(door, payload, {})).toEqual([401, 'KEY_MISSING']);
  });

  test('of a GET are refused', async ({ expect }) => {
    await using door = openAdmin();
    expect(await outcome(door, { method: 'GET', payload: { limit: 1 } })).toEqual([400, 'REQUEST_MALFORMED']);
  });
});

test('a promise that the code breaks reaches the top of the process, the caller a 500', async ({ expect }) => {
  const thrown: unknown[] = [];
  const listener = (error: unknown): void => void thrown.push(error);
  const kept = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', listener);
  try {
    const status = (): never => {
      throw new InvariantError('broken');
    };
    await using door = openAdmin({}, { context: { status } });
    expect(await outcome(door, { url: '/admin/v1/status' })).toEqual([500, 'GATEWAY_FAILED']);
    expect(thrown).toEqual([expect.any(InvariantError)]);
  } finally {
    process.off('uncaughtException', listener);
    for (const each of kept) process.on('uncaughtException', each);
  }
});

describe('listening', () => {
  const listen = (host: string) => ({ host, port: 0, option: '--admin-listen' });

  test.for(['0.0.0.0', '::', '192.0.2.1', 'example.com', '127.1', '::ffff:8.8.8.8'])(
    'in the clear on %s is refused, with what to do',
    async (host, { expect }) => {
      await using door = openAdmin();
      const refusal = await failure(() => startAdminServer(door.deps, listen(host)));
      expect(refusal).toMatchObject({ code: 'CONFIG_INVALID', reason: expect.stringContaining('--tls-cert') });
    },
  );

  test('on loopback answers, also after it was asked nonsense', async ({ expect }) => {
    await using door = openAdmin();
    await using server = await startAdminServer(door.deps, listen('127.0.0.1'));
    expect(server.url).toBe(`http://127.0.0.1:${server.port}/admin/v1`);
    const response = await fetch(`${server.url}/status`, { headers: admin });
    expect([response.status, await response.json()]).toEqual([200, { schemaVersion: 1 }]);
  });

  const head = (lines: readonly string[], first = `POST ${keys} HTTP/1.1`): string =>
    [first, 'host: x', `authorization: ${admin['authorization']}`, ...lines, '', ''].join('\r\n');
  const smuggled = `POST ${keys} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-hx-admin\r\n${'content-type: application/json'}\r\ncontent-length: 14\r\n\r\n{"name":"gone"}`;

  test.for([
    ['two lengths', head(['content-length: 0', `content-length: ${smuggled.length}`]) + smuggled],
    ['a length beside chunks', `${head(['content-length: 4', 'transfer-encoding: chunked'])}0\r\n\r\n${smuggled}`],
    ['chunks that are not called so', `${head(['transfer-encoding: chunked, identity'])}0\r\n\r\n${smuggled}`],
    ['a hidden header', head(['content-length : 4']) + smuggled],
    ['a folded header', head(['x: 1\r\n transfer-encoding: chunked']) + smuggled],
    ['bare newlines', head(['content-length: 0']).replaceAll('\r\n', '\n') + smuggled],
    ['a length with a sign', head(['content-length: +0']) + smuggled],
    ['a chunk of no size', `${head(['transfer-encoding: chunked'])}zz\r\n${smuggled}`],
    ['no HTTP', `\x16\x03\x01\x02\x00\x01${smuggled}`],
    ['two hosts', head(['host: y', 'content-length: 0']) + smuggled],
  ] as const)('smuggles no request behind %s', async ([, bytes], { expect }) => {
    await using door = openAdmin();
    await using server = await startAdminServer(door.deps, listen('127.0.0.1'));
    using wire = await Wire.open(server.port);
    wire.socket.write(bytes);
    wire.socket.end();
    const text = await wire.closed();
    expect(door.desk.told).toEqual([]);
    expect(text).not.toContain('HTTP/1.1 200');
    // Where an answer was already on its way when the rest made no sense, the connection is cut.
    expect(text).toMatch(/^(HTTP\/1\.1 4\d\d |$)/);
  });

  test('cuts who sends a GET with a body, so that nothing of it is the next request', async ({ expect }) => {
    await using door = openAdmin();
    await using server = await startAdminServer(door.deps, listen('127.0.0.1'));
    using wire = await Wire.open(server.port);
    wire.socket.write(head([`content-length: ${smuggled.length}`], `GET ${keys} HTTP/1.1`) + smuggled);
    await vi.waitFor(() => expect(wire.text).toContain('HTTP/1.1 400'));
    wire.socket.end();
    await wire.closed();
    expect(wire.text.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    expect(door.desk.told).toEqual([]);
  });

  test('drops who is slow to ask', async ({ expect }) => {
    await using door = openAdmin();
    const options = { ...adminAppDefaults, headersTimeoutMs: ms(200), requestTimeoutMs: ms(300) };
    await using server = await startAdminServer(door.deps, listen('127.0.0.1'), options);
    using slow = await Wire.open(server.port);
    slow.socket.write(`GET ${keys} HTTP/1.1\r\nhost: x\r\n`);
    expect(await slow.closed()).toContain('HTTP/1.1 408');
  });

  test('takes only so many connections at a time', async ({ expect }) => {
    await using door = openAdmin();
    await using server = await startAdminServer(door.deps, listen('127.0.0.1'), {
      ...adminAppDefaults,
      connectionsMax: 2,
    });
    using first = await Wire.open(server.port);
    using second = await Wire.open(server.port);
    using third = await Wire.open(server.port);
    expect(await third.closed()).toBe('');
    expect([first.isClosed, second.isClosed]).toEqual([false, false]);
  });

  test('closes in the middle of an operation only after it has been answered', async ({ expect }) => {
    await using door = openAdmin();
    const { promise, resolve } = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const { ban } = door.desk;
    door.desk.ban = async (...call) => {
      begun.resolve();
      await promise;
      await ban.apply(door.desk, call);
    };
    await using server = await startAdminServer(door.deps, listen('127.0.0.1'));
    const response = fetch(`${server.url}/bans`, {
      method: 'POST',
      headers: { ...admin, ...json },
      body: JSON.stringify({ peer: stranger }),
    });
    await begun.promise;
    const closing = server.close(seconds(10));
    resolve();
    expect((await response).status).toBe(200);
    await closing;
  });
});
