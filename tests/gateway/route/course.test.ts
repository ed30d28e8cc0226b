/** What the parts of a call keep count of, taken alone: tries, moves, what was shown, what was taken. */

import { describe, test } from 'vitest';
import { RunningAttempt } from '../../../gateway/route/attempt.ts';
import { Course } from '../../../gateway/route/course.ts';
import { Race } from '../../../gateway/route/race.ts';
import { Shown } from '../../../gateway/route/shown.ts';
import type { AttemptPurpose } from '../../../gateway/route/trace.ts';
import { freePrice } from '../../../ledger/price.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { Tag } from '../../../protocol/ids.ts';
import { parseResume } from '../../../protocol/messages/resume.ts';
import type { Delta } from '../../../protocol/messages/session.ts';
import { unixMs } from '../../../protocol/units.ts';
import { digestOf, routedNode } from './routed-node.ts';

const delta = (text: string, tokenIds: readonly number[] = [1], isOpaque = false): Delta => ({
  type: 'delta',
  attempt: 1,
  sequence: 0,
  text,
  tokenIds,
  isOpaque,
});

function attempt(peer: string, purpose: AttemptPurpose, ...texts: readonly string[]): RunningAttempt {
  const running = new RunningAttempt({
    serving: routedNode(peer) as never,
    purpose,
    expectedMs: 0,
    cachedBytes: 0,
    line: { serial: 1, startMs: unixMs(0), received: () => {}, end: () => {}, drop: () => {} },
    account: 'ac'.repeat(8) as Tag,
    price: freePrice,
    bodyBytes: 10,
    startedMs: 0,
    charged: (tokens) => tokens,
  });
  for (const text of texts) running.received(delta(text));
  return running;
}

describe('a course', () => {
  test('counts as tries what began the answer and was not refused for being full', ({ expect }) => {
    const course = new Course(digestOf('d'));
    for (const purpose of ['first', 'retry', 'retry', 'hedge', 'splice', 'restart'] as const) course.left(purpose);
    expect([course.standing(false).attempts, course.attempts]).toEqual([3, 6]);
    course.refused('retry');
    course.refused('hedge');
    expect([course.standing(false).attempts, course.attempts]).toEqual([2, 6]);
  });

  test('counts refusals as tries, too, once there are too many of them', ({ expect }) => {
    const course = new Course(digestOf('d'));
    for (let count = 0; count < 66; count += 1) {
      course.left('retry');
      course.refused('retry');
    }
    expect(course.standing(false).attempts).toBe(2);
  });

  test('counts a splice when another node has begun to go on, and a move when it has lost one', ({ expect }) => {
    const course = new Course(digestOf('d'));
    course.begins(attempt('a', 'first'));
    course.add(delta('ab'));
    course.spliced(attempt('a', 'first', 'ab'));
    expect([course.served().splices, course.standing(false).splices]).toEqual([0, 1]);
    course.refused('splice');
    course.spliced(attempt('b', 'splice'));
    expect([course.served().splices, course.standing(false).splices]).toEqual([0, 1]);
    course.begins(attempt('c', 'splice'));
    expect(course.served()).toMatchObject({ splices: 1, nodes: ['a', 'c'], node: 'c' });
    expect([course.shownTokens, course.standing(true)]).toEqual([
      1,
      { attempts: 0, splices: 1, hasContent: true, continues: 'tokens', isUnseen: false },
    ]);
  });

  test('names a node once for what it told in a row, and again when another told between', ({ expect }) => {
    const course = new Course(digestOf('d'));
    for (const peer of ['a', 'a', 'b', 'a']) course.begins(attempt(peer, 'splice'));
    expect(course.served().nodes).toEqual(['a', 'b', 'a']);
  });

  test('that begins again has nothing, but is committed as it was, and has moved', ({ expect }) => {
    const course = new Course(digestOf('d'));
    let committed = 0;
    const events = {
      committed: () => {
        committed += 1;
      },
    };
    course.left('first');
    course.begins(attempt('a', 'first'));
    course.add(delta('ab'));
    course.commit(events);
    course.taken(2);
    course.restarts();
    expect(course.standing(true)).toEqual({
      attempts: 0,
      splices: 1,
      hasContent: false,
      continues: 'tokens',
      isUnseen: true,
    });
    expect([course.wanted('restart').hasContent, course.wanted('retry').hasContent]).toEqual([true, false]);
    course.begins(attempt('b', 'restart'));
    course.commit(events);
    expect([committed, course.served().nodes, course.taken(5)]).toEqual([1, ['b'], 5]);
    course.add(delta('x', [7]));
    expect(parseResume(course.shownFor('splice')?.resume(1) ?? new Uint8Array())).toMatchObject({
      tokenIds: [7],
      text: 'x',
    });
  });

  test('gives credit only for what the attempt that runs has told', ({ expect }) => {
    const course = new Course(digestOf('d'));
    course.begins(attempt('a', 'first'));
    expect(course.taken(3)).toBe(3);
    course.spliced(attempt('a', 'first', 'ä'.repeat(5)));
    expect([4, 2, 3, 5].map((bytes) => course.taken(bytes))).toEqual([0, 0, 2, 5]);
  });

  test('tells an error as it is before anything was shown, and as an interruption after', ({ expect }) => {
    const course = new Course(digestOf('d'));
    const error = new HelixFlowError('NODE_LOST', {});
    expect(course.told(error)).toBe(error);
    course.begins(attempt('a', 'first'));
    course.commit({ committed: () => {} });
    expect(course.told(error)).toMatchObject({ code: 'STREAM_INTERRUPTED', cause: error });
  });

  test('shows what an attempt told before its first text only when it has been chosen', ({ expect }) => {
    const course = new Course(digestOf('d'));
    const [loser, winner] = [attempt('a', 'first'), attempt('b', 'hedge')];
    loser.held(delta('', [1]));
    winner.held(delta('', [2]));
    course.begins(winner);
    course.add(delta('x', [3]));
    expect(parseResume(course.shownFor('splice')?.resume(2) ?? new Uint8Array())).toEqual({
      tokenIds: [2, 3],
      text: 'x',
      tokens: 2,
    });
  });
});

