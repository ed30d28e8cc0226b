/** Which nodes may take a request: every reason of the closed list, as a table. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import {
  isHopeless,
  isWorthWaiting,
  type Needs,
  type RefusalReason,
  refusalOf,
  refusalReasons,
} from '../../../gateway/route/candidates.ts';
import type { RoutedNode } from '../../../gateway/route/score.ts';
import { peerId, routedNode, someNeeds } from './routed-node.ts';

type Change = readonly [node: Partial<RoutedNode>, needs: Partial<Needs>];

const self = peerId('n');
const other = peerId('o');

/** What makes a node unfit, and the nearest to it that does not. */
const rows: Record<RefusalReason, readonly [refused: Change, taken: Change]> = {
  denied: [
    [{}, { preferences: { nodes: { deny: [other, self] } } }],
    [{}, { preferences: { nodes: { deny: [other] } } }],
  ],
  'body-too-large': [
    [{ bodyMaxBytes: 999 }, {}],
    [{ bodyMaxBytes: 1_000 }, {}],
  ],
  'context-too-short': [
    [{ contextTokens: 99 }, { contextTokens: 100 }],
    [{ contextTokens: 100 }, { contextTokens: 100 }],
  ],
  'cannot-continue': [
    [{ continuation: 'none' }, { continues: 'tokens' }],
    [{ continuation: 'none' }, {}],
  ],
  'no-slots': [
    [{ slots: 0 }, {}],
    [{ slots: 1 }, {}],
  ],
  tried: [
    [{}, { tried: new Set([self]) }],
    [{}, { tried: new Set([other]) }],
  ],
  draining: [
    [{ isDraining: true }, {}],
    [{ isDraining: false }, {}],
  ],
  silent: [
    [{ isResponsive: false }, {}],
    [{ isResponsive: true }, {}],
  ],
  'breaker-open': [
    [{ isAllowed: false }, {}],
    [{ isAllowed: true }, {}],
  ],
  full: [
    [{ active: 4, queued: 2 }, {}],
    [{ active: 4, queued: 1 }, {}],
  ],
};

const refused = ([node, needs]: Change): RefusalReason | undefined =>
  refusalOf(routedNode('n', node), someNeeds(needs));

describe('a node is refused', () => {
  test.for(refusalReasons)('as %s, and only then', (reason, { expect }) => {
    const [unfit, fit] = rows[reason];
    expect([refused(unfit), refused(fit)]).toEqual([reason, undefined]);
  });

  test('for the first reason of the list, where several hold', ({ expect }) => {
    fc.assert(
      fc.property(fc.subarray([...refusalReasons], { minLength: 1 }), (reasons) => {
        const changes = reasons.map((reason) => rows[reason][0]);
        const both: Change = [
          Object.assign({}, ...changes.map(([node]) => node)),
          Object.assign({}, ...changes.map(([, needs]) => needs)),
        ];
        expect(refused(both)).toBe(reasons[0]);
      }),
    );
  });

  test.for<[string, Change, RefusalReason | undefined]>([
    ['an allowed one', [{}, { preferences: { nodes: { allow: [self] } } }], undefined],
    ['one that is not among those allowed', [{}, { preferences: { nodes: { allow: [other] } } }], 'denied'],
    ['any, when nobody is allowed', [{}, { preferences: { nodes: { allow: [] } } }], 'denied'],
    ['one allowed and denied', [{}, { preferences: { nodes: { allow: [self], deny: [self] } } }], 'denied'],
    ['text from tokens', [{ continuation: 'tokens' }, { continues: 'text' }], 'cannot-continue'],
    ['text from text', [{ continuation: 'text' }, { continues: 'text' }], undefined],
    ['tokens from text', [{ continuation: 'text' }, { continues: 'tokens' }], undefined],
    ['tokens from tokens', [{ continuation: 'tokens' }, { continues: 'tokens' }], undefined],
    ['one whose queue alone is long', [{ queued: 6 }, {}], 'full'],
    ['one with every slot in use, when none may wait', [{ active: 4 }, { queueMax: 0 }], 'full'],
    ['one with a slot left, when none may wait', [{ active: 3 }, { queueMax: 0 }], undefined],
    ['a newcomer with all of its slots in use', [{ active: 4, warmth: 0.25 }, {}], undefined],
  ])('or not: %s', ([, change, reason], { expect }) => {
    expect(refused(change)).toBe(reason);
  });
});

test('a request waits for what passes by itself, and never where nobody could ever take it', ({ expect }) => {
  const of = (...reasons: RefusalReason[]) => reasons.map((reason) => ({ peer: self, reason }));
  const table = refusalReasons.map((reason) => [reason, isWorthWaiting(of(reason)), isHopeless(of(reason))]);
  expect(table).toEqual([
    ['denied', false, true],
    ['body-too-large', false, true],
    ['context-too-short', false, true],
    ['cannot-continue', false, false],
    ['no-slots', false, false],
    ['tried', false, false],
    ['draining', false, false],
    ['silent', false, false],
    ['breaker-open', true, false],
    ['full', true, false],
  ]);
  expect(isWorthWaiting(of('denied', 'full'))).toBe(true);
  expect(isHopeless(of('denied', 'body-too-large'))).toBe(true);
  expect(isHopeless(of('denied', 'draining'))).toBe(false);
  // Of no node at all nothing is known.
  expect([isWorthWaiting([]), isHopeless([])]).toEqual([false, false]);
});
