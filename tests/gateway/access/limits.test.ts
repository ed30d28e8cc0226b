/** Limits of keys and accounts: never passed in any minute, given back whole, taken from both or neither. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { Access } from '../../../gateway/access/judge.ts';
import { createLimits, type Hold, type Limits } from '../../../gateway/access/limits.ts';
import type { Request } from '../../../gateway/access/subject.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { RateLimits } from '../../../protocol/grants.ts';
import type { AccountId, KeyId } from '../../../protocol/ids.ts';
import { accessOf } from '../../support/access.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const request = (promptBound: number, completionTokens: number, isExplicit = true): Request => ({
  promptBound,
  completionTokens,
  isExplicit,
});
const small = request(10, 10);

function open(): { clock: ManualClock; limits: Limits } {
  const clock = new ManualClock();
  return { clock, limits: createLimits(clock) };
}

/** Takes, and says what came of it. */
function take(limits: Limits, access: Access, asked = small): Hold {
  const hold = limits.take(access, () => asked);
  if (hold === undefined || hold instanceof HelixFlowError) throw hold ?? new Error('nothing was limited');
  return hold;
}
function refused(limits: Limits, access: Access, asked = small): unknown {
  const hold = limits.take(access, () => asked);
  return hold instanceof HelixFlowError ? { code: hold.code, ...hold.details } : 'not refused';
}
const limited = (own: RateLimits, accountLimits?: RateLimits, more: Partial<Access> = {}): Access =>
  accessOf({ limits: own, ...(accountLimits === undefined ? {} : { accountLimits }), ...more });

const keyNamed = (digit: number): KeyId => `${digit}`.padStart(16, '0') as KeyId;

describe('requests per minute', () => {
  test('pass up to the limit, and the next says when there is room again', async ({ expect }) => {
    const { clock, limits } = open();
    const access = limited({ rpm: 3 });
    for (let count = 0; count < 3; count += 1) {
      take(limits, access).settle(0);
      await clock.advance(500);
    }
    // The first came in the second that began at 1,000 ms, which is out of the window from 62,000 on; now is 2,500.
    const refusal = { code: 'RATE_LIMITED', limit: 3, unit: 'requests per minute', scope: 'key' };
    expect(refused(limits, access)).toEqual({ ...refusal, retryAfterMs: 59_500 });
    await clock.advance(59_499);
    expect(refused(limits, access)).toEqual({ ...refusal, retryAfterMs: 1 });
    await clock.advance(1);
    expect(refused(limits, access)).toBe('not refused');
  });

  test('count also when they failed, and not when they were refused', ({ expect }) => {
    const { limits } = open();
    const access = limited({ rpm: 2 });
    take(limits, access).settle(0);
    take(limits, access).settle(0);
    for (let count = 0; count < 5; count += 1) refused(limits, access);
    expect(limits.rateOf(access)).toEqual({ requests: { limit: 2, remaining: 0, resetMs: 61_000 } });
  });
});

describe('tokens per minute', () => {
  test('are held at their worst, and counted as they were', ({ expect }) => {
    const { limits } = open();
    const access = limited({ tpm: 100 });
    const hold = take(limits, access, request(30, 40));
    expect(hold.rate).toEqual({ tokens: { limit: 100, remaining: 30, resetMs: 60_000 } });
    hold.settle(12);
    expect(limits.rateOf(access)).toEqual({ tokens: { limit: 100, remaining: 88, resetMs: 61_000 } });
  });

  test('refuse what does not fit now; with requests under way nobody knows until when', async ({ expect }) => {
    const { clock, limits } = open();
    const access = limited({ tpm: 100 });
    const hold = take(limits, access, request(30, 40));
    const refusal = { code: 'RATE_LIMITED', limit: 100, unit: 'tokens per minute', scope: 'key' };
    expect(refused(limits, access, request(30, 10))).toEqual({ ...refusal, retryAfterMs: 1_000 });
    await clock.advance(5_000);
    hold.settle(70);
    expect(refused(limits, access, request(30, 10))).toEqual({ ...refusal, retryAfterMs: 61_000 });
  });

  test('refuse for good what can never pass, before all other limits', ({ expect }) => {
    const { limits } = open();
    const access = limited({ tpm: 100, concurrency: 1 });
    take(limits, access);
    expect(refused(limits, access, request(1, 101))).toEqual({
      code: 'REQUEST_OVER_LIMIT',
      tokens: 101,
      limit: 100,
      scope: 'key',
    });
    expect(refused(limits, access, request(1, 101, false))).toMatchObject({ code: 'RATE_LIMITED' });
  });

  test('let a prompt whose bytes exceed them pass alone, and count it in full', async ({ expect }) => {
    const { clock, limits } = open();
    const access = limited({ tpm: 100 });
    const first = take(limits, access);
    expect(refused(limits, access, request(400, 50))).toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: 1_000 });
    first.settle(1);
    expect(refused(limits, access, request(400, 50))).toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: 61_000 });
    await clock.advance(61_000);
    const large = take(limits, access, request(400, 50));
    expect(refused(limits, access)).toMatchObject({ code: 'RATE_LIMITED' });
    large.settle(130);
    expect(limits.rateOf(access)?.tokens?.remaining).toBe(0);
    expect(refused(limits, access)).toMatchObject({ retryAfterMs: 61_000 });
    await clock.advance(61_000);
    expect(refused(limits, access)).toBe('not refused');
  });

  test('of an answer that outgrows what was held count at once', ({ expect }) => {
    const { limits } = open();
    const access = limited({ tpm: 100 });
    const hold = take(limits, access, request(10, 20, false));
    hold.grow(50);
    expect(limits.rateOf(access)?.tokens?.remaining).toBe(20);
    hold.settle(75);
    hold.grow(50);
    hold.settle(75);
    expect([limits.rateOf(access)?.tokens?.remaining, limits.counts()]).toEqual([
      25,
      { subjects: 1, running: 0, heldTokens: 0 },
    ]);
  });
});

