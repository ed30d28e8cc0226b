/** `helixflow ledger export`: every attempt as it is settled, into a file, to stdout, or into PostgreSQL. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { CommandContext, RunCommand } from '../command.ts';
import type { ledgerExportOptions } from '../config/ledger-tables.ts';
import type { ConfigOf } from '../config/option.ts';
import { dumpTo, sinceMsOf, untilMsOf } from '../ledger-dump.ts';
import { type LedgerSource, openLedgerSource } from '../ledger-source.ts';
import { counted } from '../lists.ts';
import { watchSignals } from '../signals.ts';

type Config = ConfigOf<typeof ledgerExportOptions>;

/** @throws HelixFlowError CONFIG_INVALID when options contradict each other. */
function checkOptions({ format, raw, out, since, until, to, follow }: Config): void {
  const refuse = (reason: string): never => {
    throw new HelixFlowError('CONFIG_INVALID', { reason });
  };
  if (raw && format !== 'jsonl') refuse('--raw goes with --format jsonl');
  if (follow && to === undefined) refuse('--follow goes with --to');
  if (to === undefined) return;
  if (out !== '-' || raw) refuse('--to goes without --out and --raw');
  if (since !== undefined || until !== undefined) refuse('--to exports everything: --since and --until go with files');
}

async function toFile(config: Config, source: LedgerSource, { output }: CommandContext): Promise<void> {
  const { format, raw, out } = config;
  const nowMs = systemClock().wallMs();
  const moments = { sinceMs: sinceMsOf(config.since, nowMs), untilMs: untilMsOf(config.until, nowMs) };
  const { attempts, rows } = await dumpTo(out, source, { format, raw, ...moments });
  const text = `${counted(attempts, 'attempt')}${raw ? ` and ${counted(rows, 'row')} of feeds` : ''}`;
  if (out === '-') output.note(`Exported ${text}.`);
  else output.data({ out, format, attempts, ...(raw ? { rows } : {}) }, `${text} in ${out}`);
}

export const runLedgerExport: RunCommand<typeof ledgerExportOptions> = async (config, context) => {
  checkOptions(config);
  const { to, follow } = config;
  await using source = await openLedgerSource(context.common.dataDir, 'ledger export');
  if (to === undefined) {
    await toFile(config, source, context);
    return 0;
  }
  const { signal } = watchSignals();
  const { streamToPostgres } = await import('../ledger-postgres.ts');
  const { blocks, lines } = await streamToPostgres(to, { source, signal, context, follow });
  context.output.data({ blocks, lines }, `${counted(lines, 'line')} of ${counted(blocks, 'block')}`);
  return 0;
};
