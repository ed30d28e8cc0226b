/** `helixflow ledger export`: every attempt as it is settled, into a file or to stdout. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { RunCommand } from '../command.ts';
import type { ledgerExportOptions } from '../config/ledger-tables.ts';
import { dumpTo, sinceMsOf, untilMsOf } from '../ledger-dump.ts';
import { openLedgerSource } from '../ledger-source.ts';

export const runLedgerExport: RunCommand<typeof ledgerExportOptions> = async (config, { common, output }) => {
  const { format, raw, out } = config;
  if (raw && format !== 'jsonl') {
    throw new HelixFlowError('CONFIG_INVALID', { reason: '--raw goes with --format jsonl' });
  }
  const nowMs = systemClock().wallMs();
  await using source = await openLedgerSource(common.dataDir, 'ledger export');
  const moments = { sinceMs: sinceMsOf(config.since, nowMs), untilMs: untilMsOf(config.until, nowMs) };
  const { attempts, rows } = await dumpTo(out, source, { format, raw, ...moments });
  const text = `${attempts} attempts${raw ? ` and ${rows} rows of feeds` : ''}`;
  if (out === '-') output.note(`Exported ${text}.`);
  else output.data({ out, format, attempts, ...(raw ? { rows } : {}) }, `${text} in ${out}`);
  return 0;
};
