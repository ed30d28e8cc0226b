/** The tables behave as the Maps and Sets they stand in for. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { Bag, type BagItem, Memory, NumberTable } from '../../protocol/tables.ts';

const number = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 0xffff_ffff }));
const step = fc.oneof(
  fc.record({ do: fc.constant('set' as const), key: number, value: fc.nat() }),
  fc.record({ do: fc.constant('delete' as const), key: number }),
);

describe('a number table', () => {
  test('holds what a Map would, whatever is added and deleted', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const table = new NumberTable<number>();
        const map = new Map<number, number>();
        for (const act of steps) {
          if (act.do === 'set') {
            table.set(act.key, act.value);
            map.set(act.key, act.value);
          } else expect(table.delete(act.key)).toBe(map.delete(act.key));
          expect([table.size, table.get(act.key), table.has(act.key)]).toEqual([
            map.size,
            map.get(act.key),
            map.has(act.key),
          ]);
        }
        expect(table.entries()).toEqual([...map].sort(([a], [b]) => a - b));
        table.clear();
        expect([table.size, table.entries()]).toEqual([0, []]);
      }),
      { numRuns: 300 },
    );
  });

  test('finds every key after those before it on the same place are gone', ({ expect }) => {
    const table = new NumberTable<number>();
    for (const key of [16, 32, 48, 1, 17]) table.set(key, key);
    table.delete(16);
    expect([32, 48, 1, 17].map((key) => table.get(key))).toEqual([32, 48, 1, 17]);
  });
});

describe('a bag', () => {
  test('holds each item once and forgets what is deleted, in any order', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(15)), { maxLength: 200 }), (steps) => {
        const items: BagItem[] = Array.from({ length: 16 }, () => ({ bagIndex: -1 }));
        const bag = new Bag<BagItem>();
        const set = new Set<BagItem>();
        for (const [isAdd, index] of steps) {
          const item = items[index] as BagItem;
          if (isAdd) {
            bag.add(item);
            set.add(item);
          } else {
            bag.delete(item);
            set.delete(item);
          }
          expect(bag.size).toBe(set.size);
        }
        expect(new Set(bag.all())).toEqual(set);
      }),
    );
  });
});

describe('a memory', () => {
  test('never holds more than its bound, and keeps what is asked for', ({ expect }) => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 50 }), fc.array(fc.nat(200), { maxLength: 400 }), (max, names) => {
        const memory = new Memory<number>(max);
        memory.set('kept', -1);
        for (const name of names) {
          memory.set(`n${name}`, name);
          expect(memory.get(`n${name}`)).toBe(name);
          expect(memory.get('kept')).toBe(-1);
          expect(memory.size).toBeLessThanOrEqual(max);
        }
      }),
    );
  });
});
