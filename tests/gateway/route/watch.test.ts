/** When a silence is too long, as a table. */

import { describe, test } from 'vitest';
import { usualPolicy } from '../../../gateway/route/plan.ts';
import { stalledFor, type WatchedAttempt } from '../../../gateway/route/watch.ts';

/** Left at 1 s, and nothing has come; nothing is known of its node. */
const fresh: WatchedAttempt = {
  startedMs: 1_000,
  lastPieceMs: 1_000,
  lastTextMs: 1_000,
  hasContent: false,
  hasCredit: true,
  expectedMs: 0,
  progressAtMs: undefined,
  isCrowded: false,
  isSuspect: false,
};
const told = { hasContent: true, lastPieceMs: 9_000, lastTextMs: 9_000 };

describe('an attempt is stalled', () => {
  test.for<[string, Partial<WatchedAttempt>, atMs: number, silentMs: number]>([
    ['four seconds after its last piece', told, 13_000, 4_000],
    ['although its node still tells of work, once it has content', { ...told, progressAtMs: 12_999 }, 13_000, 4_000],
    ['although it should take long, once it has content', { ...told, expectedMs: 60_000 }, 13_000, 4_000],
    ['although others wait there, once it has content', { ...told, isCrowded: true }, 13_000, 4_000],
    ['four seconds after its node last told of work', { progressAtMs: 3_000 }, 7_000, 4_000],
    ['four seconds after its start, where its node told of none since', { progressAtMs: 500 }, 5_000, 4_000],
    ['four seconds after a piece without text', { progressAtMs: 500, lastPieceMs: 3_000 }, 7_000, 4_000],
    ['where nothing is known of its node, when no first content may take longer', {}, 121_000, 120_000],
    ['where no work is told, four times as late as expected, and a bit', { expectedMs: 500 }, 7_000, 6_000],
    ['never later than any first content', { expectedMs: 60_000 }, 121_000, 120_000],
    [
      'where others wait, four times as late as expected after its node last told of work',
      { expectedMs: 500, isCrowded: true, progressAtMs: 2_000 },
      8_000,
      6_000,
    ],
    ['soon, where another one was', { isSuspect: true, expectedMs: 9_000 }, 5_000, 4_000],
    [
      'without text for as long as first content may take, whatever work its node tells of',
      { progressAtMs: 120_999 },
      121_000,
      120_000,
    ],
    ['the same, whatever pieces without text come', { ...told, lastPieceMs: 128_999 }, 129_000, 120_000],
    ['soon, where another one was, whatever its node tells', { isSuspect: true, progressAtMs: 4_999 }, 5_000, 4_000],
  ])('%s', ([, change, atMs, silentMs], { expect }) => {
    const attempt = { ...fresh, ...change };
    expect([stalledFor(attempt, atMs - 1, usualPolicy), stalledFor(attempt, atMs, usualPolicy)]).toEqual([
      undefined,
      silentMs,
    ]);
  });

  test('never while it may not send', ({ expect }) => {
    const attempt = { ...fresh, ...told, hasCredit: false };
    expect(stalledFor(attempt, 1_000_000, usualPolicy)).toBeUndefined();
  });

  test('as the policy has it', ({ expect }) => {
    const policy = { ...usualPolicy, gapMs: 50 as never, firstContentMs: 70 as never };
    expect(stalledFor({ ...fresh, ...told }, 9_050, policy)).toBe(50);
    expect(stalledFor(fresh, 1_070, policy)).toBe(70);
  });
});
