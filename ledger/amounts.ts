/** Amounts of money as people write them, and back: decimals without floats, exact to the micro-credit. */

import { type Budget, type BudgetPeriod, budgetMaxMicro, budgetPeriods } from './money.ts';

/** One credit, which is one US dollar where a mesh settles in money. */
export const creditMicro = 1_000_000;
const digits = 6;

const decimal = /^(\d{1,15})(?:\.(\d{1,6}))?$/;
const budget = /^(\d{1,15}(?:\.\d{1,6})?)(usd|credits?)\/([a-z]+)$/;

/**
 * The micro-credits of a decimal number of credits, such as `0.15`.
 * @returns undefined for anything else: signs, exponents, more than six decimals, more than `maxMicro`.
 */
export function parseMicro(text: string, maxMicro: number): number | undefined {
  const found = decimal.exec(text);
  if (found === null) return undefined;
  const [, whole = '', fraction = ''] = found;
  const micro = BigInt(whole) * BigInt(creditMicro) + BigInt(fraction.padEnd(digits, '0'));
  return micro <= BigInt(maxMicro) ? Number(micro) : undefined;
}

/** `1500000` as `1.5`: the shortest decimal that `parseMicro` reads as the same. */
export function printMicro(micro: number): string {
  const sign = micro < 0 ? '-' : '';
  const all = String(Math.abs(micro)).padStart(digits + 1, '0');
  const fraction = all.slice(-digits).replace(/0+$/, '');
  return `${sign}${all.slice(0, -digits)}${fraction === '' ? '' : `.${fraction}`}`;
}

const isPeriod = (text: string): text is BudgetPeriod => (budgetPeriods as readonly string[]).includes(text);

/** `10usd/month`, `500000credits/total`: `usd` and `credits` are the same. @returns undefined for anything else. */
export function parseBudget(text: string): Budget | undefined {
  const [, amount = '', , period = ''] = budget.exec(text) ?? [];
  const amountMicro = parseMicro(amount, budgetMaxMicro);
  return amountMicro === undefined || !isPeriod(period) ? undefined : { amountMicro, period };
}

/** What a budget looks like, in words. */
export const budgetText = `an amount and a period, such as 10usd/month, 2.5usd/day or 500000credits/total (1 usd is 1 credit), at most six decimals`;

/** A budget as `parseBudget` reads it. */
export const printBudget = ({ amountMicro, period }: Budget): string => `${printMicro(amountMicro)}usd/${period}`;
