/** Streams over time, and against clients that are slow or gone. */

import { describe, test, vi } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { chatBody, end, eventsOf, type FakeCall, served, silent } from './fakes.ts';
import { type Door, openDoor, Wire } from './sockets.ts';

interface Asked extends AsyncDisposable {
  readonly wire: Wire;
  readonly call: FakeCall;
}

/** A stream that has been asked for and says nothing yet. */
async function ask(door: Door, more: object = {}): Promise<Asked> {
  door.service.script = silent;
  const before = door.service.calls.length;
  const wire = await Wire.open(door.port);
  wire.ask(chatBody({ stream: true, ...more }));
  await vi.waitUntil(() => door.service.calls.length > before);
  const call = door.service.calls[before] as FakeCall;
  return { wire, call, [Symbol.asyncDispose]: async () => wire[Symbol.dispose]() };
}

const pings = (wire: Wire): number => wire.text.split(': ping\n\n').length - 1;
/** The texts of a stream's chunks, in order. */
const textsOf = (wire: Wire): string[] =>
  eventsOf(wire.text.replaceAll(/(?:^|\r\n)[0-9a-f]+\r\n/g, ''))
    .map((event) => (event as { choices?: { delta: { content?: string } }[] }).choices?.[0]?.delta.content ?? '')
    .filter((text) => text !== '');

describe('while there is no content', () => {
  test('headers leave after ten seconds, and a ping every fifteen', async ({ expect }) => {
    await using door = await openDoor();
    await using asked = await ask(door);
    const { wire, call } = asked;
    await door.clock.advance(9_999);
    expect(wire.text).toBe('');
    await door.clock.advance(1);
    await vi.waitFor(() => expect(wire.text).toContain('HTTP/1.1 200 OK'));
    expect(wire.text).not.toContain('x-helixflow-node');
    expect(pings(wire)).toBe(1);
    await door.clock.advance(30_000);
    await vi.waitFor(() => expect(pings(wire)).toBe(3));
    call.events.committed(served);
    call.events.delta('Hello');
    call.events.done(end);
    await vi.waitFor(() => expect(wire.text).toContain('[DONE]'));
    expect(wire.text).toContain(`"nodes":["${served.node}"]`);
    expect(wire.text.match(/"role":"assistant"/g)).toHaveLength(1);
  });

  test('an error after the headers comes in-band', async ({ expect }) => {
    await using door = await openDoor();
    await using asked = await ask(door);
    const { wire, call } = asked;
    await door.clock.advance(10_000);
    call.events.failed(new HelixFlowError('NODE_LOST', {}));
    await vi.waitFor(() => expect(wire.text).toContain('"code":"upstream_error"'));
    expect(wire.text).not.toContain('[DONE]');
    await vi.waitFor(() =>
      expect(door.records).toMatchObject([{ status: 200, outcome: 'failed', error: 'NODE_LOST' }]),
    );
  });

  test('clients that take no comments get an empty chunk, after the one that says who speaks', async ({ expect }) => {
    await using door = await openDoor({ keepAlive: 'chunk' });
    await using asked = await ask(door);
    const { wire } = asked;
    await door.clock.advance(25_000);
    await vi.waitFor(() => expect(wire.text).toContain('"delta":{}'));
    expect(wire.text).not.toContain(': ping');
    expect(wire.text.indexOf('"role":"assistant"')).toBeLessThan(wire.text.indexOf('"delta":{}'));
  });

  test('signs of life can be turned off', async ({ expect }) => {
    await using door = await openDoor({ keepAlive: 'off' });
    await using asked = await ask(door);
    const { wire } = asked;
    await door.clock.advance(600_000);
    await vi.waitFor(() => expect(wire.text).toContain('HTTP/1.1 200 OK'));
    expect(wire.text.endsWith('\r\n\r\n')).toBe(true);
  });
});

test('an ended stream leaves no timer behind', async ({ expect }) => {
  await using door = await openDoor();
  await using asked = await ask(door);
  const { wire, call } = asked;
  call.events.committed(served);
  call.events.delta('x');
  call.events.done(end);
  await vi.waitFor(() => expect(wire.text).toContain('[DONE]'));
  await vi.waitFor(() => expect(door.clock.timers).toBe(0));
});

test('a stream that failed before its headers leaves no timer behind', async ({ expect }) => {
  await using door = await openDoor();
  await using asked = await ask(door);
  expect(door.clock.timers).toBeGreaterThan(0);
  asked.call.events.failed(new HelixFlowError('NODE_LOST', {}));
  await vi.waitFor(() => expect(asked.wire.text).toContain('upstream_error'));
  expect(door.clock.timers).toBe(0);
});

