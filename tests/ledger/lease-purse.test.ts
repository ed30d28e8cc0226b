/** What one gateway holds of one account: never more set aside than there is, whatever is told when. */

import { test } from 'vitest';
import { Purse } from '../../ledger/lease-purse.ts';
import type { AccountId, EpochId, IssuerId, LeaseId } from '../../protocol/ids.ts';

const dayMs = 86_400_000;
const leaseOf = (digit: number): LeaseId => `${digit}`.repeat(32) as LeaseId;
const isNow = (period: number): boolean => period === 7;
const epoch = 'ee'.repeat(16) as EpochId;

class Stage {
  wallMs = 100 * dayMs;
  nowMs = 0;
  readonly missing: number[] = [];
  readonly purse: Purse;

  constructor(graceMicro = 0) {
    this.purse = new Purse(
      { issuer: 'aa'.repeat(32) as IssuerId, account: 'acct-one' as AccountId, graceMicro },
      {
        taken: (_, missingMicro) => this.missing.push(missingMicro),
        settled: () => {},
        nowMs: () => this.nowMs,
        wallMs: () => this.wallMs,
      },
    );
  }

  /** A lease that was drawn and given. */
  leased(digit: number, amountMicro: number, period = 7): void {
    const before = this.purse.leases.map(({ state }) => state);
    for (const lease of this.purse.leases) lease.state = 'closing';
    this.purse.raisable(isNow, () => leaseOf(digit));
    for (const [at, state] of before.entries()) Object.assign(this.purse.leases[at] ?? {}, { state });
    this.purse.raise(leaseOf(digit), period, amountMicro);
  }
}

test('is set aside only as far as the lease of this period goes, and free again once it is settled', ({ expect }) => {
  expect(new Stage().purse.take(1, isNow)).toBe(undefined);
  const staged = new Stage();
  staged.leased(1, 100);
  const hold = staged.purse.take(60, isNow);
  expect([staged.purse.take(41, isNow), staged.purse.take(40, isNow) !== undefined]).toEqual([undefined, true]);
  expect([hold?.grow(1), staged.purse.heldMicro(), staged.missing]).toEqual([false, 100, [0, 0, 1]]);
  hold?.settle(10);
  hold?.settle(10);
  expect([hold?.grow(1), staged.purse.heldMicro(), staged.purse.leases[0]?.spentMicro]).toEqual([false, 40, 10]);
  expect([staged.purse.take(51, isNow), staged.purse.take(50, isNow)?.grow(0)]).toEqual([undefined, true]);
});

test('of another period nothing is set aside, and nothing is asked for it', ({ expect }) => {
  const stage = new Stage();
  stage.leased(1, 100, 6);
  expect([stage.purse.take(1, isNow), stage.purse.open(isNow)]).toEqual([undefined, undefined]);
  expect(stage.purse.raisable(isNow, () => leaseOf(2)).lease).toBe(leaseOf(2));
  // One that has not been given yet may become one of any period.
  expect(stage.purse.raisable(isNow, () => leaseOf(3)).lease).toBe(leaseOf(2));
});

test('a lease that closes neither grows nor is raised, whatever comes late', ({ expect }) => {
  const stage = new Stage();
  stage.leased(1, 100);
  const hold = stage.purse.take(10, isNow);
  const [lease] = stage.purse.leases;
  Object.assign(lease ?? {}, { state: 'closing' });
  expect([hold?.grow(1), stage.purse.raise(leaseOf(1), 7, 900), lease?.amountMicro]).toEqual([false, false, 100]);
  expect(stage.purse.raise(leaseOf(2), 7, 900)).toBe(false);
});

test('the largest amount that was told counts, and brings back one that was to be closed', ({ expect }) => {
  const stage = new Stage();
  stage.leased(1, 100);
  const [lease] = stage.purse.leases;
  Object.assign(lease ?? {}, { state: 'retiring' });
  expect([stage.purse.raise(leaseOf(1), 7, 100), lease?.state]).toEqual([false, 'retiring']);
  expect([stage.purse.raise(leaseOf(1), 7, 150), lease?.state, lease?.amountMicro]).toEqual([true, 'open', 150]);
  expect([stage.purse.raise(leaseOf(1), 7, 120), lease?.amountMicro]).toEqual([false, 150]);
});

test('grace is spent once a day, holds included, and remembered while any of it is', ({ expect }) => {
  const stage = new Stage(100);
  const { purse } = stage;
  const hold = purse.takeGrace(60);
  expect([purse.takeGrace(41), hold?.grow(41), hold?.grow(20), purse.graceMicro()]).toEqual([
    undefined,
    false,
    true,
    80,
  ]);
  hold?.settle(50);
  hold?.settle(50);
  expect([purse.graceMicro(), purse.isIdle(), purse.takeGrace(51)]).toEqual([50, false, undefined]);
  stage.wallMs += dayMs;
  expect([purse.graceMicro(), purse.isIdle(), purse.takeGrace(100)?.isGrace]).toEqual([0, true, true]);
});

test('what is asked for is what waits beyond what is free, and what was spent lately', ({ expect }) => {
  const stage = new Stage();
  stage.leased(1, 100);
  const { purse } = stage;
  purse.take(40, isNow)?.settle(40);
  const lease = purse.raisable(isNow, () => leaseOf(2));
  const wait = (needMicro: number, isStrict: boolean) =>
    purse.waiting.push({ needMicro, isStrict, cancel: () => {}, resolve: () => {} });
  const asked = () => {
    const { lease: of, knownMicro, leastMicro, needMicro, wantMicro, isStrict } = purse.asking({ epoch, lease });
    return [of, knownMicro, leastMicro, needMicro, wantMicro, isStrict];
  };
  expect(asked()).toEqual([leaseOf(1), 100, 1, 0, 100, false]);
  wait(90, false);
  wait(70, true);
  expect(asked()).toEqual([leaseOf(1), 100, 30, 100, 180, true]);
});
