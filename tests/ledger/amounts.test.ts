/** Amounts as people write them: exact in both directions, and nothing else is an amount. */

import fc from 'fast-check';
import { test } from 'vitest';
import { parseBudget, parseMicro, printBudget, printMicro } from '../../ledger/amounts.ts';
import { budgetMaxMicro, budgetPeriods } from '../../ledger/money.ts';

test.for([
  ['0', 0],
  ['10', 10_000_000],
  ['0.15', 150_000],
  ['0.000001', 1],
  ['00.5', 500_000],
  ['1000000000', budgetMaxMicro],
  ['999999999.999999', budgetMaxMicro - 1],
] as const)('%s credits are %i micro-credits', ([text, micro], { expect }) => {
  expect(parseMicro(text, budgetMaxMicro)).toBe(micro);
});

test.for([
  ['', '-1', '+1', '1e3', '.5', '1.', '1,5', '1 ', ' 1', '0x10', 'NaN', 'Infinity', '٣'],
  ['0.0000001', '1000000000.000001', '9'.repeat(16), '1_000', '1.2.3', '1\n'],
])('%j are no amounts', (texts, { expect }) => {
  expect(texts.map((text) => parseMicro(text, budgetMaxMicro))).toEqual(texts.map(() => undefined));
});

test('what is printed is read as the same, in as few characters as can be', ({ expect }) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: budgetMaxMicro }), (micro) => {
      const text = printMicro(micro);
      expect(parseMicro(text, budgetMaxMicro)).toBe(micro);
      expect(text).not.toMatch(/\.\d*0$|\.$/);
    }),
  );
  expect([-1, 1_500_000, 20_000_000].map(printMicro)).toEqual(['-0.000001', '1.5', '20']);
});

test('a budget is an amount, its unit and its period', ({ expect }) => {
  expect(['10usd/month', '500000credits/total', '1credit/day', '0usd/total'].map(parseBudget)).toEqual([
    { amountMicro: 10_000_000, period: 'month' },
    { amountMicro: 500_000_000_000, period: 'total' },
    { amountMicro: 1_000_000, period: 'day' },
    { amountMicro: 0, period: 'total' },
  ]);
  const others = ['10', '10usd', '10/month', '10eur/month', '10usd/week', '-1usd/day', '10USD/month', '1usd/month/day'];
  expect(others.map(parseBudget)).toEqual(others.map(() => undefined));
  const some = fc.record({
    amountMicro: fc.integer({ min: 0, max: budgetMaxMicro }),
    period: fc.constantFrom(...budgetPeriods),
  });
  fc.assert(
    fc.property(some, (one) => {
      expect(parseBudget(printBudget(one))).toEqual(one);
    }),
  );
});
