/** `helixflow accounts create`: an account for keys, with limits of all of them together. */

import { givenRates } from '../../protocol/grants.ts';
import { accountValue } from '../account-text.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { accountsCreateOptions } from '../config/account-tables.ts';

export const runAccountsCreate: RunCommand<typeof accountsCreateOptions> = async (config, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'accounts create');
  const { name, strict, budget } = config;
  const made = await admin.call('accounts.create', {
    name,
    strict,
    limits: givenRates(config),
    ...(budget == null ? {} : { budget }),
  });
  output.data(accountValue(made), made.account);
  output.note(`Account ${made.account} (${name}). Keys for it: helixflow keys create --account ${made.account}`);
  return 0;
};
