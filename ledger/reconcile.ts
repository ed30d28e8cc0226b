/** `ledger reconcile`: what the feeds come to, summed up anew, beside what others have counted. */

import { dayMs } from '../protocol/units.ts';
import type { ExportRow } from './export.ts';
import { noCounts, type UsageCounts, type UsageKey } from './usage.ts';

/** Two sums that should be one. */
export interface Difference {
  /** What they are of: `day gateway node model caller`. */
  readonly place: string;
  readonly field: keyof UsageCounts;
  /** As the feeds have it. */
  readonly feeds: number;
  /** As it was counted elsewhere. */
  readonly theirs: number;
}

export const usageFields = Object.keys(noCounts) as (keyof UsageCounts)[];

const countsOf = ({ settled }: ExportRow): UsageCounts => ({
  requests: settled.isBilled ? 1 : 0,
  attempts: 1,
  promptTokens: settled.promptTokens,
  cachedTokens: settled.cachedTokens,
  completionTokens: settled.completionTokens,
  accountMicro: settled.payer === 'account' ? settled.amountMicro : 0,
  gatewayMicro: settled.payer === 'gateway' ? settled.amountMicro : 0,
  refused: settled.state === 'refused' ? 1 : 0,
  lower: settled.state === 'lower' ? 1 : 0,
});

const keyOf = ({ settled: { author, node, line } }: ExportRow): UsageKey => ({
  day: Math.floor(line.startMs / dayMs),
  tagDay: line.caller.day,
  account: line.caller.account,
  key: line.caller.key,
  model: line.model,
  node,
  gateway: author,
});

/** Names what a sum is of; the same for the same key wherever it comes from, also from a database that knows no zeros in texts. */
export const sumName = ({ day, gateway, node, model, tagDay, account, key }: UsageKey): string =>
  `day ${day}, gateway ${gateway}, node ${node}, model ${model.replaceAll('\0', '\ufffd')}, caller ${tagDay}/${account}/${key}`;

/** Sums by name. */
export type Sums = ReadonlyMap<string, UsageCounts>;

type Row = readonly [UsageKey, UsageCounts];

/** Adds rows up; those of one key count together. */
export function sumsOf(rows: Iterable<Row>): Sums {
  const sums = new Map<string, Record<keyof UsageCounts, number>>();
  for (const row of rows) addRow(sums, row);
  return sums;
}

function addRow(sums: Map<string, Record<keyof UsageCounts, number>>, [key, counts]: Row): void {
  const name = sumName(key);
  const known = sums.get(name);
  if (known === undefined) sums.set(name, { ...counts });
  else for (const field of usageFields) known[field] += counts[field];
}

/** What settled attempts come to. */
export async function sumUp(rows: AsyncIterable<ExportRow>): Promise<Sums> {
  const sums = new Map<string, Record<keyof UsageCounts, number>>();
  for await (const row of rows) addRow(sums, [keyOf(row), countsOf(row)]);
  return sums;
}

/**
 * Where sums of the feeds are not those counted elsewhere.
 * @param before, after What was counted before the feeds were read, and after: whatever is told meanwhile lies between.
 */
export function compareSums(feeds: Sums, before: Sums, after: Sums = before): readonly Difference[] {
  const names = [...new Set([...feeds.keys(), ...before.keys(), ...after.keys()])].sort();
  return names.flatMap((place) => {
    const [ours, first, last] = [feeds, before, after].map((sums) => sums.get(place) ?? noCounts) as [
      UsageCounts,
      UsageCounts,
      UsageCounts,
    ];
    return usageFields.flatMap((field) => {
      const [low, high] = [Math.min(first[field], last[field]), Math.max(first[field], last[field])];
      const isBetween = low <= ours[field] && ours[field] <= high;
      return isBetween ? [] : [{ place, field, feeds: ours[field], theirs: last[field] }];
    });
  });
}

/** The sums of days from `day` on: of those before, statements may be gone from this disk. */
export const sumsFrom = (sums: Sums, day: number): Sums =>
  new Map([...sums].filter(([name]) => Number(/^day (\d+),/.exec(name)?.[1]) >= day));

/** What a provider says of one attempt, or of one request, as far as it says it. */
export interface ProviderRow {
  /** `run.serial`, or the request's id. */
  readonly name: string;
  readonly counts: Readonly<Partial<Record<ProviderField, number>>>;
}

/** Columns that both sides can tell. */
export const providerFields = ['promptTokens', 'cachedTokens', 'completionTokens', 'amountMicro'] as const;
export type ProviderField = (typeof providerFields)[number];

/** One attempt or request of which both sides say different things. */
export interface ProviderDifference {
  readonly place: string;
  readonly field: ProviderField | 'attempt';
  /** Undefined where one side knows nothing of it. */
  readonly feeds: number | undefined;
  readonly theirs: number | undefined;
}

/** How rows are named: `attempt` by process and serial, `request` by the request's id. */
export type ProviderKey = 'attempt' | 'request';

type ProviderSums = Map<string, Partial<Record<ProviderField, number>>>;

/** Rows of one name count together, as the attempts of a request do. */
export function providerSums(rows: Iterable<ProviderRow>): ProviderSums {
  const sums: ProviderSums = new Map();
  for (const { name, counts } of rows) {
    const known = sums.get(name) ?? {};
    sums.set(name, known);
    for (const field of providerFields) {
      const count = counts[field];
      if (count !== undefined) known[field] = (known[field] ?? 0) + count;
    }
  }
  return sums;
}

const nameOf = ({ settled: { line } }: ExportRow, key: ProviderKey): string =>
  key === 'attempt' ? `${line.run}.${line.serial}` : line.request;

/**
 * Compares what feeds come to with what a provider has written down. Attempts of which nothing is due are in nobody's way.
 * @param theirs Is used up.
 */
export async function compareProvider(
  rows: AsyncIterable<ExportRow>,
  theirs: ProviderSums,
  key: ProviderKey,
): Promise<readonly ProviderDifference[]> {
  const ours: ProviderSums = new Map();
  const differences: ProviderDifference[] = [];
  for await (const row of rows) {
    const { settled } = row;
    const name = nameOf(row, key);
    const counts = Object.fromEntries(providerFields.map((field) => [field, settled[field]]));
    const isDue = settled.isBilled || settled.amountMicro > 0 || settled.completionTokens > 0;
    if (theirs.has(name)) ours.set(name, added(ours.get(name), counts));
    else if (isDue) differences.push({ place: name, field: 'attempt', feeds: settled.amountMicro, theirs: undefined });
  }
  for (const [place, said] of theirs) {
    const known = ours.get(place);
    if (known === undefined) {
      differences.push({ place, field: 'attempt', feeds: undefined, theirs: said.amountMicro ?? 0 });
      continue;
    }
    for (const field of providerFields) {
      const [mine, other] = [known[field] ?? 0, said[field]];
      if (other !== undefined && other !== mine) differences.push({ place, field, feeds: mine, theirs: other });
    }
  }
  return differences;
}

function added(
  known: Partial<Record<ProviderField, number>> = {},
  counts: Readonly<Record<string, number>>,
): Partial<Record<ProviderField, number>> {
  return Object.fromEntries(providerFields.map((field) => [field, (known[field] ?? 0) + (counts[field] ?? 0)]));
}
