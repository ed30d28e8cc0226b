/** What tokens cost: the same integer everywhere, never less than it is. */

import fc from 'fast-check';
import { test } from 'vitest';
import { lineTokensMax } from '../../ledger/line.ts';
import { costMicro, freePrice, maxPriceMicro, type Price } from '../../ledger/price.ts';
import type { PriceId } from '../../protocol/ids.ts';
import '../support/seed.ts';

const micro = fc.oneof(fc.nat(3), fc.nat(2_000_000), fc.integer({ min: 0, max: maxPriceMicro }));
const tokens = fc.oneof(fc.nat(3), fc.nat(200_000), fc.integer({ min: 0, max: lineTokensMax }));
const prices = fc
  .tuple(micro, micro, micro)
  .map(([prompt, cached, completion]): Price => ({ id: 'ab'.repeat(8) as PriceId, prompt, cached, completion }));
const counts = fc.tuple(tokens, tokens, tokens).map(([fresh, cachedTokens, completionTokens]) => ({
  promptTokens: fresh + cachedTokens,
  cachedTokens,
  completionTokens,
}));

test('an amount is exact, and rounded up once', ({ expect }) => {
  fc.assert(
    fc.property(prices, counts, (price, { promptTokens, cachedTokens, completionTokens }) => {
      const total =
        BigInt(promptTokens - cachedTokens) * BigInt(price.prompt) +
        BigInt(cachedTokens) * BigInt(price.cached) +
        BigInt(completionTokens) * BigInt(price.completion);
      const exact = (total + 999_999n) / 1_000_000n;
      const amount = costMicro(price, { promptTokens, cachedTokens, completionTokens });
      expect([amount, Number.isSafeInteger(amount)]).toEqual([Number(exact), true]);
    }),
    { numRuns: 3_000 },
  );
});

test('more tokens never cost less, and none cost nothing', ({ expect }) => {
  fc.assert(
    fc.property(prices, counts, fc.nat(1_000), (price, count, more) => {
      const amount = costMicro(price, count);
      const { promptTokens, completionTokens } = count;
      expect(costMicro(price, { ...count, completionTokens: completionTokens + more })).toBeGreaterThanOrEqual(amount);
      expect(costMicro(price, { ...count, promptTokens: promptTokens + more })).toBeGreaterThanOrEqual(amount);
      expect(costMicro(freePrice, count)).toBe(0);
      expect(costMicro(price, { promptTokens: 0, cachedTokens: 0, completionTokens: 0 })).toBe(0);
    }),
  );
});

test('the largest amount there is can still be told, and the smallest is one micro-credit', ({ expect }) => {
  const price = { id: 'ab'.repeat(8) as PriceId, prompt: maxPriceMicro, cached: 1, completion: maxPriceMicro };
  const most = { promptTokens: lineTokensMax, cachedTokens: 0, completionTokens: lineTokensMax };
  expect(costMicro(price, most)).toBe(200_000_000_000);
  expect(costMicro(price, { promptTokens: 1, cachedTokens: 1, completionTokens: 0 })).toBe(1);
});
