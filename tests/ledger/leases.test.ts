/** Leases of money: given ahead of need, spent from memory, given back, and never more than there is. */

import { describe, test } from 'vitest';
import type { MoneyHold } from '../../ledger/budgets.ts';
import { markRestored } from '../../ledger/lease-roll.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { issuerIdOf, signCertificate } from '../../protocol/grants.ts';
import type { LeaseId } from '../../protocol/ids.ts';
import { createIdentity, type IssuerRecord } from '../../protocol/mesh.ts';
import { unixMs } from '../../protocol/units.ts';
import { epochMs } from '../../sim/clock.ts';
import { partition } from '../../sim/links.ts';
import { createSimTokens } from '../../sim/tokens.ts';
import { credits, LeaseMesh } from './lease-stage.ts';
import type { Site } from './mesh-stage.ts';

const codeOf = (result: MoneyHold | HelixFlowError): unknown =>
  result instanceof HelixFlowError ? { code: result.code, ...result.details } : 'held';

const isolate = (mesh: LeaseMesh, ...sites: readonly Site[]): (() => void) =>
  mesh.stage.world.links.add(partition(new Set(sites.map(({ machine }) => machine.host.id))));

describe('a budget at its own authority', () => {
  test('is spent to its end, and the refusal says what is left', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const account = await mesh.account('one', { amountMicro: credits(1), period: 'month' });
    const site = mesh.site(0);
    for (let count = 0; count < 10; count += 1) expect(await mesh.spend(site, account, credits(0.1))).toBe('spent');
    expect(codeOf(await mesh.hold(site, account, 1))).toEqual({
      code: 'BUDGET_EXHAUSTED',
      leftMicro: 0,
      needMicro: 1,
    });
  });

  test('accounts without one are not asked about', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const account = await mesh.account('one', { amountMicro: credits(1), period: 'month' });
    const other = { ...account, account: 'acct-other' as typeof account.account };
    expect(mesh.of(mesh.site(0)).hold(other, 5)).toBe(undefined);
  });

  test('a hundred requests at once are one question, and what they do not use is free again', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const account = await mesh.account('one', { amountMicro: credits(1), period: 'month' });
    const site = mesh.site(0);
    const entries: string[] = [];
    site.ledger.onEntry(({ entry }) => entries.push(entry.kind));
    const holds = await mesh.stage.run(
      Promise.all(Array.from({ length: 100 }, async () => await mesh.of(site).hold(account, 1_000))),
    );
    for (const hold of holds) (hold as MoneyHold).settle(10);
    expect(entries.filter((kind) => kind === 'lease').length).toBeLessThan(5);
    await mesh.stage.pass(1_000);
    const [status] = mesh.of(site).status();
    expect([status?.heldMicro, mesh.spentAt(site)]).toEqual([0, 1_000]);
  });

  test('a hold grows while there is money, and is settled once', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const site = mesh.site(0);
    const hold = await mesh.hold(site, account, 100);
    if (hold instanceof HelixFlowError) throw hold;
    let heldMicro = 100;
    for (let round = 0; round < 30; round += 1) {
      if (hold.grow(50)) heldMicro += 50;
      await mesh.stage.pass(300);
    }
    expect(heldMicro).toBe(1_000);
    hold.settle(40);
    hold.settle(1_000);
    expect(hold.grow(1)).toBe(false);
    expect(await mesh.spend(site, account, 960)).toBe('spent');
    expect(await mesh.spend(site, account, 1)).toBe('BUDGET_EXHAUSTED');
  });

  test('is there anew in the next period', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'day' });
    const site = mesh.site(0);
    expect(await mesh.spend(site, account, 1_000)).toBe('spent');
    expect(await mesh.spend(site, account, 1)).toBe('BUDGET_EXHAUSTED');
    await mesh.stage.pass(1_000);
    site.machine.setSkew(86_400_000);
    expect(await mesh.spend(site, account, 1_000)).toBe('spent');
    expect(await mesh.spend(site, account, 1)).toBe('BUDGET_EXHAUSTED');
    await mesh.stage.pass(10_000);
    const sheet = mesh.of(site).sheet(account.account);
    expect(sheet?.leases.map(({ amountMicro, spentMicro }) => [amountMicro, spentMicro])).toEqual([[1_000, 0]]);
  });

  test('that has another length for a while is not there again afterwards', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const site = mesh.site(0);
    for (const period of ['total', 'day'] as const) {
      const account = await mesh.account(period, { amountMicro: 1_000, period });
      expect(await mesh.spend(site, account, 1_000)).toBe('spent');
      await mesh.account(period, { amountMicro: 500, period: 'month' });
      await mesh.stage.pass(10_000);
      expect(await mesh.spend(site, account, 500)).toBe('spent');
      await mesh.account(period, { amountMicro: 1_000, period });
      await mesh.stage.pass(10_000);
      expect(await mesh.spend(site, account, 1)).toBe('BUDGET_EXHAUSTED');
    }
  });

  test('that is raised counts at once, and one that is cut is called back', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const site = mesh.site(1);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    expect(await mesh.spend(site, account, 1_000)).toBe('spent');
    await mesh.account('one', { amountMicro: 10_000, period: 'total' });
    expect(await mesh.spend(site, account, 100)).toBe('spent');
    await mesh.stage.pass(5_000);
    await mesh.account('one', { amountMicro: 1_100, period: 'total' });
    await mesh.stage.pass(5_000);
    expect(mesh.of(mesh.site(0)).sheet(account.account)).toMatchObject({ leasedMicro: 0, spentMicro: 1_100 });
    expect(await mesh.spend(site, account, 1)).toBe('BUDGET_EXHAUSTED');
  });
});

