/** `helixflow accounts writeoff`: gives up on a lease whose gateway does not come back to close it. */

import { printMicro } from '../../ledger/amounts.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { accountsWriteOffOptions } from '../config/account-tables.ts';

export const runAccountsWriteOff: RunCommand<typeof accountsWriteOffOptions> = async (config, { common, output }) => {
  const { lease, spent } = config;
  await using admin = await openAdmin(common.dataDir, 'accounts writeoff');
  const written = await admin.call('leases.writeOff', { lease, ...(spent === undefined ? {} : { spentMicro: spent }) });
  const { spentMicro } = written;
  output.data({ lease, spentMicro }, lease);
  output.note(
    `The lease is written off: ${printMicro(spentMicro)} usd count as spent, the rest of it is free again. Should its gateway come back with lines that come to more, that counts, too: the budget may then be overspent, even of a strict account.`,
  );
  return 0;
};
