/** Limits and keys at the clients' door: headers, refusals, the key's own page, a thousand requests at once. */

import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { text } from 'node:stream/consumers';
import OpenAI from 'openai';
import { describe, test, vi } from 'vitest';
import type { Access } from '../../../gateway/access/judge.ts';
import type { KeyChecker } from '../../../gateway/access/keys.ts';
import type { Rate } from '../../../gateway/access/subject.ts';
import { createGatewayApp } from '../../../gateway/http/app.ts';
import { startListening } from '../../../gateway/http/listen.ts';
import type { AuditRecord } from '../../../ledger/audit.ts';
import { cleanRecord } from '../../../ledger/audit-record.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { AccountId, KeyId } from '../../../protocol/ids.ts';
import { ms, unixMs } from '../../../protocol/units.ts';
import { seededRandom } from '../../protocol/mesh-fixture.ts';
import { accessOf } from '../../support/access.ts';
import { quietLog } from '../../support/pair-of-sessions.ts';
import { ScriptedEngine } from '../../support/scripted-engine.ts';
import { SmallMesh } from '../../support/small-mesh.ts';
import { authorized, chatBody, failing, openApp, openIdempotency, served } from './fakes.ts';
import { clientOf, openDoor } from './sockets.ts';

const rate: Rate = {
  requests: { limit: 100, remaining: 99, resetMs: ms(61_000) },
  tokens: { limit: 5_000, remaining: 4_321, resetMs: ms(250) },
};
const headers = {
  'x-ratelimit-limit-requests': '100',
  'x-ratelimit-remaining-requests': '99',
  'x-ratelimit-reset-requests': '1m1s',
  'x-ratelimit-limit-tokens': '5000',
  'x-ratelimit-remaining-tokens': '4321',
  'x-ratelimit-reset-tokens': '250ms',
};
const limited = new HelixFlowError('RATE_LIMITED', {
  limit: 100,
  unit: 'requests per minute',
  scope: 'key',
  retryAfterMs: 1_234,
});

describe('a chat tells what its key has left', () => {
  test.for([
    ['a whole answer', {}],
    ['a stream', { stream: true }],
  ] as const)('%s', async ([, more], { expect }) => {
    await using fixture = openApp();
    fixture.service.rate = rate;
    const response = await fixture.app.inject({
      method: 'POST',
      url: '/v1/chat/completions',
      headers: authorized,
      payload: chatBody(more),
    });
    expect(response.statusCode).toBe(200);
    expect(response.headers).toMatchObject(headers);
  });

  test('and one that is refused when to come back, in OpenAI’s shape', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.rate = rate;
    fixture.service.script = failing(limited);
    const response = await fixture.app.inject({
      method: 'POST',
      url: '/v1/chat/completions',
      headers: authorized,
      payload: chatBody(),
    });
    expect(response.statusCode).toBe(429);
    expect(response.headers).toMatchObject({ ...headers, 'retry-after': '2', 'retry-after-ms': '1234' });
    expect(response.headers).not.toHaveProperty('x-should-retry');
    expect(response.json()).toEqual({
      error: {
        message: 'The limit of 100 requests per minute for this key is reached; try again in 1234 ms.',
        type: 'requests',
        param: null,
        code: 'rate_limit_exceeded',
      },
    });
  });

  test('but says nothing of limits where there are none, nor on other routes', async ({ expect }) => {
    await using fixture = openApp();
    const url = '/v1/chat/completions';
    const chat = await fixture.app.inject({ method: 'POST', url, headers: authorized, payload: chatBody() });
    fixture.service.rate = rate;
    const models = await fixture.app.inject({ url: '/v1/models', headers: authorized });
    const names = [chat, models].flatMap((response) => Object.keys(response.headers));
    expect(names.filter((name) => name.startsWith('x-ratelimit') || name === 'x-helixflow-stale')).toEqual([]);
  });
});

