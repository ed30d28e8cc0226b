/** `helixflow accounts show`: one account, what its budget has come to, and the leases on it. */

import { accountSheetValue, accountText } from '../account-text.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { accountsShowOptions } from '../config/account-tables.ts';

export const runAccountsShow: RunCommand<typeof accountsShowOptions> = async ({ account }, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'accounts show');
  const shown = await admin.call('accounts.show', { account });
  output.data(accountSheetValue(shown), accountText(shown));
  return 0;
};
