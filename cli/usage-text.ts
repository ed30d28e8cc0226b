/** Usage and prices in words, in JSON lines and as comma-separated values. */

import type { PriceView } from '../gateway/admin/price-operations.ts';
import type { UsageSums, UsageView } from '../gateway/admin/usage-rows.ts';
import { printMicro } from '../ledger/amounts.ts';
import type { UsageDimension } from '../ledger/usage.ts';
import { columns, isoOf, moment, widthsOf } from './lists.ts';

export interface UsageReport {
  readonly by: readonly UsageDimension[];
  readonly range: { readonly sinceMs: number; readonly untilMs: number };
  readonly rows: readonly UsageView[];
  readonly total: UsageSums;
}

const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
const short = (peer: string): string => `…${peer.slice(-8)}`;

/** An id with its name; a tag where nobody can tell any more, or here, whose it is. */
function ownerCell(id: string | undefined, name: string | undefined, tag: string | undefined): string {
  if (id === undefined) return `(tag ${tag ?? '?'})`;
  return name === undefined ? id : `${name} (${id})`;
}

function cellOf(dimension: UsageDimension, row: UsageView): string {
  switch (dimension) {
    case 'day':
      return dayOf(row.dayMs ?? 0);
    case 'account':
      return ownerCell(row.account, row.accountName, row.accountTag);
    case 'key':
      return ownerCell(row.key, row.keyName, row.keyTag);
    case 'model':
      return row.model ?? '';
    // Whole, so that they can be pasted.
    case 'node':
      return row.node ?? '';
    case 'gateway':
      return row.gateway ?? '';
  }
}

/** What gateways pay themselves, and what was disputed, has columns only where there is any. */
function sumColumns(report: UsageReport): readonly (readonly [string, (sums: UsageSums) => string])[] {
  const all = [
    ['REQUESTS', ({ requests }: UsageSums) => String(requests)],
    ['ATTEMPTS', ({ attempts }: UsageSums) => String(attempts)],
    ['PROMPT', ({ promptTokens }: UsageSums) => String(promptTokens)],
    ['CACHED', ({ cachedTokens }: UsageSums) => String(cachedTokens)],
    ['COMPLETION', ({ completionTokens }: UsageSums) => String(completionTokens)],
    ['COST (USD)', ({ cost }: UsageSums) => cost],
    ['GATEWAY PAYS', ({ gatewayMicro }: UsageSums) => printMicro(gatewayMicro)],
    ['REFUSED', ({ refused }: UsageSums) => String(refused)],
    ['LOWER', ({ lower }: UsageSums) => String(lower)],
  ] as const;
  const { gatewayMicro, refused, lower } = report.total;
  const isShown: Readonly<Record<string, boolean>> = {
    'GATEWAY PAYS': gatewayMicro > 0,
    REFUSED: refused > 0,
    LOWER: lower > 0,
  };
  return all.filter(([name]) => isShown[name] ?? true);
}

const tokensOf = ({ promptTokens, completionTokens }: UsageView): number => promptTokens + completionTokens;

/** What costs most comes first where one thing alone tells rows apart; days come as they were. */
const inOrder = (by: UsageReport['by'], rows: readonly UsageView[]): readonly UsageView[] =>
  by.length !== 1 || by[0] === 'day'
    ? rows
    : rows.toSorted((a, b) => b.costMicro - a.costMicro || tokensOf(b) - tokensOf(a));

/** A table with a last row for the sum of all. */
export function usageTable(report: UsageReport): string {
  const { by, rows, total, range } = report;
  const sums = sumColumns(report);
  const lines = inOrder(by, rows).map((row) => [
    ...by.map((dimension) => cellOf(dimension, row)),
    ...sums.map(([, of]) => of(row)),
  ]);
  const totalLine = [...by.map((_, at) => (at === 0 ? 'total' : '')), ...sums.map(([, of]) => of(total))];
  const head = [...by.map((dimension) => dimension.toUpperCase()), ...sums.map(([name]) => name)];
  const widths = widthsOf(head.length, [head, ...lines, totalLine]);
  const rightAligned = (line: readonly string[]): readonly string[] =>
    line.map((cell, at) => (at < by.length ? cell : cell.padStart(widths[at] ?? 0)));
  const until = dayOf(range.untilMs - 1);
  return [
    `${dayOf(range.sinceMs)} to ${until} (UTC), at all gateways that this one has heard of`,
    columns(rightAligned(head), [...lines, totalLine].map(rightAligned)),
  ].join('\n');
}

