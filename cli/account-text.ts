/** Accounts, their budgets and leases in words and in JSON lines. */

import type { AccountSheetView, AccountView } from '../gateway/admin/account-operations.ts';
import { printBudget, printMicro } from '../ledger/amounts.ts';
import type { BudgetSheet } from '../ledger/budgets.ts';
import { limitsCell } from './key-text.ts';
import { columns, isoOf, moment } from './lists.ts';

export const accountValue = (shown: AccountView): object => {
  const { account, state, name, limits, strict, budget, createdMs } = shown;
  return { id: account, state, name, limits, strict, budget, created: isoOf(createdMs) };
};

const strictCell = (strict: boolean): string => (strict ? 'yes' : 'no');
const budgetCell = ({ budget }: AccountView): string => (budget === undefined ? 'none' : printBudget(budget));
const nameCell = ({ state, name }: AccountView): string => (state === 'erased' ? '(erased)' : (name ?? '-'));

export const accountTable = (accounts: readonly AccountView[]): string =>
  accounts.length === 0
    ? 'no accounts'
    : columns(
        ['ACCOUNT', 'NAME', 'LIMITS', 'BUDGET', 'STRICT', 'CREATED'],
        accounts.map((shown) => [
          shown.account,
          nameCell(shown),
          limitsCell(shown.limits),
          budgetCell(shown),
          strictCell(shown.strict),
          moment(shown.createdMs),
        ]),
      );

type Sheet = Omit<BudgetSheet, 'account'>;

const credits = (micro: number): string => `${printMicro(micro)} usd`;
const periodText = { day: 'today (UTC)', month: 'this month (UTC)', total: 'in all' } as const;

function sheetLines({ amountMicro, period, spentMicro, leasedMicro, leftMicro }: Sheet): string[] {
  return [
    `spent     ${credits(spentMicro)} of ${credits(amountMicro)} ${periodText[period]}`,
    `leased    ${credits(leasedMicro)} more, until its gateways give it back`,
    `left      ${credits(leftMicro)}`,
  ];
}

const leaseTable = ({ leases }: Sheet): string[] =>
  leases.length === 0
    ? []
    : [
        '',
        columns(
          ['LEASE', 'STATE', 'AMOUNT', 'SPENT', 'HOLDER'],
          leases.map(({ lease, state, amountMicro, spentMicro, holder }) => [
            lease,
            state,
            printMicro(amountMicro),
            printMicro(spentMicro),
            holder,
          ]),
        ),
      ];

const strictNote =
  'A lease of a strict account stays open where its gateway was killed: helixflow accounts writeoff <lease> frees the rest.';

/** One account on lines of its own, with what its budget has come to. */
export function accountText(shown: AccountSheetView): string {
  const { account, limits, strict, createdMs, sheet, budget } = shown;
  const isElsewhere = sheet === undefined && budget !== undefined;
  return [
    `account   ${account}  ${nameCell(shown)}`,
    `limits    ${limitsCell(limits)}`,
    `strict    ${strictCell(strict)}`,
    `budget    ${budgetCell(shown)}`,
    ...(isElsewhere ? ['spent     not known here: its budget is kept by the gateway that holds its issuer’s key'] : []),
    ...(sheet === undefined ? [] : sheetLines(sheet)),
    `created   ${moment(createdMs)}`,
    ...(sheet === undefined ? [] : leaseTable(sheet)),
    ...(strict && sheet?.leases.some(({ state }) => state === 'open') ? ['', strictNote] : []),
  ].join('\n');
}

export const accountSheetValue = (shown: AccountSheetView): object => ({
  ...accountValue(shown),
  ...(shown.sheet === undefined ? {} : { sheet: shown.sheet }),
});
