/** `helixflow ledger tail`: the newest attempts, as gateways state them and nodes sign them. */

import { linesOfRow, type TailLine, tailLines } from '../../ledger/verify-tail.ts';
import type { CommandContext, RunCommand } from '../command.ts';
import type { ledgerTailOptions } from '../config/ledger-tables.ts';
import { followFeeds } from '../ledger-follow.ts';
import { openLedgerSource } from '../ledger-source.ts';
import { tailText, tailValue } from '../ledger-view.ts';
import { printable } from '../output.ts';
import { watchSignals } from '../signals.ts';

/** Names of models come from anywhere. */
const show = ({ output }: CommandContext, line: TailLine): void =>
  output.data(tailValue(line), printable(tailText(line)));

export const runLedgerTail: RunCommand<typeof ledgerTailOptions> = async ({ lines, follow }, context) => {
  await using source = await openLedgerSource(context.common.dataDir, 'ledger tail');
  const { signal } = watchSignals();
  // From here on, so that nothing is missed while the newest are read.
  const from = follow ? await source.heads() : [];
  for (const line of await tailLines(source.rows, lines)) show(context, line);
  if (!follow) return 0;
  for await (const [key, row] of followFeeds(source, from, signal)) {
    for (const line of linesOfRow(key, row)) show(context, line);
  }
  return 0;
};
