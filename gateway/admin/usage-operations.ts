/** What was used, in sums: by account, key, model, node, gateway and day. */

import { z } from 'zod';
import type { Named } from '../../ledger/desk.ts';
import type { AccountStanding, KeyStanding } from '../../ledger/standing.ts';
import { type UsageDimension, usageDimensions } from '../../ledger/usage.ts';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import type { AccountId, KeyId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { dayMs } from '../../protocol/units.ts';
import { accountField, countField, keyField, momentField, peerField } from './fields.ts';
import { issuersOfAccount, issuersOfKey } from './issuers.ts';
import { type AdminContext, type Caller, deskFor, operation, watchers } from './operation.ts';
import type { Tagged } from './owners.ts';
import { type Records, recordsOf } from './records.ts';
import { groupUsage, type UsageView } from './usage-rows.ts';

const idMaxChars = 1_024;

const byField = z
  .union([z.string(), z.array(z.string())])
  .transform((said) => (typeof said === 'string' ? said.split(',') : said).filter((name) => name !== ''))
  .pipe(z.array(z.enum(usageDimensions)).max(usageDimensions.length))
  .transform((names): readonly UsageDimension[] => [...new Set(names)])
  .meta({ description: `a list, separated by commas: ${usageDimensions.join(', ')}` });

/** One that nobody has heard of, or that was erased, is told apart from one that used nothing. */
function known<Id>(kind: 'account' | 'key', id: string, issuers: readonly Id[]): readonly Id[] {
  if (issuers.length === 0) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind, id });
  return issuers;
}

/** Only rows of one account, or of one key. @throws HelixFlowError SUBJECT_UNKNOWN */
function callerFilter(
  context: AdminContext,
  { owners }: Records,
  { account, key }: { readonly account?: AccountId | undefined; readonly key?: KeyId | undefined },
): ((row: Tagged) => boolean) | undefined {
  const tests: ((row: Tagged) => boolean)[] = [];
  if (account !== undefined) {
    const issuers = known('account', account, issuersOfAccount(context.ledger, account));
    tests.push(anyOf(issuers.map((issuer) => owners.isAccount(issuer, account))));
  }
  if (key !== undefined) {
    const issuers = known('key', key, issuersOfKey(context.ledger, key));
    tests.push(anyOf(issuers.map((issuer) => owners.isKey(issuer, key))));
  }
  return tests.length === 0 ? undefined : (row) => tests.every((test) => test(row));
}

const anyOf =
  (tests: readonly ((row: Tagged) => boolean)[]): ((row: Tagged) => boolean) =>
  (row) =>
    tests.some((test) => test(row));

/** Names are the issuer's: whoever it does not answer to sees ids. */
async function namesFor(context: AdminContext, caller: Caller, by: readonly UsageDimension[]) {
  const names = new Map<string, string>();
  try {
    const desk = deskFor(context, caller);
    const accounts: readonly (AccountStanding & Named)[] = by.includes('account') ? await desk.accounts() : [];
    const keys: readonly (KeyStanding & Named)[] = by.includes('key') ? await desk.keys() : [];
    for (const { account, name } of accounts) if (name !== undefined) names.set(account, name);
    for (const { key, name } of keys) if (name !== undefined) names.set(key, name);
  } catch (error) {
    if (!isHelixFlowError(error, 'ISSUER_MISSING')) throw error;
  }
  return names;
}

function named(row: UsageView, names: ReadonlyMap<string, string>): UsageView {
  const accountName = row.account === undefined ? undefined : names.get(row.account);
  const keyName = row.key === undefined ? undefined : names.get(row.key);
  return {
    ...row,
    ...(accountName === undefined ? {} : { accountName }),
    ...(keyName === undefined ? {} : { keyName }),
  };
}

/** All that can be told of one account; nothing where this gateway keeps no records, and of one that was erased. */
export async function usageOfAccount(context: AdminContext, account: AccountId): Promise<readonly UsageView[]> {
  const { records } = context;
  if (records === undefined || issuersOfAccount(context.ledger, account).length === 0) return [];
  const by = ['day', 'key', 'model', 'node', 'gateway'] as const;
  const rows = records.usage.rollUp({ caller: callerFilter(context, records, { account }) ?? (() => false) }, by);
  await records.owners.learn(rows.map(([key]) => key));
  return groupUsage(rows, by, records.owners).rows;
}

const usageInput = z.strictObject({
  by: byField.default([]),
  sinceMs: momentField.optional(),
  untilMs: momentField.optional(),
  account: accountField.optional(),
  key: keyField.optional(),
  model: z.string().min(1).max(limits.modelNameMaxChars).optional(),
  node: peerField.optional(),
  limit: countField(1, 10_000).default(1_000),
  after: z.string().min(1).max(idMaxChars).optional(),
});

/** Whole days; the last one counts with what has not been of it yet. */
function daysOf({ sinceMs, untilMs }: Pick<z.output<typeof usageInput>, 'sinceMs' | 'untilMs'>) {
  if (sinceMs !== undefined && untilMs !== undefined && untilMs <= sinceMs) {
    throw new HelixFlowError('CONFIG_INVALID', { reason: 'the end lies before the beginning' });
  }
  return {
    ...(sinceMs === undefined ? {} : { sinceDay: Math.floor(sinceMs / dayMs) }),
    ...(untilMs === undefined ? {} : { untilDay: Math.ceil(untilMs / dayMs) }),
  };
}

export const usageOperations = {
  'usage.show': operation({
    method: 'GET',
    path: 'usage',
    roles: watchers,
    about: 'Sums up what was used, over all gateways, in whole UTC days; without by, all of it in one sum.',
    input: usageInput,
    run: async (context, { by, limit, after, ...asked }, caller) => {
      const records = recordsOf(context);
      const { model, node } = asked;
      const isOf = callerFilter(context, records, asked);
      const filter = {
        ...daysOf(asked),
        ...(model === undefined ? {} : { model }),
        ...(node === undefined ? {} : { node }),
        ...(isOf === undefined ? {} : { caller: isOf }),
      };
      const found = records.usage.rollUp(filter, by);
      if (by.includes('account') || by.includes('key')) await records.owners.learn(found.map(([key]) => key));
      const { rows, total } = groupUsage(found, by, records.owners);
      const names = await namesFor(context, caller, by);
      const rest = after === undefined ? rows : rows.filter(({ id }) => id > after);
      const newestMs = records.usage.newestMs();
      return {
        data: rest.slice(0, limit).map((row) => named(row, names)),
        hasMore: rest.length > limit,
        total,
        ...(newestMs === undefined ? {} : { newestMs }),
      };
    },
  }),
};
