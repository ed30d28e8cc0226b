/** The conversation about leases, spoken by hand: who may speak, and what becomes of what nobody honest says. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { Role } from '../../protocol/grants.ts';
import type { AccountId, EpochId, IssuerId, LeaseId } from '../../protocol/ids.ts';
import {
  encodeLeaseFrame,
  LEASE_PROTOCOL,
  type LeaseFrame,
  leaseFrameMaxBytes,
  type MoneyAsk,
  parseLeaseFrame,
} from '../../protocol/messages/lease.ts';
import type { Channel, Connection } from '../../protocol/ports.ts';
import { garbageOf } from '../support/frames.ts';
import { LeaseMesh } from './lease-stage.ts';
import type { Site } from './mesh-stage.ts';

interface Speaker {
  readonly site: Site;
  readonly connection: Connection;
  readonly channel: Channel;
  readonly got: LeaseFrame[];
  send(...frames: readonly (LeaseFrame | Uint8Array)[]): void;
}

/** A member whose side the test speaks. */
async function speaker(mesh: LeaseMesh, role: Role = 'gateway'): Promise<Speaker> {
  const { stage } = mesh;
  const puppet = await stage.puppet(mesh.site(0), role);
  const channel = await stage.run(puppet.connection.open(LEASE_PROTOCOL, new AbortController().signal));
  const got: LeaseFrame[] = [];
  channel.receive({
    frame: (bytes) => {
      const frame = parseLeaseFrame(bytes);
      if (frame !== undefined) got.push(frame);
    },
    closed: () => {},
    drained: () => {},
  });
  return {
    site: puppet.site,
    connection: puppet.connection,
    channel,
    got,
    send: (...frames) => {
      for (const frame of frames) channel.send(frame instanceof Uint8Array ? frame : encodeLeaseFrame(frame));
    },
  };
}

const leaseOf = (digit: string): LeaseId => digit.repeat(32) as LeaseId;
const askOf = (mesh: LeaseMesh, account: AccountId, more: Partial<MoneyAsk> = {}): MoneyAsk => ({
  ...{ type: 'ask', id: 1, issuer: mesh.stage.issuerId, account, isStrict: true, epoch: 'ee'.repeat(16) as EpochId },
  ...{ lease: leaseOf('a'), knownMicro: 0, leastMicro: 100, needMicro: 100, wantMicro: 100 },
  ...more,
});

describe('who may speak', () => {
  test('a node that asks loses its connection', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const node = await speaker(mesh, 'node').catch(() => undefined);
    node?.send(askOf(mesh, account.account));
    await mesh.stage.pass(2_000);
    expect([node?.got ?? [], node?.connection.isOpen ?? false]).toEqual([[], false]);
    expect(mesh.of(mesh.site(0)).sheet(account.account)?.leasedMicro).toBe(0);
  });

  test('answers to nothing, frames that do not parse and floods of questions end the connection', async ({
    expect,
  }) => {
    const ends = async (say: (by: Speaker, mesh: LeaseMesh) => void): Promise<boolean> => {
      await using mesh = await LeaseMesh.create(1);
      const by = await speaker(mesh);
      say(by, mesh);
      await mesh.stage.pass(1_000);
      return !by.connection.isOpen;
    };
    expect(await ends((by) => by.send({ type: 'recall', lease: leaseOf('a') }))).toBe(true);
    expect(await ends((by) => by.send(Uint8Array.of(0x81, 0x00)))).toBe(true);
    const share = { type: 'shareAsk', id: 1, isWhole: true, rows: [] } as const;
    expect(await ends((by) => by.send(...Array.from({ length: 2_100 }, () => share)))).toBe(true);
    expect(await ends((by) => by.send(...Array.from({ length: 100 }, () => share)))).toBe(false);
    // Of a later version.
    expect(await ends((by) => by.send(Uint8Array.of(0x81, 0x18, 0x63)))).toBe(false);
  });

  test('whatever is sent, the gateway lives on', async ({ expect }) => {
    const share = fc.record({
      type: fc.constant('shareAsk' as const),
      id: fc.integer({ min: 1, max: 9 }),
      isWhole: fc.boolean(),
      rows: fc.constant([]),
    });
    await using mesh = await LeaseMesh.create(1);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    await fc.assert(
      fc.asyncProperty(garbageOf(share.map(encodeLeaseFrame)), async (bytes) => {
        fc.pre(bytes.length <= leaseFrameMaxBytes);
        const by = await speaker(mesh);
        by.send(bytes);
        await mesh.stage.pass(50);
        void by.connection.close();
        await mesh.stage.pass(50);
      }),
      { numRuns: 30 },
    );
    expect(await mesh.spend(mesh.site(0), account, 1_000)).toBe('spent');
  });
});

