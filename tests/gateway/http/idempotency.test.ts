/** `Idempotency-Key` over HTTP: what a client that asks again is answered, and that nothing is run twice for it. */

import { describe, test, vi } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import {
  answering,
  authorized,
  chatBody,
  end,
  eventsOf,
  type Fixture,
  failing,
  openApp,
  served,
  silent,
} from './fakes.ts';
import { clientOf, openDoor, Wire } from './sockets.ts';

const replay = 'x-helixflow-idempotent-replay';
const post = ({ app }: Fixture, body: object, key = 'key-1') =>
  app.inject({
    method: 'POST',
    url: '/v1/chat/completions',
    headers: { 'content-type': 'application/json', 'idempotency-key': key, ...authorized },
    payload: JSON.stringify(body),
  });

describe('a request that comes again', () => {
  test('gets the same whole answer, marked, with a request id of its own', async ({ expect }) => {
    await using fixture = openApp();
    const first = await post(fixture, chatBody());
    await fixture.clock.advance(5_000);
    const second = await post(fixture, chatBody());
    expect(second.json()).toEqual({ ...first.json(), helixflow: expect.anything() });
    expect([first, second].map(({ headers }) => headers[replay])).toEqual([undefined, 'true']);
    expect(first.headers['x-request-id']).not.toBe(second.headers['x-request-id']);
    expect(second.headers['x-helixflow-node']).toBe(served.node);
    expect(fixture.service.calls).toHaveLength(1);
  });

  test('gets the same stream', async ({ expect }) => {
    await using fixture = openApp();
    const body = chatBody({ stream: true, stream_options: { include_usage: true } });
    const [first, second] = [await post(fixture, body), await post(fixture, body)];
    const partsOf = (text: string): unknown[] =>
      eventsOf(text).map((event) =>
        typeof event === 'object' ? { ...event, helixflow: undefined, choices: 0 } : event,
      );
    const textOf = (text: string): string =>
      eventsOf(text)
        .map((event) => (event as { choices?: { delta?: { content?: string } }[] }).choices?.[0]?.delta?.content ?? '')
        .join('');
    expect(textOf(second.body)).toBe(textOf(first.body));
    expect([partsOf(second.body)[0], partsOf(second.body).slice(-2)]).toEqual([
      partsOf(first.body)[0],
      partsOf(first.body).slice(-2),
    ]);
    expect([first.headers[replay], second.headers[replay], fixture.service.calls.length]).toEqual([
      undefined,
      'true',
      1,
    ]);
  });

  test('while the first runs joins it', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.script = silent;
    const both = [post(fixture, chatBody()), post(fixture, chatBody())];
    await vi.waitUntil(() => fixture.service.calls.length > 0);
    const call = fixture.service.calls[0];
    answering('shared')(call as never);
    const answers = (await Promise.all(both)).map((response) => response.json().choices[0].message.content);
    expect([answers, fixture.service.calls.length]).toEqual([['shared', 'shared'], 1]);
  });

  test.for([
    ['another prompt', chatBody({ messages: [{ role: 'user', content: 'Other' }] })],
    ['as a stream', chatBody({ stream: true })],
    ['for another model', chatBody({ model: 'helix-other' })],
  ] as const)('with %s is refused', async ([, other], { expect }) => {
    await using fixture = openApp();
    await post(fixture, chatBody());
    const refused = await post(fixture, other);
    expect([refused.statusCode, refused.json().error.code, refused.headers['x-helixflow-error']]).toEqual([
      422,
      'idempotency_key_reused',
      'IDEMPOTENCY_MISMATCH',
    ]);
    expect(fixture.service.calls).toHaveLength(1);
  });

  test('after a restart is told which request it was, and not to try again', async ({ expect }) => {
    const store = new MemoryStore();
    let request: unknown;
    {
      await using fixture = openApp({}, { store });
      await post(fixture, chatBody());
      request = fixture.service.calls[0]?.call.request;
    }
    await using fixture = openApp({}, { store });
    const gone = await post(fixture, chatBody());
    expect([gone.statusCode, gone.headers['x-should-retry'], gone.json().error.code]).toEqual([
      409,
      'false',
      'idempotency_answer_gone',
    ]);
    expect(gone.json().error.message).toContain(request);
    expect(fixture.service.calls).toEqual([]);
  });

  test('after a failure that cost nothing runs again', async ({ expect }) => {
    await using fixture = openApp();
    fixture.service.script = failing(new HelixFlowError('MODEL_UNAVAILABLE', { model: 'm', retryAfterMs: 1 }));
    expect((await post(fixture, chatBody())).statusCode).toBe(503);
    fixture.service.script = answering('now');
    const again = await post(fixture, chatBody());
    expect([again.json().choices[0].message.content, again.headers[replay]]).toEqual(['now', undefined]);
    expect(fixture.service.calls).toHaveLength(2);
  });

  test('counts its tokens once', async ({ expect }) => {
    await using fixture = openApp();
    await post(fixture, chatBody());
    await post(fixture, chatBody());
    await vi.waitFor(() => expect(fixture.records.map((record) => record.end)).toEqual([end, undefined]));
  });
});

