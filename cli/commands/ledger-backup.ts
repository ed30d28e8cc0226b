/** `helixflow ledger backup`: all feeds in one file that tells when a byte of it has changed. */

import type { RunCommand } from '../command.ts';
import type { ledgerBackupOptions } from '../config/ledger-tables.ts';
import { backUp } from '../ledger-dump.ts';
import { openLedgerSource } from '../ledger-source.ts';
import { counted } from '../lists.ts';

export const runLedgerBackup: RunCommand<typeof ledgerBackupOptions> = async ({ file }, { common, output }) => {
  await using source = await openLedgerSource(common.dataDir, 'ledger backup');
  const { rows, bytes } = await backUp(file, source);
  const { meshId } = source.known.mesh;
  output.data({ meshId, out: file, rows, bytes }, file);
  output.note(
    `${file} holds ${counted(rows, 'row')} of the feeds of mesh ${meshId}, ${bytes} bytes. Keys are not in it (helixflow mesh backup), nor are keys of tags and names.`,
  );
  return 0;
};
