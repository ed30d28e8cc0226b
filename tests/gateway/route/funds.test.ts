/** Money of one request, for itself: how far it reaches, what it grows by, what is never charged. */

import { test } from 'vitest';
import { Funds, worstMicro } from '../../../gateway/route/funds.ts';
import type { MoneyHold } from '../../../ledger/budgets.ts';
import type { Price } from '../../../ledger/price.ts';

/** A micro-credit for each token of an answer, two for each of a prompt. */
const price: Price = { id: '', prompt: 2_000_000, cached: 1_000_000, completion: 1_000_000 };

/** A hold of an account that has so much more, and what was asked of it. */
class Held implements MoneyHold {
  readonly lease = undefined;
  readonly isGrace = false;
  readonly grown: number[] = [];
  settledMicro: number | undefined;
  leftMicro: number;

  constructor(leftMicro: number) {
    this.leftMicro = leftMicro;
  }

  grow(amountMicro: number): boolean {
    this.grown.push(amountMicro);
    if (amountMicro > this.leftMicro) return false;
    this.leftMicro -= amountMicro;
    return true;
  }

  settle(spentMicro: number): void {
    this.settledMicro = spentMicro;
  }
}

const need = { promptBound: 100, completionTokens: 2_048, mostTokens: 5_000 };
const heldMicro = 200 + 2_048;

function start(leftMicro: number, changes: Partial<typeof need> = {}): { held: Held; funds: Funds } {
  const held = new Held(leftMicro);
  const funds = new Funds(held, heldMicro, { ...need, ...changes });
  funds.covers(price, 0);
  funds.use(price, 0);
  return { held, funds };
}

test('the worst that an attempt may cost is that of the dearer prompt tokens', ({ expect }) => {
  const dearCache = { ...price, cached: 5_000_000 };
  expect([worstMicro(price, 100, 10), worstMicro(dearCache, 100, 10)]).toEqual([210, 510]);
});

test('what is set aside grows in steps ahead of need, up to the most that an answer may have', ({ expect }) => {
  const { held, funds } = start(10_000);
  for (let tokens = 1; tokens <= 6_000; tokens += 1) expect(funds.reaches(tokens)).toBe(true);
  expect(held.grown).toEqual([1_024, 1_024, 5_000 - 4_096]);
  expect([funds.charged(6_000), funds.within(6_000), held.leftMicro]).toEqual([5_000, 5_000, 10_000 - (5_000 - 2_048)]);
});

test('where there is no more it ends with what is set aside, and asks again on the way, not for each token', ({
  expect,
}) => {
  const { held, funds } = start(1_023);
  const ends = Array.from({ length: 2_048 }, (_, at) => at + 1).filter((tokens) => !funds.reaches(tokens));
  expect(ends).toEqual([2_048]);
  expect(held.grown).toEqual([1_024, 1_024, 1_024, 1_024, 1_024]);
  expect([funds.charged(3_000), funds.within(2_048 + 1_023), funds.within(2_048 + 1_024)]).toEqual([
    2_048, 3_071, 3_071,
  ]);
});

test('a refusal near the end is followed by the end itself', ({ expect }) => {
  const { funds } = start(0);
  expect([funds.reaches(2_030), funds.reaches(2_047), funds.reaches(2_048)]).toEqual([true, true, false]);
});

test('a second attempt is covered beside what the first has cost', ({ expect }) => {
  const { held, funds } = start(500);
  funds.spend(price, { promptTokens: 0, cachedTokens: 0, completionTokens: 400 });
  expect([funds.covers(price, 0), held.grown]).toEqual([true, [400]]);
  funds.spend(price, { promptTokens: 0, cachedTokens: 0, completionTokens: 101 });
  expect([funds.covers(price, 0), held.grown]).toEqual([false, [400, 101]]);
  funds.settle();
  expect(held.settledMicro).toBe(501);
});

test('what a dearer attempt had set aside is there for a cheaper one', ({ expect }) => {
  const { held, funds } = start(10_000);
  expect(funds.covers({ ...price, completion: 2_000_000 }, 0)).toBe(true);
  expect(funds.covers(price, 0)).toBe(true);
  expect(funds.covers({ ...price, completion: 2_000_000 }, 0)).toBe(true);
  expect(held.grown).toEqual([2_048]);
});

test('nothing is asked for where nothing was covered', ({ expect }) => {
  const held = new Held(10_000);
  const funds = new Funds(held, heldMicro, need);
  expect([funds.within(3_000), held.grown]).toEqual([2_048, []]);
});