describe('a key', () => {
  test.for([
    ['empty', ''],
    ['too long', 'x'.repeat(256)],
    ['with a character that is none', 'a\tb'],
    ['beyond ASCII', 'clé'],
  ] as const)('that is %s is refused', async ([, key], { expect }) => {
    await using fixture = openApp();
    const refused = await post(fixture, chatBody(), key);
    expect([refused.statusCode, refused.json().error.param]).toEqual([400, 'Idempotency-Key']);
    expect(fixture.service.calls).toEqual([]);
  });

  test.for(['x', ' ~', 'x'.repeat(255)])('of 1 to 255 printable characters is taken', async (key, { expect }) => {
    await using fixture = openApp();
    expect((await post(fixture, chatBody(), key)).statusCode).toBe(200);
  });

  test('of a request that is refused as it stands is not used up', async ({ expect }) => {
    await using fixture = openApp();
    expect((await post(fixture, { model: 'helix-tiny' })).statusCode).toBe(400);
    expect((await post(fixture, chatBody())).statusCode).toBe(200);
  });
});

test('without a key each request is one of its own', async ({ expect }) => {
  await using fixture = openApp();
  const ask = () =>
    fixture.app.inject({
      method: 'POST',
      url: '/v1/chat/completions',
      headers: { 'content-type': 'application/json', ...authorized },
      payload: JSON.stringify(chatBody()),
    });
  await ask();
  await ask();
  expect(fixture.service.calls).toHaveLength(2);
});

describe('over a connection', () => {
  test('a client that leaves does not end what another waits for', async ({ expect }) => {
    await using door = await openDoor();
    door.service.script = silent;
    using first = await Wire.open(door.port);
    first.ask(chatBody({ stream: true }), { 'idempotency-key': 'k' });
    await vi.waitUntil(() => door.service.calls.length > 0);
    const call = door.service.calls[0];
    using second = await Wire.open(door.port);
    second.ask(chatBody({ stream: true }), { 'idempotency-key': 'k' });
    call?.events.committed(served);
    call?.events.delta('half ');
    await vi.waitFor(() => expect(second.text).toContain('half '));
    first.socket.destroy();
    await vi.waitFor(() => expect(door.records).toHaveLength(1));
    await door.clock.advance(60_000);
    expect(call?.isCancelled).toBe(false);
    call?.events.delta('whole');
    call?.events.done(end);
    await vi.waitFor(() => expect(second.text).toContain('[DONE]'));
    expect(second.text).toContain(`${replay}: true`);
  });

  test('one that leaves alone, and does not come back, ends the work', async ({ expect }) => {
    await using door = await openDoor();
    door.service.script = silent;
    using first = await Wire.open(door.port);
    first.ask(chatBody(), { 'idempotency-key': 'k' });
    await vi.waitUntil(() => door.service.calls.length > 0);
    first.socket.destroy();
    await vi.waitFor(() => expect(door.records).toHaveLength(1));
    expect(door.service.calls[0]?.isCancelled).toBe(false);
    await door.clock.advance(2_000);
    expect(door.service.calls[0]?.isCancelled).toBe(true);
  });

  test('the official client that gave up waiting, and tries again, finds its answer going on', async ({ expect }) => {
    await using door = await openDoor();
    door.service.script = silent;
    const asked = { model: 'helix-tiny', messages: [{ role: 'user' as const, content: 'Hi' }] };
    const options = { timeout: 200, headers: { 'Idempotency-Key': 'k' } };
    const answer = clientOf(door).chat.completions.create(asked, options);
    // The first try has given up, and the second has come.
    await vi.waitFor(() => expect(door.records).toHaveLength(1), { timeout: 5_000 });
    answering('in the end')(door.service.calls[0] as never);
    expect((await answer).choices[0]?.message.content).toBe('in the end');
    expect(door.service.calls).toHaveLength(1);
  });
});
