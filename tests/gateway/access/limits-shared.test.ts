/** Limits of which this gateway has a part: told whole, kept to in part, and asked for more of as it is used. */

import { describe, test } from 'vitest';
import type { Access } from '../../../gateway/access/judge.ts';
import { createLimits, type Hold } from '../../../gateway/access/limits.ts';
import type { ShareQuery } from '../../../ledger/budgets.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { RateLimits } from '../../../protocol/grants.ts';
import type { PeerId } from '../../../protocol/ids.ts';
import { accessOf } from '../../support/access.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const request = { promptBound: 10, completionTokens: 10, isExplicit: true };

function open(shares: RateLimits) {
  const clock = new ManualClock();
  const asked: ShareQuery[] = [];
  const limits = createLimits(clock, (query) => {
    asked.push(query);
    return shares[query.limit] ?? query.total;
  });
  const take = (access: Access): Hold | HelixFlowError | undefined => limits.take(access, () => request);
  return { clock, asked, limits, take };
}

const told = (result: unknown): unknown =>
  result instanceof HelixFlowError ? { code: result.code, ...result.details } : result;

describe('a share of a limit', () => {
  test('is what passes; a refusal and the headers name the whole', ({ expect }) => {
    const { limits, take } = open({ rpm: 2 });
    const access = accessOf({ limits: { rpm: 10 } });
    expect((take(access) as Hold).rate).toEqual({ requests: { limit: 10, remaining: 1, resetMs: 61_000 } });
    take(access);
    expect(told(take(access))).toEqual({
      code: 'RATE_LIMITED',
      limit: 10,
      unit: 'requests per minute',
      scope: 'key',
      retryAfterMs: 1_000,
    });
    expect(limits.rateOf(access)).toEqual({ requests: { limit: 10, remaining: 0, resetMs: 61_000 } });
  });

  test('of nothing refuses for a moment, since there may be one soon', ({ expect }) => {
    for (const limit of ['rpm', 'tpm', 'concurrency'] as const) {
      const { take } = open({ [limit]: 0 });
      const refusal = told(take(accessOf({ limits: { [limit]: 100 } })));
      expect(refusal).toMatchObject({ code: 'RATE_LIMITED', limit: 100, retryAfterMs: 1_000 });
    }
  });

  test('is asked for with what is used, and what the request would take', ({ expect }) => {
    const { asked, take, limits } = open({});
    const access = accessOf({ limits: { rpm: 5, tpm: 100, concurrency: 3 }, strict: true });
    const hold = take(access) as Hold;
    asked.length = 0;
    take(access);
    const { issuer, keyId: key } = access;
    const common = { issuer, subject: { kind: 'key', key }, strict: true };
    expect(asked.map(({ used: _, ...query }) => query)).toEqual([
      { ...common, limit: 'rpm', total: 5, need: 1 },
      { ...common, limit: 'tpm', total: 100, need: 20 },
      { ...common, limit: 'concurrency', total: 3, need: 1 },
    ]);
    const used = asked.map((query) => query.used);
    expect(used.map((read) => read())).toEqual([2, 40, 2]);
    hold.settle(7);
    expect(used.map((read) => read())).toEqual([2, 27, 1]);
    asked.length = 0;
    limits.rateOf(access);
    expect(asked.map(({ need }) => need)).toEqual([0, 0, 0]);
  });

  test('is taken of the account’s limits, too', ({ expect }) => {
    const { asked, take } = open({});
    const access = accessOf({ accountLimits: { rpm: 5 } });
    take(access);
    expect(asked.map(({ subject }) => subject)).toEqual([{ kind: 'account', account: access.account }]);
  });

  test('is not asked for where a key is good at one gateway only', ({ expect }) => {
    const { asked, take } = open({ rpm: 0 });
    const access = accessOf({ limits: { rpm: 5 }, gateways: ['12D3KooWHere' as PeerId] });
    expect(take(access)).toHaveProperty('request');
    expect(asked).toEqual([]);
  });
});