describe('what was shown', () => {
  test.for<[string, readonly Delta[], 'tokens' | 'text' | undefined]>([
    ['goes on by ids where all have them', [delta('a'), delta('', [2])], 'tokens'],
    ['goes on by text where none has', [delta('a', []), delta('b', [])], 'text'],
    ['goes on by ids where only the end of a long text has none', [delta('a'), delta('b', [])], 'tokens'],
    ['goes on nowhere once something is hidden', [delta('a'), delta('b', [1], true), delta('c')], undefined],
  ])('%s', ([, deltas, continues], { expect }) => {
    const shown = new Shown('tokens');
    for (const one of deltas) shown.add(one);
    expect(shown.continues).toBe(continues);
    if (continues === undefined) expect(parseResume(shown.resume(0))).toMatchObject({ tokenIds: [], text: '' });
  });

  test('is whole, however many pieces it came in', ({ expect }) => {
    const shown = new Shown('tokens');
    const numbers = Array.from({ length: 1_000 }, (_, number) => number);
    for (const number of numbers) shown.add(delta(`${number} `, [number]));
    expect(parseResume(shown.resume(1_000))).toEqual({
      tokenIds: numbers,
      text: numbers.map((number) => `${number} `).join(''),
      tokens: 1_000,
    });
  });

  test.for<[string, Delta, pieces: number]>([
    ['ids without text come without end', delta('', new Array<number>(1_024).fill(1)), 16],
    ['text comes without end', delta('x'.repeat(32_768), []), 256],
  ])('is forgotten where %s', ([, piece, pieces], { expect }) => {
    const shown = new Shown('tokens');
    for (let count = 0; count < pieces; count += 1) shown.add(piece);
    expect(shown.continues).toBeDefined();
    shown.add(piece);
    expect([shown.continues, parseResume(shown.resume(1))]).toMatchObject([undefined, { tokenIds: [], text: '' }]);
  });

  test('of ids before any text has its bound, too', ({ expect }) => {
    const course = new Course(digestOf('d'));
    const node = attempt('a', 'first');
    for (let count = 0; count < 17; count += 1) node.held(delta('', new Array<number>(1_024).fill(1)));
    course.begins(node);
    expect(course.standing(false).continues).toBeUndefined();
  });

  test('is nothing where nobody could go on with it', ({ expect }) => {
    const shown = new Shown('none');
    shown.add(delta('a'));
    expect([shown.continues, parseResume(shown.resume(1)).text]).toEqual([undefined, '']);
  });
});

describe('a race', () => {
  const [first, second] = [attempt('a', 'first'), attempt('b', 'hedge')];
  const race = (...running: readonly RunningAttempt[]): Race => {
    const one = new Race();
    for (const each of running) one.add(each);
    return one;
  };

  test('is of one, until a second one is sent, once', ({ expect }) => {
    const one = race(first);
    expect([one.current, one.rival, one.lone]).toEqual([first, undefined, first]);
    one.add(second);
    expect([one.current, one.rival, one.lone]).toEqual([first, second, undefined]);
    one.remove(second);
    expect([one.current, one.rival, one.lone]).toEqual([first, undefined, undefined]);
  });

  test('has one left when the other one is gone', ({ expect }) => {
    const one = race(first, second);
    one.remove(first);
    expect([one.current, one.rival, one.has(first), one.has(second)]).toEqual([second, undefined, false, true]);
  });

  test.for([
    ['the first', first, second],
    ['the second', second, first],
  ] as const)('is won by %s, and lost by the other one', ([, winner, loser], { expect }) => {
    const one = race(first, second);
    expect(one.win(winner)).toBe(loser);
    expect([one.current, one.rival, one.has(loser)]).toEqual([winner, undefined, false]);
  });

  test('is won by one alone without a loser', ({ expect }) => {
    expect(race(first).win(first)).toBeUndefined();
  });

  test('is over for all at once', ({ expect }) => {
    const one = race(first, second);
    expect([one.clear(), one.current, one.rival]).toEqual([[first, second], undefined, undefined]);
  });
});