describe('the official client', () => {
  const asked = { model: 'helix-tiny', messages: [{ role: 'user' as const, content: 'Hi' }] };

  test('waits as long as it is told, and then gets its answer', async ({ expect }) => {
    await using door = await openDoor();
    const answer = door.service.script;
    const waits = vi.spyOn(globalThis, 'setTimeout');
    const soon = new HelixFlowError('RATE_LIMITED', { ...limited.details, retryAfterMs: 67 } as never);
    door.service.script = (call) => (door.service.calls.length < 3 ? failing(soon)(call) : answer(call));
    const { choices } = await clientOf(door).chat.completions.create(asked);
    expect(choices[0]?.message.content).toBe('Hello world');
    expect(door.service.calls).toHaveLength(3);
    expect(waits.mock.calls.filter(([, delayMs]) => delayMs === 67)).toHaveLength(2);
    waits.mockRestore();
  });

  test('raises a RateLimitError, and does not repeat what can never pass', async ({ expect }) => {
    await using door = await openDoor();
    const never = new HelixFlowError('REQUEST_OVER_LIMIT', { tokens: 10, limit: 5, scope: 'key' });
    for (const [error, tries] of [
      [new HelixFlowError('RATE_LIMITED', { ...limited.details, retryAfterMs: 1 } as never), 3],
      [never, 1],
    ] as const) {
      door.service.calls.length = 0;
      door.service.script = failing(error);
      await expect(clientOf(door).chat.completions.create(asked)).rejects.toBeInstanceOf(OpenAI.RateLimitError);
      expect(door.service.calls).toHaveLength(tries);
    }
  });

  test('can read the limits of its response', async ({ expect }) => {
    await using door = await openDoor();
    door.service.rate = rate;
    const { response } = await clientOf(door).chat.completions.create(asked).withResponse();
    expect(response.headers.get('x-ratelimit-remaining-tokens')).toBe('4321');
  });

  test('reads in mid-stream that its key was revoked', async ({ expect }) => {
    await using door = await openDoor();
    door.service.script = ({ events }) => {
      events.committed(served);
      events.delta('Hel');
      events.failed(new HelixFlowError('KEY_REVOKED', {}));
    };
    const read = async (): Promise<void> => {
      for await (const _ of await clientOf(door).chat.completions.create({ ...asked, stream: true }));
    };
    await expect(read()).rejects.toMatchObject({ code: 'invalid_api_key' });
  });
});

/** An app whose one key grants what the test says. */
function appFor(access: Access, mesh = new SmallMesh()) {
  const keys: KeyChecker = { check: () => access };
  const { gateway: service, clock } = mesh;
  const noted: AuditRecord[] = [];
  const audit = { note: (record: AuditRecord) => void noted.push(cleanRecord(record).record) };
  const app = createGatewayApp({
    service,
    idempotency: openIdempotency(clock),
    keys,
    clock,
    random: seededRandom('limits'),
    log: quietLog,
    audit,
  });
  return { app, mesh, service, noted, [Symbol.asyncDispose]: () => app.close() };
}

describe('a key', () => {
  const team = accessOf({
    models: ['m*'],
    account: 'team-a' as AccountId,
    limits: { rpm: 10, tpm: 2_000 },
    accountLimits: { rpm: 4, concurrency: 3 },
    expiresMs: unixMs(1_800_000_000_500),
  });

  test('can see its own terms, and what is left of them', async ({ expect }) => {
    await using fixture = appFor(team);
    fixture.mesh.add();
    await fixture.mesh.call('m', 60_000, { caller: team });
    const response = await fixture.app.inject({ url: '/v1/keys/self', headers: authorized });
    expect(response.headers).toMatchObject({ 'cache-control': 'no-store' });
    expect(response.json()).toEqual({
      object: 'key',
      id: team.keyId,
      account: 'team-a',
      role: 'user',
      models: ['m*'],
      gateways: [],
      strict: false,
      preferences: {},
      expires_at: 1_800_000_000,
      limits: { rpm: 10, tpm: 2_000, concurrency: null },
      account_limits: { rpm: 4, tpm: null, concurrency: 3 },
      remaining: { requests: 3, tokens: expect.any(Number), concurrency: 2 },
    });
    expect(fixture.mesh.gateway.rateOf(team)?.requests?.remaining).toBe(3);
  });

  test('without limits has no end of anything', async ({ expect }) => {
    await using fixture = appFor(accessOf());
    const response = await fixture.app.inject({ url: '/v1/keys/self', headers: authorized });
    expect(response.json()).toMatchObject({
      expires_at: null,
      limits: { rpm: null, tpm: null, concurrency: null },
      remaining: { requests: null, tokens: null, concurrency: null },
    });
  });

  test('sees no other key', async ({ expect }) => {
    await using fixture = appFor(team);
    for (const url of ['/v1/keys', '/v1/keys/fedcba9876543210', '/v1/keys/self/fedcba9876543210']) {
      expect((await fixture.app.inject({ url, headers: authorized })).statusCode).toBe(404);
    }
    const other = await fixture.app.inject({ url: '/v1/keys/self?key=fedcba9876543210', headers: authorized });
    expect(other.json()).toMatchObject({ id: team.keyId });
  });

  test('served while the gateway is cut off is told so, on every route', async ({ expect }) => {
    await using fixture = appFor(accessOf({ staleSeconds: 1_234 }));
    for (const url of ['/v1/keys/self', '/v1/models', '/v1/models/none']) {
      const response = await fixture.app.inject({ url, headers: authorized });
      expect(response.headers).toMatchObject({ 'x-helixflow-stale': '1234' });
    }
  });
});

