/** Limits that gateways share: their parts never come to more than the whole, wherever words get lost. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { createLimits, type Limits } from '../../gateway/access/limits.ts';
import type { ShareQuery } from '../../ledger/budgets.ts';
import { createShareHolder, type ShareHolder } from '../../ledger/lease-shares.ts';
import { createWindowAuthority, shareOut, type WindowAuthority } from '../../ledger/lease-windows.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { AccountId, IssuerId, KeyId, PeerId } from '../../protocol/ids.ts';
import type { ShareAsk, ShareSubject } from '../../protocol/messages/lease.ts';
import { ms } from '../../protocol/units.ts';
import { accessOf } from '../support/access.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { LeaseMesh } from './lease-stage.ts';

const issuer = '12'.repeat(16) as IssuerId;
const key = '00000000000000aa' as KeyId;
const peers = ['12D3KooWShareA', '12D3KooWShareB', '12D3KooWShareC'] as unknown as readonly PeerId[];
const subjectOf = (limit: ShareSubject['limit']): ShareSubject => ({ issuer, subject: { kind: 'key', key }, limit });

interface Holder {
  shares: ShareHolder;
  limits: Limits;
  isLinked: boolean;
  used: () => number;
}

/**
 * Three gateways; the first shares the limits out, and asks itself without a wire. Words between others take 20 ms, and
 * are lost where the link is.
 */
class Door {
  readonly clock = new ManualClock();
  readonly total: number;
  readonly limit: ShareSubject['limit'];
  readonly strict: boolean;
  readonly holders: Holder[] = [];
  windows: WindowAuthority;
  readonly taken: number[] = [];
  readonly running: { readonly at: number; readonly end: () => void }[] = [];

  constructor(limit: ShareSubject['limit'], total: number, strict = true) {
    this.limit = limit;
    this.total = total;
    this.strict = strict;
    this.windows = this.openWindows();
    for (const at of peers.keys()) this.holders.push(this.openHolder(at));
  }

  openWindows(): WindowAuthority {
    return createWindowAuthority({
      clock: this.clock,
      keeps: () => true,
      totalOf: () => this.total,
      others: () => peers.slice(1),
      poke: (peer, subjects) => this.#poke(peers.indexOf(peer), subjects),
    });
  }

  #poke(at: number, subjects: readonly ShareSubject[]): void {
    if (at === 0) this.holders[0]?.shares.poked(subjects);
    else this.#later(at, (holder) => holder.shares.poked(subjects));
  }

  #later(at: number, act: (holder: Holder) => void): void {
    const holder = this.holders[at];
    if (holder === undefined || !holder.isLinked) return;
    this.clock.timer(ms(20), () => {
      if (holder.isLinked && this.holders[at] === holder) act(holder);
    });
  }

  /** The first gateway's process begins anew: neither side of it knows anything. */
  restart(): void {
    this.holders[0]?.shares.close();
    this.windows = this.openWindows();
    this.holders[0] = this.openHolder(0);
  }

  openHolder(at: number): Holder {
    const self = peers[at] as PeerId;
    const shares = createShareHolder({
      clock: this.clock,
      sharerOf: () => (at === 0 ? 'here' : (peers[0] as PeerId)),
      askHere: (ask) => this.windows.ask(self, ask),
      ask: async (_peer, ask) => this.#ask(at, self, ask),
    });
    const limits = createLimits(this.clock, (query) => {
      holder.used = query.used;
      return shares.share(query);
    });
    const holder: Holder = { shares, limits, isLinked: true, used: () => 0 };
    return holder;
  }

  #ask(at: number, self: PeerId, ask: ShareAsk): boolean {
    if (this.holders[at]?.isLinked !== true) return false;
    const { windows } = this;
    this.#later(at, () => {
      if (this.windows !== windows) return;
      const answer = windows.ask(self, ask);
      this.#later(at, (holder) => holder.shares.told(peers[0] as PeerId, answer));
    });
    return true;
  }

  /** What each gateway may use at this moment. */
  shares(): readonly number[] {
    const { total, strict } = this;
    return this.holders.map(({ shares, used }) =>
      shares.share({ ...subjectOf(this.limit), total, strict, used, need: 0 }),
    );
  }

  take(at: number): boolean {
    const access = accessOf({ issuer, keyId: key, strict: this.strict, limits: { [this.limit]: this.total } });
    const hold = this.holders[at]?.limits.take(access, () => ({
      promptBound: 1,
      completionTokens: 0,
      isExplicit: true,
    }));
    if (hold === undefined || hold instanceof HelixFlowError) return false;
    this.taken.push(this.clock.nowMs());
    if (this.limit === 'concurrency') this.running.push({ at, end: () => hold.settle(0) });
    else hold.settle(1);
    return true;
  }

  inLastMinute(): number {
    const nowMs = this.clock.nowMs();
    return this.taken.filter((atMs) => atMs > nowMs - 60_000).length;
  }

  close(): void {
    for (const { shares } of this.holders) shares.close();
  }
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);

