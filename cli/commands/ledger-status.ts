/** `helixflow ledger status`: what is held of every author's feed, counted. */

import { rowsInOrder } from '../../ledger/verify-rows.ts';
import { summariseFeeds } from '../../ledger/verify-summary.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import type { RunCommand } from '../command.ts';
import { auditOptions, openLedgerSource } from '../ledger-source.ts';
import { summaryText, summaryValue } from '../ledger-view.ts';

export const runLedgerStatus: RunCommand<Record<string, never>> = async (_config, { common, output }) => {
  await using source = await openLedgerSource(common.dataDir, 'ledger status');
  const { rows, known, role } = source;
  const options = { ...auditOptions(known.mesh, role), nowMs: systemClock().wallMs() };
  const summary = await summariseFeeds(rowsInOrder(rows), options);
  output.data(summaryValue(summary), summaryText(summary));
  return 0;
};
