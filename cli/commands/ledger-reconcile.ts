/** `helixflow ledger reconcile`: whether what was counted is what the feeds come to. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { dayMs } from '../../protocol/units.ts';
import type { RunCommand } from '../command.ts';
import type { ledgerReconcileOptions } from '../config/ledger-tables.ts';
import { sinceMsOf, untilMsOf } from '../ledger-dump.ts';
import { keptSums, type Reconciled, reconcile } from '../ledger-reconcile.ts';
import { openLedgerSource } from '../ledger-source.ts';
import { printable } from '../output.ts';

/** Of books that are wrong all over, the first differences tell enough. */
const shownMax = 20;

type Found = Reconciled['differences'][number];

const words: Readonly<Record<Found['field'], string>> = {
  attempt: 'attempt, micro-credits',
  requests: 'requests',
  attempts: 'attempts',
  promptTokens: 'prompt tokens',
  cachedTokens: 'cached tokens',
  completionTokens: 'completion tokens',
  accountMicro: 'micro-credits that accounts owe',
  gatewayMicro: 'micro-credits that gateways owe',
  amountMicro: 'micro-credits',
  refused: 'refused attempts',
  lower: 'attempts settled at the lower count',
};

const dateOf = (day: string): string => {
  const moment = new Date(Number(day) * dayMs);
  return Number.isNaN(moment.getTime()) ? day : moment.toISOString().slice(0, 10);
};
/** Days as dates; those of sums have numbers. */
function placeText(place: string): string {
  const found = /^day (\d+), (.*), caller (\d+)\/(\w+)\/(\w+)$/s.exec(place);
  if (found === null) return place;
  const [, day = '', rest, tagDay = '', account, key] = found;
  return `${dateOf(day)}, ${rest}, tags of ${dateOf(tagDay)}: account ${account}, key ${key}`;
}

const textOf = ({ with: side, place, field, feeds, theirs }: Found): string => {
  const what = `${side}: ${placeText(place)}: ${words[field]}`;
  return printable(`differs  ${what}: feeds ${feeds ?? 'nothing'}, ${side} ${theirs ?? 'nothing'}`);
};

const countText = (count: number): string => `${count} difference${count === 1 ? '' : 's'}`;

export function reconciledText({ ok, compared, from, differences }: Reconciled): string {
  const shown = differences.slice(0, shownMax).map(textOf);
  const more = differences.length - shown.length;
  return [
    `compared  with ${compared.join(' and ')}${from === undefined ? '' : `, from ${from} on: older statements are gone from here`}`,
    ...shown,
    ...(more > 0 ? [`… and ${more} more (--json has them all)`] : []),
    ok ? 'found    no difference' : `found    ${countText(differences.length)}`,
  ].join('\n');
}

export const runLedgerReconcile: RunCommand<typeof ledgerReconcileOptions> = async (config, { common, output }) => {
  const kept = config.with === undefined ? await keptSums(common.dataDir) : undefined;
  await using source = await openLedgerSource(common.dataDir, 'ledger reconcile');
  const nowMs = systemClock().wallMs();
  const moments = { sinceMs: sinceMsOf(config.since, nowMs), untilMs: untilMsOf(config.until, nowMs) };
  const reconciled = await reconcile(source, config.with, moments, kept);
  output.data(reconciled, reconciledText(reconciled));
  if (reconciled.ok) return 0;
  const [first] = reconciled.differences.map(textOf);
  throw new HelixFlowError('CHECK_FAILED', {
    reason: `${countText(reconciled.differences.length)}; the first: ${first}`,
  });
};
