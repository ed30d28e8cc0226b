/** `helixflow keys show`: one key, without its text. */

import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { keysShowOptions } from '../config/key-tables.ts';
import { keyText, keyValue } from '../key-text.ts';

export const runKeysShow: RunCommand<typeof keysShowOptions> = async ({ key }, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'keys show');
  const shown = await admin.call('keys.show', { key });
  output.data(keyValue(shown), keyText(shown));
  return 0;
};
