/** The sliding sum against a list of everything that was added. */

import fc from 'fast-check';
import { test } from 'vitest';
import { Window } from '../../../gateway/access/window.ts';
import { type Ms, ms } from '../../../protocol/units.ts';

const steps = fc.array(
  fc.tuple(fc.oneof(fc.integer({ min: 0, max: 3_000 }), fc.integer({ min: 0, max: 200_000 })), fc.nat(50)),
  { maxLength: 60 },
);

/** Everything added, with its time. */
function play(moves: readonly (readonly [number, number])[]) {
  const window = new Window();
  const added: { readonly atMs: number; readonly amount: number }[] = [];
  let nowMs = 0;
  for (const [stepMs, amount] of moves) {
    nowMs += stepMs;
    window.add(ms(nowMs), amount);
    added.push({ atMs: nowMs, amount });
  }
  const since = (fromMs: number): number =>
    added.filter(({ atMs }) => atMs > fromMs).reduce((sum, { amount }) => sum + amount, 0);
  return { window, since, nowMs: ms(nowMs) };
}

test('holds everything of the last 60 s, and nothing older than 61', ({ expect }) => {
  fc.assert(
    fc.property(steps, (moves) => {
      const { window, since, nowMs } = play(moves);
      const sum = window.sum(nowMs);
      expect(sum).toBeGreaterThanOrEqual(since(nowMs - 60_000));
      expect(sum).toBeLessThanOrEqual(since(nowMs - 61_001));
    }),
  );
});

test('says to the millisecond when enough of it has gone', ({ expect }) => {
  fc.assert(
    fc.property(steps, fc.nat(200), (moves, most) => {
      const { window, nowMs } = play(moves);
      const waitMs = window.untilAtMost(nowMs, most);
      if (waitMs > 0) expect(window.sum(ms(nowMs + waitMs - 1))).toBeGreaterThan(most);
      expect(window.sum(ms(nowMs + waitMs))).toBeLessThanOrEqual(most);
      expect(waitMs).toBeLessThanOrEqual(61_000);
    }),
  );
});

test('says when all of it has gone', ({ expect }) => {
  fc.assert(
    fc.property(steps, (moves) => {
      const { window, nowMs } = play(moves);
      const waitMs: Ms = window.untilEmpty(nowMs);
      expect(window.untilAtMost(nowMs, 0)).toBe(waitMs);
    }),
  );
});