/** A row without what is only for reading on. */
const rowValue = ({ id: _, dayMs, ...row }: UsageView): object => ({
  ...(dayMs === undefined ? {} : { day: dayOf(dayMs) }),
  ...row,
});

export const usageValue = ({ by, range, rows, total }: UsageReport): object => ({
  by,
  since: isoOf(range.sinceMs),
  until: isoOf(range.untilMs),
  rows: rows.map(rowValue),
  total,
});

/** A spreadsheet takes what begins so for a formula; names of models come from whoever serves them. */
const formula = /^[=+\-@\t\r]/;
function csvCell(text: string): string {
  const safe = formula.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

const csvLabels: Readonly<Record<UsageDimension, readonly (readonly [string, (row: UsageView) => string])[]>> = {
  day: [['day', ({ dayMs }) => dayOf(dayMs ?? 0)]],
  account: [
    ['account', ({ account }) => account ?? ''],
    ['account_name', ({ accountName }) => accountName ?? ''],
    ['account_tag', ({ accountTag }) => accountTag ?? ''],
  ],
  key: [
    ['key', ({ key }) => key ?? ''],
    ['key_name', ({ keyName }) => keyName ?? ''],
    ['key_tag', ({ keyTag }) => keyTag ?? ''],
  ],
  model: [['model', ({ model }) => model ?? '']],
  node: [['node', ({ node }) => node ?? '']],
  gateway: [['gateway', ({ gateway }) => gateway ?? '']],
};
const csvSums: readonly (readonly [string, (row: UsageView) => string])[] = [
  ['requests', ({ requests }) => String(requests)],
  ['attempts', ({ attempts }) => String(attempts)],
  ['prompt_tokens', ({ promptTokens }) => String(promptTokens)],
  ['cached_tokens', ({ cachedTokens }) => String(cachedTokens)],
  ['completion_tokens', ({ completionTokens }) => String(completionTokens)],
  ['cost_usd', ({ cost }) => cost],
  ['cost_micro', ({ costMicro }) => String(costMicro)],
  ['gateway_micro', ({ gatewayMicro }) => String(gatewayMicro)],
  ['refused', ({ refused }) => String(refused)],
  ['lower', ({ lower }) => String(lower)],
];

/** RFC 4180, but for the newline, which `Output` writes as every other line's. */
export function usageCsv({ by, rows, total }: UsageReport): string {
  const all = [...by.flatMap((dimension) => csvLabels[dimension]), ...csvSums];
  const shown: readonly UsageView[] = by.length === 0 ? [{ id: '', ...total }] : rows;
  return [
    all.map(([name]) => name).join(','),
    ...shown.map((row) => all.map(([, of]) => csvCell(of(row))).join(',')),
  ].join('\n');
}

export const byBeginning = (a: PriceView, b: PriceView): number => {
  const [left, right] = [`${a.model}\n${a.node ?? ''}`, `${b.model}\n${b.node ?? ''}`];
  return left === right ? a.fromMs - b.fromMs : left < right ? -1 : 1;
};

export const priceValue = ({ price, model, node, prompt, cached, completion, fromMs, issuer }: PriceView): object => ({
  id: price,
  model,
  node,
  promptMicro: prompt,
  cachedMicro: cached,
  completionMicro: completion,
  from: isoOf(fromMs),
  issuer,
});

/** Of the prices for one model and node the one that began last counts. */
function stateOf(price: PriceView, prices: readonly PriceView[], nowMs: number): string {
  if (price.fromMs > nowMs) return 'to come';
  const isOver = prices.some(
    (other) =>
      other.model === price.model && other.node === price.node && other.fromMs <= nowMs && other.fromMs > price.fromMs,
  );
  return isOver ? 'over' : 'counts';
}

/** Prices in credits for a million tokens. @param prices All of them, or one that was just set. */
export const priceTable = (prices: readonly PriceView[], nowMs: number): string =>
  prices.length === 0
    ? 'no prices: everything is free'
    : columns(
        ['MODEL', 'NODE', 'PROMPT', 'CACHED', 'COMPLETION', 'STATE', 'FROM', 'PRICE'],
        prices.map((row) => [
          row.model,
          row.node === undefined ? 'all' : short(row.node),
          printMicro(row.prompt),
          printMicro(row.cached),
          printMicro(row.completion),
          stateOf(row, prices, nowMs),
          moment(row.fromMs),
          row.price,
        ]),
      );
