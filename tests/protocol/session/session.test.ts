/** One session: attempts, credit, bodies, bad peers, cuts and silence. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import {
  type Cancelled,
  type Done,
  encodeSessionFrame,
  type SessionFrame,
} from '../../../protocol/messages/session.ts';
import { ms } from '../../../protocol/units.ts';
import { doneFields, requestOf, type SessionPair, sessionPair } from '../../support/sessions.ts';

const endsOf = (ends: readonly unknown[]): unknown[] =>
  ends.map((end) => (end instanceof HelixFlowError ? end.code : 'done'));

/** Sends a frame as the node would, past its session. */
const forge = (pair: SessionPair, frame: SessionFrame): void => {
  pair.link.a.send(encodeSessionFrame(frame));
  pair.link.settle();
};

describe('attempts', () => {
  test('an answer arrives whole and in order', ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open(new Uint8Array([1, 2, 3]));
    pair.link.settle();
    const [attempt] = pair.served;
    expect(attempt?.body).toEqual(new Uint8Array([1, 2, 3]));
    void attempt?.emit({ text: 'a', tokenIds: [7] });
    void attempt?.emit({ text: 'b', tokenIds: [] });
    attempt?.done(doneFields, ms(0));
    pair.link.settle();
    expect(seen.deltas.map(({ text, tokenIds }) => [text, tokenIds])).toEqual([
      ['a', [7]],
      ['b', []],
    ]);
    expect(endsOf(seen.ends)).toEqual(['done']);
    expect(pair.gateway.attempts + pair.node.attempts).toBe(0);
  });

  test('a cancel reaches the node, is acknowledged, and no event follows', ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    seen.attempt.cancel();
    pair.link.settle();
    const [attempt] = pair.served;
    expect(attempt?.signal.reason).toMatchObject({ code: 'REQUEST_CANCELLED' });
    expect(pair.gateway.attempts).toBe(1);
    void attempt?.emit({ text: 'late', tokenIds: [] });
    attempt?.cancelled(3, 2);
    pair.link.settle();
    expect([seen.deltas, seen.ends, pair.gateway.attempts]).toEqual([[], [], 0]);
  });

  describe('a cancel tells its caller once what became of the work', () => {
    /** A cancelled attempt, what its caller was told, and what the node serves of it. */
    const cancelled = (body?: Uint8Array) => {
      const pair = sessionPair();
      const seen = pair.open(body);
      const said: (Cancelled | Done | undefined)[] = [];
      const cancel = (): void => seen.attempt.cancel((word) => said.push(word));
      return { pair, seen, said, cancel };
    };

    test('when the node has stopped', ({ expect }) => {
      const { pair, seen, said, cancel } = cancelled();
      pair.link.settle();
      cancel();
      expect(said).toEqual([]);
      pair.link.settle();
      pair.served[0]?.cancelled(3, 2);
      pair.served[0]?.cancelled(4, 4);
      pair.link.settle();
      pair.link.cut();
      expect([said, seen.ends]).toEqual([
        [{ type: 'cancelled', attempt: 1, completionTokens: 3, promptTokens: 2 }],
        [],
      ]);
    });

    test('when the end was under way', ({ expect }) => {
      const { pair, seen, said, cancel } = cancelled();
      pair.link.settle();
      pair.served[0]?.done(doneFields, ms(0));
      cancel();
      pair.link.settle();
      expect([said.map((word) => word?.type), seen.ends, pair.closed]).toEqual([['done'], [], []]);
    });

    test('when a failure was under way', ({ expect }) => {
      const { pair, seen, said, cancel } = cancelled();
      pair.link.settle();
      pair.served[0]?.fail(new HelixFlowError('NODE_DRAINING', {}));
      cancel();
      pair.link.settle();
      expect([said, seen.ends, pair.closed]).toEqual([[undefined], [], []]);
    });

    test('when the session is lost', ({ expect }) => {
      const { pair, seen, said, cancel } = cancelled();
      pair.link.settle();
      cancel();
      pair.link.cut();
      expect([said, seen.ends]).toEqual([[undefined], []]);
    });

    test('when the node never had the whole request', ({ expect }) => {
      const { pair, said, cancel } = cancelled(new Uint8Array(1_000_000));
      pair.link.b.deliver(1);
      cancel();
      pair.link.settle();
      expect([said, pair.served]).toEqual([
        [{ type: 'cancelled', attempt: 1, completionTokens: 0, promptTokens: 0 }],
        [],
      ]);
    });

    test('when it had ended before, or was cancelled before', ({ expect }) => {
      const { pair, seen, said, cancel } = cancelled();
      pair.link.settle();
      pair.served[0]?.done(doneFields, ms(0));
      pair.link.settle();
      cancel();
      cancel();
      expect([said, endsOf(seen.ends)]).toEqual([[undefined, undefined], ['done']]);
      const again = cancelled();
      again.pair.link.settle();
      again.cancel();
      again.cancel();
      expect(again.said).toEqual([undefined]);
      again.pair.link.settle();
      again.pair.served[0]?.cancelled(1, 1);
      again.pair.link.settle();
      expect(again.said.map((word) => word?.type)).toEqual([undefined, 'cancelled']);
    });

    test('in whatever order the frames come and wherever the link breaks', ({ expect }) => {
      const step = fc.constantFrom('cancel', 'deliver', 'emit', 'done', 'fail', 'cancelled', 'cut');
      fc.assert(
        fc.property(fc.array(step, { maxLength: 14 }), (steps) => {
          const { pair, seen, said } = cancelled();
          let asked = 0;
          for (const what of steps) {
            const [attempt] = pair.served;
            if (what === 'cancel') {
              asked += 1;
              seen.attempt.cancel((word) => said.push(word));
            }
            if (what === 'deliver') pair.link.settle();
            if (what === 'emit') void attempt?.emit({ text: 'x', tokenIds: [1] });
            if (what === 'done') attempt?.done(doneFields, ms(0));
            if (what === 'fail') attempt?.fail(new HelixFlowError('NODE_DRAINING', {}));
            if (what === 'cancelled') attempt?.cancelled(1, 1);
            if (what === 'cut') pair.link.cut();
          }
          expect(said.length).toBeLessThanOrEqual(asked);
          pair.link.cut();
          // Each caller was told once; the events ended once, unless it was a cancel that ended them.
          expect(said).toHaveLength(asked);
          expect(seen.ends.length).toBeLessThanOrEqual(1);
          if (asked === 0) expect(seen.ends).toHaveLength(1);
        }),
        { numRuns: 500 },
      );
    });
  });

  test('a body of any size arrives as it was sent', ({ expect }) => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 400_000 }), (length) => {
        const pair = sessionPair();
        const body = new Uint8Array(length).map((_, index) => index * 31);
        pair.open(body);
        pair.link.settle();
        expect(pair.served.map((attempt) => Buffer.from(attempt.body).equals(body))).toEqual([true]);
      }),
      { numRuns: 40 },
    );
  });

  test('a large body delays no other request by more than what the channel holds', ({ expect }) => {
    const pair = sessionPair();
    pair.open(new Uint8Array(20_000_000));
    pair.open(new Uint8Array(10));
    pair.link.b.deliver(Math.ceil(limits.channelHighWaterBytes / limits.bodyChunkBytes) + 3);
    expect(pair.served).toHaveLength(1);
    expect(pair.served[0]?.body).toHaveLength(10);
    pair.link.settle();
    expect(pair.served[1]?.body).toHaveLength(20_000_000);
  });

  test('bodies in flight are bounded: what exceeds the bound is refused, not buffered', ({ expect }) => {
    const pair = sessionPair();
    const seen = [1, 2, 3].map(() => pair.open(new Uint8Array(limits.requestBodyMaxBytes)));
    pair.link.b.deliver(30);
    pair.link.a.deliver();
    expect(seen.flatMap(({ ends }) => endsOf(ends))).toEqual(['NODE_OVERLOADED']);
  });
});

