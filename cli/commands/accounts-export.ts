/** `helixflow accounts export`: everything that this gateway can tell of an account, as JSON (portability). */

import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { accountsExportOptions } from '../config/account-tables.ts';

export const runAccountsExport: RunCommand<typeof accountsExportOptions> = async ({ account }, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'accounts export');
  const exported = await admin.call('accounts.export', { account });
  output.data({ schemaVersion: 1, ...exported }, JSON.stringify({ schemaVersion: 1, ...exported }, null, 2));
  if (!exported.isComplete) output.note('There is more than an export holds: helixflow ledger export has every entry.');
  return 0;
};
