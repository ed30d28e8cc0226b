/** What every `Random` keeps to. */

import { describe, test } from 'vitest';
import { InvariantError } from '../../protocol/invariant.ts';
import type { Random } from '../../protocol/ports.ts';

const draws = (random: Random, count: number): string =>
  Array.from({ length: count }, () => random.int(2 ** 32)).join();

/** Runs the suite. @param open Makes a generator. */
export function randomContract(name: string, open: () => Random): void {
  describe(`${name} keeps the contract of Random`, () => {
    test('integers are whole, in range, and reach both ends', ({ expect }) => {
      const random = open();
      for (const max of [1, 2, 3, 7, 256, 1_000, 2 ** 31, 2 ** 32]) {
        const drawn = Array.from({ length: 500 }, () => random.int(max));
        expect(drawn.every((value) => Number.isInteger(value) && value >= 0 && value < max)).toBe(true);
        if (max <= 7) expect(new Set(drawn).size).toBe(max);
      }
    });

    test('every value is as likely as any other', ({ expect }) => {
      const random = open();
      const [count, kinds] = [60_000, 6];
      const seen = new Array<number>(kinds).fill(0);
      for (let round = 0; round < count; round += 1) {
        const value = random.int(kinds);
        seen[value] = (seen[value] ?? 0) + 1;
      }
      const expected = count / kinds;
      const distance = seen.reduce((sum, times) => sum + (times - expected) ** 2 / expected, 0);
      // Chi square with five degrees of freedom: beyond 40 once in six million honest runs.
      expect(distance).toBeLessThan(40);
    });

    test('a range that does not exist is our own fault', ({ expect }) => {
      const random = open();
      for (const max of [0, -1, 1.5, 2 ** 32 + 1, Number.NaN]) expect(() => random.int(max)).toThrow(InvariantError);
    });

    test('fractions lie between 0 and 1, fill that space, and 1 is none of them', ({ expect }) => {
      const random = open();
      const drawn = Array.from({ length: 5_000 }, () => random.float());
      expect(drawn.every((value) => value >= 0 && value < 1)).toBe(true);
      expect(new Set(drawn).size).toBe(drawn.length);
      expect(Math.min(...drawn)).toBeLessThan(0.01);
      expect(Math.max(...drawn)).toBeGreaterThan(0.99);
    });

    test('bytes come in any number, differ, and belong to the caller', ({ expect }) => {
      const random = open();
      for (const count of [0, 1, 16, 32, 255, 256, 257, 5_000]) expect(random.bytes(count)).toHaveLength(count);
      const kept = random.bytes(32);
      const copy = kept.slice();
      const others = Array.from({ length: 1_000 }, () => Buffer.from(random.bytes(16)).toString('hex'));
      expect(new Set(others).size).toBe(others.length);
      expect(kept).toEqual(copy);
      kept.fill(0);
      expect(random.bytes(32)).not.toEqual(kept);
      expect(new Set(random.bytes(5_000)).size).toBe(256);
    });

    test('forks differ from each other and from what they came from', ({ expect }) => {
      const random = open();
      const streams = [random, random.fork('a'), random.fork('b'), random.fork('a'), random.fork('a').fork('a')];
      expect(new Set(streams.map((stream) => draws(stream, 4))).size).toBe(streams.length);
    });
  });
}
