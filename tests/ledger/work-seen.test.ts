/** Covered attempts: each is remembered, or counts as covered for good. */

import fc from 'fast-check';
import { test } from 'vitest';
import { pieceSerials, SeenWork } from '../../ledger/work-seen.ts';
import { runNamed } from './node-tab-stage.ts';

const runs = ['a', 'b', 'c'].map(runNamed);

test('what was added is there, in the next process too, and nothing else', ({ expect }) => {
  const attempt = fc.tuple(fc.constantFrom(...runs), fc.oneof(fc.nat(5_000), fc.maxSafeNat()));
  fc.assert(
    fc.property(fc.array(attempt, { maxLength: 60 }), fc.array(attempt, { maxLength: 60 }), (added, others) => {
      const seen = new SeenWork();
      const names = new Set(added.map(([run, serial]) => `${run}.${serial}`));
      for (const [run, serial] of added) seen.add(run, serial);
      const next = new SeenWork();
      next.load(seen.takeChanges().changed);
      for (const [run, serial] of [...added, ...others]) {
        const isThere = names.has(`${run}.${serial}`);
        expect([seen.has(run, serial), next.has(run, serial)]).toEqual([isThere, isThere]);
      }
      expect(seen.takeChanges()).toEqual({ changed: [], gone: [] });
    }),
  );
});

test('of too many the oldest go, and count as covered', ({ expect }) => {
  const [run, other] = runs as [(typeof runs)[0], (typeof runs)[0]];
  const seen = new SeenWork();
  const pieces = 4_097;
  for (let number = 0; number < pieces; number += 1) seen.add(run, number * pieceSerials);
  const { changed, gone } = seen.takeChanges();
  expect([changed.length, gone.map(({ number }) => number)]).toEqual([pieces - 1, [0]]);
  const next = new SeenWork();
  next.load(changed);
  for (const one of [seen, next]) {
    expect([one.has(run, 5), one.has(run, pieceSerials + 5), one.has(other, 5)]).toEqual([true, false, false]);
  }
});