describe('concurrent requests', () => {
  test('are bounded, and a place is free again with the end of one', ({ expect }) => {
    const { limits } = open();
    const access = limited({ concurrency: 2 });
    const [first] = [take(limits, access), take(limits, access)];
    const refusal = { code: 'RATE_LIMITED', limit: 2, unit: 'concurrent requests', scope: 'key', retryAfterMs: 1_000 };
    expect(refused(limits, access)).toEqual(refusal);
    first.settle(0);
    first.settle(0);
    take(limits, access);
    expect(refused(limits, access)).toEqual(refusal);
  });
});

describe('a key and its account', () => {
  test('are both asked, and the refusal that lasts longer is told', async ({ expect }) => {
    const { clock, limits } = open();
    const access = limited({ rpm: 1 }, { rpm: 1 });
    const sibling = limited({ rpm: 1 }, { rpm: 1 }, { keyId: keyNamed(2) });
    take(limits, sibling).settle(0);
    await clock.advance(30_000);
    expect(refused(limits, access)).toMatchObject({ scope: 'account', retryAfterMs: 31_000 });
    await clock.advance(31_000);
    take(limits, access).settle(0);
    expect(refused(limits, access)).toMatchObject({ scope: 'key', retryAfterMs: 61_000 });
  });

  test('give from both or from neither', ({ expect }) => {
    const { limits } = open();
    const access = limited({ rpm: 10, tpm: 1_000, concurrency: 5 }, { concurrency: 1 });
    const hold = take(limits, access);
    const before = limits.rateOf(access);
    refused(limits, access);
    expect(limits.rateOf(access)).toEqual(before);
    hold.settle(0);
    expect(limits.counts()).toEqual({ subjects: 2, running: 0, heldTokens: 0 });
  });

  test('show of each limit the one that leaves less', ({ expect }) => {
    const { limits } = open();
    const access = limited({ rpm: 10, tpm: 50 }, { rpm: 5, tpm: 500, concurrency: 3 });
    expect(limits.rateOf(access)).toEqual({
      requests: { limit: 5, remaining: 5, resetMs: 0 },
      tokens: { limit: 50, remaining: 50, resetMs: 0 },
      concurrency: { limit: 3, remaining: 3 },
    });
  });

  test('of the same name at another issuer are others', ({ expect }) => {
    const { limits } = open();
    take(limits, limited({ rpm: 1 }, { rpm: 1 }));
    expect(refused(limits, limited({ rpm: 1 }, { rpm: 1 }, { issuer: '99'.repeat(16) as never }))).toBe('not refused');
  });

  test('without limits cost nothing and are not remembered', ({ expect }) => {
    const { limits } = open();
    const need = (): Request => {
      throw new Error('nobody needs to know');
    };
    expect(limits.take(limited({}, {}), need)).toBeUndefined();
    expect(limits.rateOf(limited({}))).toBeUndefined();
    expect(limits.take(limited({ rpm: 1 }), need)).not.toBeInstanceOf(HelixFlowError);
    expect(limits.counts()).toEqual({ subjects: 1, running: 1, heldTokens: 0 });
  });
});

describe('a flood of keys', () => {
  test('is forgotten once it is idle, but not what still counts', async ({ expect }) => {
    const { clock, limits } = open();
    for (let key = 0; key < 5_000; key += 1)
      take(limits, limited({ rpm: 5 }, undefined, { keyId: keyNamed(key) })).settle(0);
    const running = take(limits, limited({ concurrency: 1 }, undefined, { keyId: keyNamed(5_001) }));
    await clock.advance(30_000);
    take(limits, limited({ rpm: 5 }, undefined, { keyId: keyNamed(5_002) })).settle(0);
    expect(limits.counts().subjects).toBe(5_002);
    await clock.advance(60_000);
    take(limits, limited({ rpm: 5 }, undefined, { keyId: keyNamed(5_003) })).settle(0);
    expect(limits.counts()).toEqual({ subjects: 3, running: 1, heldTokens: 0 });
    running.settle(0);
  });

  test('that is under way all at once is bounded, and refuses only keys that are new', async ({ expect }) => {
    const { clock, limits } = open();
    const nth = (key: number): Access => limited({ concurrency: 2 }, undefined, { keyId: keyNamed(key) });
    const holds: Hold[] = [];
    let key = 0;
    for (; key < 70_000; key += 1) {
      const hold = limits.take(nth(key), () => small);
      if (hold instanceof HelixFlowError) break;
      if (hold !== undefined) holds.push(hold);
    }
    expect(limits.counts().subjects).toBe(65_535);
    expect(refused(limits, nth(key))).toMatchObject({ code: 'RATE_LIMITED', scope: 'gateway' });
    expect(refused(limits, nth(0))).toBe('not refused');
    for (const hold of holds.slice(1)) hold.settle(0);
    await clock.advance(1_000);
    expect(refused(limits, nth(key))).toBe('not refused');
    expect(limits.counts().subjects).toBe(2);
  });
});

