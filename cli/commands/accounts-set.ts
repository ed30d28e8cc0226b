/** `helixflow accounts set`: other limits, or another budget, for an account from now on. */

import { HelixFlowError } from '../../protocol/errors.ts';
import { givenRates } from '../../protocol/grants.ts';
import { accountTable, accountValue } from '../account-text.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { accountsSetOptions } from '../config/account-tables.ts';
import { nameChange } from '../key-text.ts';

export const runAccountsSet: RunCommand<typeof accountsSetOptions> = async (config, { common, output }) => {
  const { account, strict, budget } = config;
  const name = nameChange(config);
  const limits = givenRates(config);
  const change = {
    ...(name === undefined ? {} : { name }),
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(strict === undefined ? {} : { strict }),
    ...(budget === undefined ? {} : { budget }),
  };
  if (Object.keys(change).length === 0) {
    throw new HelixFlowError('CONFIG_INVALID', { reason: 'nothing to set: give at least one of its options' });
  }
  await using admin = await openAdmin(common.dataDir, 'accounts set');
  const shown = await admin.call('accounts.set', { account, ...change });
  output.data(accountValue(shown), accountTable([shown]));
  return 0;
};
