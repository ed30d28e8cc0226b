/** `helixflow ledger verify`: whether the feeds are as they were signed and hold together, and else the entry where they do not. */

import { verifyFeeds } from '../../ledger/verify.ts';
import { rowsInOrder } from '../../ledger/verify-rows.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { RunCommand } from '../command.ts';
import type { ledgerVerifyOptions } from '../config/ledger-tables.ts';
import { auditOptions, openLedgerSource } from '../ledger-source.ts';
import { verdictText } from '../ledger-verify-text.ts';

export const runLedgerVerify: RunCommand<typeof ledgerVerifyOptions> = async (_config, { common, output }) => {
  await using source = await openLedgerSource(common.dataDir, 'ledger verify');
  const { rows, known, role } = source;
  const verdict = await verifyFeeds(rowsInOrder(rows), auditOptions(known.mesh, role));
  output.data(verdict, verdictText(verdict));
  const [first] = verdict.problems;
  if (first === undefined) return 0;
  const more = verdict.problems.length === 1 ? '' : `, and ${verdict.problems.length - 1} more`;
  throw new HelixFlowError('CHECK_FAILED', { reason: `${first.place}: ${first.what}${more}` });
};
