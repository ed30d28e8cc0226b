/** `GET /v1/usage`: what the caller's own key or account has used, in the shape of OpenAI's usage API. */

import { printMicro } from '../../ledger/amounts.ts';
import type { UsageCounts, UsageDimension, UsageFilter, UsageKey, UsageRow } from '../../ledger/usage.ts';
import { addCounts, noCounts } from '../../ledger/usage.ts';
import { isKeyId, type KeyId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { UnixMs } from '../../protocol/units.ts';
import type { Access } from '../access/judge.ts';
import type { Owners } from '../admin/owners.ts';
import { malformed, unsupported } from './refuse.ts';

const dayS = 86_400;
const bucketsDefault = 7;
const bucketsMax = 31;
const filtersMax = 64;
/** The last second that a date can tell. */
const lastS = 8_640_000_000_000;

const groupings = ['model', 'api_key_id', 'project_id'] as const;
type Grouping = (typeof groupings)[number];
const notHere: ReadonlySet<string> = new Set(['user_id', 'batch', 'service_tier', 'api_source']);

/** What is asked for; days since 1970, the last not included. */
export interface UsageQuery {
  readonly scope: 'key' | 'account';
  readonly groupBy: ReadonlySet<Grouping>;
  /** Empty: all. */
  readonly models: ReadonlySet<string>;
  readonly keys: readonly KeyId[];
  readonly fromDay: number;
  readonly untilDay: number;
  /** Buckets of one page. */
  readonly limit: number;
}

/** What OpenAI's API takes beside that, and what none of it would mean here. */
const refusals: ReadonlyMap<string, string> = new Map([
  ['project_ids', 'a key sees the usage of its own account only'],
  ['user_ids', 'keys belong to accounts here, not to users'],
  ['batch', 'there are no batches here'],
]);
const known: ReadonlySet<string> = new Set([
  'start_time',
  'end_time',
  'bucket_width',
  'group_by',
  'models',
  'api_key_ids',
  'limit',
  'page',
  'scope',
]);

/** Values by name; lists come repeated, with brackets, or separated by commas. */
function fieldsOf(search: string): ReadonlyMap<string, readonly string[]> {
  const fields = new Map<string, string[]>();
  for (const [written, value] of new URLSearchParams(search)) {
    const name = written.replace(/\[\d{0,3}\]$/, '');
    const why = refusals.get(name);
    if (why !== undefined) throw unsupported(name, why);
    if (!known.has(name)) throw malformed(name.slice(0, 64), 'there is no such parameter');
    fields.set(name, [...(fields.get(name) ?? []), value]);
  }
  return fields;
}

function oneOf(fields: ReadonlyMap<string, readonly string[]>, name: string): string | undefined {
  const values = fields.get(name) ?? [];
  if (values.length > 1) throw malformed(name, 'it is given twice');
  return values[0];
}

function countOf(text: string | undefined, name: string, max: number, min = 0): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw malformed(name, `expected a whole number from ${min} to ${max}`);
}

function listOf(fields: ReadonlyMap<string, readonly string[]>, name: string): readonly string[] {
  const values = [...new Set((fields.get(name) ?? []).flatMap((value) => value.split(',')))];
  if (values.length <= filtersMax && values.every((value) => value !== '')) return values;
  throw malformed(name, `expected a list of at most ${filtersMax}`);
}

const isGrouping = (name: string): name is Grouping => (groupings as readonly string[]).includes(name);

function groupByOf(names: readonly string[]): ReadonlySet<Grouping> {
  for (const name of names) {
    if (notHere.has(name)) throw unsupported('group_by', `there is no ${name} here`);
    if (!isGrouping(name)) throw malformed('group_by', `expected any of ${groupings.join(', ')}`);
  }
  return new Set(names.filter(isGrouping));
}

function widthOf(width = '1d'): void {
  if (width === '1m' || width === '1h') throw unsupported('bucket_width', 'usage is kept by whole UTC days (1d)');
  if (width !== '1d') throw malformed('bucket_width', 'expected 1d');
}

function scopeOf(scope = 'key'): UsageQuery['scope'] {
  if (scope === 'key' || scope === 'account') return scope;
  throw malformed('scope', 'expected key or account');
}

const pageName = /^page_(\d{1,9})$/;
function dayOfPage(page: string | undefined): number | undefined {
  if (page === undefined) return undefined;
  const [, day] = pageName.exec(page) ?? [];
  if (day !== undefined) return Number(day);
  throw malformed('page', 'expected next_page of the page before');
}

/**
 * Reads a query. Times are seconds since 1970 and are widened to whole UTC days.
 * @throws HelixFlowError REQUEST_MALFORMED, REQUEST_UNSUPPORTED
 */
