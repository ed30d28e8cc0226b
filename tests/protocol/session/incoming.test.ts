/** The node's half of a session against a gateway that plays with credit and with half-sent bodies. */

import { describe, test } from 'vitest';
import { limits } from '../../../protocol/limits.ts';
import { encodeSessionFrame, parseSessionFrame, type SessionFrame } from '../../../protocol/messages/session.ts';
import { ms } from '../../../protocol/units.ts';
import { requestOf, type SessionPair, sessionPair } from '../../support/sessions.ts';

/** Sends a frame as the gateway would, past its session. Nothing comes back by itself. */
const forge = (pair: SessionPair, frame: SessionFrame): void => {
  pair.link.b.send(encodeSessionFrame(frame));
  pair.link.b.deliver();
};

/** Sooner than a session without pongs ends. */
const deadlineMs = ms(5_000);

const half = (attempt: number): SessionFrame => {
  const { body: _, ...asked } = requestOf(new Uint8Array());
  return {
    type: 'open',
    operation: 'chat',
    attempt,
    ...asked,
    deadlineMs,
    bodyBytes: limits.requestBodyMaxBytes,
    piece: new Uint8Array(1),
  };
};

/** What the node has answered and the gateway has not taken. */
const answersOf = (pair: SessionPair): unknown[] =>
  pair.link.a.queue
    .map((bytes) => parseSessionFrame(bytes))
    .flatMap((frame) => {
      if (frame?.type === 'cancelled') return [`${frame.attempt} cancelled`];
      return frame?.type === 'fail' ? [`${frame.attempt} ${frame.error.code}`] : [];
    });

describe('credit', () => {
  test('never adds up to more than one client may hold, however much of it comes', ({ expect }) => {
    const pair = sessionPair();
    pair.open();
    pair.link.settle();
    for (let more = 0; more < 10; more += 1) {
      forge(pair, { type: 'credit', attempt: 1, bytes: 0xffff_ffff, acknowledged: 0 });
    }
    const piece = { text: 'x'.repeat(1_000), tokenIds: [] };
    let sent = 0;
    while (pair.served[0]?.emit(piece) === undefined && sent < 2_000) sent += 1;
    const sentBytes = pair.link.a.queue.reduce((sum, { length }) => sum + length, 0);
    expect(sentBytes).toBeGreaterThanOrEqual(limits.creditInitialBytes);
    expect(sentBytes).toBeLessThan(limits.creditInitialBytes + 2_000);
  });
});

describe('a body that is half there', () => {
  const roomFor = Math.floor(limits.sessionBodyMaxBytes / limits.requestBodyMaxBytes);

  test('counts against what the session may hold', ({ expect }) => {
    const pair = sessionPair();
    for (let attempt = 1; attempt <= roomFor + 1; attempt += 1) forge(pair, half(attempt));
    expect(answersOf(pair)).toEqual([`${roomFor + 1} NODE_OVERLOADED`]);
  });

  test('leaves its room to others once it is cancelled', ({ expect }) => {
    const pair = sessionPair();
    for (let attempt = 1; attempt <= 2 * roomFor + 1; attempt += 1) {
      forge(pair, half(attempt));
      forge(pair, { type: 'cancel', attempt, acknowledged: 0 });
    }
    const cancelled = Array.from({ length: 2 * roomFor + 1 }, (_, index) => `${index + 1} cancelled`);
    expect([answersOf(pair), pair.node.attempts, pair.served]).toEqual([cancelled, 0, []]);
  });

  test('leaves its room to others once it is given up, and no timer behind', async ({ expect }) => {
    const pair = sessionPair();
    for (let attempt = 1; attempt <= roomFor; attempt += 1) forge(pair, half(attempt));
    await pair.clock.advance(deadlineMs);
    pair.link.a.queue.length = 0;
    for (let attempt = roomFor + 1; attempt <= 2 * roomFor; attempt += 1) forge(pair, half(attempt));
    expect([answersOf(pair), pair.node.attempts]).toEqual([[], roomFor]);
    pair.link.cut();
    expect(pair.clock.timers).toBe(0);
  });
});
