/** The narrowest of several terms: never more than each of them allows. */

import fc from 'fast-check';
import { test } from 'vitest';
import { type Budget, budgetPeriods } from '../../ledger/money.ts';
import { narrowBudget, narrowLimits, narrowTerms } from '../../ledger/narrow.ts';
import { allowsModel, type KeyTerms, type RateLimits } from '../../protocol/grants.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { givenPreferences, preferred } from '../../protocol/preferences.ts';
import { unixMs } from '../../protocol/units.ts';
import '../support/seed.ts';

const given = <T extends object>(fields: T): T =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
const rate = fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined });
const someLimits = fc.record({ rpm: rate, tpm: rate, concurrency: rate }).map((rates) => given(rates) as RateLimits);
/** Few letters, so that patterns and names meet often. */
const somePattern = fc.string({ unit: fc.constantFrom('a', 'b', '*'), minLength: 1, maxLength: 4 });
const someName = fc.string({ unit: fc.constantFrom('a', 'b', '*', 'c'), minLength: 1, maxLength: 6 });
const peers = ['p1', 'p2', 'p3'] as PeerId[];
const absent = { nil: undefined };
const someNodes = fc.option(fc.uniqueArray(fc.constantFrom(...peers)), absent);
const someWishes = fc
  .record({
    prefer: fc.option(fc.constantFrom(...preferred), absent),
    region: fc.option(fc.constantFrom('eu', 'us'), absent),
    allow: someNodes,
    deny: someNodes,
  })
  .map(givenPreferences);
const someTerms = fc
  .record({
    models: fc.array(somePattern, { maxLength: 4 }),
    limits: someLimits,
    expiresMs: fc.option(fc.integer({ min: 0, max: 9 }).map(unixMs), { nil: undefined }),
    preferences: someWishes,
  })
  .map((terms) => given(terms) as KeyTerms);

const fits = (value: number | undefined, limit: number | undefined): boolean =>
  limit === undefined || (value !== undefined && value <= limit);

const mayServe = ({ preferences }: Pick<KeyTerms, 'preferences'>, peer: PeerId): boolean =>
  preferences?.nodes?.allow?.includes(peer) !== false && preferences?.nodes?.deny?.includes(peer) !== true;

test('narrowed terms allow no model, node, rate or moment that one of them does not', ({ expect }) => {
  fc.assert(
    fc.property(fc.array(someTerms, { minLength: 1, maxLength: 4 }), someName, (all, name) => {
      const narrow = all.reduce(narrowTerms);
      for (const peer of peers) {
        expect(mayServe(narrow, peer)).toBe(all.every((terms) => mayServe(terms, peer)));
      }
      for (const { models, limits, expiresMs } of all) {
        if (!allowsModel({ models }, name)) expect(allowsModel(narrow, name)).toBe(false);
        expect(fits(narrow.expiresMs, expiresMs)).toBe(true);
        for (const unit of ['rpm', 'tpm', 'concurrency'] as const) {
          expect(fits(narrow.limits[unit], limits[unit])).toBe(true);
        }
      }
    }),
    { numRuns: 1_000 },
  );
});

test('it does not matter which of two comes first', ({ expect }) => {
  fc.assert(
    fc.property(someTerms, someTerms, (a, b) => {
      expect(narrowTerms(a, b)).toEqual(narrowTerms(b, a));
    }),
  );
});

test('what was narrowed by something is not narrowed by it again, nor anything by itself', ({ expect }) => {
  fc.assert(
    fc.property(someTerms, someTerms, someName, (a, b, name) => {
      const both = narrowTerms(a, b);
      expect(narrowTerms(both, both)).toEqual(narrowTerms(narrowTerms(both, both), both));
      const again = narrowTerms(both, a);
      expect([again.limits, again.expiresMs]).toEqual([both.limits, both.expiresMs]);
      expect(allowsModel(again, name)).toBe(allowsModel(both, name));
      expect(allowsModel(narrowTerms(a, a), name)).toBe(allowsModel(a, name));
      expect(narrowTerms(both, a).preferences).toEqual(narrowTerms(a, both).preferences);
    }),
  );
});

test('of limits the smallest counts, however they are grouped', ({ expect }) => {
  fc.assert(
    fc.property(someLimits, someLimits, someLimits, (a, b, c) => {
      expect(narrowLimits(narrowLimits(a, b), c)).toEqual(narrowLimits(a, narrowLimits(b, c)));
    }),
  );
});

test('a pattern within a wider one stays; what two share in part is left out', ({ expect }) => {
  const modelsOf = (a: readonly string[], b: readonly string[]): readonly string[] =>
    narrowTerms({ models: a, limits: {} }, { models: b, limits: {} }).models;
  expect(modelsOf(['qwen*', 'llama'], ['qwen3-*', 'phi'])).toEqual(['qwen3-*']);
  expect(modelsOf([], ['phi'])).toEqual(['phi']);
  expect(modelsOf([], [])).toEqual([]);
  const none = { models: modelsOf(['a*'], ['*b']) };
  expect(['ab', 'a', 'b', 'a*', '*b', ''].map((name) => allowsModel(none, name))).toEqual(Array(6).fill(false));
  expect(modelsOf(none.models, ['*'])).toEqual(none.models);
  expect(modelsOf(none.models, [])).toEqual(none.models);
});

test('a narrowed budget is within both, in whatever time they are', ({ expect }) => {
  const someBudget = fc.option(fc.record({ amountMicro: fc.nat(100), period: fc.constantFrom(...budgetPeriods) }), {
    nil: undefined,
  });
  // What may be spent within a time that is one of the periods, or shorter.
  const within = (budget: Budget | undefined, time: number): number =>
    budget === undefined || budgetPeriods.indexOf(budget.period) < time ? Number.POSITIVE_INFINITY : budget.amountMicro;
  fc.assert(
    fc.property(someBudget, someBudget, (a, b) => {
      const narrow = narrowBudget(a, b);
      expect(narrow).toEqual(narrowBudget(b, a));
      for (const wide of [a, b]) {
        if (wide === undefined) continue;
        expect(within(narrow, budgetPeriods.indexOf(wide.period))).toBeLessThanOrEqual(wide.amountMicro);
      }
      expect(narrowBudget(a, undefined)).toEqual(a);
    }),
  );
});
