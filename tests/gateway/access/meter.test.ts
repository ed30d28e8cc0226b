/** What the limits of a call are settled with, however it ends. */

import { test } from 'vitest';
import type { Hold } from '../../../gateway/access/limits.ts';
import { Meter } from '../../../gateway/access/meter.ts';

const request = { promptBound: 40, completionTokens: 100, isExplicit: true };

/** A meter over a hold that keeps what it was settled with, and how it grew. */
function meterOf(): { readonly meter: Meter; readonly settled: number[]; readonly grown: number[] } {
  const [settled, grown]: [number[], number[]] = [[], []];
  const hold: Hold = {
    request,
    rate: {},
    grow: (tokens) => void grown.push(tokens),
    settle: (tokens) => void settled.push(tokens),
  };
  return { meter: new Meter(hold), settled, grown };
}

test('an answer that ended well counts as it is charged', ({ expect }) => {
  const { meter, settled } = meterOf();
  meter.opened();
  meter.delivered(2);
  meter.done(7, 3);
  expect(settled).toEqual([7 + 3]);
});

test('what a node made counts no more once another one has the call', ({ expect }) => {
  const { meter, settled } = meterOf();
  meter.opened();
  meter.delivered(50);
  meter.opened();
  meter.delivered(1);
  meter.stopped();
  expect(settled).toEqual([10 + 1]);
});

test('an answer beyond what was set aside grows in steps', ({ expect }) => {
  const { meter, grown } = meterOf();
  meter.opened();
  for (const tokens of [100, 101, 1_124, 1_125, 4_000]) meter.delivered(tokens);
  expect(grown).toEqual([1_024, 1_024, 4_000 - 100 - 2 * 1_024]);
});
