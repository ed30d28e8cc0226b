/** `helixflow prices ls`: every price that was set, also those that others took the place of. */

import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import { listAll } from '../lists.ts';
import { byBeginning, priceTable, priceValue } from '../usage-text.ts';

export const runPricesList: RunCommand<Record<never, never>> = async (_config, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'prices ls');
  const prices = await listAll(
    (page) => admin.call('prices.list', page),
    ({ price }) => price,
  );
  const sorted = prices.toSorted(byBeginning);
  output.data({ prices: sorted.map(priceValue) }, priceTable(sorted, Date.now()));
  return 0;
};
