/** Intervals: a set of numbers, whatever order they come in, that never grows beyond its bound. */

import fc from 'fast-check';
import { test } from 'vitest';
import { Intervals } from '../../ledger/intervals.ts';
import '../support/seed.ts';

const filled = (numbers: readonly number[], max = 1_000): Intervals => {
  const set = new Intervals(max);
  for (const number of numbers) set.add(number);
  return set;
};
const all = Array.from({ length: 40 }, (_, number) => number);

test('it is a set', ({ expect }) => {
  fc.assert(
    fc.property(fc.array(fc.nat(39), { maxLength: 60 }), (numbers) => {
      const known = new Set<number>();
      const set = new Intervals(1_000);
      for (const number of numbers) {
        expect(set.add(number)).toBe(!known.has(number));
        known.add(number);
      }
      expect(all.filter((number) => set.has(number))).toEqual(all.filter((number) => known.has(number)));
      expect(set.count).toBe(all.filter((number) => known.has(number) && !known.has(number - 1)).length);
    }),
  );
});

test('its steps make it again, and no order shows in them', ({ expect }) => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.maxSafeNat()), (numbers) => {
      const steps = filled(numbers).steps();
      expect(filled(numbers.toReversed()).steps()).toEqual(steps);
      expect(Intervals.of(steps, 1_000)?.steps()).toEqual(steps);
    }),
  );
});

test('above its bound the lowest gaps close, and what was there stays', ({ expect }) => {
  fc.assert(
    fc.property(fc.array(fc.nat(39)), fc.integer({ min: 1, max: 4 }), (numbers, max) => {
      const set = filled(numbers, max);
      expect(set.count).toBeLessThanOrEqual(max);
      expect(numbers.filter((number) => !set.has(number))).toEqual([]);
    }),
  );
  const set = filled([1, 3, 5, 7, 9], 3);
  expect(set.steps()).toEqual([1, 4, 2, 0, 2, 0]);
});

test('steps that are none are refused', ({ expect }) => {
  const of = (...steps: number[]) => Intervals.of(steps, 2)?.steps();
  expect([of(1), of(1, 0, 1, 0), of(1, 0, 2, 0, 2, 0), of(1, Number.MAX_SAFE_INTEGER), of(0, 3, 2, 0)]).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
    [0, 3, 2, 0],
  ]);
});
