/** Sixteen gateways, parted from each other again and again, hammer one strict budget: nothing is overspent. */

import { test } from 'vitest';
import { HelixFlowError } from '../../protocol/errors.ts';
import { partition } from '../../sim/links.ts';
import { SimRandom } from '../../sim/random.ts';
import { credits, LeaseMesh } from './lease-stage.ts';
import type { Site } from './mesh-stage.ts';

const gateways = 16;
const budgetMicro = credits(50);

async function hammer(seed: number) {
  await using mesh = await LeaseMesh.create(gateways, seed);
  const random = new SimRandom(`hammer ${seed}`);
  const account = await mesh.account('one', { amountMicro: budgetMicro, period: 'total' });
  const { kernel, links } = mesh.stage.world;
  let [spentMicro, heldMicro, mostMicro, requests] = [0, 0, 0, 0];
  const refusals = new Map<string, number>();
  const send = async (site: Site): Promise<void> => {
    const needMicro = 1 + random.int(credits(0.1));
    requests += 1;
    const hold = await mesh.of(site).hold(account, needMicro);
    if (hold === undefined || hold instanceof HelixFlowError) {
      const code = hold?.code ?? 'none';
      refusals.set(code, 1 + (refusals.get(code) ?? 0));
      return;
    }
    heldMicro += needMicro;
    mostMicro = Math.max(mostMicro, spentMicro + heldMicro);
    kernel.schedule(random.int(2_000), () => {
      const costMicro = random.int(needMicro + 1);
      hold.settle(costMicro);
      heldMicro -= needMicro;
      spentMicro += costMicro;
    });
  };
  let heal: (() => void) | undefined;
  for (let step = 0; step < 1_200; step += 1) {
    for (const site of mesh.sites) if (random.int(4) === 0) void send(site);
    await mesh.stage.pass(25);
    if (step % 40 !== 39) continue;
    heal?.();
    heal = undefined;
    // What was parted for longer than a connection lasts is dialled again.
    if (step % 200 === 199) await mesh.relink();
    else {
      const inside = mesh.sites.filter(() => random.int(2) === 0).map(({ machine }) => machine.host.id);
      heal = links.add(partition(new Set(inside)));
    }
  }
  heal?.();
  await mesh.stage.pass(5_000);
  const stillHeldMicro = mesh.sites
    .flatMap((site) => mesh.of(site).status())
    .reduce((sum, one) => sum + one.heldMicro, 0);
  return { requests, spentMicro, mostMicro, heldMicro: stillHeldMicro, refusals };
}

test('whatever is parted from what, all of them together never take more than there is', {
  timeout: 180_000,
}, async ({ expect }) => {
  const { requests, spentMicro, mostMicro, heldMicro, refusals } = await hammer(1);
  console.info(
    `16 gateways, parted every second: ${requests} requests, ${((100 * spentMicro) / budgetMicro).toFixed(1)} % of the budget spent, ` +
      `overspent 0; refused ${JSON.stringify(Object.fromEntries(refusals))}`,
  );
  expect({ isOver: mostMicro > budgetMicro, heldMicro }).toEqual({ isOver: false, heldMicro: 0 });
  expect(spentMicro).toBeGreaterThan(0.5 * budgetMicro);
  expect([...refusals.keys()].sort()).toEqual(['BUDGET_EXHAUSTED', 'BUDGET_UNAVAILABLE']);
});