describe('flow control', () => {
  const fill = (attempt: { emit: (d: { text: string; tokenIds: number[] }) => Promise<void> | undefined }) => {
    let sent = 0;
    for (; sent < 1_000; sent += 1) {
      const wait = attempt.emit({ text: 'x'.repeat(1_000), tokenIds: [] });
      if (wait !== undefined) return { sent, wait };
    }
    return { sent, wait: undefined };
  };

  test('a client that takes nothing stops its own answer at the credit and no other one', ({ expect }) => {
    const pair = sessionPair();
    const slow = pair.open();
    const quick = pair.open();
    pair.link.settle();
    const [first, second] = pair.served;
    if (first === undefined || second === undefined) throw new Error('not served');
    const { sent, wait } = fill(first);
    expect(wait).toBeInstanceOf(Promise);
    expect(sent * 1_000).toBeLessThanOrEqual(limits.creditInitialBytes);
    expect(second.emit({ text: 'y', tokenIds: [] })).toBeUndefined();
    pair.link.settle();
    expect(quick.deltas).toHaveLength(1);
    expect(slow.deltas.length).toBe(sent + 1);
  });

  test('credit comes back as the client takes what it was sent', async ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    const [attempt] = pair.served;
    if (attempt === undefined) throw new Error('not served');
    const { wait } = fill(attempt);
    pair.link.settle();
    for (const { text } of seen.deltas) seen.attempt.consumed(text.length);
    pair.link.settle();
    await wait;
    expect(attempt.emit({ text: 'more', tokenIds: [] })).toBeUndefined();
  });

  test('what waits is counted in bytes, so that no script gets further ahead than another', async ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    const [attempt] = pair.served;
    if (attempt === undefined) throw new Error('not served');
    let sentBytes = 0;
    let isWaiting = false;
    for (let round = 0; round < 2_000 && !isWaiting; round += 1) {
      const wait = attempt.emit({ text: '字'.repeat(300), tokenIds: [] });
      sentBytes += 900;
      pair.link.settle();
      // The client takes a third of what comes: what it has not taken grows to the credit, and no further.
      seen.attempt.consumed(300);
      pair.link.settle();
      isWaiting =
        wait !== undefined &&
        round > 0 &&
        (await Promise.race([wait.then(() => false), pair.clock.turn().then(() => true)]));
    }
    expect(isWaiting).toBe(true);
    expect((sentBytes * 2) / 3).toBeLessThanOrEqual(limits.creditInitialBytes + limits.frameMaxBytes);
  });

  test('a delta of any length is cut to fit and stays whole', async ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    const text = '🙂é'.repeat(40_000);
    const sent = pair.served[0]?.emit({ text, tokenIds: Array.from({ length: 5_000 }, (_, index) => index) });
    let isSent = false;
    void sent?.then(() => {
      isSent = true;
    });
    for (let taken = 0; !isSent; ) {
      pair.link.settle();
      for (; taken < seen.deltas.length; taken += 1) seen.attempt.consumed(seen.deltas[taken]?.text.length ?? 0);
      await pair.clock.turn();
    }
    pair.link.settle();
    expect(seen.deltas.map((delta) => delta.text).join('') === text).toBe(true);
    expect(seen.deltas.flatMap(({ tokenIds }) => tokenIds)).toHaveLength(5_000);
  });

  test('a node that sends past its credit loses the session', ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    for (let sequence = 0; sequence < 20 && pair.closed.length === 0; sequence += 1) {
      forge(pair, { type: 'delta', attempt: 1, sequence, text: 'x'.repeat(30_000), tokenIds: [] });
    }
    expect(pair.closed.map((error) => error?.code)).toEqual(['PROTOCOL_VIOLATION']);
    expect(endsOf(seen.ends)).toEqual(['NODE_LOST']);
  });
});

