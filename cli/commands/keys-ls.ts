/** `helixflow keys ls`: every key of this issuer, also those that are good no more. */

import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import { keyTable, keyValue } from '../key-text.ts';
import { listAll } from '../lists.ts';

export const runKeysList: RunCommand<Record<never, never>> = async (_config, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'keys ls');
  const keys = await listAll(
    (page) => admin.call('keys.list', page),
    ({ key }) => key,
  );
  output.data({ keys: keys.map(keyValue) }, keyTable(keys));
  return 0;
};
