/** `helixflow accounts ls`: the accounts of this issuer. */

import { accountTable, accountValue } from '../account-text.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import { listAll } from '../lists.ts';

export const runAccountsList: RunCommand<Record<never, never>> = async (_config, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'accounts ls');
  const accounts = await listAll(
    (page) => admin.call('accounts.list', page),
    ({ account }) => account,
  );
  output.data({ accounts: accounts.map(accountValue) }, accountTable(accounts));
  return 0;
};