describe('what is asked for', () => {
  test('is given within the budget, and a question that comes again gets the same', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const { account } = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const by = await speaker(mesh);
    const ask = askOf(mesh, account, { leastMicro: 300, needMicro: 300, wantMicro: 300 });
    by.send(ask, ask);
    await mesh.stage.pass(1_000);
    const grant = { type: 'grant', id: 1, lease: ask.lease, period: 0, amountMicro: 300, leftMicro: 700 };
    expect(by.got).toEqual([grant, grant]);
    expect(mesh.of(mesh.site(0)).sheet(account)?.leasedMicro).toBe(300);
  });

  test('of another’s lease, an ended one, another epoch, an unknown account or issuer is refused', async ({
    expect,
  }) => {
    await using mesh = await LeaseMesh.create(1);
    const { account } = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const [by, other] = [await speaker(mesh), await speaker(mesh)];
    by.send(askOf(mesh, account));
    await mesh.stage.pass(500);
    other.send(askOf(mesh, account, { id: 2 }));
    by.send(
      askOf(mesh, account, { id: 3, epoch: 'ff'.repeat(16) as EpochId }),
      askOf(mesh, 'acct-none' as AccountId, { id: 4, lease: leaseOf('b') }),
      askOf(mesh, account, { id: 5, issuer: '00'.repeat(16) as IssuerId }),
      askOf(mesh, account, { id: 6, lease: leaseOf('c'), leastMicro: 901, needMicro: 901 }),
    );
    await mesh.stage.pass(1_000);
    const said = [...other.got, ...by.got.slice(1)]
      .filter(({ type }) => type !== 'recall')
      .map((frame) => (frame.type === 'refusal' ? [frame.id, frame.reason, frame.leftMicro] : frame));
    expect(said.toSorted()).toEqual([
      [2, 'over', 0],
      [3, 'over', 0],
      [4, 'unknown', 0],
      [5, 'unknown', 0],
      [6, 'exhausted', 900],
    ]);
  });

  test('what a holder knows of its lease and the keeper does not is counted before more is given', async ({
    expect,
  }) => {
    await using mesh = await LeaseMesh.create(1);
    const { account } = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const by = await speaker(mesh);
    by.send(askOf(mesh, account, { knownMicro: 950, leastMicro: 51, needMicro: 51 }));
    await mesh.stage.pass(1_000);
    by.send(askOf(mesh, account, { id: 2, knownMicro: 950, leastMicro: 50, needMicro: 50, wantMicro: 50 }));
    await mesh.stage.pass(1_000);
    expect(by.got).toEqual([
      { type: 'refusal', id: 1, reason: 'exhausted', leftMicro: 50 },
      { type: 'grant', id: 2, lease: leaseOf('a'), period: 0, amountMicro: 1_000, leftMicro: 0 },
    ]);
  });

  test('leases that are reported and forgotten are written down again, those of no account are not', async ({
    expect,
  }) => {
    await using mesh = await LeaseMesh.create(1);
    const { account } = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const by = await speaker(mesh);
    const held = { epoch: 'ee'.repeat(16) as EpochId, period: 0, amountMicro: 400 };
    by.send({
      ...{ type: 'report', issuer: mesh.stage.issuerId, isLast: true },
      leases: [
        { ...held, lease: leaseOf('a'), account },
        { ...held, lease: leaseOf('b'), account: 'acct-none' as AccountId },
      ],
    });
    await mesh.stage.pass(1_000);
    const { leases, leftMicro } = mesh.of(mesh.site(0)).sheet(account) ?? {};
    expect([leases?.map(({ lease, holder }) => [lease, holder]), leftMicro]).toEqual([
      [[leaseOf('a'), by.site.peer]],
      600,
    ]);
  });
});

describe('a crash', () => {
  test('of the keeper or of the holder at any moment of an ask costs no more than what was leased by then', async ({
    expect,
  }) => {
    let tried = 0;
    for (const victim of [0, 1]) {
      for (let atMs = 0; atMs < 60; atMs += 3) {
        await using mesh = await LeaseMesh.create(2, 11 + atMs);
        const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
        const site = mesh.site(1);
        let spentMicro = 0;
        void Promise.resolve(mesh.of(site).hold(account, 300)).then((hold) => {
          if (hold !== undefined && 'settle' in hold) {
            spentMicro += 300;
            hold.settle(300);
          }
        });
        await mesh.stage.pass(atMs);
        await mesh.kill(mesh.site(victim));
        await mesh.boot(mesh.site(victim));
        await mesh.relink();
        await mesh.stage.pass(15_000);
        const leftMicro = mesh.of(mesh.site(0)).sheet(account.account)?.leftMicro ?? 0;
        expect(leftMicro).toBeGreaterThanOrEqual(250);
        const free = mesh.of(site).status()[0]?.leases[0]?.leftMicro ?? 0;
        for (const micro of [free, leftMicro])
          if ((await mesh.spend(site, account, micro)) === 'spent') spentMicro += micro;
        expect(spentMicro).toBeLessThanOrEqual(1_000);
        expect(await mesh.spend(mesh.site(0), account, 1_000 - spentMicro + 1)).toBe('BUDGET_EXHAUSTED');
        tried += 1;
      }
    }
    expect(tried).toBe(40);
  });
});