describe('a bad peer', () => {
  const cases: readonly [string, SessionFrame][] = [
    ['a gap in the sequence', { type: 'delta', attempt: 1, sequence: 1, text: 'b', tokenIds: [] }],
    ['an attempt that was never opened', { type: 'delta', attempt: 9, sequence: 0, text: 'b', tokenIds: [] }],
    ['a frame that only a gateway may send', { type: 'cancel', attempt: 1, acknowledged: 0 }],
    ['a second start', { type: 'start', process: '33'.repeat(16) as never, serial: 2, holds: [] }],
  ];
  test.for(cases)('is cut off for %s', ([, frame], { expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    forge(pair, frame);
    expect(pair.closed.map((error) => error?.code)).toEqual(['PROTOCOL_VIOLATION']);
    expect(endsOf(seen.ends)).toEqual(['NODE_LOST']);
  });

  test('a repeated delta is cut off, not shown', ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    for (let time = 0; time < 2; time += 1) {
      forge(pair, { type: 'delta', attempt: 1, sequence: 0, text: 'a', tokenIds: [] });
    }
    expect(seen.deltas.map(({ text }) => text)).toEqual(['a']);
    expect(endsOf(seen.ends)).toEqual(['NODE_LOST']);
  });

  test('garbage never throws and never hangs an attempt: the session ends with a typed error', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { minLength: 1, maxLength: 8 }), (garbage) => {
        const pair = sessionPair();
        const seen = pair.open();
        pair.link.settle();
        for (const frame of garbage) pair.link.a.send(frame);
        pair.link.settle();
        const isEnded = pair.gateway.isClosed;
        expect(pair.closed.every((error) => error instanceof HelixFlowError)).toBe(true);
        expect(endsOf(seen.ends)).toEqual(isEnded ? ['NODE_LOST'] : []);
      }),
    );
  });

  test('a body that never becomes whole fails in time and is forgotten', async ({ expect }) => {
    const pair = sessionPair();
    pair.link.b.send(
      encodeSessionFrame({
        type: 'open',
        ...requestOf(new Uint8Array(0)),
        attempt: 7,
        resumeBytes: 0,
        operation: 'chat',
        bodyBytes: 1_000,
        piece: new Uint8Array(10),
      }),
    );
    pair.link.b.deliver();
    expect(pair.node.attempts).toBe(1);
    for (let second = 0; second <= limits.bodyTimeoutMs / 1_000; second += 1) {
      await pair.clock.advance(1_000);
      // The gateway's own session knows nothing of the forged attempt.
      pair.link.b.deliver();
      pair.link.a.queue.splice(0).forEach((frame) => {
        if (frame[1] !== 8) pair.link.a.queue.push(frame);
      });
      pair.link.a.deliver();
    }
    expect([pair.node.attempts, pair.node.isClosed]).toEqual([0, false]);
  });

  test('a flood of offers ends the session; a few are taken as one', async ({ expect }) => {
    const pair = sessionPair();
    const offer = { type: 'offer', models: [], slots: 1, hardware: '', owner: 'o', region: '' } as const;
    for (let revision = 1; revision <= 10; revision += 1) forge(pair, { ...offer, revision });
    expect(pair.gateway.offer?.revision).toBe(1);
    await pair.clock.advance(101);
    expect(pair.gateway.offer?.revision).toBe(10);
    for (let revision = 11; revision < 200; revision += 1) forge(pair, { ...offer, revision });
    expect(pair.closed.map((error) => error?.code)).toEqual(['PROTOCOL_VIOLATION']);
  });

  test('a peer that answers no goodbye is not waited for', async ({ expect }) => {
    const pair = sessionPair();
    pair.gateway.leave('GATEWAY_DRAINING');
    await pair.clock.advance(limits.sessionStaleMs + 1);
    expect(pair.closed.map((error) => error?.code)).toEqual(['SESSION_SILENT']);
  });

  test('a peer that never starts is cut off', async ({ expect }) => {
    const pair = sessionPair(false);
    await pair.clock.advance(limits.sessionSettleMs + 1);
    expect(pair.closed.map((error) => error?.code)).toEqual(['PROTOCOL_VIOLATION']);
  });
});

