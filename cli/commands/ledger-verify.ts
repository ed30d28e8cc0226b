/** `helixflow ledger verify`: whether the feeds are as they were signed and hold together, and else the entry where they do not. */

import { openRawFile } from '../../ledger/adapters/export-jsonl.ts';
import { type Verdict, verifyFeeds } from '../../ledger/verify.ts';
import { rowsInOrder } from '../../ledger/verify-rows.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { CommandContext, RunCommand } from '../command.ts';
import type { ledgerVerifyOptions } from '../config/ledger-tables.ts';
import { auditOptions, openLedgerSource } from '../ledger-source.ts';
import { verdictText } from '../ledger-verify-text.ts';

async function verifyFile(path: string, mesh: string | undefined, { output }: CommandContext): Promise<Verdict> {
  const file = await openRawFile(path);
  const { meshId, role } = file.header;
  if (mesh !== undefined && mesh !== meshId) {
    throw new HelixFlowError('CHECK_FAILED', { reason: `${path} is of mesh ${meshId}, not of ${mesh}` });
  }
  output.note(`${path} is of mesh ${meshId}.`);
  const verdict = await verifyFeeds(file.rows, auditOptions(file.header, role));
  const faults = file.faults().map(({ line, what }) => ({ place: `${path} line ${line}`, what }));
  return { ...verdict, ok: verdict.ok && faults.length === 0, problems: [...verdict.problems, ...faults] };
}

async function verifyDirectory({ common }: CommandContext): Promise<Verdict> {
  await using source = await openLedgerSource(common.dataDir, 'ledger verify');
  const { rows, known, role } = source;
  return await verifyFeeds(rowsInOrder(rows), auditOptions(known.mesh, role));
}

export const runLedgerVerify: RunCommand<typeof ledgerVerifyOptions> = async ({ from, mesh }, context) => {
  const verdict = await (from === undefined ? verifyDirectory(context) : verifyFile(from, mesh, context));
  context.output.data(verdict, verdictText(verdict));
  const [first] = verdict.problems;
  if (first === undefined) return 0;
  const more = verdict.problems.length === 1 ? '' : `, and ${verdict.problems.length - 1} more`;
  throw new HelixFlowError('CHECK_FAILED', { reason: `${first.place}: ${first.what}${more}` });
};
