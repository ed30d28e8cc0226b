/** `helixflow ledger restore`: puts back what a directory has lost of the feeds that a backup holds. */

import { HelixFlowError } from '../../protocol/errors.ts';
import { noteAudit } from '../audit-note.ts';
import type { RunCommand } from '../command.ts';
import type { ledgerRestoreOptions } from '../config/ledger-tables.ts';
import { openDataDir } from '../data-dir.ts';
import { holdDataDir } from '../holder.ts';
import { type Restored, restoreFeeds } from '../ledger-restore.ts';
import { readMeshOrFail } from '../mesh-files.ts';

const text = ({ blocks, known, gaps, forked, refused, proofs, pruned }: Restored): string =>
  [
    `restored  ${blocks} blocks; ${known} were there already`,
    ...(proofs === 0 ? [] : [`proofs    ${proofs} of forks`]),
    ...(pruned === 0 ? [] : [`pruned    ${pruned} blocks without the statements that were settled and gone`]),
    ...(gaps === 0 ? [] : [`gaps      ${gaps} blocks follow others that are nowhere: peers may have them`]),
    ...(forked === 0 ? [] : [`FORKED    ${forked} blocks contradict what is here; their authors are frozen now`]),
    ...(refused === 0 ? [] : [`refused   ${refused} blocks of authors that may not write, or are frozen`]),
  ].join('\n');

export const runLedgerRestore: RunCommand<typeof ledgerRestoreOptions> = async ({ file }, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'write');
  const known = await readMeshOrFail(dir);
  await using _hold = await holdDataDir(dir, 'ledger restore');
  const restored = await restoreFeeds(file, dir, known);
  const { meshId } = known.mesh;
  const object = `mesh:${meshId}`;
  await noteAudit(dir, { action: 'ledger.restore', actor: 'local', object, outcome: 'done', reason: '' });
  output.data({ meshId, ...restored }, text(restored));
  if (restored.forked + restored.refused === 0) return 0;
  const reason = `${restored.forked} blocks contradict what is here, ${restored.refused} were refused`;
  throw new HelixFlowError('CHECK_FAILED', { reason });
};
