/** `helixflow prices set`: what a model costs, from now or from a moment to come. */

import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { pricesSetOptions } from '../config/account-tables.ts';
import { priceTable, priceValue } from '../usage-text.ts';

export const runPricesSet: RunCommand<typeof pricesSetOptions> = async (config, { common, output }) => {
  const { model, prompt, cached, completion, node, from } = config;
  await using admin = await openAdmin(common.dataDir, 'prices set');
  const price = await admin.call('prices.set', {
    ...{ model, prompt, completion },
    ...(cached === undefined ? {} : { cached }),
    ...(node === undefined ? {} : { node }),
    ...(from === undefined ? {} : { fromMs: from }),
  });
  output.data(priceValue(price), priceTable([price], Date.now()));
  return 0;
};