test('a stream whose client has gone leaves no timer behind', async ({ expect }) => {
  await using door = await openDoor();
  await using asked = await ask(door);
  asked.call.events.committed(served);
  asked.wire.socket.destroy();
  await vi.waitFor(() => expect(asked.call.isCancelled).toBe(true));
  expect(door.clock.timers).toBe(0);
});

test('a stream that was busy is pinged only after fifteen seconds of silence', async ({ expect }) => {
  await using door = await openDoor();
  await using asked = await ask(door);
  const { wire, call } = asked;
  call.events.committed(served);
  for (let step = 0; step < 10; step += 1) {
    call.events.delta(`${step}`);
    await door.clock.advance(14_000);
  }
  expect(pings(wire)).toBe(0);
  await door.clock.advance(2_000);
  await vi.waitFor(() => expect(pings(wire)).toBe(1));
});

const piece = 'äöü€🌍'.repeat(1_000);
const aheadMaxBytes = 262_144;
const sentMaxBytes = 200_000_000;

/** Sends as a node does: never further ahead of what was consumed than its credit. @returns pieces sent. */
async function sendUntilStuck(call: FakeCall, text = piece): Promise<number> {
  const bytes = Buffer.byteLength(text);
  const mayGoOn = (): boolean => (sent + 1) * bytes - call.consumedBytes <= aheadMaxBytes;
  let sent = 0;
  for (let stuckTurns = 0; stuckTurns < 100 && sent * bytes < sentMaxBytes; stuckTurns += 1) {
    for (let burst = 0; burst < 100 && mayGoOn(); burst += 1) {
      stuckTurns = 0;
      call.events.delta(text);
      sent += 1;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  return sent;
}

test('what the socket still holds is not told as consumed, but is once it has gone', async ({ expect }) => {
  await using door = await openDoor();
  await using asked = await ask(door);
  const { call } = asked;
  call.events.committed(served);
  for (let count = 0; count < 20; count += 1) call.events.delta(piece);
  const sentBytes = 20 * Buffer.byteLength(piece);
  expect(call.consumedBytes).toBeLessThan(sentBytes);
  await vi.waitFor(() => expect(call.consumedBytes).toBe(sentBytes));
});

describe('a client that does not read', () => {
  test('stops its own node, not another client, and gets everything once it reads again', async ({ expect }) => {
    await using door = await openDoor();
    await using slow = await ask(door);
    await using quick = await ask(door);
    slow.wire.socket.pause();
    slow.call.events.committed(served);
    quick.call.events.committed(served);
    const sent = await sendUntilStuck(slow.call);
    const sentBytes = sent * Buffer.byteLength(piece);
    expect(sentBytes).toBeLessThan(sentMaxBytes);
    expect(sentBytes - slow.call.consumedBytes).toBeLessThanOrEqual(aheadMaxBytes);
    quick.call.events.delta('still here');
    await vi.waitFor(() => expect(quick.wire.text).toContain('still here'));
    slow.call.events.done(end);
    slow.wire.socket.resume();
    await vi.waitFor(() => expect(slow.wire.text).toContain('[DONE]'), { timeout: 10_000 });
    expect(textsOf(slow.wire).join('')).toBe(piece.repeat(sent));
    await vi.waitFor(() => expect(door.records).toMatchObject([{ outcome: 'ok' }]));
  });

  test('gets small pieces merged, without a character split', async ({ expect }) => {
    await using door = await openDoor();
    await using slow = await ask(door);
    slow.wire.socket.pause();
    slow.call.events.committed(served);
    const sent = await sendUntilStuck(slow.call, 'ü🌍');
    slow.call.events.done(end);
    slow.wire.socket.resume();
    await vi.waitFor(() => expect(slow.wire.text).toContain('[DONE]'), { timeout: 10_000 });
    const texts = textsOf(slow.wire);
    expect(texts.join('') === 'ü🌍'.repeat(sent)).toBe(true);
    expect(texts.length).toBeLessThan(sent - 1_000);
    expect(texts.every((text) => text.isWellFormed())).toBe(true);
  });

  test('is told of an error behind all that waits for it', async ({ expect }) => {
    await using door = await openDoor();
    await using slow = await ask(door);
    slow.wire.socket.pause();
    slow.call.events.committed(served);
    const sent = await sendUntilStuck(slow.call);
    slow.call.events.failed(new HelixFlowError('STREAM_INTERRUPTED', {}));
    slow.wire.socket.resume();
    await vi.waitFor(() => expect(slow.wire.text).toContain('stream_interrupted'), { timeout: 10_000 });
    expect(textsOf(slow.wire).join('')).toBe(piece.repeat(sent));
  });

  test('gets no sign of life on top of what waits for it', async ({ expect }) => {
    await using door = await openDoor();
    await using slow = await ask(door);
    slow.wire.socket.pause();
    slow.call.events.committed(served);
    const sent = await sendUntilStuck(slow.call);
    // Past a ping that is due, short of the cut.
    await door.clock.advance(29_000);
    slow.wire.socket.resume();
    await vi.waitFor(() => expect(slow.call.consumedBytes).toBe(sent * Buffer.byteLength(piece)), { timeout: 10_000 });
    slow.call.events.done(end);
    await vi.waitFor(() => expect(slow.wire.text).toContain('[DONE]'));
    expect(pings(slow.wire)).toBe(0);
    await vi.waitFor(() => expect(door.records).toMatchObject([{ outcome: 'ok' }]));
    expect(door.clock.timers).toBe(0);
  });

  test('leaves no timer behind once it has read to the end', async ({ expect }) => {
    await using door = await openDoor();
    await using slow = await ask(door);
    slow.wire.socket.pause();
    slow.call.events.committed(served);
    await sendUntilStuck(slow.call);
    slow.call.events.done(end);
    // Only the cut is waited for; the ticks ended with the answer.
    expect(door.clock.timers).toBe(1);
    slow.wire.socket.resume();
    await vi.waitFor(() => expect(door.records).toMatchObject([{ outcome: 'ok' }]), { timeout: 10_000 });
    expect(door.clock.timers).toBe(0);
  });

  test('is cut after thirty seconds, and its work stops', async ({ expect }) => {
    await using door = await openDoor();
    await using slow = await ask(door);
    slow.wire.socket.pause();
    slow.call.events.committed(served);
    await sendUntilStuck(slow.call);
    await door.clock.advance(29_000);
    expect(slow.call.isCancelled).toBe(false);
    await door.clock.advance(1_100);
    await vi.waitFor(() => expect(slow.call.isCancelled).toBe(true));
    expect(door.records).toMatchObject([{ outcome: 'stalled', status: 200 }]);
    expect(door.clock.timers).toBe(0);
  });

  test('is cut at its end too', async ({ expect }) => {
    await using door = await openDoor();
    await using slow = await ask(door);
    slow.wire.socket.pause();
    slow.call.events.committed(served);
    await sendUntilStuck(slow.call);
    slow.call.events.done(end);
    await door.clock.advance(31_000);
    await vi.waitFor(() => expect(door.records).toMatchObject([{ outcome: 'stalled' }]));
  });

  test('is cut when its node sends far more than its credit', async ({ expect }) => {
    await using door = await openDoor();
    await using slow = await ask(door);
    slow.wire.socket.pause();
    slow.call.events.committed(served);
    await sendUntilStuck(slow.call);
    for (let step = 0; step < 100; step += 1) slow.call.events.delta(piece);
    await vi.waitFor(() => expect(slow.call.isCancelled).toBe(true));
    expect(door.records).toMatchObject([{ outcome: 'failed', error: 'ENGINE_FAILED' }]);
  });

  test('is cut in the middle of a whole answer as well', async ({ expect }) => {
    await using door = await openDoor();
    await using slow = await ask(door, { stream: false });
    slow.wire.socket.pause();
    slow.call.events.committed(served);
    for (let step = 0; step < 1_000; step += 1) slow.call.events.delta(piece);
    slow.call.events.done(end);
    await door.clock.advance(29_000);
    expect(door.records).toEqual([]);
    await door.clock.advance(3_600_000);
    await vi.waitFor(() => expect(door.records).toMatchObject([{ outcome: 'stalled' }]));
  });
});

test('a whole answer that does not end is given up', async ({ expect }) => {
  await using door = await openDoor();
  await using asked = await ask(door, { stream: false });
  const { wire, call } = asked;
  call.events.committed(served);
  const large = 'x'.repeat(1_000_000);
  for (let step = 0; step < 40; step += 1) call.events.delta(large);
  await vi.waitFor(() => expect(wire.text).toContain('"code":"upstream_error"'));
  expect(call.isCancelled).toBe(true);
});