interface Play {
  readonly steps: readonly (readonly [
    delayMs: number,
    key: number,
    prompt: number,
    completion: number,
    lastsMs: number,
  ])[];
}
const plays: fc.Arbitrary<Play> = fc.record({
  steps: fc.array(fc.tuple(fc.nat(8_000), fc.nat(2), fc.nat(40), fc.integer({ min: 1, max: 40 }), fc.nat(150_000)), {
    minLength: 1,
    maxLength: 80,
  }),
});
const account = { rpm: 20, tpm: 250, concurrency: 6 };
const own = { rpm: 12, tpm: 150, concurrency: 4 };
const accessOfKey = (key: number): Access =>
  limited(own, account, { keyId: keyNamed(key), account: 'team' as AccountId });

interface Passed {
  readonly key: number;
  readonly startMs: number;
  readonly endMs: number;
  readonly used: number;
}

/** The most that lay within any 60 s, by times and amounts. */
function mostInAnyMinute(marks: readonly (readonly [atMs: number, amount: number])[]): number {
  let most = 0;
  for (const [fromMs] of marks) {
    const within = marks.filter(([atMs]) => atMs >= fromMs && atMs <= fromMs + 60_000);
    most = Math.max(
      most,
      within.reduce((sum, [, amount]) => sum + amount, 0),
    );
  }
  return most;
}

const mostAtATime = (all: readonly Passed[]): number =>
  Math.max(
    0,
    ...all.map(({ startMs }) => all.filter((each) => each.startMs <= startMs && each.endMs > startMs).length),
  );

/** Each request delivers what it uses evenly from its start to its end. */
const deliveries = ({ startMs, endMs, used }: Passed): (readonly [number, number])[] =>
  Array.from({ length: used }, (_, index) => [startMs + ((index + 1) * (endMs - startMs)) / used, 1] as const);

test('no minute ever holds more than the limits, and in the end nothing is held', async ({ expect }) => {
  await fc.assert(
    fc.asyncProperty(plays, async ({ steps }) => {
      const { clock, limits } = open();
      const passed: Passed[] = [];
      for (const [delayMs, key, prompt, completion, lastsMs] of steps) {
        await clock.advance(delayMs);
        const hold = limits.take(accessOfKey(key), () => request(prompt, completion));
        if (hold instanceof HelixFlowError || hold === undefined) continue;
        const used = Math.floor((prompt + completion) * ((lastsMs % 7) / 6));
        const startMs = clock.nowMs();
        passed.push({ key, startMs, endMs: startMs + lastsMs, used });
        clock.timer(lastsMs as never, () => hold.settle(used));
      }
      await clock.advance(200_000);
      expect(limits.counts()).toMatchObject({ running: 0, heldTokens: 0 });
      const groups = [0, 1, 2].map((key) => [passed.filter((each) => each.key === key), own] as const);
      for (const [all, bound] of [...groups, [passed, account] as const]) {
        expect(mostInAnyMinute(all.map(({ startMs }) => [startMs, 1]))).toBeLessThanOrEqual(bound.rpm);
        expect(mostInAnyMinute(all.flatMap(deliveries))).toBeLessThanOrEqual(bound.tpm);
        expect(mostAtATime(all)).toBeLessThanOrEqual(bound.concurrency);
      }
    }),
    { numRuns: 60 },
  );
});

test('the order in which requests end does not matter', ({ expect }) => {
  const ends = fc.array(fc.tuple(fc.nat(2), fc.nat(20), fc.nat(60)), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(ends, fc.infiniteStream(fc.nat()), (asked, chance) => {
      const endIn = (order: readonly number[]): unknown => {
        const { limits } = open();
        const holds = asked.map(([key, tokens]) => limits.take(accessOfKey(key), () => request(tokens, 5)));
        for (const at of order) {
          const hold = holds[at];
          if (hold !== undefined && !(hold instanceof HelixFlowError)) hold.settle(asked[at]?.[2] ?? 0);
        }
        return [0, 1, 2].map((key) => limits.rateOf(accessOfKey(key)));
      };
      const order = asked.map((_, at) => at);
      const shuffled = order.map((at) => [chance.next().value, at]).sort(([a = 0], [b = 0]) => a - b);
      expect(endIn(shuffled.map(([, at = 0]) => at))).toEqual(endIn(order));
    }),
  );
});
