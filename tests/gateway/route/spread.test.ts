/** How requests spread over nodes when many gateways know the same of them, and what newcomers get. */

import { describe, test } from 'vitest';
import { chooseNode } from '../../../gateway/route/plan.ts';
import type { RoutedNode } from '../../../gateway/route/score.ts';
import type { PeerId } from '../../../protocol/ids.ts';
import type { Random } from '../../../protocol/ports.ts';
import { SimRandom } from '../../../sim/random.ts';
import { peerId, question, routedNode } from './routed-node.ts';

type Chooser = (group: readonly RoutedNode[], random: Random) => PeerId | undefined;

const planned: Chooser = (group, random) => chooseNode(question(group), random).chosen?.node.peer;
/** What this plan is not: the least used of the soonest. */
const best: Chooser = (group) => [...group].sort((a, b) => a.overheadMs - b.overheadMs || a.active - b.active)[0]?.peer;

/** How many requests each node gets when all gateways start from one view of the nodes. */
function loads(
  group: readonly RoutedNode[],
  { gateways, requests, choose = planned }: { gateways: number; requests: number; choose?: Chooser },
  seed: string,
): readonly number[] {
  const load = new Map<PeerId, number>(group.map(({ peer }) => [peer, 0]));
  for (let gateway = 0; gateway < gateways; gateway += 1) {
    const random = new SimRandom(`${seed}/${gateway}`);
    // A gateway knows of its own requests at once, of the others' only later.
    const own = new Map<PeerId, number>();
    for (let request = 0; request < requests; request += 1) {
      const seen = group.map((node) => ({ ...node, active: Math.max(node.active, own.get(node.peer) ?? 0) }));
      const peer = choose(seen, random) ?? peerId('none');
      own.set(peer, (own.get(peer) ?? 0) + 1);
      load.set(peer, (load.get(peer) ?? 0) + 1);
    }
  }
  return [...load.values()];
}

describe('gateways that know the same', () => {
  const seeds = Array.from({ length: 40 }, (_, at) => `seed${at}`);
  const twenty = (change: (at: number) => Partial<RoutedNode> = () => ({})): RoutedNode[] =>
    Array.from({ length: 20 }, (_, at) => routedNode(`n${at}`, { slots: 16, ...change(at) }));
  const most = (group: readonly RoutedNode[], how: { gateways: number; requests: number; choose?: Chooser }): number =>
    Math.max(...seeds.flatMap((seed) => loads(group, how, seed)));

  // An even spread of 100 by chance alone would have up to 14.
  test.for<[string, RoutedNode[], { gateways: number; requests: number }, bound: number, ofBest: number]>([
    ['one request of each, equal nodes', twenty(), { gateways: 10, requests: 1 }, 4, 10],
    ['ten requests of each, equal nodes', twenty(), { gateways: 10, requests: 10 }, 14, 10],
    [
      'one looks the least used',
      twenty((at) => ({ active: at === 7 ? 0 : 4 })),
      { gateways: 10, requests: 10 },
      20,
      50,
    ],
    [
      'one looks a little sooner',
      twenty((at) => ({ overheadMs: at === 7 ? 30 : 40 })),
      { gateways: 10, requests: 10 },
      14,
      100,
    ],
  ])('do not stampede: %s', ([, group, how, bound, ofBest], { expect }) => {
    expect(most(group, how)).toBeLessThanOrEqual(bound);
    expect(most(group, { ...how, choose: best })).toBe(ofBest);
  });

  test('fill nodes by their slots', ({ expect }) => {
    const group = [
      ...Array.from({ length: 6 }, (_, at) => routedNode(`small${at}`, { slots: 1 })),
      routedNode('large', { slots: 18 }),
    ];
    const sum = [0, 0];
    for (const seed of seeds) {
      const spread = loads(group, { gateways: 24, requests: 1 }, seed);
      const large = spread[6] ?? 0;
      sum[0] = (sum[0] ?? 0) + large;
      sum[1] = (sum[1] ?? 0) + Math.max(...spread.slice(0, 6));
    }
    expect((sum[0] ?? 0) / seeds.length).toBeGreaterThan(16);
    expect((sum[1] ?? 0) / seeds.length).toBeLessThan(4);
  });

  test('one alone keeps its nodes level', ({ expect }) => {
    for (const seed of seeds) {
      const spread = loads(twenty(), { gateways: 1, requests: 160 }, seed);
      expect(Math.max(...spread) - Math.min(...spread)).toBeLessThanOrEqual(7);
    }
  });
});

test('a newcomer is tried, but does not draw all requests', ({ expect }) => {
  const unknown = { roundTripMs: 0, overheadMs: 0, prefillMsPerByte: 0, tokenMs: 0, answerMeanMs: 0 };
  const group = [
    routedNode('n', { ...unknown, slots: 8, warmth: 0.25 }),
    ...['a', 'b', 'c'].map((peer) => routedNode(peer, { slots: 8, active: 1 })),
  ];
  const random = new SimRandom('newcomer');
  const share = Array.from({ length: 1_000 }, () => chooseNode(question(group), random).chosen?.node.peer).filter(
    (peer) => peer === 'n',
  ).length;
  expect(share).toBeGreaterThan(20);
  expect(share).toBeLessThan(250);
});
