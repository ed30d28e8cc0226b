/** What a lane has learnt of how long answers take. */

import { describe, test } from 'vitest';
import { ServiceTimes } from '../../node/service-times.ts';
import { ms } from '../../protocol/units.ts';

const answer = (prefillMs: number, completionTokens: number, decodeMs: number) => ({
  prefillMs: ms(prefillMs),
  decodeMs: ms(decodeMs),
  completionTokens,
});

describe('the mean', () => {
  test('is the first answer’s time, then moves towards the newer ones', ({ expect }) => {
    const times = new ServiceTimes();
    const means = [times.meanMs];
    for (const tookMs of [1_000, 2_000, 2_000]) {
      times.held(tookMs);
      means.push(times.meanMs);
    }
    expect(means).toEqual([0, 1_000, 1_200, 1_360]);
  });
});

describe('what an answer should take', () => {
  test('is nothing before an answer was whole', ({ expect }) => {
    expect(new ServiceTimes().answerMs(100, 0.5)).toBe(0);
  });

  test.for<[string, number | undefined, number, number]>([
    ['of an answer without bound is what others took', undefined, 1, 100 + 20 * 50],
    ['of half of them, what the quicker half took', undefined, 0.5, 300 + 9 * 10],
    ['of one longer than any seen, too', 5_000, 1, 100 + 20 * 50],
    ['of a short one is that of its tokens', 3, 1, 300 + 2 * 10],
    ['of one token is the prefill', 1, 1, 300],
    ['of none is the prefill', 0, 0.5, 100],
  ])('%s', ([, tokens, share, expected], { expect }) => {
    const times = new ServiceTimes();
    times.done(answer(100, 21, 20 * 50));
    times.done(answer(300, 10, 9 * 10));
    expect(times.answerMs(tokens, share)).toBe(expected);
  });

  test('forgets what was long ago', ({ expect }) => {
    const times = new ServiceTimes();
    times.done(answer(9_000, 2, 1));
    for (let more = 0; more < 32; more += 1) times.done(answer(500, 2, 100));
    expect(times.answerMs(undefined, 1)).toBe(600);
  });

  test('takes an answer without tokens for what it is', ({ expect }) => {
    const times = new ServiceTimes();
    times.done(answer(70, 0, 0));
    expect(times.answerMs(undefined, 1)).toBe(70);
  });
});