const someStep = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('take' as const),
      at: fc.nat(2),
      times: fc.integer({ min: 1, max: 30 }),
      waitMs: fc.constantFrom(1, 10, 30, 100),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('pass' as const),
      passMs: fc.constantFrom(100, 1_000, 5_000, 15_000, 25_000),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('link' as const), at: fc.integer({ min: 1, max: 2 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('end' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
);

test('shares of what everyone wants come to the whole, and nobody who wants little gets less than it', ({ expect }) => {
  fc.assert(
    fc.property(fc.nat(1_000), fc.array(fc.nat(500), { minLength: 1, maxLength: 20 }), (total, wants) => {
      const shares = shareOut(total, wants);
      expect(sum(shares)).toBe(total);
      const even = Math.floor(total / wants.length);
      expect(wants.every((want, at) => (shares[at] ?? 0) >= Math.min(want, even))).toBe(true);
    }),
  );
});

describe.for(['rpm', 'tpm', 'concurrency'] as const)('%s', (limit) => {
  test('what three gateways may use, and use in any minute, is never more than the whole', async ({ expect }) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(someStep, { minLength: 10, maxLength: 60 }),
        fc.integer({ min: 1, max: 40 }),
        async (steps, total) => {
          const door = new Door(limit, total);
          await door.clock.advance(61_000);
          let hasRestarted = false;
          for (const step of steps) {
            if (step.kind === 'take') for (let time = 0; time < step.times; time += 1) door.take(step.at);
            if (step.kind === 'end') door.running.shift()?.end();
            if (step.kind === 'link') {
              const holder = door.holders[step.at] as Holder;
              holder.isLinked = !holder.isLinked;
              if (holder.isLinked) holder.shares.report(peers[0] as PeerId);
            }
            if (step.kind === 'restart') {
              hasRestarted = true;
              door.restart();
            }
            const passMs = step.kind === 'pass' ? step.passMs : step.kind === 'take' ? step.waitMs : 1;
            // In pieces, so that what is asked in one of them is answered in the next.
            for (let piece = 0; piece < 4; piece += 1) {
              await door.clock.advance(passMs / 4);
              expect(sum(door.shares())).toBeLessThanOrEqual(total);
              if (limit !== 'concurrency' && !hasRestarted) expect(door.inLastMinute()).toBeLessThanOrEqual(total);
            }
          }
          door.close();
        },
      ),
      { numRuns: 150 },
    );
  });

  test('one request at each of two gateways, then quiet: the one who shares out gives the other its part', async ({
    expect,
  }) => {
    for (const [first, second] of [
      [0, 1],
      [1, 0],
      [1, 2],
    ] as const) {
      const door = new Door(limit, 10);
      await door.clock.advance(61_000);
      door.take(first);
      await door.clock.advance(2_000);
      door.take(second);
      await door.clock.advance(5_000);
      expect([door.take(second), door.take(first)]).toEqual([true, true]);
      expect(sum(door.shares())).toBeLessThanOrEqual(10);
      door.close();
    }
  });

  test('goes to whoever uses it, wherever that is', async ({ expect }) => {
    const door = new Door(limit, 30);
    await door.clock.advance(130_000);
    const takeAll = async (at: number): Promise<number> => {
      let taken = 0;
      for (let round = 0; round < 900; round += 1) {
        if (door.take(at)) taken += 1;
        await door.clock.advance(100);
      }
      for (const { end } of door.running.splice(0)) end();
      return taken;
    };
    expect(await takeAll(1)).toBeGreaterThanOrEqual(30);
    expect(await takeAll(2)).toBeGreaterThanOrEqual(28);
    expect(await takeAll(0)).toBeGreaterThanOrEqual(28);
    door.close();
  });
});