describe('a budget that several gateways share', () => {
  test('comes to every one that needs it', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(3);
    const account = await mesh.account('one', { amountMicro: credits(9), period: 'total' });
    for (let round = 0; round < 9; round += 1) {
      expect(await mesh.spend(mesh.site(round % 3), account, credits(1))).toBe('spent');
    }
    expect(await mesh.spend(mesh.site(1), account, 1)).toBe('BUDGET_EXHAUSTED');
    expect(mesh.of(mesh.site(0)).sheet(account.account)?.leftMicro).toBe(0);
  });

  test('what one has and does not use is called back for another', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    expect(await mesh.spend(mesh.site(0), account, 400, 1)).toBe('spent');
    expect(await mesh.spend(mesh.site(1), account, 999)).toBe('spent');
    expect(await mesh.spend(mesh.site(0), account, 1)).toBe('BUDGET_EXHAUSTED');
  });

  test('what nobody uses goes back by itself', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    expect(await mesh.spend(mesh.site(1), account, 400, 7)).toBe('spent');
    await mesh.stage.pass(620_000);
    expect(mesh.of(mesh.site(1)).status()).toEqual([]);
    expect(mesh.of(mesh.site(0)).sheet(account.account)).toMatchObject({
      leasedMicro: 0,
      spentMicro: 7,
      leftMicro: 993,
    });
  });

  test('a gateway that ends well gives back what it has; one that crashes, not before it is written off', async ({
    expect,
  }) => {
    await using mesh = await LeaseMesh.create(3);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const authority = mesh.of(mesh.site(0));
    expect(await mesh.spend(mesh.site(1), account, 300, 50)).toBe('spent');
    expect(await mesh.spend(mesh.site(2), account, 100, 60)).toBe('spent');
    await mesh.stage.run(mesh.of(mesh.site(1)).close());
    await mesh.stage.pass(500);
    await mesh.kill(mesh.site(1));
    await mesh.kill(mesh.site(2));
    await mesh.stage.pass(2_000);
    const crashed = authority.sheet(account.account)?.leases.find(({ state }) => state === 'open');
    const leftMicro = 1_000 - 50 - (crashed?.amountMicro ?? 0);
    expect(authority.sheet(account.account)).toMatchObject({ spentMicro: 50, leftMicro });
    await mesh.boot(mesh.site(2));
    await mesh.stage.link(mesh.site(2), mesh.site(0));
    await mesh.stage.pass(2_000);
    // A new process knows nothing of it, so it spends nothing of it.
    expect(await mesh.spend(mesh.site(2), account, leftMicro)).toBe('spent');
    expect(await mesh.spend(mesh.site(2), account, 1)).toBe('BUDGET_EXHAUSTED');
    const { lease, epoch } = authority.openLease(crashed?.lease as LeaseId) ?? {};
    if (lease === undefined || epoch === undefined) throw new Error('no lease is open');
    await mesh.stage.append(mesh.site(0), 'issuer', [{ kind: 'writeoff', lease, epoch, spentMicro: 60 }]);
    expect(authority.openLease(lease)).toBe(undefined);
    await mesh.stage.pass(1_000);
    expect(await mesh.spend(mesh.site(2), account, (crashed?.amountMicro ?? 0) - 60)).toBe('spent');
  });

  test.for([0, 1])(
    'the next process of gateway %i closes what a killed one had, by its lines, unless strict',
    async (at, { expect }) => {
      await using mesh = await LeaseMesh.create(2);
      mesh.spentFrom = () => 40;
      const site = mesh.site(at);
      const free = await mesh.account('free', { amountMicro: 1_000, period: 'total' }, false);
      const strict = await mesh.account('strict', { amountMicro: 1_000, period: 'total' });
      for (const account of [free, strict]) expect(await mesh.spend(site, account, 300, 40)).toBe('spent');
      await mesh.kill(site);
      await mesh.boot(site);
      await mesh.relink();
      await mesh.stage.pass(20_000);
      const sheetOf = ({ account }: typeof free) => mesh.of(mesh.site(0)).sheet(account);
      expect(sheetOf(free)).toMatchObject({ spentMicro: 40, leasedMicro: 0, leftMicro: 960 });
      const [open] = sheetOf(strict)?.leases ?? [];
      const { lease, amountMicro } = open ?? {};
      expect(open).toMatchObject({ state: 'open' });
      expect(mesh.of(site).orphans()).toEqual([{ lease, account: strict.account, amountMicro }]);
      expect(await mesh.spend(site, free, 960)).toBe('spent');
    },
  );

  test('a lease that is written off while its holder lives is spent no further', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const site = mesh.site(1);
    expect(await mesh.spend(site, account, 500, 100)).toBe('spent');
    const [held] = mesh.of(site).status()[0]?.leases ?? [];
    const { lease, epoch } = mesh.of(mesh.site(0)).openLease(held?.lease as LeaseId) ?? {};
    if (lease === undefined || epoch === undefined) throw new Error('no lease is open');
    await mesh.stage.append(mesh.site(0), 'issuer', [{ kind: 'writeoff', lease, epoch, spentMicro: 0 }]);
    await mesh.stage.pass(2_000);
    // Its holder has said since what it spent of it.
    expect(mesh.of(mesh.site(0)).sheet(account.account)).toMatchObject({ spentMicro: 100, leftMicro: 900 });
    expect(await mesh.spend(site, account, 900)).toBe('spent');
    expect(await mesh.spend(site, account, 1)).toBe('BUDGET_EXHAUSTED');
  });
});

