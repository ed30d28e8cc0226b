/** The node's half of a session against a gateway that plays with credit and with half-sent bodies. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { countDelta, deliveredTokens, nothingCounted } from '../../../protocol/counting.ts';
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
    resumeBytes: 0,
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

describe('what the gateway acknowledges', () => {
  /** Pieces of two tokens each; the last is told by its sequence number. */
  const opened = (count: number) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    const [attempt] = pair.served;
    if (attempt === undefined) throw new Error('not served');
    for (let at = 0; at < count; at += 1) void attempt.emit({ text: 'four', tokenIds: [at, at] });
    return { pair, seen, attempt };
  };
  const credit = (acknowledged: number, bytes = 0) => ({ type: 'credit', attempt: 1, bytes, acknowledged }) as const;
  const cancel = (acknowledged: number) => ({ type: 'cancel', attempt: 1, acknowledged }) as const;

  test('counts as tokens up to that piece, and no further', ({ expect }) => {
    const { pair, attempt } = opened(5);
    const counts = [0, 1, 1, 0, 4].map((below) => {
      forge(pair, credit(below));
      return attempt.acknowledgedTokens();
    });
    forge(pair, cancel(5));
    expect([...counts, attempt.acknowledgedTokens()]).toEqual([0, 2, 2, 2, 8, 10]);
    expect(attempt.sent()).toEqual({ tokens: 10, bytes: 20, hasIds: true });
  });

  test.for([
    ['credit', credit(6)],
    ['a cancel', cancel(6)],
  ] as const)('by %s is what was sent: more is a violation', ([, frame], { expect }) => {
    const { pair, attempt } = opened(5);
    forge(pair, frame);
    expect([pair.link.a.closedWith?.code, attempt.signal.reason]).toEqual([
      'PROTOCOL_VIOLATION',
      expect.objectContaining({ code: 'PROTOCOL_VIOLATION' }),
    ]);
  });

  test('is at each moment what an honest gateway has counted', ({ expect }) => {
    const piece = fc.record({ text: fc.string({ unit: 'binary', maxLength: 8 }), ids: fc.nat(5) });
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), fc.nat(12), (pieces, below) => {
        const { pair, attempt } = opened(0);
        let counted = nothingCounted;
        for (const [at, { text, ids }] of pieces.entries()) {
          void attempt.emit({ text, tokenIds: Array.from({ length: ids }, () => 7) });
          if (at < below) counted = countDelta(counted, text, ids);
        }
        forge(pair, cancel(Math.min(below, pieces.length)));
        expect(attempt.acknowledgedTokens()).toBe(deliveredTokens(counted));
      }),
      { numRuns: 100 },
    );
  });

  test('by a cancel is all that the gateway was told', ({ expect }) => {
    const { pair, seen, attempt } = opened(0);
    const text = 'x'.repeat(8_000);
    for (let at = 0; at < 20; at += 1) void attempt.emit({ text, tokenIds: [at] });
    pair.link.a.deliver(5);
    seen.attempt.cancel();
    pair.link.settle();
    // What comes later is not passed on, so it is not acknowledged either.
    seen.attempt.consumed(20 * text.length);
    pair.link.settle();
    expect([seen.deltas.length, attempt.acknowledgedTokens(), attempt.sent().tokens]).toEqual([5, 5, 20]);
  });

  test('makes room: credit alone lets no node go on', ({ expect }) => {
    const { pair, attempt } = opened(0);
    const text = 'x'.repeat(1_000);
    const fill = (): number => {
      for (let sent = 0; ; sent += 1) if (attempt.emit({ text, tokenIds: [1] }) !== undefined) return sent + 1;
    };
    const first = fill();
    forge(pair, credit(0, limits.creditInitialBytes));
    expect([first, fill()]).toEqual([260, 1]);
    forge(pair, credit(first, limits.creditInitialBytes));
    // All but what the one piece takes that is still unacknowledged.
    expect(fill()).toBe(first - 2);
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