test('the audit log hears of a key that was refused by its limits, and of nothing that went well', async ({
  expect,
}) => {
  const access = accessOf({ limits: { rpm: 1 } });
  await using fixture = appFor(access);
  const ask = () =>
    fixture.app.inject({
      method: 'POST',
      url: '/v1/chat/completions',
      headers: authorized,
      payload: { ...chatBody(), model: 'm' },
    });
  const { engine } = fixture.mesh.add();
  const first = ask();
  await vi.waitFor(async () => {
    await fixture.mesh.settle();
    engine.running[0]?.finish();
    expect((await Promise.race([first, fixture.mesh.clock.turn()]))?.statusCode).toBe(200);
  });
  expect((await ask()).statusCode).toBe(429);
  const refusal = { action: 'request.refuse', actor: `key:${access.keyId}`, object: 'POST /v1/chat/completions' };
  expect(fixture.noted).toEqual([{ ...refusal, outcome: 'refused', reason: 'RATE_LIMITED' }]);
});

test('a key that is revoked while its body is still on its way is refused, and its new terms count', async ({
  expect,
}) => {
  let asked = Promise.withResolvers<void>();
  let now: Access | undefined;
  const keys: KeyChecker = {
    check: () => {
      asked.resolve();
      if (now === undefined) throw new HelixFlowError('KEY_REVOKED', {});
      return now;
    },
  };
  const mesh = new SmallMesh();
  mesh.add();
  const { gateway: service, clock } = mesh;
  const app = createGatewayApp({
    service,
    idempotency: openIdempotency(clock),
    keys,
    clock,
    random: seededRandom('late'),
    log: quietLog,
  });
  await using _closing = { [Symbol.asyncDispose]: () => app.close() };
  const { port } = await startListening(app, clock, { host: '127.0.0.1', port: 0, option: '--port' });
  const body = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'x' }] });
  const statusAfter = async (later: Access | undefined): Promise<number> => {
    now = accessOf();
    asked = Promise.withResolvers();
    const asking = httpRequest({
      port,
      host: '127.0.0.1',
      method: 'POST',
      path: '/v1/chat/completions',
      agent: false,
      headers: { ...authorized, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
    });
    asking.write(body.slice(0, 10));
    await asked.promise;
    now = later;
    asking.end(body.slice(10));
    const [response] = await once(asking, 'response');
    response.resume();
    return response.statusCode;
  };
  expect(await statusAfter(undefined)).toBe(401);
  expect(await statusAfter(accessOf({ models: ['other'] }))).toBe(403);
  expect(mesh.gateway.calls()).toBe(0);
});

const crowd = 1_000;

interface Visit {
  readonly status: number | 'aborted';
  readonly body: string;
}