export function parseUsageQuery(search: string, nowMs: UnixMs): UsageQuery {
  const fields = fieldsOf(search);
  widthOf(oneOf(fields, 'bucket_width'));
  const limit = countOf(oneOf(fields, 'limit'), 'limit', bucketsMax, 1) ?? bucketsDefault;
  const tomorrow = Math.floor(nowMs / 1_000 / dayS) + 1;
  const endS = countOf(oneOf(fields, 'end_time'), 'end_time', lastS) ?? tomorrow * dayS;
  const untilDay = Math.min(tomorrow, Math.ceil(endS / dayS));
  const startS = countOf(oneOf(fields, 'start_time'), 'start_time', lastS) ?? Math.max(0, untilDay - limit) * dayS;
  if (endS <= startS) throw malformed('end_time', 'expected a time after start_time');
  const firstDay = Math.floor(startS / dayS);
  if (firstDay >= tomorrow) throw malformed('start_time', 'expected a time that is not to come');
  const fromDay = dayOfPage(oneOf(fields, 'page')) ?? firstDay;
  if (fromDay < firstDay || fromDay >= untilDay) throw malformed('page', 'it belongs to another query');
  const models = listOf(fields, 'models');
  if (models.some((model) => model.length > limits.modelNameMaxChars)) throw malformed('models', 'a name is too long');
  const keys = listOf(fields, 'api_key_ids');
  if (!keys.every(isKeyId)) throw malformed('api_key_ids', 'expected key ids: 16 hex characters each');
  return {
    scope: scopeOf(oneOf(fields, 'scope')),
    groupBy: groupByOf(listOf(fields, 'group_by')),
    models: new Set(models),
    keys: keys as readonly KeyId[],
    fromDay,
    untilDay,
    limit,
  };
}

/** What the page of a query may show of all usage: never more than the caller's own key, or account. */
export function usageFilterFor(query: UsageQuery, caller: Access, owners: Owners): UsageFilter {
  const { issuer, account, keyId } = caller;
  const { scope, keys, fromDay, untilDay, limit } = query;
  const isOwn = scope === 'key' ? owners.isKey(issuer, keyId) : owners.isAccount(issuer, account);
  const isAsked = keys.map((key) => owners.isKey(issuer, key));
  return {
    sinceDay: fromDay,
    untilDay: Math.min(untilDay, fromDay + limit),
    caller: (row) => isOwn(row) && (isAsked.length === 0 || isAsked.some((isKey) => isKey(row))),
  };
}

/** What has to be told apart for it. */
export const dimensionsOf = ({ scope, groupBy, models }: UsageQuery): readonly UsageDimension[] => [
  'day',
  ...(groupBy.has('model') || models.size > 0 ? (['model'] as const) : []),
  ...(groupBy.has('api_key_id') && scope === 'account' ? (['key'] as const) : []),
];

interface Group {
  readonly model: string | null;
  readonly key: string | null;
  counts: UsageCounts;
}

function resultOf({ model, key, counts }: Group, account: string | null): object {
  return {
    object: 'organization.usage.completions.result',
    input_tokens: counts.promptTokens,
    output_tokens: counts.completionTokens,
    input_cached_tokens: counts.cachedTokens,
    num_model_requests: counts.requests,
    project_id: account,
    user_id: null,
    api_key_id: key,
    model,
    batch: null,
    helixflow: {
      attempts: counts.attempts,
      cost_micro_credits: counts.accountMicro,
      cost_credits: printMicro(counts.accountMicro),
    },
  };
}

/** @returns the groups of each day, in the order of their names. */
function groupsByDay(rows: readonly UsageRow[], query: UsageQuery, keyOf: (row: UsageKey) => string | null) {
  const { groupBy, models } = query;
  const days = new Map<number, Map<string, Group>>();
  for (const [row, counts] of rows) {
    if (models.size > 0 && !models.has(row.model)) continue;
    const model = groupBy.has('model') ? row.model : null;
    const key = groupBy.has('api_key_id') ? keyOf(row) : null;
    const groups = days.get(row.day) ?? new Map<string, Group>();
    days.set(row.day, groups);
    const name = `${model ?? ''}\n${key ?? ''}`;
    const group = groups.get(name) ?? { model, key, counts: noCounts };
    group.counts = addCounts(group.counts, counts);
    groups.set(name, group);
  }
  const sorted = (groups: ReadonlyMap<string, Group> | undefined): readonly Group[] =>
    [...(groups ?? [])].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
  return (day: number): readonly Group[] => sorted(days.get(day));
}

/** A page as JSON. @param rows Those that `usageFilterFor` lets through, by `dimensionsOf`; their keys have been learnt. */
export function usagePage(query: UsageQuery, caller: Access, rows: readonly UsageRow[], owners: Owners): string {
  const { scope, groupBy, fromDay, untilDay, limit } = query;
  const endDay = Math.min(untilDay, fromDay + limit);
  const groupsOf = groupsByDay(rows, query, (row) => (scope === 'key' ? caller.keyId : (owners.keyOf(row) ?? null)));
  const account = groupBy.has('project_id') ? caller.account : null;
  const data = Array.from({ length: endDay - fromDay }, (_, at) => {
    const day = fromDay + at;
    return {
      object: 'bucket',
      start_time: day * dayS,
      end_time: (day + 1) * dayS,
      results: groupsOf(day).map((group) => resultOf(group, account)),
    };
  });
  const hasMore = endDay < untilDay;
  return JSON.stringify({
    object: 'page',
    data,
    has_more: hasMore,
    next_page: hasMore ? `page_${endDay}` : null,
  });
}
