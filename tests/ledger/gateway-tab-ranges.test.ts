/** Ranges, and the statements that wait for their countersignatures, beside the plainest things that do the same. */

import fc from 'fast-check';
import { test } from 'vitest';
import { Ranges } from '../../ledger/gateway-tab-ranges.ts';
import { WaitingStatements } from '../../ledger/gateway-tab-waiting.ts';
import type { EpochId } from '../../protocol/ids.ts';

const number = fc.nat(40);
const step = fc.record({ kind: fc.constantFrom('add', 'add', 'add', 'delete', 'lowest'), number });

test('ranges hold what a set holds', ({ expect }) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const ranges = new Ranges();
      const set = new Set<number>();
      for (const { kind, number } of steps) {
        if (kind === 'add') {
          expect(ranges.add(number)).toBe(!set.has(number));
          set.add(number);
        } else if (kind === 'delete') expect(ranges.delete(number)).toBe(set.delete(number));
        else {
          const lowest = Math.min(...set);
          let gone = 0;
          for (let at = lowest; set.delete(at); at += 1) gone += 1;
          expect(ranges.deleteLowest()).toBe(gone);
        }
        const all = [...set].sort((a, b) => a - b);
        const starts = all.filter((one) => !set.has(one - 1)).length;
        expect([ranges.size, ranges.count, ranges.lowest]).toEqual([set.size, starts, all[0]]);
        for (let at = -1; at <= 42; at += 1) {
          expect([at, ranges.has(at), ranges.above(at)]).toEqual([at, set.has(at), all.find((one) => one > at)]);
        }
      }
    }),
  );
});

const epochs = ['a', 'b', 'c'].map((letter) => letter.repeat(32) as EpochId);
/** Two epochs of one generation, as after a restored backup. */
const generations = [1, 1, 2];
const word = fc.record({ kind: fc.constantFrom('state', 'state', 'sign'), epoch: fc.nat(2), number: fc.nat(12) });

test('statements wait from when they are known until they are signed, in whatever order both are heard', ({
  expect,
}) => {
  fc.assert(
    fc.property(fc.array(word, { maxLength: 120 }), (words) => {
      const waiting = new WaitingStatements();
      const stated = new Map<string, number>();
      const signed = new Set<string>();
      for (const { kind, epoch: at, number } of words) {
        const epoch = epochs[at]!;
        const name = `${at} ${number}`;
        if (kind === 'sign') {
          if (signed.has(name)) continue;
          signed.add(name);
          waiting.delete(epoch, number);
        } else {
          if (stated.has(name)) continue;
          stated.set(name, number);
          const added = waiting.add({ epoch, generation: generations[at]!, block: number }, number);
          expect(added).toBe(!signed.has(name));
        }
      }
      const left = [...stated.keys()].filter((name) => !signed.has(name));
      expect(waiting.size).toBe(left.length);
      const found: string[] = [];
      for (let next = waiting.next(); next !== undefined; next = waiting.next(next)) {
        const at = epochs.indexOf(next.epoch);
        found.push(`${at} ${next.number}`);
        // Where to begin to read: not behind the block that holds it.
        expect(next.fromBlock).toBeLessThanOrEqual(next.number);
        expect(waiting.has(next.epoch, next.number)).toBe(true);
      }
      const inOrder = left.sort((a, b) => Number(a[0]) - Number(b[0]) || Number(a.slice(2)) - Number(b.slice(2)));
      expect(found).toEqual(inOrder);
      expect(waiting.isEmpty).toBe(left.length === 0 && [...signed].every((name) => stated.has(name)));
    }),
  );
});

test('a node that signs every other statement fills nobody’s memory: the oldest stand alone for good', ({ expect }) => {
  const waiting = new WaitingStatements();
  const [epoch] = epochs as [EpochId];
  for (let number = 0; number < 10_000; number += 1) {
    waiting.add({ epoch, generation: 0, block: number }, number);
    if (number % 2 === 0) waiting.delete(epoch, number);
  }
  expect([waiting.size, waiting.next()?.number]).toEqual([5_000, 7_953]);
});

test('a tab that always waits for something is not read from its beginning', ({ expect }) => {
  const waiting = new WaitingStatements();
  const [epoch] = epochs as [EpochId];
  for (let number = 0; number < 10_000; number += 1) {
    waiting.add({ epoch, generation: 0, block: 3 * number }, number);
    if (number > 0) waiting.delete(epoch, number - 1);
  }
  const next = waiting.next();
  expect([waiting.size, next?.number]).toEqual([1, 9_999]);
  expect(next?.fromBlock).toBeGreaterThan(3 * (9_999 - 64));
});
