/** Accounts: opened, listed, changed, taken along and erased; and the leases on their budgets. */

import { z } from 'zod';
import type { ToldEntry } from '../../ledger/account-entries.ts';
import type { AuditLine } from '../../ledger/audit.ts';
import type { BudgetSheet } from '../../ledger/budgets.ts';
import type { Desk, Named } from '../../ledger/desk.ts';
import { type Budget, budgetMaxMicro } from '../../ledger/money.ts';
import type { AccountStanding } from '../../ledger/standing.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { type RateLimits, rateLimitsShape } from '../../protocol/grants.ts';
import type { AccountId } from '../../protocol/ids.ts';
import type { UnixMs } from '../../protocol/units.ts';
import { changed, given, inLane } from './changes.ts';
import { accountField, budgetField, leaseField, limitsChange, nameField } from './fields.ts';
import { type KeyView, keyView } from './key-operations.ts';
import { pageInput, pageOf } from './lists.ts';
import { type AdminContext, actorOf, admins, type Caller, deskFor, operation, watchers } from './operation.ts';
import { usageOfAccount } from './usage-operations.ts';
import type { UsageView } from './usage-rows.ts';

export interface AccountView {
  readonly account: AccountId;
  /** It was closed for good. */
  readonly state: 'open' | 'erased';
  readonly name?: string;
  /** Of all its keys together. */
  readonly limits: RateLimits;
  readonly strict: boolean;
  /** Absent: as much as it likes. */
  readonly budget?: Budget;
  readonly createdMs: UnixMs;
}

/** One account with what its budget has come to. */
export interface AccountSheetView extends AccountView {
  /** Absent without a budget, and where the budget is kept by another gateway. */
  readonly sheet?: Omit<BudgetSheet, 'account'>;
}

const accountView = ({
  account,
  name,
  limits,
  strict,
  budget,
  isErased,
  createdMs,
}: AccountStanding & Named): AccountView =>
  given({
    account,
    state: isErased === true ? 'erased' : 'open',
    name,
    limits,
    strict,
    budget,
    createdMs,
  } as AccountView);

async function accountAt(desk: Desk, account: AccountId): Promise<AccountStanding & Named> {
  const found = (await desk.accounts()).find((each) => each.account === account);
  if (found === undefined) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'account', id: account });
  return found;
}

function sheetView(context: AdminContext, found: AccountStanding & Named): AccountSheetView {
  const sheet = context.records?.sheet(found.account);
  const view = accountView(found);
  if (sheet === undefined) return view;
  const { account: _, spentMicro, leasedMicro, ...rest } = sheet;
  // What lines have taken from open leases is spent; the rest of those comes back.
  const openMicro = rest.leases.reduce((sum, lease) => sum + (lease.state === 'open' ? lease.spentMicro : 0), 0);
  const sums = { spentMicro: spentMicro + openMicro, leasedMicro: Math.max(0, leasedMicro - openMicro) };
  return { ...view, sheet: { ...rest, ...sums } };
}

/** Everything about one account, as JSON. */
export interface AccountExportView {
  readonly account: AccountSheetView;
  readonly keys: readonly KeyView[];
  readonly entries: readonly ToldEntry[];
  /** By day, key, model, node and gateway; only days whose tags can still be told. */
  readonly usage: readonly UsageView[];
  /** What was done to the account and its keys, and what was done with them. */
  readonly audit: readonly AuditLine[];
  /** False where there is more than this. */
  readonly isComplete: boolean;
}

/** Lines of the audit log that are looked through, the newest. */
const auditLinesMax = 100_000;
/** Rows of usage, and lines of the audit log, that one export holds: what a client takes in one answer. */
const exportedRowsMax = 10_000;

async function exportAccount(context: AdminContext, account: AccountId, caller: Caller): Promise<AccountExportView> {
  const told = await deskFor(context, caller).exportAccount(account, actorOf(caller));
  const nowMs = context.clock.wallMs();
  const about = new Set([`account:${account}`, ...told.keys.map(({ key }) => `key:${key}`)]);
  const lines = await context.audit.tail(auditLinesMax);
  const audit = lines.filter(({ actor, object }) => about.has(actor) || about.has(object));
  const usage = await usageOfAccount(context, account);
  const isWhole = lines.length < auditLinesMax && audit.length <= exportedRowsMax && usage.length <= exportedRowsMax;
  return {
    account: sheetView(context, told.account),
    keys: told.keys.map((key) => keyView(key, nowMs)),
    entries: told.entries,
    usage: usage.slice(-exportedRowsMax),
    audit: audit.slice(-exportedRowsMax),
    isComplete: told.isComplete && isWhole,
  };
}

