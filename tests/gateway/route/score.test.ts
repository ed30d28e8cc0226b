/** What is expected of a node, part by part. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import {
  type RoutedNode,
  type Score,
  type ScoredRequest,
  scoreNode,
  speedTokens,
  trustedSlots,
  utilisation,
} from '../../../gateway/route/score.ts';
import { routedNode } from './routed-node.ts';

const request: ScoredRequest = { bodyBytes: 1_000, cachedBytes: 0 };
const idle: Score = { waitMs: 0, prefillMs: 100, roundTripMs: 10, overheadMs: 40, firstMs: 150, totalMs: 470 };
/** `idle`, with these parts and their sums changed. */
const withParts = (parts: Partial<Score>, tokenMs = 10): Score => {
  const { waitMs, prefillMs, roundTripMs, overheadMs } = { ...idle, ...parts };
  const firstMs = waitMs + prefillMs + roundTripMs + overheadMs;
  return { waitMs, prefillMs, roundTripMs, overheadMs, firstMs, totalMs: firstMs + speedTokens * tokenMs };
};

describe('a score counts', () => {
  test.for<[string, Partial<RoutedNode>, Partial<ScoredRequest>, Score]>([
    ['prefill, round trip, overhead and speed of an idle node', {}, {}, idle],
    ['nothing for slots in use while one is free', { active: 3 }, {}, idle],
    ['the answer ahead when none is free', { active: 4 }, {}, withParts({ waitMs: 250 })],
    ['the queue as well', { active: 4, queued: 3 }, {}, withParts({ waitMs: 1_000 })],
    ['how long an answer takes there', { active: 4, answerMeanMs: 400 }, {}, withParts({ waitMs: 100 })],
    ['few slots of a newcomer', { active: 1, warmth: 0.25 }, {}, withParts({ waitMs: 1_000 })],
    ['no prefill of what the node holds', {}, { cachedBytes: 600 }, withParts({ prefillMs: 40 })],
    [
      'no less than nothing for a body shorter than what is held',
      {},
      { cachedBytes: 2_000 },
      withParts({ prefillMs: 0 }),
    ],
    ['the speed of 32 tokens', { tokenMs: 20 }, {}, withParts({}, 20)],
  ])('%s', ([, change, ask, expected], { expect }) => {
    const node = routedNode('a', change);
    expect(scoreNode(node, { ...request, ...ask }, [node])).toEqual(expected);
  });

  test('the best of the others where a node has not been measured', ({ expect }) => {
    const newcomer = routedNode('n', {
      roundTripMs: 0,
      overheadMs: 0,
      prefillMsPerByte: 0,
      tokenMs: 0,
      answerMeanMs: 0,
      active: 4,
    });
    const others = [
      newcomer,
      routedNode('a', { overheadMs: 90, tokenMs: 5 }),
      routedNode('b', { prefillMsPerByte: 0.2, answerMeanMs: 800, roundTripMs: 30 }),
      routedNode('c', { overheadMs: Number.POSITIVE_INFINITY, tokenMs: Number.NaN, roundTripMs: -1 }),
    ];
    expect(scoreNode(newcomer, request, others)).toEqual(withParts({ waitMs: 200 }, 5));
  });

  test('a guess where nobody has been measured, so that what a node holds counts from the start', ({ expect }) => {
    const newcomer = routedNode('n', {
      roundTripMs: 0,
      overheadMs: 0,
      prefillMsPerByte: 0,
      tokenMs: 0,
      answerMeanMs: 0,
      active: 4,
    });
    expect(scoreNode(newcomer, request, [newcomer])).toEqual(
      withParts({ waitMs: 250, prefillMs: 50, roundTripMs: 0, overheadMs: 0 }, 0),
    );
  });
});

const measures = ['roundTripMs', 'overheadMs', 'prefillMsPerByte', 'tokenMs', 'answerMeanMs'] as const;

test('absurd numbers make a node the last one', ({ expect }) => {
  for (const key of [...measures, 'active', 'queued'] as const) {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, ...(measures.some((one) => one === key) ? [-1] : [])]) {
      const node = routedNode('a', { active: 4, [key]: value });
      expect([key, value, scoreNode(node, request, [node]).totalMs]).toEqual([key, value, Number.POSITIVE_INFINITY]);
    }
  }
});

test('more work, or less of the request at hand, never scores better', ({ expect }) => {
  const node = fc.record({
    slots: fc.integer({ min: 1, max: 64 }),
    active: fc.nat(80),
    queued: fc.nat(20),
    warmth: fc.double({ min: 0.01, max: 1, noNaN: true }),
    roundTripMs: fc.nat(500),
    overheadMs: fc.nat(500),
    prefillMsPerByte: fc.double({ min: 0, max: 5, noNaN: true }),
    tokenMs: fc.nat(100),
    answerMeanMs: fc.nat(60_000),
  });
  fc.assert(
    fc.property(node, fc.nat(10_000), fc.nat(10_000), (known, bodyBytes, cachedBytes) => {
      const total = (change: Partial<RoutedNode>, cached = cachedBytes): number => {
        const changed = routedNode('a', { ...known, ...change });
        return scoreNode(changed, { bodyBytes, cachedBytes: cached }, [changed]).totalMs;
      };
      const now = total({});
      expect(now).toBeGreaterThanOrEqual(0);
      expect(total({ active: known.active + 1 })).toBeGreaterThanOrEqual(now);
      expect(total({ queued: known.queued + 1 })).toBeGreaterThanOrEqual(now);
      expect(total({ warmth: known.warmth / 2 })).toBeGreaterThanOrEqual(now);
      expect(total({}, 0)).toBeGreaterThanOrEqual(now);
    }),
  );
});

test.for<[slots: number, warmth: number, trusted: number]>([
  [8, 1, 8],
  [8, 0.25, 2],
  [8, 0.49, 3],
  [2, 0.25, 1],
  [1, 1, 1],
])('of %i slots a node with warmth %d is trusted with %i', ([slots, warmth, trusted], { expect }) => {
  expect(trustedSlots({ slots, warmth })).toBe(trusted);
});

test('use is judged with the new answer in it, by all slots', ({ expect }) => {
  const use = (change: Partial<RoutedNode>): number => utilisation(routedNode('a', change));
  expect(use({ active: 1 })).toBe(0.5);
  expect(use({ active: 1, queued: 1 })).toBe(0.75);
  expect(use({ warmth: 0.25 })).toBe(0.25);
  expect(use({ slots: 64, active: 1 })).toBeLessThan(use({ slots: 1 }));
});
