/** Which node a request goes to, and what becomes of it when that fails: as tables, and over many draws. */

import { describe, test } from 'vitest';
import type { Needs } from '../../../gateway/route/candidates.ts';
import {
  type ChoiceReason,
  choiceReasons,
  chooseNode,
  type Question,
  type Recovery,
  recover,
  type Standing,
  usualPolicy,
} from '../../../gateway/route/plan.ts';
import type { RoutedNode } from '../../../gateway/route/score.ts';
import { type ErrorDetails, errorCodes, errorRow, HelixFlowError } from '../../../protocol/errors.ts';
import type { PeerId } from '../../../protocol/ids.ts';
import type { Random } from '../../../protocol/ports.ts';
import { SimRandom } from '../../../sim/random.ts';
import { peerId, question, routedNode, someNeeds } from './routed-node.ts';

const held = (bytes: Record<string, number>): ReadonlyMap<PeerId, number> =>
  new Map(Object.entries(bytes).map(([peer, count]) => [peerId(peer), count]));
const wishing = (preferences: Needs['preferences']): Pick<Question<RoutedNode>, 'needs'> => ({
  needs: someNeeds({ preferences }),
});

/** Who is chosen in 400 draws, sorted, and why. */
function chosenOf(group: readonly RoutedNode[], change: Partial<Question<RoutedNode>> = {}): [string[], string[]] {
  const random = new SimRandom('chosen');
  const choices = Array.from({ length: 400 }, () => chooseNode(question(group, change), random));
  const peers = new Set(choices.map(({ chosen }) => chosen?.node.peer ?? 'none'));
  return [[...peers].sort(), [...new Set(choices.map(({ reason }) => reason ?? 'none'))]];
}

const free = routedNode('a');
const later = (peer: string, byMs: number, change: Partial<RoutedNode> = {}): RoutedNode =>
  routedNode(peer, { overheadMs: 40 + byMs, ...change });
/** 2,000 bytes are 200 ms of work; an idle node that holds none of them takes 570 ms. */
const long = { needs: someNeeds({ bodyBytes: 2_000 }) };
const priced: Question<RoutedNode>['priceOf'] = ({ peer }) => Number(peer.slice(1));

interface Row {
  readonly about: string;
  readonly group: readonly RoutedNode[];
  readonly change?: Partial<Question<RoutedNode>>;
  readonly chosen: readonly string[];
  readonly reason: ChoiceReason | 'none';
}

