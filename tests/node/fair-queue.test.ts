/** Whose job is next, and who gives up a place: against any order of arrivals, starts and ends. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { FairQueue } from '../../node/fair-queue.ts';

interface Named {
  readonly account: string;
  readonly name: string;
}

/** `a1` is the first job of account a. */
const job = (name: string): Named => ({ account: name.slice(0, 1), name });

/** A queue in which these wait, and those run. */
function queueOf(waiting: readonly string[], running: readonly string[] = [], max = 100): FairQueue<Named> {
  const queue = new FairQueue<Named>(max);
  for (const name of running) queue.started(job(name));
  for (const name of waiting) queue.push(job(name));
  return queue;
}

const drawn = (queue: FairQueue<Named>): string[] => {
  const names: string[] = [];
  for (let next = queue.next(); next !== undefined; next = queue.next()) {
    names.push(next.name);
    queue.ended(next);
  }
  return names;
};

describe('who is next', () => {
  test.for<[string, string[], string[], string[]]>([
    ['inside an account, whoever came first', ['a1', 'a2', 'a3'], [], ['a1', 'a2', 'a3']],
    [
      'of several accounts, each in turn',
      ['a1', 'a2', 'a3', 'b1', 'b2', 'c1'],
      [],
      ['a1', 'b1', 'c1', 'a2', 'b2', 'a3'],
    ],
    ['an account that has less running', ['a1', 'b1', 'c1'], ['a0', 'a9', 'b0'], ['c1', 'b1', 'a1']],
  ])('%s', ([, waiting, running, expected], { expect }) => {
    const queue = queueOf(waiting, running);
    expect([drawn(queue), queue.size]).toEqual([expected, 0]);
  });

  test('nobody that was taken out', ({ expect }) => {
    const gone = job('a1');
    const queue = queueOf([]);
    queue.push(gone);
    queue.push(job('a2'));
    expect([queue.remove(gone), queue.remove(gone), drawn(queue)]).toEqual([true, false, ['a2']]);
  });
});

test.for<[string, string[], number]>([
  ['nobody where nobody waits', [], 0],
  ['those of the account', ['a1', 'a2'], 2],
  ['one of each other account, where the account has none', ['b1', 'b2', 'b3', 'c1'], 2],
  ['a turn of each for each of its own', ['a1', 'b1', 'b2', 'c1'], 1 + 2 * 2],
])('before a new job of an account go %s', ([, waiting, ahead], { expect }) => {
  expect(queueOf(waiting).ahead('a')).toBe(ahead);
});

describe('a full queue', () => {
  test.for<[string, string[], string[], string, string | undefined]>([
    ['takes the newest from whom most wait of', ['a1', 'a2', 'a3', 'b1'], [], 'c1', 'a3'],
    ['takes it from whom most run of, where as many wait', ['a1', 'b1'], ['b0'], 'c1', 'b1'],
    ['gives nothing to the account with the most', ['a1', 'a2', 'b1'], [], 'a3', undefined],
    ['gives nothing where the two would only change places', ['a1', 'a2', 'b1'], [], 'b2', undefined],
    ['gives nothing where each has one', ['a1', 'b1', 'd1'], [], 'c1', undefined],
    ['counts what runs of the newcomer', ['a1', 'a2'], ['c0', 'c9'], 'c1', undefined],
  ])('%s', ([, waiting, running, newcomer, lost], { expect }) => {
    const queue = queueOf(waiting, running, waiting.length);
    const comes = job(newcomer);
    expect(queue.isOwed(comes.account)).toBe(lost !== undefined);
    if (lost === undefined) return;
    expect([queue.push(comes)?.name, queue.size]).toEqual([lost, waiting.length]);
    expect(drawn(queue)).toEqual(expect.arrayContaining([newcomer]));
  });

  test('owes nothing while it has room', ({ expect }) => {
    expect(queueOf(['a1', 'a2', 'a3']).isOwed('b')).toBe(false);
  });
});

describe('whatever comes and goes', () => {
  const steps = fc.array(
    fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({ kind: fc.constant('come' as const), account: fc.constantFrom(...'aaaabcd') }),
      },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('end' as const), at: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('leave' as const), at: fc.nat() }) },
    ),
    { minLength: 20, maxLength: 200 },
  );

  test('an account that waits and has nothing running is passed over at most once by each other', ({ expect }) => {
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 6 }), (moves, slots, max) => {
        const queue = new FairQueue<Named>(max);
        const waiting: Named[] = [];
        const running: Named[] = [];
        const passed = new Map<string, string[]>();
        const has = (list: readonly Named[], account: string): boolean => list.some((one) => one.account === account);
        const fill = (): void => {
          while (running.length < slots) {
            const next = queue.next();
            if (next === undefined) return;
            waiting.splice(waiting.indexOf(next), 1);
            passed.delete(next.account);
            for (const account of new Set(waiting.map((one) => one.account))) {
              if (account === next.account || has(running, account)) continue;
              const by = [...(passed.get(account) ?? []), next.account];
              passed.set(account, by);
              expect(new Set(by).size, `${account} passed over by ${by}`).toBe(by.length);
            }
            running.push(next);
          }
        };
        for (const [index, move] of moves.entries()) {
          if (move.kind === 'come') {
            const comes = { account: move.account, name: `${move.account}${index}` };
            if (queue.isFull && !queue.isOwed(comes.account)) continue;
            const lost = queue.push(comes);
            waiting.push(comes);
            if (lost !== undefined) {
              waiting.splice(waiting.indexOf(lost), 1);
              expect(lost.account).not.toBe(comes.account);
            }
          } else if (move.kind === 'end' && running.length > 0) {
            const [ended] = running.splice(move.at % running.length, 1);
            if (ended !== undefined) queue.ended(ended);
          } else if (move.kind === 'leave' && waiting.length > 0) {
            const [left] = waiting.splice(move.at % waiting.length, 1);
            expect(left !== undefined && queue.remove(left)).toBe(true);
          }
          for (const account of passed.keys()) if (!has(waiting, account)) passed.delete(account);
          fill();
          expect([queue.size, queue.size <= max]).toEqual([waiting.length, true]);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('an account alone against a crowd keeps its share of the slots', ({ expect }) => {
    const queue = new FairQueue<Named>(8);
    const served = { a: 0, b: 0 };
    for (let round = 0; round < 100; round += 1) {
      // One floods, the other asks again only when it has been served.
      for (let more = 0; more < 5; more += 1) if (!queue.isFull || queue.isOwed('a')) queue.push(job(`a${round}`));
      const isServed = served.b * 2 >= round;
      if (isServed && (!queue.isFull || queue.isOwed('b'))) queue.push(job(`b${round}`));
      const next = queue.next();
      if (next === undefined) continue;
      served[next.account as 'a' | 'b'] += 1;
      queue.ended(next);
    }
    expect(served.b).toBeGreaterThanOrEqual(33);
  });
});
