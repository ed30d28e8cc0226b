/** `helixflow keys rotate`: a new key in the place of an old one, which stays good for a while. */

import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { keysRotateOptions } from '../config/key-tables.ts';
import { newKeyText, newKeyValue } from '../key-text.ts';
import { isoOf, moment } from '../lists.ts';

export const runKeysRotate: RunCommand<typeof keysRotateOptions> = async ({ key, grace }, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'keys rotate');
  const made = await admin.call('keys.rotate', { key, graceMs: grace });
  output.data({ ...newKeyValue(made), replaces: key, oldUntil: isoOf(made.oldUntilMs) }, made.text);
  output.note(
    `${newKeyText(made)}, in the place of ${key}, which is good until ${moment(made.oldUntilMs)}. It is shown only now.`,
  );
  return 0;
};