const rows: readonly Row[] = [
  { about: 'nobody of nobody', group: [], chosen: ['none'], reason: 'none' },
  { about: 'nobody when none may', group: [routedNode('a', { isDraining: true })], chosen: ['none'], reason: 'none' },
  { about: 'the only one, however late', group: [later('a', 60_000)], chosen: ['a'], reason: 'only' },
  {
    about: 'the only one that may',
    group: [free, routedNode('b', { isAllowed: false }), routedNode('c', { isResponsive: false })],
    chosen: ['a'],
    reason: 'only',
  },
  { about: 'the one that is much sooner', group: [free, later('b', 200)], chosen: ['a'], reason: 'soonest' },
  { about: 'any that is about as good', group: [free, later('b', 100)], chosen: ['a', 'b'], reason: 'soonest' },
  {
    about: 'any within a few milliseconds where all are quick',
    group: ['a', 'b', 'c'].map((peer, at) =>
      routedNode(peer, { tokenMs: 0.001, prefillMsPerByte: 0.000_1, roundTripMs: 0.1, overheadMs: 0.1 + 4 * at }),
    ),
    chosen: ['a', 'b'],
    reason: 'soonest',
  },
  {
    about: 'a free one before one with a queue',
    group: [later('a', 100), routedNode('b', { active: 4 })],
    chosen: ['a'],
    reason: 'soonest',
  },
  {
    about: 'one with fast tokens before one with a short round trip',
    group: [routedNode('a', { roundTripMs: 150 }), routedNode('b', { tokenMs: 30 })],
    chosen: ['a'],
    reason: 'soonest',
  },
  {
    about: 'the one that holds the beginning',
    group: [free, routedNode('b'), routedNode('c')],
    change: { ...long, held: held({ b: 1_800 }) },
    chosen: ['b'],
    reason: 'prefix',
  },
  {
    about: 'any of those that hold half as much of it, or more',
    group: [free, routedNode('b'), routedNode('c')],
    change: { ...long, held: held({ a: 899, b: 1_800, c: 900 }) },
    chosen: ['b', 'c'],
    reason: 'prefix',
  },
  {
    about: 'the one that holds it, while the others take longer than its queue',
    group: [free, routedNode('b', { active: 4, answerMeanMs: 600 })],
    change: { ...long, held: held({ b: 2_000 }) },
    chosen: ['b'],
    reason: 'prefix',
  },
  {
    about: 'another one, once the queue takes longer than the saving',
    group: [free, routedNode('b', { active: 4, answerMeanMs: 2_000 })],
    change: { ...long, held: held({ b: 2_000 }) },
    chosen: ['a'],
    reason: 'soonest',
  },
  {
    about: 'one that holds it before one of which nothing is known',
    group: [
      routedNode('n', { roundTripMs: 0, overheadMs: 0, prefillMsPerByte: 0, tokenMs: 0, answerMeanMs: 0 }),
      routedNode('b'),
    ],
    change: { ...long, held: held({ b: 1_800 }) },
    chosen: ['b'],
    reason: 'prefix',
  },
  {
    about: 'one that holds it also where nothing has been measured',
    group: ['a', 'b', 'c'].map((peer) =>
      routedNode(peer, { roundTripMs: 0, overheadMs: 0, prefillMsPerByte: 0, tokenMs: 0, answerMeanMs: 0 }),
    ),
    change: { ...long, held: held({ c: 1_800 }) },
    chosen: ['c'],
    reason: 'prefix',
  },
  {
    about: 'the cheapest that is not much later',
    group: [routedNode('p3'), routedNode('p2'), later('p1', 1_000)],
    change: { ...wishing({ prefer: 'price' }), priceOf: priced },
    chosen: ['p1'],
    reason: 'price',
  },
  {
    about: 'another one, when the cheapest is much later',
    group: [routedNode('p3'), routedNode('p2'), later('p1', 1_001)],
    change: { ...wishing({ prefer: 'price' }), priceOf: priced },
    chosen: ['p2'],
    reason: 'price',
  },
  {
    about: 'the cheapest, which is three times as late where all are slow',
    group: [later('p3', 1_530), later('p2', 5_530), later('p1', 5_531)],
    change: { ...wishing({ prefer: 'price' }), priceOf: priced },
    chosen: ['p2'],
    reason: 'price',
  },
  {
    about: 'the soonest of those that are equally cheap',
    group: [routedNode('a'), later('b', 300), routedNode('c')],
    change: { ...wishing({ prefer: 'price' }), priceOf: ({ peer }) => (peer === 'c' ? 2 : 1) },
    chosen: ['a'],
    reason: 'price',
  },
  {
    about: 'none whose price is absurd, while another has one',
    group: [routedNode('a'), routedNode('b'), routedNode('c')],
    change: { ...wishing({ prefer: 'price' }), priceOf: ({ peer }) => (peer === 'b' ? 5 : Number.NaN) },
    chosen: ['b'],
    reason: 'price',
  },
  {
    about: 'any where no price makes sense',
    group: [routedNode('a'), routedNode('b')],
    change: { ...wishing({ prefer: 'price' }), priceOf: () => Number.NaN },
    chosen: ['a', 'b'],
    reason: 'price',
  },
  {
    about: 'the soonest for who wants that, whatever it costs',
    group: [routedNode('p3'), later('p1', 300)],
    change: { ...wishing({ prefer: 'latency' }), priceOf: priced },
    chosen: ['p3'],
    reason: 'soonest',
  },
  {
    about: 'one in the region, though it is later',
    group: [free, later('b', 2_000, { region: 'eu' })],
    change: wishing({ region: 'eu' }),
    chosen: ['b'],
    reason: 'soonest',
  },
  {
    about: 'one elsewhere, when none in the region may',
    group: [free, routedNode('b'), routedNode('c', { region: 'eu', isAllowed: false })],
    change: wishing({ region: 'eu' }),
    chosen: ['a', 'b'],
    reason: 'soonest',
  },
  {
    about: 'the cheapest in the region',
    group: [routedNode('p1'), routedNode('p2', { region: 'eu' }), routedNode('p3', { region: 'eu' })],
    change: { ...wishing({ prefer: 'price', region: 'eu' }), priceOf: priced },
    chosen: ['p2'],
    reason: 'price',
  },
  {
    about: 'after a loss those heard last, though they are later',
    group: [
      routedNode('a', { lastHeardMs: 8_000 }),
      later('b', 300, { lastHeardMs: 8_501 }),
      later('c', 300, { lastHeardMs: 9_000 }),
    ],
    change: { hasLostNode: true, ...long, held: held({ a: 2_000 }) },
    chosen: ['b', 'c'],
    reason: 'liveliest',
  },
  {
    about: 'after a loss none with a queue, while another is free',
    group: [routedNode('a', { lastHeardMs: 1_000 }), routedNode('b', { lastHeardMs: 9_000, active: 4 })],
    change: { hasLostNode: true },
    chosen: ['a'],
    reason: 'liveliest',
  },
  {
    about: 'after a loss the one heard last, when all have queues',
    group: [routedNode('a', { lastHeardMs: 1_000, active: 4 }), routedNode('b', { lastHeardMs: 9_000, active: 4 })],
    change: { hasLostNode: true },
    chosen: ['b'],
    reason: 'liveliest',
  },
  {
    about: 'after a loss one in the region, of those heard last',
    group: [
      routedNode('a', { lastHeardMs: 1_000, region: 'eu' }),
      routedNode('b', { lastHeardMs: 9_000, region: 'eu' }),
      routedNode('c', { lastHeardMs: 9_000 }),
    ],
    change: { hasLostNode: true, ...wishing({ region: 'eu' }) },
    chosen: ['b'],
    reason: 'liveliest',
  },
  {
    about: 'the least loaded, where only load counts, whatever it holds and however late it is',
    group: [routedNode('a', { active: 1 }), later('b', 300)],
    change: { routing: 'least-loaded', ...long, held: held({ a: 2_000 }) },
    chosen: ['b'],
    reason: 'least-loaded',
  },
  {
    about: 'any of them, where chance alone decides',
    group: [routedNode('a', { active: 3 }), later('b', 300), routedNode('c', { slots: 0 })],
    change: { routing: 'random' },
    chosen: ['a', 'b'],
    reason: 'random',
  },
];

