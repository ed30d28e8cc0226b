/** What a call is taken to have used: counts of nodes within bounds that they have no say in. */

import { test } from 'vitest';
import type { Hold } from '../../../gateway/access/limits.ts';
import { Meter } from '../../../gateway/access/meter.ts';

const request = { promptBound: 40, completionTokens: 100, isExplicit: true };

/** A meter over a hold that keeps what it was settled with. */
function meterOf(): { readonly meter: Meter; readonly settled: number[] } {
  const settled: number[] = [];
  const hold: Hold = { request, rate: {}, grow: () => {}, settle: (tokens) => void settled.push(tokens) };
  return { meter: new Meter(hold), settled };
}

test.for([
  ['as the node counted', 7, 2, 7 + 2],
  ['no prompt of more tokens than it has bytes', 1_000_000, 2, 40 + 2],
  ['no answer of more tokens than it has bytes, and one end', 7, 1_000_000, 7 + 6],
] as const)('an answer that ended well counts %s', ([, promptTokens, completionTokens, used], { expect }) => {
  const { meter, settled } = meterOf();
  meter.opened();
  meter.delivered('hello', 2);
  meter.done(promptTokens, completionTokens);
  expect(settled).toEqual([used]);
});

test('what a node made counts no more once another one has the call', ({ expect }) => {
  const { meter, settled } = meterOf();
  meter.opened();
  meter.delivered('', 50);
  meter.opened();
  meter.delivered('x', 1);
  meter.stopped();
  expect(settled).toEqual([10 + 1]);
});
