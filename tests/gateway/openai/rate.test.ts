/** Headers that say what a key has left. */

import { test } from 'vitest';
import { printDuration, rateHeaders } from '../../../gateway/openai/rate.ts';
import { ms } from '../../../protocol/units.ts';

test('durations are written as OpenAI writes them', ({ expect }) => {
  const written = [0, 0.4, 12, 999, 1_000, 1_500, 59_999, 60_000, 61_000, 360_000, 3_600_000].map((each) =>
    printDuration(ms(each)),
  );
  expect(written).toEqual(['0s', '1ms', '12ms', '999ms', '1s', '1.5s', '59.999s', '1m0s', '1m1s', '6m0s', '60m0s']);
});

test('each limit has three headers, and what is not limited has none', ({ expect }) => {
  const requests = { limit: 10, remaining: 9, resetMs: ms(6_000) };
  const tokens = { limit: 1_000, remaining: 0, resetMs: ms(60_500) };
  const headersOf = (rate: object): Record<string, string> => {
    const headers = {};
    rateHeaders(rate, headers);
    return headers;
  };
  expect(headersOf({ requests, tokens, concurrency: { limit: 1, remaining: 0 } })).toEqual({
    'x-ratelimit-limit-requests': '10',
    'x-ratelimit-remaining-requests': '9',
    'x-ratelimit-reset-requests': '6s',
    'x-ratelimit-limit-tokens': '1000',
    'x-ratelimit-remaining-tokens': '0',
    'x-ratelimit-reset-tokens': '1m0.5s',
  });
  expect(headersOf({})).toEqual({});
});
