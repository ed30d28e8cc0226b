/** What a request remembers of the nodes that it has met, taken alone. */

import { describe, test } from 'vitest';
import type { Serving } from '../../../gateway/nodes.ts';
import { usualPolicy } from '../../../gateway/route/plan.ts';
import { createPrefixMemory } from '../../../gateway/route/prefix.ts';
import { Seeker, traced } from '../../../gateway/route/seek.ts';
import { Shown } from '../../../gateway/route/shown.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { SimRandom } from '../../../sim/random.ts';
import { digestOf, peerId, routedNode } from './routed-node.ts';

interface Fake extends Serving {
  overloads: number;
}

function fake(peer: string, change: Parameters<typeof routedNode>[1] = {}): Fake {
  const serving = {
    ...routedNode(peer, change),
    overloads: 0,
    node: {
      overloaded: () => {
        serving.overloads += 1;
      },
    },
  };
  return serving as unknown as Fake;
}

function seekerOf(group: readonly Serving[], preferences = {}, bodyBytes = 1_000): Seeker {
  const random = new SimRandom('seek');
  const prefixes = createPrefixMemory({ random: random.fork('prefix') });
  const chain = prefixes.chainOf('', digestOf('d'), new Uint8Array(0));
  return new Seeker(
    { random, prefixes, policy: usualPolicy },
    { group: () => group, bodyBytes, chain, preferences, priceOf: () => 1 },
  );
}

const lost = new HelixFlowError('NODE_LOST', {});
const refusals = (seeker: Seeker, ...choose: Parameters<Seeker['choose']>): unknown[] =>
  seeker.choose(...choose).refusals.map(({ peer, reason }) => [peer, reason]);

describe('a seeker', () => {
  test('goes nowhere twice, until there is content', ({ expect }) => {
    const [a, b] = [fake('a'), fake('b')];
    const seeker = seekerOf([a, b]);
    seeker.failed(a.node, lost);
    expect([seeker.choose(undefined).chosen?.node, refusals(seeker, undefined)]).toEqual([b, [['a', 'tried']]]);
    seeker.failed(b.node, lost);
    expect(seeker.choose(undefined).chosen).toBeUndefined();
    seeker.progressed();
    expect(refusals(seeker, undefined)).toEqual([]);
  });

  test('may go again where it failed when it finds nobody else, but not where its answer cannot go on', ({
    expect,
  }) => {
    const [a, b] = [fake('a'), fake('b')];
    const seeker = seekerOf([a, b]);
    seeker.failed(a.node, lost);
    seeker.failed(b.node, new HelixFlowError('RESUME_REFUSED', { reason: 'x' }));
    seeker.forgive();
    expect(refusals(seeker, undefined)).toEqual([['b', 'tried']]);
    seeker.progressed();
    seeker.failed(b.node, lost);
    seeker.forgive();
    expect(refusals(seeker, undefined)).toEqual([]);
  });

  test('takes a node that is there anew for another one', ({ expect }) => {
    const group = [fake('a')];
    const seeker = seekerOf(group);
    seeker.failed((group[0] as Fake).node, lost);
    group[0] = fake('a');
    expect(seeker.choose(undefined).chosen?.node).toBe(group[0]);
  });

  test('tells a node that it is full, and may come again', ({ expect }) => {
    const a = fake('a');
    const seeker = seekerOf([a]);
    seeker.failed(a.node, new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 1 }));
    expect([a.overloads, seeker.choose(undefined).chosen?.node]).toEqual([1, a]);
  });

  test('asks for the liveliest after a node was lost, and only then', ({ expect }) => {
    const group = [fake('a'), fake('b', { lastHeardMs: 10_000 }), fake('c')];
    const [a] = group as [Fake];
    const seeker = seekerOf(group);
    seeker.failed(a.node, new HelixFlowError('ENGINE_FAILED', { reason: 'x' }));
    expect(seeker.choose(undefined).reason).toBe('soonest');
    seeker.failed(a.node, lost);
    const { chosen, reason } = seeker.choose(undefined);
    expect([chosen?.node.peer, reason]).toEqual(['b', 'liveliest']);
    seeker.progressed();
    expect(seeker.choose(undefined).reason).toBe('soonest');
  });

  test('leaves out where an attempt runs already', ({ expect }) => {
    const [a, b] = [fake('a'), fake('b')];
    const seeker = seekerOf([a, b]);
    expect(refusals(seeker, undefined, a.node)).toEqual([['a', 'tried']]);
    expect(refusals(seeker, undefined)).toEqual([]);
  });

  test('asks who can go on with what was shown', ({ expect }) => {
    const group = [
      fake('a', { continuation: 'none' }),
      fake('b', { continuation: 'tokens' }),
      fake('c', { continuation: 'text' }),
    ];
    const seeker = seekerOf(group);
    expect(refusals(seeker, new Shown('text'))).toEqual([
      ['a', 'cannot-continue'],
      ['b', 'cannot-continue'],
    ]);
    expect(refusals(seeker, new Shown('tokens'))).toEqual([['a', 'cannot-continue']]);
    expect(refusals(seeker, undefined)).toEqual([]);
  });

  test('passes on what is asked of nodes, and how much is sent', ({ expect }) => {
    const group = [fake('a'), fake('b', { bodyMaxBytes: 999 })];
    expect(refusals(seekerOf(group, { nodes: { deny: [peerId('a')] } }), undefined)).toEqual([
      ['a', 'denied'],
      ['b', 'body-too-large'],
    ]);
  });
});

describe('a request that a node had no room for', () => {
  const tooLong = (requestedTokens: number): HelixFlowError =>
    new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', {
      contextTokens: 1,
      requestedTokens,
      promptTokens: 1,
      completionTokens: 1,
    });
  const group = [1_000, 2_000, 4_000].map((contextTokens) => fake(`${contextTokens}`, { contextTokens }));
  const [small, , large] = group as [Fake, Fake, Fake];

  test.for<[string, HelixFlowError, Fake, boolean]>([
    ['may have it at a longer one', tooLong(3_000), small, true],
    ['may have it where it just fits', tooLong(4_000), small, true],
    ['has it nowhere', tooLong(4_001), small, false],
    ['has no longer one', tooLong(1), large, false],
    ['and that failed for another reason has not', lost, small, false],
  ])('%s', ([, error, node, isThere], { expect }) => {
    expect(seekerOf(group).needsRoom(error, node)).toBe(isThere);
  });

  test('goes only where there is, and remembers the most that was asked for', ({ expect }) => {
    const seeker = seekerOf(group);
    seeker.needsRoom(tooLong(3_000), small);
    seeker.needsRoom(tooLong(1_500), small);
    seeker.progressed();
    expect(refusals(seeker, undefined)).toEqual([
      ['1000', 'context-too-short'],
      ['2000', 'context-too-short'],
    ]);
  });
});

test('what is kept of a candidate is how it looked, not the node itself', ({ expect }) => {
  const node = fake('a', { active: 3, queued: 1 });
  const candidate = { node, cachedBytes: 7, score: { totalMs: 5 } as never };
  expect(traced(candidate)).toEqual({ peer: 'a', score: { totalMs: 5 }, cachedBytes: 7, active: 3, queued: 1 });
});