describe('loss', () => {
  test('a cut after any number of frames ends each attempt exactly once, and never as done unless it was', ({
    expect,
  }) => {
    for (let frames = 0; frames <= 6; frames += 1) {
      const pair = sessionPair();
      const seen = pair.open();
      pair.link.settle();
      for (const text of ['a', 'b', 'c', 'd']) void pair.served[0]?.emit({ text, tokenIds: [] });
      pair.served[0]?.done(doneFields, ms(0));
      pair.link.a.deliver(frames);
      pair.link.cut();
      expect(endsOf(seen.ends)).toEqual([frames >= 5 ? 'done' : 'NODE_LOST']);
      expect(pair.gateway.attempts).toBe(0);
    }
  });

  test('a session that ends without done or fail is a failure, also when it ends cleanly', ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    pair.link.a.end();
    pair.link.b.close(undefined);
    expect(endsOf(seen.ends)).toEqual(['NODE_LOST']);
  });

  test('a node that falls silent loses its attempts within five heartbeats and serves again when it is back', async ({
    expect,
  }) => {
    const pair = sessionPair();
    const seen = pair.open();
    await pair.clock.advance(limits.heartbeatActiveMs * (limits.heartbeatMissesMax + 1));
    expect(endsOf(seen.ends)).toEqual(['NODE_LOST']);
    expect(pair.gateway.isResponsive).toBe(false);
    pair.link.settle();
    expect(pair.gateway.isResponsive).toBe(true);
  });

  test('a node that answers heartbeats keeps its attempts however long it thinks', async ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    for (let step = 0; step < 100; step += 1) {
      await pair.clock.advance(100);
      pair.link.settle();
    }
    expect(seen.ends).toEqual([]);
    expect(pair.gateway.isResponsive).toBe(true);
  });

  test('a peer whose own pings still come but that answers nothing is silent all the same', async ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    for (let beat = 0; beat <= limits.heartbeatMissesMax + 1; beat += 1) {
      await pair.clock.advance(limits.heartbeatActiveMs);
      // Only the way from the node to the gateway works.
      pair.link.b.queue.length = 0;
      pair.link.a.send(encodeSessionFrame({ type: 'ping', nonce: beat }));
      pair.link.a.deliver();
    }
    expect([endsOf(seen.ends), pair.gateway.isResponsive]).toEqual([['NODE_LOST'], false]);
  });

  test('a peer that streams on but returns no pong is silent, though later', async ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    const until = limits.sessionStaleMs + 2 * limits.heartbeatActiveMs;
    for (let at = 0; at < until && seen.ends.length === 0; at += limits.heartbeatActiveMs) {
      await pair.clock.advance(limits.heartbeatActiveMs);
      pair.link.b.queue.length = 0;
      void pair.served[0]?.emit({ text: 'x', tokenIds: [] });
      pair.link.a.deliver();
    }
    expect(endsOf(seen.ends)).toEqual(['NODE_LOST']);
    expect(seen.deltas.length * limits.heartbeatActiveMs).toBeGreaterThanOrEqual(limits.sessionStaleMs);
  });

  test('an idle peer that is probed and does not answer counts as silent within five heartbeats', async ({
    expect,
  }) => {
    const pair = sessionPair();
    pair.gateway.probe();
    await pair.clock.advance(limits.heartbeatActiveMs * (limits.heartbeatMissesMax + 1));
    expect(pair.gateway.isResponsive).toBe(false);
    pair.link.settle();
    expect(pair.gateway.isResponsive).toBe(true);
  });

  test('an idle peer that answers its probe is left in peace again', async ({ expect }) => {
    const pair = sessionPair();
    pair.gateway.probe();
    pair.link.settle();
    await pair.clock.advance(limits.heartbeatWatchMs - limits.heartbeatActiveMs);
    expect([pair.gateway.isResponsive, pair.link.b.queue.length]).toEqual([true, 0]);
  });

  test('a session silent for half a minute is aborted', async ({ expect }) => {
    const pair = sessionPair();
    await pair.clock.advance(limits.sessionSilentMs + 3 * limits.heartbeatIdleMs);
    expect(pair.closed.map((error) => error?.code)).toEqual(['SESSION_SILENT']);
    expect(pair.clock.timers).toBe(0);
  });

  test('goodbye lets attempts under way finish and then ends the session', ({ expect }) => {
    const pair = sessionPair();
    const seen = pair.open();
    pair.link.settle();
    pair.node.leave('NODE_DRAINING');
    pair.link.settle();
    expect(pair.gateway.isOpen).toBe(false);
    expect(() => pair.open()).toThrow(HelixFlowError);
    void pair.served[0]?.emit({ text: 'still', tokenIds: [] });
    pair.served[0]?.done(doneFields, ms(0));
    pair.link.settle();
    expect(endsOf(seen.ends)).toEqual(['done']);
    expect([pair.gateway.isClosed, pair.node.isClosed, pair.closed]).toEqual([true, true, [undefined]]);
  });

  test('what was opened before the gateway heard the goodbye is served', ({ expect }) => {
    const pair = sessionPair();
    pair.node.leave('NODE_DRAINING');
    const seen = pair.open();
    pair.link.settle();
    pair.served[0]?.done(doneFields, ms(0));
    pair.link.settle();
    expect(endsOf(seen.ends)).toEqual(['done']);
  });

  test('a gateway that opens after its own goodbye loses the session', ({ expect }) => {
    const pair = sessionPair();
    pair.open();
    pair.link.settle();
    const { body, ...asked } = requestOf(new Uint8Array(1));
    const late: SessionFrame = {
      type: 'open',
      operation: 'chat',
      attempt: 2,
      resumeBytes: 0,
      ...asked,
      bodyBytes: body.length,
      piece: body,
    };
    for (const frame of [{ type: 'goodbye', code: 'SESSION_REPLACED' } as const, late]) {
      pair.link.b.send(encodeSessionFrame(frame));
      pair.link.b.deliver();
    }
    expect([pair.link.a.closedWith?.code, pair.served.length]).toEqual(['PROTOCOL_VIOLATION', 1]);
    expect(pair.served[0]?.signal.reason).toMatchObject({ code: 'PROTOCOL_VIOLATION' });
  });
});
