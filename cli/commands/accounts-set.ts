/** `helixflow accounts set`: other limits for an account from now on. */

import { HelixFlowError } from '../../protocol/errors.ts';
import { givenRates } from '../../protocol/grants.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { accountsSetOptions } from '../config/key-tables.ts';
import { accountTable, accountValue, nameChange } from '../key-text.ts';

export const runAccountsSet: RunCommand<typeof accountsSetOptions> = async (config, { common, output }) => {
  const { account, strict } = config;
  const name = nameChange(config);
  const limits = givenRates(config);
  const change = {
    ...(name === undefined ? {} : { name }),
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(strict === undefined ? {} : { strict }),
  };
  if (Object.keys(change).length === 0) {
    throw new HelixFlowError('CONFIG_INVALID', { reason: 'nothing to set: give at least one of its options' });
  }
  await using admin = await openAdmin(common.dataDir, 'accounts set');
  const shown = await admin.call('accounts.set', { account, ...change });
  output.data(accountValue(shown), accountTable([shown]));
  return 0;
};
