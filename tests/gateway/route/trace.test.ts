/** Stories of requests: the newest are kept, each with how it began and how it ended. */

import fc from 'fast-check';
import { test } from 'vitest';
import { createTraces, type TraceStep } from '../../../gateway/route/trace.ts';
import type { ModelDigest, PeerId, RequestId } from '../../../protocol/ids.ts';
import { ms } from '../../../protocol/units.ts';
import '../../support/seed.ts';

const digest = '10ea'.padEnd(64, '0') as ModelDigest;
const id = (number: number): RequestId => String(number).padStart(32, '0') as RequestId;
const step = (atMs: number): TraceStep => ({ kind: 'content', atMs: ms(atMs), node: 'n' as PeerId });
const times = (steps: readonly TraceStep[] | undefined): number[] | undefined => steps?.map(({ atMs }) => atMs);

test('a story is told as it was written, with the time of day it began', ({ expect }) => {
  const traces = createTraces({ tracesMax: 4, stepsMax: 64 }, () => 1_700_000_000_123);
  const writer = traces.begin(id(1), 'helix', digest);
  for (const atMs of [0, 5, 9]) writer.add(step(atMs));
  expect(traces.get(id(1))).toEqual({
    request: id(1),
    model: 'helix',
    digest,
    startMs: 1_700_000_000_123,
    steps: [step(0), step(5), step(9)],
    dropped: { count: 0, after: 3 },
  });
  expect(traces.get(id(2))).toBeUndefined();
});

test('the newest requests are remembered, whatever is still written to older ones', ({ expect }) => {
  const traces = createTraces({ tracesMax: 3, stepsMax: 64 }, () => 0);
  const writers = [1, 2, 3, 4, 5].map((number) => traces.begin(id(number), 'helix', digest));
  for (const writer of writers) writer.add(step(1));
  expect([1, 2, 3, 4, 5].map((number) => times(traces.get(id(number))?.steps))).toEqual([
    undefined,
    undefined,
    [1],
    [1],
    [1],
  ]);
});

test('the newest are listed first, as many as are asked for', ({ expect }) => {
  const traces = createTraces({ tracesMax: 3, stepsMax: 64 }, () => 0);
  const listed = (count: number) => traces.newest(count).map(({ request }) => request);
  expect(listed(2)).toEqual([]);
  for (const number of [1, 2]) traces.begin(id(number), 'helix', digest);
  expect([listed(1), listed(9)]).toEqual([[id(2)], [id(2), id(1)]]);
  for (const number of [3, 4, 5]) traces.begin(id(number), 'helix', digest);
  expect(listed(9)).toEqual([id(5), id(4), id(3)]);
});

test('of a long story the first eight steps and the last are kept, and it is told where some are missing', ({
  expect,
}) => {
  fc.assert(
    fc.property(fc.nat(200), fc.integer({ min: 9, max: 70 }), (count, stepsMax) => {
      const traces = createTraces({ tracesMax: 1, stepsMax }, () => 0);
      const writer = traces.begin(id(1), 'helix', digest);
      const all = Array.from({ length: count }, (_, atMs) => atMs);
      for (const atMs of all) writer.add(step(atMs));
      const missing = Math.max(0, count - stepsMax);
      expect(times(traces.get(id(1))?.steps)).toEqual([...all.slice(0, 8), ...all.slice(8 + missing)]);
      expect(traces.get(id(1))?.dropped).toEqual({ count: missing, after: Math.min(8, count) });
    }),
  );
});

test('a choice among many nodes is kept short, with the number there were', ({ expect }) => {
  const traces = createTraces({ tracesMax: 1, stepsMax: 64 }, () => 0);
  const refusals = Array.from({ length: 500 }, (_, index) => ({
    peer: `p${index}` as PeerId,
    reason: 'full' as const,
  }));
  traces.begin(id(1), 'helix', digest).add({
    kind: 'choice',
    atMs: ms(0),
    purpose: 'first',
    chosen: undefined,
    reason: undefined,
    candidates: [],
    refusals,
    groupSize: 500,
  });
  expect(traces.get(id(1))?.steps).toMatchObject([{ refusals: refusals.slice(0, 32), groupSize: 500 }]);
});

test('a story of many choices among many nodes says of the later ones only who was chosen', ({ expect }) => {
  const traces = createTraces({ tracesMax: 1, stepsMax: 64 }, () => 0);
  const writer = traces.begin(id(1), 'helix', digest);
  const score = { waitMs: 0, prefillMs: 1, roundTripMs: 1, overheadMs: 1, firstMs: 3, totalMs: 9 };
  const peers = Array.from({ length: 40 }, (_, index) => `p${index}` as PeerId);
  const [chosen] = peers;
  const candidates = peers.map((peer) => ({ peer, score, cachedBytes: 0, active: 0, queued: 0 }));
  const refusals = peers.map((peer) => ({ peer, reason: 'full' as const }));
  const reason = 'soonest' as const;
  for (let count = 0; count < 20; count += 1) {
    writer.add({ kind: 'choice', atMs: ms(0), purpose: 'retry', chosen, reason, candidates, refusals, groupSize: 80 });
  }
  const steps = traces.get(id(1))?.steps.flatMap((one) => (one.kind === 'choice' ? [one] : [])) ?? [];
  expect(steps.map((one) => [one.candidates.length, one.refusals.length])).toEqual([
    [32, 32],
    [32, 32],
    ...Array.from({ length: 18 }, () => [1, 0]),
  ]);
  expect(steps.at(-1)?.candidates).toEqual(candidates.slice(0, 1));
});