/** Asks over a socket of its own; leaves at first content where `leaves`. */
function visit(port: number, agent: Agent, leaves: boolean): Promise<Visit> {
  return new Promise((resolve, reject) => {
    const body = JSON.stringify({
      model: 'm',
      stream: leaves,
      max_tokens: 5,
      messages: [{ role: 'user', content: 'x' }],
    });
    const asking = httpRequest(
      {
        port,
        host: '127.0.0.1',
        method: 'POST',
        path: '/v1/chat/completions',
        agent,
        headers: { ...authorized, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      },
      (response) => {
        const status = response.statusCode ?? 0;
        if (leaves && status === 200) {
          response.once('data', () => {
            asking.destroy();
            resolve({ status: 'aborted', body: '' });
          });
          return;
        }
        text(response).then((all) => resolve({ status, body: all }), reject);
      },
    );
    asking.on('error', () => resolve({ status: 'aborted', body: '' }));
    asking.end(body);
  });
}

describe('of a thousand requests at once', () => {
  const run = async (access: Access, leaversEvery: number) => {
    const mesh = new SmallMesh(crowd * 2);
    const engine = new ScriptedEngine(4_096);
    mesh.add(engine);
    await using fixture = appFor(access, mesh);
    const { port } = await startListening(fixture.app, mesh.clock, { host: '127.0.0.1', port: 0, option: '--port' });
    const agent = new Agent({ keepAlive: false, maxSockets: crowd });
    const visits: Visit[] = [];
    const asked = Array.from({ length: crowd }, (_, index) =>
      visit(port, agent, index % leaversEvery === 0).then((each) => visits.push(each)),
    );
    let most = 0;
    const pump = async (): Promise<void> => {
      while (visits.length < crowd) {
        await mesh.settle();
        most = Math.max(most, mesh.gateway.limits().running);
        // A request that passes stays until all that will be refused have been.
        if (visits.length + engine.running.length < crowd) continue;
        for (const each of [...engine.running]) {
          void each.emit('word');
          each.finish();
        }
      }
    };
    await Promise.all([...asked, pump()]);
    agent.destroy();
    await vi.waitFor(async () => {
      await mesh.settle();
      if (mesh.gateway.limits().running > 0) throw new Error('not yet');
    });
    const count = (status: Visit['status']): number => visits.filter((each) => each.status === status).length;
    return { passed: count(200) + count('aborted'), refused: count(429), most, left: mesh.gateway.limits(), mesh };
  };
  const nothingLeft = { running: 0, heldTokens: 0 };

  test('exactly as many pass as the key may make in a minute', async ({ expect }) => {
    const { passed, refused, left } = await run(accessOf({ limits: { rpm: 250 } }), 3);
    expect({ passed, refused, left }).toMatchObject({ passed: 250, refused: 750, left: nothingLeft });
  });

  test('exactly as many are under way as the account may have', async ({ expect }) => {
    const access = accessOf({ limits: { rpm: 100_000 }, accountLimits: { concurrency: 120 } });
    const { passed, refused, most, left } = await run(access, 3);
    expect({ passed, refused, most: most / 2, left }).toMatchObject({
      passed: 120,
      refused: 880,
      most: 120,
      left: nothingLeft,
    });
  });

  test('no more pass than fit into the tokens of a minute, at their worst', async ({ expect }) => {
    const access = accessOf({ keyId: 'aaaaaaaaaaaaaaaa' as KeyId, limits: { tpm: 20_000 } });
    const { passed, refused, left, mesh } = await run(access, 4);
    const bytes = JSON.stringify({ messages: [{ role: 'user', content: 'x' }], maxTokens: 5 }).length;
    expect(passed).toBe(Math.floor(20_000 / (bytes + 5)));
    expect(refused).toBe(crowd - passed);
    expect(left).toMatchObject(nothingLeft);
    // Prompts count with 3 tokens or, where the client had left, a quarter of their bytes; answers with 1 or 2.
    const used = 20_000 - (mesh.gateway.rateOf(access)?.tokens?.remaining ?? 0);
    expect(used).toBeGreaterThanOrEqual(passed * 4);
    expect(used).toBeLessThanOrEqual(passed * (Math.ceil(bytes / 4) + 2));
  });
});
