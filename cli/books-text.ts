/** What a gateway keeps account of, as `helixflow status` shows it: tabs with nodes, money that it holds, what was used. */

import type { GatewayPeer } from '../gateway/peer.ts';
import { printMicro } from '../ledger/amounts.ts';
import type { BudgetStatus, ShareStatus } from '../ledger/budgets.ts';
import type { OrphanLease } from '../ledger/lease-orphans.ts';
import type { TabStatus } from '../ledger/tabs.ts';

/** The books of one gateway. */
export interface BooksView {
  readonly tabs: readonly TabStatus[];
  /** Budgets that this gateway spends from, with the leases that it holds. */
  readonly budgets: readonly BudgetStatus[];
  /** Limits that it shares with other gateways. */
  readonly shares: ShareStatus;
  /** Gateways that strict budgets wait for, after a handover or a restore; where budgets are kept. */
  readonly missing: readonly string[];
  /** Leases of strict accounts that a killed process of this gateway left open; absent from an older daemon. */
  readonly orphans?: readonly OrphanLease[];
  /** Of every gateway, as far as it is known here. */
  readonly usage: {
    readonly requests: number;
    readonly attempts: number;
    readonly promptTokens: number;
    readonly completionTokens: number;
    readonly accountMicro: number;
    readonly gatewayMicro: number;
    readonly refused: number;
    readonly lower: number;
    readonly statements: number;
    /** Statements that no node has signed in time. */
    readonly unattested: number;
    /** Records of nodes whose work some gateway does not cover. */
    readonly claims: number;
  };
  /** Why no new work begins: lines cannot be written. */
  readonly refusal?: string;
}

export function booksView({ tabs, budgets, usage }: Pick<GatewayPeer, 'tabs' | 'budgets' | 'usage'>): BooksView {
  const { cachedTokens: _, ...totals } = usage.totals();
  const refusal = tabs.refusal();
  return {
    tabs: tabs.status(),
    budgets: budgets.status(),
    shares: budgets.shares(),
    missing: budgets.missing(),
    orphans: budgets.orphans(),
    usage: totals,
    ...(refusal === undefined ? {} : { refusal: refusal.code }),
  };
}

const short = (id: string): string => (id.length > 16 ? `…${id.slice(-8)}` : id);
const count = (amount: number, noun: string): string => `${amount} ${noun}${amount === 1 ? '' : 's'}`;
const listed = (parts: readonly (readonly [number, string])[]): string =>
  parts.flatMap(([amount, words]) => (amount === 0 ? [] : [`, ${amount} ${words}`])).join('');

/** What went as it should is not told in detail. */
function tabLine({ node, lines, statements, running, unstated, waiting, unattested, refused }: TabStatus): string {
  const open = listed([
    [running, 'running'],
    [unstated, 'not stated yet'],
    [waiting, 'waiting for a signature'],
    [unattested, 'UNATTESTED'],
    [refused, 'refused'],
  ]);
  return `    ${short(node)}  ${count(lines, 'line')} in ${count(statements, 'statement')}${open}`;
}

function budgetLine({ account, leases, heldMicro, graceMicro }: BudgetStatus): string {
  const [amount, left] = leases.reduce(([a, l], lease) => [a + lease.amountMicro, l + lease.leftMicro], [0, 0]);
  const held = heldMicro === 0 ? '' : `, ${printMicro(heldMicro)} held for requests under way`;
  const grace = graceMicro === 0 ? '' : `, ${printMicro(graceMicro)} spent without a lease today`;
  const inLeases = `${printMicro(left)} left of ${printMicro(amount)} usd in ${count(leases.length, 'lease')}`;
  return `    ${account}  ${amount === 0 ? 'no lease' : inLeases}${held}${grace}`;
}

const orphanLine = ({ lease, account, amountMicro }: OrphanLease): string =>
  `  OPEN LEASE  ${printMicro(amountMicro)} usd of ${account}, from a process that was killed: helixflow accounts writeoff ${lease}`;

function usageLine({ requests, promptTokens, completionTokens, accountMicro, ...rest }: BooksView['usage']): string {
  const disputes = listed([
    [rest.lower, 'at the lower of two counts'],
    [rest.refused, 'refused'],
    [rest.unattested, 'unattested'],
    [rest.claims, 'claims'],
  ]);
  const own = rest.gatewayMicro === 0 ? '' : `, ${printMicro(rest.gatewayMicro)} usd paid by gateways`;
  return `${count(requests, 'request')}, ${promptTokens} + ${completionTokens} tokens, ${printMicro(accountMicro)} usd${own}${disputes}`;
}

/** Lines for one screen. */
export function booksLines({ tabs, budgets, shares, missing, orphans = [], usage, refusal }: BooksView): string[] {
  const shown = budgets.filter(
    ({ leases, heldMicro, graceMicro }) =>
      heldMicro + graceMicro > 0 || leases.some(({ amountMicro }) => amountMicro > 0),
  );
  return [
    ...(refusal === undefined ? [] : [`  SERVES NOTHING: usage cannot be written down (${refusal})`]),
    `  usage       ${usageLine(usage)}`,
    ...(tabs.length === 0 ? [] : ['  tabs', ...tabs.map(tabLine)]),
    ...(shown.length === 0 ? [] : ['  budgets', ...shown.map(budgetLine)]),
    ...orphans.map(orphanLine),
    ...(shares.shared === 0
      ? []
      : [
          `  limits      ${shares.shared} shared with other gateways${listed([[shares.unshared, 'in full here for now']])}`,
        ]),
    ...(missing.length === 0 ? [] : [`  WAITING     strict budgets wait for ${missing.map(short).join(', ')}`]),
  ];
}