describe('where the authority cannot be reached', () => {
  test('what is leased is spent; then strict accounts are refused, others have their grace', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const strict = await mesh.account('strict', { amountMicro: credits(1), period: 'total' });
    const other = await mesh.account('other', { amountMicro: credits(1), period: 'total' }, false);
    const site = mesh.site(1);
    for (const account of [strict, other]) expect(await mesh.spend(site, account, 1_000)).toBe('spent');
    await mesh.stage.pass(1_000);
    isolate(mesh, site);
    await mesh.stage.pass(500);
    const leftMicro = Object.fromEntries(
      mesh
        .of(site)
        .status()
        .map(({ account, leases }) => [account, leases[0]?.leftMicro ?? 0]),
    );
    for (const account of [strict, other]) {
      expect(await mesh.spend(site, account, leftMicro[account.account] ?? 0)).toBe('spent');
    }
    expect(await mesh.spend(site, strict, 1)).toBe('BUDGET_UNAVAILABLE');
    expect(await mesh.spend(site, other, 60_000, 50_000)).toBe('grace');
    expect(await mesh.spend(site, other, 50_000)).toBe('grace');
    expect(await mesh.spend(site, other, 1)).toBe('BUDGET_UNAVAILABLE');
    expect(
      mesh
        .of(site)
        .status()
        .map(({ account, graceMicro }) => [account, graceMicro]),
    ).toEqual([
      [strict.account, 0],
      [other.account, 100_000],
    ]);
  });

  test('an answer that is lost costs nothing: the same lease is told again', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const site = mesh.site(1);
    expect(await mesh.spend(site, account, 1)).toBe('spent');
    await mesh.stage.pass(1_000);
    const leased = (): number => mesh.of(mesh.site(0)).sheet(account.account)?.leasedMicro ?? 0;
    const before = leased();
    const hold = Promise.resolve(mesh.of(site).hold(account, 400));
    await mesh.stage.until(() => leased() > before);
    const heal = isolate(mesh, site);
    const refused = await mesh.stage.run(hold);
    expect(refused instanceof HelixFlowError && refused.code).toBe('BUDGET_UNAVAILABLE');
    await mesh.stage.pass(60_000);
    heal();
    await mesh.stage.link(site, mesh.site(0));
    await mesh.stage.pass(10_000);
    const known = (): number =>
      mesh
        .of(site)
        .status()[0]
        ?.leases.reduce((sum, { amountMicro }) => sum + amountMicro, 0) ?? 0;
    expect(known()).toBe(leased());
    expect(await mesh.spend(site, account, 999)).toBe('spent');
    expect(await mesh.spend(site, account, 1)).toBe('BUDGET_EXHAUSTED');
  });
});

