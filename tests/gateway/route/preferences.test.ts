/** What a request and its key ask of nodes together. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { refusalOf } from '../../../gateway/route/candidates.ts';
import { mergePreferences, noPreferences, type Preferences } from '../../../gateway/route/preferences.ts';
import { peerId, routedNode, someNeeds } from './routed-node.ts';

const [a, b, c] = [peerId('a'), peerId('b'), peerId('c')];

describe('of a key and a request', () => {
  test.for<[string, key: Preferences | undefined, request: Preferences | undefined, both: Preferences]>([
    ['nothing comes of nothing', undefined, undefined, noPreferences],
    ['nothing comes of two empty ones', {}, {}, {}],
    [
      'the key speaks where the request is silent',
      { prefer: 'price', region: 'eu' },
      {},
      { prefer: 'price', region: 'eu' },
    ],
    ['a key alone holds', { prefer: 'price' }, undefined, { prefer: 'price' }],
    ['a request alone holds', undefined, { nodes: { allow: [a] } }, { nodes: { allow: [a] } }],
    [
      'the request goes first',
      { prefer: 'price', region: 'eu' },
      { prefer: 'latency', region: 'us' },
      { prefer: 'latency', region: 'us' },
    ],
    ['both must allow', { nodes: { allow: [a, b] } }, { nodes: { allow: [b, c] } }, { nodes: { allow: [b] } }],
    ['one may allow alone', { nodes: { allow: [a] } }, { nodes: { deny: [b] } }, { nodes: { allow: [a], deny: [b] } }],
    ['what either denies is denied', { nodes: { deny: [a] } }, { nodes: { deny: [b] } }, { nodes: { deny: [a, b] } }],
    [
      'two that share nobody allow nobody',
      { nodes: { allow: [a] } },
      { nodes: { allow: [b] } },
      { nodes: { allow: [] } },
    ],
    ['an empty list allows nobody', { nodes: { allow: [] } }, { nodes: { allow: [a] } }, { nodes: { allow: [] } }],
    ['lists that say nothing vanish', { nodes: {} }, { nodes: { deny: [] } }, {}],
  ])('%s', ([, key, request, both], { expect }) => {
    expect(mergePreferences(key, request)).toEqual(both);
  });

  test('a node serves exactly when each of them lets it', ({ expect }) => {
    const peers = fc.subarray([a, b, c]);
    const wishes = fc.option(
      fc.record({ nodes: fc.record({ allow: peers, deny: peers }, { requiredKeys: [] }) }, { requiredKeys: [] }),
      { nil: undefined },
    );
    const lets = (preferences: Preferences | undefined, peer: string): boolean =>
      refusalOf(routedNode(peer), someNeeds({ preferences: preferences ?? {} })) === undefined;
    fc.assert(
      fc.property(wishes, wishes, fc.constantFrom('a', 'b', 'c'), (key, request, peer) => {
        expect(lets(mergePreferences(key, request), peer)).toBe(lets(key, peer) && lets(request, peer));
      }),
    );
  });
});
