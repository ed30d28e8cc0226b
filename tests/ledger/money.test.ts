/** Entries about money: periods by UTC, tags of leases, budgets; what is no such entry is refused. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { encodeEntry, parseEntry } from '../../ledger/entry.ts';
import { momentMaxMs } from '../../ledger/line.ts';
import { budgetMaxMicro, leaseTag, periodOf } from '../../ledger/money.ts';
import { maxPriceMicro } from '../../ledger/price.ts';
import { encodeValue, type Value } from '../../protocol/codec.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { LeaseId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { unixMs } from '../../protocol/units.ts';
import '../support/seed.ts';
import { moneyByKind } from './usage-entries.ts';

const peer = '12D3KooWPeer';

function outcomeOf(value: Value): unknown {
  try {
    return parseEntry(encodeValue(value).slice());
  } catch (error) {
    if (isHelixFlowError(error)) return error.code;
    throw error;
  }
}

describe('a period', () => {
  test('is the calendar’s, by UTC', ({ expect }) => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: momentMaxMs }).map(unixMs), (atMs) => {
        const date = new Date(atMs);
        const months = date.getUTCFullYear() * 12 + date.getUTCMonth();
        expect(periodOf('month', atMs)).toBe(months);
        const midnight = Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate());
        expect(periodOf('day', atMs) * 86_400_000).toBe(midnight);
        expect(periodOf('total', atMs)).toBe(0);
      }),
      { numRuns: 2_000 },
    );
  });

  test('begins at midnight and ends with the last millisecond of its month, leap years included', ({ expect }) => {
    const month = (text: string): number => periodOf('month', unixMs(Date.parse(text)));
    expect([
      month('2024-02-29T23:59:59.999Z') + 1,
      month('2026-12-31T23:59:59.999Z') + 1,
      month('2100-02-28T23:59:59.999Z') + 1,
    ]).toEqual([
      month('2024-03-01T00:00:00.000Z'),
      month('2027-01-01T00:00:00.000Z'),
      month('2100-03-01T00:00:00.000Z'),
    ]);
  });
});

test('the tag of a lease follows from it alone, and keeps its value for ever', ({ expect }) => {
  const tagOf = (text: string): string => leaseTag(text.repeat(16) as LeaseId);
  expect([tagOf('00'), tagOf('01')]).toEqual(['1c57573ace795af7', '9666bd26022bf811']);
});

test('entries about money are read as they were written', ({ expect }) => {
  fc.assert(
    fc.property(fc.oneof(...Object.values(moneyByKind)), (entry) => {
      const again = parseEntry(encodeEntry(entry));
      // Lone surrogates cannot be written.
      expect(entry.kind === 'price' ? { ...again, model: entry.model } : again).toEqual(entry);
    }),
    { numRuns: 500 },
  );
});

const id = new Uint8Array(8);
const lease = new Uint8Array(16);
const bad: readonly [string, Value][] = [
  ['a price of 7 bytes', [4, new Uint8Array(7), 'm', null, 1, 1, 1, 0]],
  ['a price of a model with too long a name', [4, id, 'm'.repeat(limits.modelNameMaxChars + 1), null, 1, 1, 1, 0]],
  ['a price at no peer', [4, id, 'm', 'no peer!', 1, 1, 1, 0]],
  ['a price below 0', [4, id, 'm', null, -1, 1, 1, 0]],
  ['a price beyond belief', [4, id, 'm', null, 1, 1, maxPriceMicro + 1, 0]],
  ['a price from a moment that no calendar shows', [4, id, 'm', null, 1, 1, 1, momentMaxMs + 1]],
  ['a lease of nothing', [68, lease, 'team', peer, lease, 0, 0]],
  ['a lease of too much', [68, lease, 'team', peer, lease, 0, budgetMaxMicro + 1]],
  ['a lease for no account', [68, lease, '', peer, lease, 0, 1]],
  ['a lease with a short epoch', [68, lease, 'team', peer, id, 0, 1]],
  ['a write-off without its amount', [69, lease, lease]],
  ['a write-off of too much', [69, lease, lease, budgetMaxMicro + 1]],
  ['a budget of too much', [64, 'team', [null, null, null], true, [budgetMaxMicro + 1, 0]]],
  ['a budget for no period', [64, 'team', [null, null, null], true, [1, 3]]],
  ['a budget that is a number', [64, 'team', [null, null, null], true, 1]],
  ['a close of more than any lease has', [131, lease, budgetMaxMicro + 1]],
];
test.for(bad)('%s is refused', ([, value], { expect }) => {
  expect(outcomeOf(value)).toBe('FRAME_MALFORMED');
});

test('an account without a budget is read as before there were any', ({ expect }) => {
  const account = { kind: 'account', account: 'team', limits: {}, strict: true };
  expect(outcomeOf([64, 'team', [null, null, null], true])).toEqual(account);
  expect(outcomeOf([64, 'team', [null, null, null], true, [5_000_000, 1]])).toEqual({
    ...account,
    budget: { amountMicro: 5_000_000, period: 'month' },
  });
});