describe('what an authority has forgotten', () => {
  test('comes back to one that was restored before it leases anything', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(3);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const authority = mesh.site(0);
    await mesh.stage.pass(1_000);
    const backup = authority.machine.disk.backup();
    expect(await mesh.spend(mesh.site(1), account, 600)).toBe('spent');
    expect(await mesh.spend(mesh.site(2), account, 300)).toBe('spent');
    await mesh.stage.pass(1_000);
    await mesh.kill(authority);
    authority.machine.disk.restore(backup);
    await mesh.boot(authority);
    const asked = Promise.resolve(mesh.of(authority).hold(account, 101));
    for (const at of [1, 2]) await mesh.stage.link(mesh.site(at), authority);
    expect((await mesh.stage.run(asked)) instanceof HelixFlowError).toBe(true);
    await mesh.stage.pass(5_000);
    expect(await mesh.spend(authority, account, 101)).toBe('BUDGET_EXHAUSTED');
    expect(await mesh.spend(authority, account, 100)).toBe('spent');
  });

  test('may be more than what came back: strict accounts wait for everyone', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(3);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const authority = mesh.site(0);
    await mesh.stage.pass(1_000);
    const backup = authority.machine.disk.backup();
    expect(await mesh.spend(mesh.site(1), account, 500)).toBe('spent');
    await mesh.stage.pass(1_000);
    await mesh.kill(authority);
    authority.machine.disk.restore(backup);
    await mesh.boot(authority);
    await mesh.stage.link(mesh.site(1), authority);
    await mesh.stage.pass(30_000);
    expect(mesh.of(authority).missing()).toEqual([mesh.site(2).peer]);
    expect(await mesh.spend(authority, account, 100)).toBe('BUDGET_UNAVAILABLE');
    await mesh.kill(authority);
    await mesh.boot(authority);
    expect(mesh.of(authority).missing().length).toBe(2);
    for (const at of [1, 2]) await mesh.stage.link(mesh.site(at), authority);
    await mesh.stage.pass(10_000);
    expect(await mesh.spend(authority, account, 500)).toBe('spent');
  });

  test('keeps one that is alone, and was told so, from leasing of strict accounts', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const authority = mesh.site(0);
    await mesh.stage.pass(1_000);
    const backup = authority.machine.disk.backup();
    expect(await mesh.spend(mesh.site(1), account, 900)).toBe('spent');
    await mesh.kill(authority);
    authority.machine.disk.restore(backup);
    const { store } = authority.machine.boot();
    await mesh.stage.run(markRestored(store));
    await mesh.kill(authority);
    await mesh.boot(authority);
    await mesh.stage.pass(60_000);
    expect(mesh.of(authority).missing()).toEqual([mesh.site(1).peer]);
    expect(await mesh.spend(authority, account, 101)).toBe('BUDGET_UNAVAILABLE');
    await mesh.stage.link(mesh.site(1), authority);
    await mesh.stage.pass(10_000);
    expect(mesh.of(authority).missing()).toEqual([]);
    expect(await mesh.spend(authority, account, 101)).toBe('BUDGET_EXHAUSTED');
    expect(await mesh.spend(authority, account, 100)).toBe('spent');
  });

  test('a holder that was restored spends nothing twice', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const site = mesh.site(1);
    expect(await mesh.spend(site, account, 100)).toBe('spent');
    await mesh.stage.pass(1_000);
    const backup = site.machine.disk.backup();
    const leasedMicro = mesh.of(mesh.site(0)).sheet(account.account)?.leasedMicro ?? 0;
    expect(await mesh.spend(site, account, leasedMicro - 100)).toBe('spent');
    await mesh.kill(site);
    site.machine.disk.restore(backup);
    await mesh.boot(site);
    await mesh.stage.link(site, mesh.site(0));
    await mesh.stage.pass(5_000);
    const leftMicro = mesh.of(mesh.site(0)).sheet(account.account)?.leftMicro ?? 0;
    expect(await mesh.spend(site, account, leftMicro + 1)).toBe('BUDGET_EXHAUSTED');
    expect(await mesh.spend(site, account, leftMicro)).toBe('spent');
  });
});

