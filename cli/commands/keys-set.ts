/** `helixflow keys set`: other terms for a key from now on, at every gateway that hears of them. */

import { HelixFlowError } from '../../protocol/errors.ts';
import { givenRates } from '../../protocol/grants.ts';
import type { KeyId } from '../../protocol/ids.ts';
import { type Admin, openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { keysSetOptions } from '../config/key-tables.ts';
import type { ConfigOf } from '../config/option.ts';
import { keyText, keyValue, nameChange } from '../key-text.ts';

/** Only the name of a revoked key can change: other terms would look as if they brought it back. */
async function checkNotRevoked(admin: Admin, key: KeyId): Promise<void> {
  const { state } = await admin.call('keys.show', { key });
  if (state !== 'revoked') return;
  const reason = `the key ${key} is revoked for good; make a new one (helixflow keys create)`;
  throw new HelixFlowError('CONFIG_INVALID', { reason });
}

/** Only what was said: null takes a wish away. */
function preferencesChange({ prefer, region, allowNodes: allow, denyNodes: deny }: ConfigOf<typeof keysSetOptions>) {
  const nodes = { ...(allow === undefined ? {} : { allow }), ...(deny === undefined ? {} : { deny }) };
  return {
    ...(prefer === undefined ? {} : { prefer }),
    ...(region === undefined ? {} : { region }),
    ...(Object.keys(nodes).length === 0 ? {} : { nodes }),
  };
}

export const runKeysSet: RunCommand<typeof keysSetOptions> = async (config, { common, output }) => {
  const { key, models, expires } = config;
  const name = nameChange(config);
  const limits = givenRates(config);
  const preferences = preferencesChange(config);
  const terms = {
    ...(models === undefined ? {} : { models: [...models] }),
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    ...(expires === undefined ? {} : { ttlMs: expires }),
    ...(Object.keys(preferences).length === 0 ? {} : { preferences }),
  };
  const change = { ...(name === undefined ? {} : { name }), ...terms };
  if (Object.keys(change).length === 0) {
    throw new HelixFlowError('CONFIG_INVALID', { reason: 'nothing to set: give at least one of its options' });
  }
  await using admin = await openAdmin(common.dataDir, 'keys set');
  if (Object.keys(terms).length > 0) await checkNotRevoked(admin, key);
  const shown = await admin.call('keys.set', { key, ...change });
  output.data(keyValue(shown), keyText(shown));
  return 0;
};