export const accountOperations = {
  'accounts.create': operation({
    method: 'POST',
    path: 'accounts',
    roles: admins,
    about: 'Opens an account; its limits and its budget are those of all its keys together.',
    input: z.strictObject({
      name: nameField,
      limits: rateLimitsShape.default({}),
      strict: z.boolean().default(false),
      budget: budgetField.optional(),
    }),
    run: async (context, { budget, ...request }, caller) => {
      const asked = { ...request, ...(budget === undefined ? {} : { budget }) };
      return accountView(await deskFor(context, caller).createAccount(asked, actorOf(caller)));
    },
  }),
  'accounts.list': operation({
    method: 'GET',
    path: 'accounts',
    roles: watchers,
    about: 'Lists the accounts of this issuer, also those that were erased.',
    input: pageInput,
    run: async (context, page, caller) => {
      const { data, hasMore } = pageOf(await deskFor(context, caller).accounts(), ({ account }) => account, page);
      return { data: data.map(accountView), hasMore };
    },
  }),
  'accounts.show': operation({
    method: 'GET',
    path: 'accounts/:account',
    roles: watchers,
    about: 'Shows one account, with what its budget has come to and the leases on it.',
    input: z.strictObject({ account: accountField }),
    run: async (context, { account }, caller): Promise<AccountSheetView> => {
      return sheetView(context, await accountAt(deskFor(context, caller), account));
    },
  }),
  'accounts.set': operation({
    method: 'PATCH',
    path: 'accounts/:account',
    roles: admins,
    about: 'Changes an account; what is not named stays. A null limit, budget or name removes it.',
    input: z.strictObject({
      account: accountField,
      name: nameField.nullable().optional(),
      limits: limitsChange.optional(),
      strict: z.boolean().optional(),
      budget: budgetField.nullable().optional(),
    }),
    run: async (context, { account, name, limits, strict, budget }, caller) => {
      const desk = deskFor(context, caller);
      if (name !== undefined) await desk.rename(`account:${account}`, name ?? undefined, actorOf(caller));
      return inLane(desk, account, async () => {
        const before = await accountAt(desk, account);
        if (limits === undefined && strict === undefined && budget === undefined) return accountView(before);
        const change = given({ limits: limits && changed(before.limits, limits), strict, budget });
        return accountView(await desk.setAccount(account, change, actorOf(caller)));
      });
    },
  }),
  'accounts.export': operation({
    method: 'POST',
    path: 'accounts/:account/export',
    roles: admins,
    about:
      'Gives everything that this gateway can tell of an account: what was written of it and of its keys, its usage, its budget and its lines of the audit log. No secrets: those are kept nowhere.',
    input: z.strictObject({ account: accountField }),
    run: (context, { account }, caller) => exportAccount(context, account, caller),
  }),
  'accounts.erase': operation({
    method: 'POST',
    path: 'accounts/:account/erase',
    roles: admins,
    about:
      'Closes an account for good: ends its keys with what they have under way, forgets its name and theirs, and lets no gateway tell any more what was its. Cannot be taken back.',
    input: z.strictObject({ account: accountField }),
    run: async (context, { account }, caller) => deskFor(context, caller).eraseAccount(account, actorOf(caller)),
  }),
  'leases.writeOff': operation({
    method: 'POST',
    path: 'leases/:lease/write-off',
    roles: admins,
    about:
      'Gives up on a lease that its gateway does not close: all of it but spentMicro (or what its lines come to here) is free again.',
    input: z.strictObject({ lease: leaseField, spentMicro: z.int().min(0).max(budgetMaxMicro).optional() }),
    run: async (context, { lease, spentMicro }, caller) => {
      const { kind: _, ...entry } = await deskFor(context, caller).writeOff(lease, spentMicro, actorOf(caller));
      return entry;
    },
  }),
};
