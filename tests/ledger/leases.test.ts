/** Leases of money: given ahead of need, spent from memory, given back, and never more than there is. */

import { describe, test } from 'vitest';
import { HelixFlowError } from '../../protocol/errors.ts';
import { credits, LeaseMesh } from './lease-stage.ts';

describe('a budget at its own authority', () => {
  test('is spent to its end, and the refusal says what is left', async ({ expect }) => {
    await using mesh = await LeaseMesh.create(1);
    const account = await mesh.account('one', { amountMicro: credits(1), period: 'month' });
    const site = mesh.site(0);
    for (let count = 0; count < 10; count += 1) expect(await mesh.spend(site, account, credits(0.1))).toBe('spent');
    const refusal = await mesh.hold(site, account, 1);
    expect(refusal instanceof HelixFlowError && { code: refusal.code, ...refusal.details }).toEqual({
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
});
