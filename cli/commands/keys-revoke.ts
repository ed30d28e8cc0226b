/** `helixflow keys revoke`: ends a key for good, at every gateway that hears of it. */

import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { keysRevokeOptions } from '../config/key-tables.ts';
import { keyValue } from '../key-text.ts';

export const runKeysRevoke: RunCommand<typeof keysRevokeOptions> = async ({ key, cut }, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'keys revoke');
  const shown = await admin.call('keys.revoke', { key, cut });
  output.data(keyValue(shown), `Key ${key} is revoked${cut ? '; its requests under way end' : ''}.`);
  return 0;
};
