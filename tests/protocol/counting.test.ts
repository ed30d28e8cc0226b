/** Counting: an honest pair always comes to the same, and nobody to more than what was sent. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import {
  bytesPerToken,
  type Counted,
  countDelta,
  countedWithin,
  deliveredTokens,
  nothingCounted,
  promptTokensOf,
  wholeTokens,
} from '../../protocol/counting.ts';
import { type Delta, encodeSessionFrame, parseSessionFrame } from '../../protocol/messages/session.ts';
import '../support/seed.ts';

const pieces = fc.array(
  fc.record({
    // With torn surrogate pairs, as an engine may cut them.
    text: fc.oneof(
      fc.string({ unit: 'binary', maxLength: 12 }),
      fc.string({ maxLength: 12 }),
      fc.constantFrom('', '\ud83d', '\udc4b', '字'),
    ),
    ids: fc.oneof(fc.nat(3), fc.nat(40)),
  }),
  { maxLength: 30 },
);
type Piece = { readonly text: string; readonly ids: number };

const countAll = (sent: readonly Piece[]): Counted =>
  sent.reduce((counted, { text, ids }) => countDelta(counted, text, ids), nothingCounted);

/** As the other end reads it off the wire. */
const received = ({ text, ids }: Piece): Piece => {
  const tokenIds = Array.from({ length: ids }, (_, id) => id);
  const bytes = encodeSessionFrame({ type: 'delta', attempt: 1, sequence: 0, text, tokenIds });
  const delta = parseSessionFrame(bytes) as Delta;
  return { text: delta.text, ids: delta.tokenIds.length };
};

/** Whatever an engine may say it counted. */
const reports = fc.oneof(fc.nat(500), fc.double(), fc.constantFrom(-1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 40));

/** What the gateway reads of the node's `done`. */
function told(completionTokens: number): number {
  const done = { type: 'done', attempt: 1, finish: 'stop', promptTokens: completionTokens, cachedTokens: 0 } as const;
  const bytes = encodeSessionFrame({ ...done, completionTokens, queueMs: 0, prefillMs: 0, decodeMs: 0 });
  return (parseSessionFrame(bytes) as { readonly completionTokens: number }).completionTokens;
}

describe('a pair that is honest', () => {
  test('counts the same, piece by piece and in the end, whatever the engine says', ({ expect }) => {
    fc.assert(
      fc.property(pieces, reports, (sent, reported) => {
        for (let count = 0; count <= sent.length; count += 1) {
          const own = countAll(sent.slice(0, count));
          const theirs = countAll(sent.slice(0, count).map(received));
          expect(theirs).toEqual(own);
        }
        expect(wholeTokens(told(reported), countAll(sent.map(received)))).toBe(wholeTokens(reported, countAll(sent)));
        expect(promptTokensOf(told(reported), 300)).toBe(promptTokensOf(reported, 300));
      }),
      { numRuns: 300 },
    );
  });
});

describe('what is counted', () => {
  test('never goes down as pieces come, and is never more than the bytes', ({ expect }) => {
    fc.assert(
      fc.property(pieces, (sent) => {
        let counted = nothingCounted;
        let delivered = 0;
        for (const { text, ids } of sent) {
          counted = countDelta(counted, text, ids);
          expect(deliveredTokens(counted)).toBeGreaterThanOrEqual(delivered);
          delivered = deliveredTokens(counted);
        }
        const bytes = sent.reduce((sum, { text }) => sum + Buffer.from(text).length, 0);
        expect([counted.bytes, delivered <= bytes]).toEqual([bytes, true]);
      }),
    );
  });

  test('is more than nothing where there is text', ({ expect }) => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 50 }), fc.nat(3), (text, ids) => {
        expect(deliveredTokens(countDelta(nothingCounted, text, ids))).toBeGreaterThan(0);
      }),
    );
  });

  test('of text without ids is a guess from its bytes', ({ expect }) => {
    const text = 'x'.repeat(10 * bytesPerToken);
    expect(countDelta(nothingCounted, text, 0)).toEqual({ tokens: 10, bytes: text.length, hasIds: false });
    expect(countDelta(nothingCounted, text, 7)).toEqual({ tokens: 7, bytes: text.length, hasIds: true });
    // Ids that begin a character whose bytes come later.
    expect(countDelta(nothingCounted, '', 2)).toEqual({ tokens: 2, bytes: 0, hasIds: true });
  });
});

describe('a whole answer', () => {
  test('comes to no more than was reported, than the bytes and one, than the ids and one', ({ expect }) => {
    fc.assert(
      fc.property(pieces, fc.nat(2_000), (sent, reported) => {
        const counted = countAll(sent);
        const { tokens, bytes, hasIds } = counted;
        const whole = wholeTokens(reported, counted);
        expect(whole).toBe(Math.min(reported, bytes + 1, hasIds ? tokens + 1 : bytes + 1));
        expect(whole).toBeLessThanOrEqual(bytes + 1);
      }),
    );
  });

  test('without a single piece is at most its end token', ({ expect }) => {
    expect([wholeTokens(0, nothingCounted), wholeTokens(9, nothingCounted)]).toEqual([0, 1]);
  });
});

test('a prompt is never charged as more than its bytes', ({ expect }) => {
  fc.assert(
    fc.property(reports, fc.nat(1_000), (reported, bodyBytes) => {
      const tokens = promptTokensOf(reported, bodyBytes);
      expect(Number.isSafeInteger(tokens) && tokens >= 0 && tokens <= bodyBytes).toBe(true);
    }),
  );
});

test('nobody owes for more than was asked for', ({ expect }) => {
  const counted = { tokens: 12, bytes: 40, hasIds: true };
  expect([countedWithin(counted, undefined), countedWithin(counted, 12), countedWithin(counted, 10)]).toEqual([
    counted,
    counted,
    { ...counted, tokens: 10 },
  ]);
});
