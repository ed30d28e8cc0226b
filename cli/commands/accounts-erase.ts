/** `helixflow accounts erase`: closes an account for good, and forgets whose it was (erasure). */

import { HelixFlowError } from '../../protocol/errors.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { accountsEraseOptions } from '../config/account-tables.ts';
import { listAll } from '../lists.ts';

const plural = (count: number): string => `${count} key${count === 1 ? '' : 's'}`;

export const runAccountsErase: RunCommand<typeof accountsEraseOptions> = async ({ account, yes }, context) => {
  const { common, output } = context;
  await using admin = await openAdmin(common.dataDir, 'accounts erase');
  if (!yes) {
    const { name } = await admin.call('accounts.show', { account });
    const keys = await listAll(
      (page) => admin.call('keys.list', page),
      ({ key }) => key,
    );
    const own = keys.filter((key) => key.account === account);
    const reason = `${account} (${name ?? 'no name here'}) would be closed for good, with ${plural(own.length)}; this cannot be taken back. Keep what you need (helixflow accounts export ${account}), then say --yes`;
    // People are asked; a program is told that it left something out.
    if (!output.json) {
      output.note(`Nothing was erased yet. ${reason}.`);
      return 2;
    }
    throw new HelixFlowError('CONFIG_INVALID', { reason });
  }
  const { keys } = await admin.call('accounts.erase', { account });
  output.data({ account, erased: true, keys }, account);
  output.note(
    `${account} is closed, ${plural(keys.length)} of it ended everywhere, and its names are gone from this directory. What stays is in docs/usage.md (Erasure); backups of this directory, and your own notes, are yours to clear.`,
  );
  return 0;
};