test('what was used just before a share lapsed counts for a minute more', async ({ expect }) => {
  const door = new Door('rpm', 10);
  await door.clock.advance(61_000);
  door.take(1);
  for (let round = 0; round < 10; round += 1) await door.clock.advance(100);
  expect(door.shares()[1]).toBe(10);
  (door.holders[1] as Holder).isLinked = false;
  await door.clock.advance(57_000);
  let taken = 0;
  while (door.take(1)) taken += 1;
  expect(taken).toBeGreaterThan(5);
  for (let round = 0; round < 100; round += 1) {
    await door.clock.advance(100);
    door.take(2);
    expect(door.inLastMinute()).toBeLessThanOrEqual(10);
  }
  expect(door.shares()).toEqual([0, 0, 0]);
  door.close();
});

test('a strict key that was quiet for minutes still has a share; after ten of them it is given back', async ({
  expect,
}) => {
  const door = new Door('rpm', 10);
  await door.clock.advance(61_000);
  door.take(1);
  for (let round = 0; round < 10; round += 1) await door.clock.advance(100);
  await door.clock.advance(400_000);
  expect(door.take(1)).toBe(true);
  await door.clock.advance(800_000);
  door.take(2);
  for (let round = 0; round < 10; round += 1) await door.clock.advance(100);
  expect(door.shares()).toEqual([0, 0, 10]);
  door.close();
});

describe('where the one who shares out cannot be reached', () => {
  test('strict keys are refused once their share is over, others use the whole limit, and status says so', async ({
    expect,
  }) => {
    for (const strict of [true, false]) {
      const door = new Door('rpm', 10, strict);
      await door.clock.advance(61_000);
      door.take(1);
      for (let round = 0; round < 10; round += 1) await door.clock.advance(100);
      expect(door.shares()[1]).toBeGreaterThan(0);
      const holder = door.holders[1] as Holder;
      holder.isLinked = false;
      await door.clock.advance(61_000);
      door.take(1);
      expect([door.shares()[1], holder.shares.status()]).toEqual(
        strict ? [0, { shared: 1, unshared: 0 }] : [10, { shared: 1, unshared: 1 }],
      );
      door.close();
    }
  });
});

describe('in a mesh', () => {
  const account = 'acct-shared' as AccountId;
  const queryOf = (mesh: LeaseMesh, used: number, need: number): ShareQuery => ({
    issuer: mesh.stage.issuerId,
    subject: { kind: 'account', account },
    limit: 'rpm',
    total: 100,
    strict: true,
    used: () => used,
    need,
  });

  test('a gateway that is alone has the whole limit from the start, and again after a restart', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const site = mesh.site(0);
    expect(mesh.of(site).share(queryOf(mesh, 0, 1))).toBe(100);
    await mesh.kill(site);
    await mesh.boot(site);
    expect(mesh.of(site).share(queryOf(mesh, 0, 1))).toBe(100);
    expect(mesh.of(site).shares()).toEqual({ shared: 0, unshared: 0 });
  });

  test('an authority that started again gives nothing new before everyone has told what they have, or a minute is over', async ({
    expect,
  }) => {
    await using mesh = await LeaseMesh.create(3);
    const [authority, other] = [mesh.site(0), mesh.site(1)];
    const shareAt = (at: number): number => mesh.of(mesh.site(at)).share(queryOf(mesh, 0, 1));
    await mesh.stage.pass(70_000);
    shareAt(1);
    await mesh.stage.pass(500);
    expect(shareAt(1)).toBe(100);
    await mesh.kill(authority);
    await mesh.boot(authority);
    expect(shareAt(0)).toBe(0);
    const other100 = {
      ...queryOf(mesh, 0, 1),
      subject: { kind: 'account', account: 'other' as AccountId },
      strict: false,
    } as const;
    expect(mesh.of(authority).share(other100)).toBe(100);
    await mesh.stage.link(authority, mesh.site(2));
    await mesh.stage.pass(3_000);
    expect(shareAt(0)).toBe(0);
    await mesh.stage.link(authority, other);
    await mesh.stage.pass(20_000);
    shareAt(0);
    await mesh.stage.pass(3_000);
    shareAt(0);
    const shares = [shareAt(0), shareAt(1)];
    expect(shares[0]).toBeGreaterThan(0);
    expect(sum(shares)).toBeLessThanOrEqual(100);
  });
});