describe('a request goes to', () => {
  test.for(rows)('$about', ({ group, change, chosen, reason }, { expect }) => {
    expect(chosenOf(group, change)).toEqual([chosen, [reason]]);
  });

  test('some node for each reason of the closed list', ({ expect }) => {
    expect(new Set(rows.map(({ reason }) => reason))).toEqual(new Set([...choiceReasons, 'none']));
  });

  test.for(['roundTripMs', 'overheadMs', 'prefillMsPerByte', 'tokenMs'] as const)(
    'nobody whose %s is absurd',
    (key, { expect }) => {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, -1]) {
        expect(chosenOf([routedNode('x', { [key]: value }), free, routedNode('b')])[0]).toEqual(['a', 'b']);
      }
    },
  );

  test('some of them where all are absurd', ({ expect }) => {
    const group = [routedNode('a', { tokenMs: Number.NaN }), routedNode('b', { overheadMs: Number.POSITIVE_INFINITY })];
    expect(chosenOf(group)[0]).toEqual(['a', 'b']);
    expect(chosenOf(group, wishing({ prefer: 'price' }))[0]).toEqual(['a', 'b']);
    expect(chosenOf(group, { hasLostNode: true })[0]).toEqual(['a', 'b']);
  });
});

test('a choice tells what was expected of whom, and who was refused for what', ({ expect }) => {
  const group = [routedNode('a'), later('b', 300), routedNode('c', { isDraining: true })];
  const choice = chooseNode(question(group, { held: held({ b: 400 }) }), new SimRandom('told'));
  expect({
    reason: choice.reason,
    chosen: choice.chosen?.node.peer,
    candidates: choice.candidates.map(({ node, score, cachedBytes }) => [node.peer, score.firstMs, cachedBytes]),
    refusals: choice.refusals,
  }).toEqual({
    reason: 'soonest',
    chosen: 'a',
    candidates: [
      ['a', 150, 0],
      ['b', 410, 400],
    ],
    refusals: [{ peer: 'c', reason: 'draining' }],
  });
});

