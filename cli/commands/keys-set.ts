/** `helixflow keys set`: other terms for a key from now on, at every gateway that hears of them. */

import { HelixFlowError } from '../../protocol/errors.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { keysSetOptions } from '../config/key-tables.ts';
import { keyText, keyValue, limitsOf, nameChange } from '../key-text.ts';

export const runKeysSet: RunCommand<typeof keysSetOptions> = async (config, { common, output }) => {
  const { key, models, expires } = config;
  const name = nameChange(config);
  const limits = limitsOf(config);
  const change = {
    ...(name === undefined ? {} : { name }),
    ...(models === undefined ? {} : { models: [...models] }),
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(expires === undefined ? {} : { ttlMs: expires }),
  };
  if (Object.keys(change).length === 0) {
    throw new HelixFlowError('CONFIG_INVALID', { reason: 'nothing to set: give at least one of its options' });
  }
  await using admin = await openAdmin(common.dataDir, 'keys set');
  const shown = await admin.call('keys.set', { key, ...change });
  output.data(keyValue(shown), keyText(shown));
  return 0;
};
