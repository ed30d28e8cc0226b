/** When a request is late, and how many hedges that is worth. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { createLateness, hedgesMax, type Lateness, lateMinMs } from '../../../gateway/route/lateness.ts';
import { ms } from '../../../protocol/units.ts';
import { SimRandom } from '../../../sim/random.ts';
import { digestOf } from './routed-node.ts';

const model = digestOf('a');
/** A bucket is so wide: what is told may be above the true value by as much. */
const resolution = 2 ** (1 / 8);

function knowing(times: readonly (readonly [expectedMs: number, firstMs: number])[]): Lateness {
  const lateness = createLateness({ hedgeShare: 0.05 });
  for (const [expectedMs, firstMs] of times) lateness.note(model, expectedMs, ms(firstMs));
  return lateness;
}
const repeat = <T>(count: number, value: (at: number) => T): T[] => Array.from({ length: count }, (_, at) => value(at));

describe('a request is late', () => {
  test('never before 32 times are known of its model', ({ expect }) => {
    const lateness = knowing(repeat(31, () => [100, 100]));
    expect(lateness.lateAfterMs(model, 100)).toBeUndefined();
    lateness.note(model, 100, ms(100));
    expect(lateness.lateAfterMs(model, 100)).toBeDefined();
    expect(lateness.lateAfterMs(digestOf('b'), 100)).toBeUndefined();
  });

  test('never within 30 ms', ({ expect }) => {
    expect(knowing(repeat(100, () => [1, 1])).lateAfterMs(model, 1)).toBe(lateMinMs);
  });

  test('after what 95 of 100 took, but not what 94 did', ({ expect }) => {
    const withSlow = (slow: number) =>
      knowing(repeat(2_000, (at) => (at % 50 < slow / 2 ? [100, 1_000] : [100, 100]))).lateAfterMs(model, 100) ?? 0;
    expect(withSlow(4)).toBeLessThan(100 * resolution ** 2);
    expect(withSlow(6)).toBeGreaterThanOrEqual(1_000);
    expect(withSlow(6)).toBeLessThan(1_000 * resolution ** 2);
  });

  test('by how many times longer it takes, and by how much longer: whichever is later', ({ expect }) => {
    // All take three times as long as expected.
    const scaled = knowing(repeat(200, (at) => (at % 2 === 0 ? [100, 300] : [1_000, 3_000])));
    expect(scaled.lateAfterMs(model, 2_000)).toBeGreaterThanOrEqual(6_000);
    expect(scaled.lateAfterMs(model, 2_000)).toBeLessThan(6_000 * resolution ** 2);
    // All take half a second longer.
    const shifted = knowing(repeat(200, () => [2_000, 2_500]));
    expect(shifted.lateAfterMs(model, 100)).toBeGreaterThanOrEqual(600);
    expect(shifted.lateAfterMs(model, 100)).toBeLessThan(100 + 500 * resolution ** 2);
  });

  test('of requests like those known, at most one in twenty', ({ expect }) => {
    fc.assert(
      fc.property(fc.nat(1_000_000), fc.integer({ min: 1, max: 4 }), (seed, spread) => {
        const random = new SimRandom(`late${seed}`);
        const one = (): readonly [number, number] => {
          const expectedMs = 50 * 10 ** (2 * random.float());
          return [expectedMs, expectedMs * (0.5 + random.float() ** spread) + 20 * random.float()];
        };
        const times = repeat(240, one);
        const lateness = knowing(times);
        const late = times.filter(([expectedMs, firstMs]) => firstMs > (lateness.lateAfterMs(model, expectedMs) ?? 0));
        expect(late.length).toBeLessThanOrEqual(12);
      }),
    );
  });

  test('by its newest times: what was slow once is forgotten', ({ expect }) => {
    const lateness = knowing(repeat(300, () => [100, 5_000]));
    const slow = lateness.lateAfterMs(model, 100) ?? 0;
    for (const _ of repeat(3_000, () => 0)) lateness.note(model, 100, ms(100));
    expect(slow).toBeGreaterThanOrEqual(5_000);
    expect(lateness.lateAfterMs(model, 100)).toBeLessThan(100 * resolution ** 2);
  });

  test('not by times that make no sense', ({ expect }) => {
    const absurd = [0, -1, Number.NaN, Number.POSITIVE_INFINITY];
    const lateness = knowing(repeat(32, () => [100, 100]));
    const before = lateness.lateAfterMs(model, 100);
    for (const value of repeat(400, (at) => absurd[at % 4] ?? 0)) {
      lateness.note(model, value, ms(100_000));
      lateness.note(model, 100, ms(value));
    }
    expect(lateness.lateAfterMs(model, 100)).toBe(before);
    expect(absurd.map((value) => lateness.lateAfterMs(model, value))).toEqual(absurd.map(() => undefined));
  });

  test('also beyond what the buckets reach', ({ expect }) => {
    const lateness = knowing(repeat(64, () => [0.001, 1e12]));
    expect(Number.isFinite(lateness.lateAfterMs(model, 100))).toBe(true);
    expect(knowing(repeat(64, () => [1e12, 0.001])).lateAfterMs(model, 100)).toBeGreaterThanOrEqual(lateMinMs);
  });

  test('forgets models beyond its bound', ({ expect }) => {
    const lateness = createLateness({ hedgeShare: 0, modelsMax: 2 });
    for (const _ of repeat(32, () => 0)) lateness.note(model, 100, ms(100));
    for (const letter of ['b', 'c', 'd']) lateness.note(digestOf(letter), 100, ms(100));
    expect(lateness.lateAfterMs(model, 100)).toBeUndefined();
  });
});

describe('hedges', () => {
  /** How many of the next requests could be hedged. */
  const hedged = (lateness: Lateness, requests: number): number =>
    repeat(requests, () => {
      lateness.asked();
      return lateness.takeHedge();
    }).filter(Boolean).length;

  test('are none in the first 32 requests, and then their share', ({ expect }) => {
    const lateness = createLateness({ hedgeShare: 0.05 });
    expect(hedged(lateness, 32)).toBe(0);
    expect(hedged(lateness, 1)).toBe(1);
    expect(hedged(lateness, 967)).toBe(49);
  });

  test('are never any where their share is 0', ({ expect }) => {
    expect(hedged(createLateness({ hedgeShare: 0 }), 1_000)).toBe(0);
  });

  test('are saved up to 8', ({ expect }) => {
    const lateness = createLateness({ hedgeShare: 0.05 });
    for (const _ of repeat(1_000, () => 0)) lateness.asked();
    expect(repeat(20, () => lateness.takeHedge()).filter(Boolean)).toHaveLength(hedgesMax);
  });

  test('are at most their share of all requests, whenever they are asked for', ({ expect }) => {
    const times = fc.array(fc.boolean(), { minLength: 1, maxLength: 800 });
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, noNaN: true }), times, (hedgeShare, isAsked) => {
        const lateness = createLateness({ hedgeShare });
        let requests = 0;
        let hedges = 0;
        for (const asked of isAsked) {
          if (asked) {
            lateness.asked();
            requests += 1;
          } else if (lateness.takeHedge()) hedges += 1;
          expect(hedges).toBeLessThanOrEqual(hedgeShare * requests + 1e-6);
        }
      }),
    );
  });
});