describe('a large group', () => {
  const many = (count: number, change: (at: number) => Partial<RoutedNode> = () => ({})): RoutedNode[] =>
    Array.from({ length: count }, (_, at) => routedNode(`n${at}`, change(at)));
  const looked = (group: readonly RoutedNode[], change: Partial<Question<RoutedNode>> = {}) => {
    const choice = chooseNode(question(group, change), new SimRandom('large'));
    return { candidates: choice.candidates.length, refusals: choice.refusals.length, chosen: choice.chosen?.node.peer };
  };

  test('is looked at in part, from anywhere', ({ expect }) => {
    expect(looked(many(8))).toMatchObject({ candidates: 8, refusals: 0 });
    expect(looked(many(9))).toMatchObject({ candidates: 8, refusals: 0 });
    expect(chosenOf(many(40))[0]).toHaveLength(40);
  });

  test('always with those that hold the beginning', ({ expect }) => {
    const change = { ...long, held: held({ n7: 2_000, n33: 2_000 }) };
    expect(chosenOf(many(40), change)).toEqual([['n33', 'n7'], ['prefix']]);
    const all = held(Object.fromEntries(many(9).map(({ peer }) => [peer, 2_000])));
    expect(looked(many(9), { ...long, held: all })).toMatchObject({ candidates: 9 });
  });

  test('as a whole when none of those drawn may', ({ expect }) => {
    const group = many(40, (at) => ({ isAllowed: at === 31 }));
    expect(looked(group)).toEqual({ candidates: 1, refusals: 39, chosen: 'n31' });
    expect(looked(many(40, () => ({ isAllowed: false })))).toEqual({ candidates: 0, refusals: 40, chosen: undefined });
  });

  test('by region first', ({ expect }) => {
    const group = many(40, (at) => ({ region: at % 13 === 0 ? 'eu' : 'us' }));
    expect(chosenOf(group, wishing({ region: 'eu' }))[0]).toEqual(['n0', 'n13', 'n26', 'n39']);
    expect(chosenOf(group, wishing({ region: 'asia' }))[0]).toHaveLength(40);
    expect(looked(group, wishing({ region: 'asia' }))).toMatchObject({ candidates: 8 });
  });

  test('further for the cheapest', ({ expect }) => {
    const change = { ...wishing({ prefer: 'price' as const }), priceOf: priced };
    expect(chosenOf(many(40), change)[0]).toEqual(['n0']);
    expect(looked(many(400), change).candidates).toBe(64);
  });
});

describe('after an error', () => {
  const standing = (change: Partial<Standing> = {}): Standing => ({
    attempts: 1,
    splices: 0,
    hasContent: false,
    continues: 'tokens',
    isUnseen: false,
    ...change,
  });
  const rowsOfRecovery: readonly [string, Partial<Standing>, retryable: Recovery, lasting: Recovery][] = [
    ['before content, another node is tried', {}, 'retry', 'give-up'],
    ['the last attempt but one is not the last', { attempts: 2 }, 'retry', 'give-up'],
    ['the last attempt is', { attempts: 3 }, 'give-up', 'give-up'],
    ['before content, nothing is carried on', { continues: undefined, isUnseen: true }, 'retry', 'give-up'],
    [
      'after content, another node goes on, however many were tried',
      { hasContent: true, attempts: 9 },
      'splice',
      'give-up',
    ],
    ['from text as well', { hasContent: true, continues: 'text' }, 'splice', 'give-up'],
    ['the last splice but one is not the last', { hasContent: true, splices: 31 }, 'splice', 'give-up'],
    ['the last splice is', { hasContent: true, splices: 32 }, 'give-up', 'give-up'],
    ['what nobody can carry on ends', { hasContent: true, continues: undefined }, 'give-up', 'give-up'],
    [
      'or begins again, while nobody has seen it',
      { hasContent: true, continues: undefined, isUnseen: true },
      'restart',
      'give-up',
    ],
    ['but not for ever', { hasContent: true, continues: undefined, isUnseen: true, splices: 32 }, 'give-up', 'give-up'],
    ['what can be carried on does not begin again', { hasContent: true, isUnseen: true }, 'splice', 'give-up'],
  ];

  test.for(rowsOfRecovery)('%s', ([, change, retryable, lasting], { expect }) => {
    for (const code of errorCodes) {
      const error = new HelixFlowError(code, {} as ErrorDetails[typeof code]);
      // After content a deadline is that of the whole answer.
      const isLasting = change.hasContent === true && code === 'DEADLINE_EXCEEDED';
      const expected = errorRow(code).retry === 'never' || isLasting ? lasting : retryable;
      expect([code, recover(error, standing(change), usualPolicy)]).toEqual([code, expected]);
    }
  });
});

test('a draw that is the largest there is finds a node', ({ expect }) => {
  const most: Random = {
    int: (max) => max - 1,
    float: () => 1 - 2 ** -53,
    bytes: () => new Uint8Array(),
    fork: () => most,
  };
  const group = Array.from({ length: 7 }, (_, at) => routedNode(`n${at}`, { slots: 3 }));
  expect(chooseNode(question(group), most).chosen?.node.peer).toBe('n6');
});
