/** How near gateways come to a budget and a limit that they share, while traffic moves between them; and what a hold costs. */

import type { MoneyHold } from '../../ledger/budgets.ts';
import { credits, LeaseMesh } from '../ledger/lease-stage.ts';
import { type MoneyResult, type RateResult, spendBudget, useLimit } from '../ledger/lease-traffic.ts';

interface LeasesReport {
  readonly meshes: readonly { readonly gateways: number; readonly money: MoneyResult; readonly rate: RateResult }[];
  /** Microseconds: money set aside and settled from a lease that is there; a share asked for. */
  readonly holdUs: number;
  readonly shareUs: number;
}

const rpm = 600;
const calls = 200_000;

/** Meshes in virtual time; a hold and a share in real time. About twenty seconds. */
export async function measureLeases(): Promise<LeasesReport> {
  const meshes = [];
  for (const gateways of [1, 3, 10]) {
    const money = await spendBudget({ gateways, seed: 1 });
    meshes.push({ gateways, money, rate: await useLimit({ gateways, seed: 1 }, rpm) });
  }
  return { meshes, ...(await measureCalls()) };
}

async function measureCalls(): Promise<{ readonly holdUs: number; readonly shareUs: number }> {
  await using mesh = await LeaseMesh.create(2);
  const site = mesh.site(0);
  const account = await mesh.account('busy', { amountMicro: credits(1_000_000), period: 'month' });
  const budgets = mesh.of(site);
  await mesh.spend(site, account, credits(1_000));
  const { issuer } = account;
  const subject = { kind: 'account', account: account.account } as const;
  const query = { issuer, subject, limit: 'rpm', total: 1_000_000, strict: true, used: () => 1, need: 1 } as const;
  const timed = (act: () => void): number => {
    for (let call = 0; call < calls / 10; call += 1) act();
    const startMs = performance.now();
    for (let call = 0; call < calls; call += 1) act();
    return ((performance.now() - startMs) * 1_000) / calls;
  };
  return {
    holdUs: timed(() => (budgets.hold(account, 100) as MoneyHold).settle(1)),
    shareUs: timed(() => budgets.share(query)),
  };
}

const percent = (part: number): string => `${(100 * part).toFixed(1)} %`.padStart(8);

/** For people. */
export function leasesText({ meshes, holdUs, shareUs }: LeasesReport): string {
  const rows = meshes.map(({ gateways, money, rate }) => {
    const { atFirstRefusal, atEnd, overspentMicro, waited, requests, leaseEntries } = money;
    return (
      `${gateways}`.padStart(8) +
      `${percent(atFirstRefusal)} at the first refusal, ${percent(atEnd)} in the end, ${overspentMicro} over; ` +
      `${leaseEntries} leases for ${requests} requests, ${percent(waited)} waited; ` +
      `${percent(rate.used)} of ${rate.limit}/min used, at most ${rate.most}`
    );
  });
  return [
    'gateways  of a budget whose requests hold three times what they cost, and of a limit of which half as much again is asked for',
    ...rows,
    `a hold from a lease that is there ${holdUs.toFixed(2)} us, a share ${shareUs.toFixed(2)} us`,
  ].join('\n');
}
