/** `helixflow keys create`: an API key, shown once and kept nowhere. */

import { HelixFlowError } from '../../protocol/errors.ts';
import { givenRates } from '../../protocol/grants.ts';
import type { AccountId } from '../../protocol/ids.ts';
import { givenPreferences } from '../../protocol/preferences.ts';
import { type Admin, openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { keysCreateOptions } from '../config/key-tables.ts';
import type { ConfigOf } from '../config/option.ts';
import { describeLimits, newKeyText, newKeyValue } from '../key-text.ts';

/** `--strict` is a term of an account, so it takes a new one. */
async function accountFor(admin: Admin, config: ConfigOf<typeof keysCreateOptions>): Promise<AccountId | undefined> {
  const { account, strict, name } = config;
  if (!strict) return account;
  if (account !== undefined) {
    const reason = `--strict is for a new account; for an old one: helixflow accounts set ${account} --strict`;
    throw new HelixFlowError('CONFIG_INVALID', { reason });
  }
  return (await admin.call('accounts.create', { name, strict: true })).account;
}

export const runKeysCreate: RunCommand<typeof keysCreateOptions> = async (config, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'keys create');
  const account = await accountFor(admin, config);
  const { name, role, models, gateways, expires, prefer, region, allowNodes: allow, denyNodes: deny } = config;
  const preferences = givenPreferences({ prefer, region, allow, deny });
  const made = await admin.call('keys.create', {
    name,
    role,
    models: [...models],
    gateways: [...gateways],
    limits: givenRates(config),
    ...(preferences === undefined ? {} : { preferences }),
    ...(account === undefined ? {} : { account }),
    ...(expires === undefined ? {} : { ttlMs: expires }),
  });
  output.data({ ...newKeyValue(made), name }, made.text);
  output.note(`${newKeyText(made)}${describeLimits(made.limits)}. It is shown only now.`);
  return 0;
};
