/** `helixflow ledger reconcile`: whether what was counted is what the feeds come to. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { RunCommand } from '../command.ts';
import type { ledgerReconcileOptions } from '../config/ledger-tables.ts';
import { sinceMsOf, untilMsOf } from '../ledger-dump.ts';
import { type Reconciled, reconcile } from '../ledger-reconcile.ts';
import { openLedgerSource } from '../ledger-source.ts';
import { printable } from '../output.ts';

/** Of books that are wrong all over, the first differences tell enough. */
const shownMax = 100;

const textOf = ({ with: side, place, field, feeds, theirs }: Reconciled['differences'][number]): string =>
  printable(`differs  ${side}: ${place}: ${field}: feeds ${feeds ?? 'nothing'}, ${side} ${theirs ?? 'nothing'}`);

function reconciledText({ ok, compared, from, differences }: Reconciled): string {
  const shown = differences.slice(0, shownMax).map(textOf);
  const more = differences.length - shown.length;
  return [
    `compared  with ${compared.join(' and ')}${from === undefined ? '' : `, from ${from} on: older statements are gone from here`}`,
    ...shown,
    ...(more > 0 ? [`… and ${more} more`] : []),
    ok ? 'found    no difference' : `found    ${differences.length} differences`,
  ].join('\n');
}

export const runLedgerReconcile: RunCommand<typeof ledgerReconcileOptions> = async (config, { common, output }) => {
  await using source = await openLedgerSource(common.dataDir, 'ledger reconcile');
  const nowMs = systemClock().wallMs();
  const moments = { sinceMs: sinceMsOf(config.since, nowMs), untilMs: untilMsOf(config.until, nowMs) };
  const reconciled = await reconcile(source, config.with, moments);
  output.data(reconciled, reconciledText(reconciled));
  if (reconciled.ok) return 0;
  const [first] = reconciled.differences.map(textOf);
  throw new HelixFlowError('CHECK_FAILED', {
    reason: `${reconciled.differences.length} differences; the first: ${first}`,
  });
};
