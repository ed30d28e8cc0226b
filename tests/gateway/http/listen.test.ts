/** Opening the port, and closing it while clients are being served. */

import { createServer } from 'node:net';
import { describe, test, vi } from 'vitest';
import { startListening } from '../../../gateway/http/listen.ts';
import { seconds } from '../../../protocol/units.ts';
import { chatBody, end, openApp, served, silent } from './fakes.ts';
import { Wire } from './sockets.ts';

const here = { host: '127.0.0.1', port: 0, option: '--port' };

async function listening() {
  const fixture = openApp();
  const door = await startListening(fixture.app, fixture.clock, here);
  return { ...fixture, door, [Symbol.asyncDispose]: () => fixture.app.close() };
}

describe('a port that cannot be opened', () => {
  test('because it is taken is PORT_IN_USE, and names the option', async ({ expect }) => {
    await using first = await listening();
    await using second = openApp();
    const again = startListening(second.app, second.clock, { ...here, port: first.door.port });
    await expect(again).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      details: { host: '127.0.0.1', port: first.door.port, option: '--port' },
    });
  });

  test('because the host is not ours is CONFIG_INVALID', async ({ expect }) => {
    await using fixture = openApp();
    const opening = startListening(fixture.app, fixture.clock, { ...here, host: '192.0.2.1' });
    await expect(opening).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });
});

test('the base URL is what clients set', async ({ expect }) => {
  await using fixture = await listening();
  expect(fixture.door.baseUrl).toBe(`http://127.0.0.1:${fixture.door.port}/v1`);
});

describe('closing', () => {
  test('finishes the answer under way, begins no other, and then frees the port', async ({ expect }) => {
    await using fixture = await listening();
    const { door, service } = fixture;
    service.script = silent;
    using wire = await Wire.open(door.port);
    using late = await Wire.open(door.port);
    wire.ask(chatBody({ stream: true }));
    await vi.waitUntil(() => service.calls.length === 1);
    const closing = door.close(seconds(30));
    late.ask(chatBody());
    await vi.waitFor(() => expect(late.text).toContain('HTTP/1.1 503'));
    const [call] = service.calls;
    call?.events.committed(served);
    call?.events.delta('to the end');
    call?.events.done(end);
    await closing;
    expect(await wire.closed()).toContain('[DONE]');
    const server = createServer().listen(door.port, '127.0.0.1');
    await vi.waitFor(() => expect(server.listening).toBe(true));
    server.close();
  });

  test('ends what takes longer than the grace with an error that its client can read', async ({ expect }) => {
    await using fixture = await listening();
    const { door, service, clock } = fixture;
    service.script = ({ events }) => events.committed(served);
    using stream = await Wire.open(door.port);
    using whole = await Wire.open(door.port);
    stream.ask(chatBody({ stream: true }));
    whole.ask(chatBody());
    await vi.waitFor(() => expect(stream.text).toContain('"role"'));
    await vi.waitUntil(() => service.calls.length === 2);
    const closing = door.close(seconds(30));
    await clock.advance(30_000);
    await closing;
    const text = await stream.closed();
    expect(text).toContain('"code":"server_is_overloaded"');
    expect(text).not.toContain('[DONE]');
    expect(await whole.closed()).toContain('HTTP/1.1 503');
    expect(service.calls.map(({ isCancelled }) => isCancelled)).toEqual([true, true]);
  });

  test('ends them sooner for who is in a hurry', async ({ expect }) => {
    await using fixture = await listening();
    const { door, service } = fixture;
    service.script = ({ events }) => events.committed(served);
    using stream = await Wire.open(door.port);
    stream.ask(chatBody({ stream: true }));
    await vi.waitFor(() => expect(stream.text).toContain('"role"'));
    const hurry = new AbortController();
    const closing = door.close(seconds(30), hurry.signal);
    hurry.abort();
    await closing;
    expect(await stream.closed()).toContain('"code":"server_is_overloaded"');
  });

  test('a second time does not wait', async ({ expect }) => {
    await using fixture = await listening();
    const { door, service } = fixture;
    service.script = silent;
    using wire = await Wire.open(door.port);
    wire.ask(chatBody({ stream: true }));
    await vi.waitUntil(() => service.calls.length === 1);
    const first = door.close(seconds(30));
    await Promise.all([first, door.close(seconds(30))]);
    await wire.closed();
    expect(service.calls[0]?.isCancelled).toBe(true);
  });

  test('does not wait for connections that ask for nothing', async ({ expect }) => {
    await using fixture = await listening();
    using wire = await Wire.open(fixture.door.port);
    await fixture.door.close(seconds(30));
    expect(await wire.closed()).toBe('');
  });
});
