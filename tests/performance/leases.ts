/** How near gateways come to a budget and to a limit that they share while traffic moves between them; virtual time. */

import { spendBudget, useLimit } from '../ledger/lease-traffic.ts';

const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;

/** `node tests/performance/leases.ts`: a few lines, each a mesh; under two minutes. */
for (const gateways of [1, 3, 10]) {
  const money = await spendBudget({ gateways, seed: 1 });
  const rate = await useLimit({ gateways, seed: 1 }, 600);
  process.stdout.write(
    `${gateways} gateways: budget ${percent(money.atFirstRefusal)} spent at the first refusal, ${percent(money.atEnd)} in the end, ` +
      `${money.overspentMicro} over; ${money.leaseEntries} lease entries for ${money.requests} requests, ${percent(money.waited)} waited; ` +
      `600/min: ${percent(rate.used)} used, at most ${rate.most} in a minute\n`,
  );
}
