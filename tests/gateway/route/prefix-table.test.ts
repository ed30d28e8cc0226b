/** The table of blocks, where hashes share places and numbers: against two plain maps. */

import fc from 'fast-check';
import { test } from 'vitest';
import { BlockTable, peersPerBlock } from '../../../gateway/route/prefix-table.ts';

test('a table agrees with two generations of plain maps', ({ expect }) => {
  // Few numbers, so that blocks share a place, or one of their two numbers.
  const a = fc.constantFrom(0, 1, 2, 31, 32, 33, -1, -32, 1 << 20);
  const b = fc.constantFrom(1, -1, 3);
  const step = fc.record({
    isRemoved: fc.nat(5).map((draw) => draw === 0),
    a,
    b,
    peer: fc.integer({ min: 1, max: 6 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), fc.integer({ min: 2, max: 24 }), (steps, entriesMax) => {
      const table = new BlockTable(entriesMax);
      const half = Math.floor(entriesMax / 2);
      let newer = new Map<string, number[]>();
      let older = new Map<string, number[]>();
      for (const one of steps) {
        const key = `${one.a}/${one.b}`;
        const place = table.find(one.a, one.b);
        if (one.isRemoved) {
          if (place >= 0) table.remove(place, one.peer);
          const peers = newer.get(key) ?? older.get(key);
          if (peers?.includes(one.peer)) peers.splice(peers.indexOf(one.peer), 1);
        } else {
          table.put(one.a, one.b, one.peer);
          if (!newer.has(key)) {
            if (newer.size >= half) {
              older = newer;
              newer = new Map();
            }
            newer.set(key, [...(older.get(key) ?? [])]);
          }
          const peers = newer.get(key) ?? [];
          newer.set(key, [one.peer, ...peers.filter((peer) => peer !== one.peer)].slice(0, peersPerBlock));
        }
        const now = table.find(one.a, one.b);
        const held = Array.from({ length: peersPerBlock }, (_, nth) => (now < 0 ? 0 : table.peerAt(now, nth)));
        const expected = newer.get(key) ?? older.get(key);
        expect([now < 0, held.filter((peer) => peer > 0)]).toEqual([expected === undefined, expected ?? []]);
      }
    }),
  );
});