describe('after a handover', () => {
  async function handOver(mesh: LeaseMesh): Promise<IssuerRecord> {
    const { meshId } = mesh.stage.mesh.mesh;
    const pair = createIdentity(mesh.stage.world.kernel.random.fork('heir'));
    const head = mesh.site(0).ledger.status().issuers[0]?.newest;
    const succeeds = { issuer: mesh.stage.issuerId, ...(head === undefined ? {} : { last: head }) };
    const grant = { meshId, issuer: issuerIdOf(pair.publicKey), publicKey: pair.publicKey, succeeds };
    const signing = { tokens: createSimTokens({ mode: 'real' }), nowMs: unixMs(epochMs) };
    return { meshId, key: pair, certificate: await signCertificate(grant, mesh.stage.mesh.root.key, signing) };
  }

  test('nothing is leased of a strict account before every gateway has said what it holds', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(3);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const [old, next, third] = [mesh.site(0), mesh.site(1), mesh.site(2)];
    expect(await mesh.spend(old, account, 300)).toBe('spent');
    expect(await mesh.spend(third, account, 200)).toBe('spent');
    await mesh.stage.pass(2_000);
    const heir = await handOver(mesh);
    const heal = isolate(mesh, old);
    await mesh.kill(next);
    Object.assign(next.options, { issuer: heir });
    await mesh.boot(next);
    await mesh.stage.link(third, next);
    // The old authority knows of nothing, and leases on.
    expect(await mesh.spend(old, account, 250)).toBe('spent');
    await mesh.stage.pass(70_000);
    expect(mesh.of(next).missing()).toEqual([old.peer]);
    expect(await mesh.spend(next, account, 100)).toBe('BUDGET_UNAVAILABLE');
    expect(await mesh.spend(third, account, 500)).toBe('BUDGET_UNAVAILABLE');
    heal();
    await mesh.stage.pass(60_000);
    for (const site of [next, third]) await mesh.stage.link(old, site).catch(() => {});
    await mesh.stage.pass(70_000);
    expect(mesh.of(next).missing()).toEqual([]);
    const leftMicro = 1_000 - 300 - 200 - 250;
    expect(await mesh.spend(next, account, leftMicro + 1)).toBe('BUDGET_EXHAUSTED');
    expect(await mesh.spend(third, account, leftMicro)).toBe('spent');
    // The roll is called once.
    await mesh.kill(old);
    await mesh.kill(next);
    await mesh.boot(next);
    expect(mesh.of(next).missing()).toEqual([]);
  });

  test('a gateway that is gone for good is given up by a ban', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(2);
    const account = await mesh.account('one', { amountMicro: 1_000, period: 'total' });
    const [old, next] = [mesh.site(0), mesh.site(1)];
    await mesh.stage.pass(2_000);
    const heir = await handOver(mesh);
    await mesh.kill(old);
    await mesh.kill(next);
    Object.assign(next.options, { issuer: heir });
    await mesh.boot(next);
    expect(await mesh.spend(next, account, 100)).toBe('BUDGET_UNAVAILABLE');
    await mesh.stage.append(next, 'issuer', [{ kind: 'ban', peer: old.peer, ban: 'ab'.repeat(16) }]);
    await mesh.stage.pass(1_000);
    expect(await mesh.spend(next, account, 1_000)).toBe('spent');
  });
});
