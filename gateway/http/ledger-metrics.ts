/** What the ledger of a gateway has come to, for scrapers: lines and statements, signatures, money. No peer or account is a label. */

import { Gauge, Histogram, type Registry } from '@prometheus-io/client';
import { creditMicro } from '../../ledger/amounts.ts';
import type { Budgets } from '../../ledger/budgets.ts';
import type { HeldEntry } from '../../ledger/feeds.ts';
import type { Ledger } from '../../ledger/ledger.ts';
import type { GatewayTabs } from '../../ledger/tabs.ts';
import type { Usage } from '../../ledger/usage.ts';
import { Memory } from '../../protocol/tables.ts';

/** The parts of a gateway that are counted. */
export interface LedgerMetricsSource {
  readonly tabs: Pick<GatewayTabs, 'status'>;
  readonly budgets: Pick<Budgets, 'status' | 'shares'>;
  readonly usage: Pick<Usage, 'totals'>;
  readonly ledger: Pick<Ledger, 'status' | 'onEntry' | 'isOwn'>;
}

const lagBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
/** Statements whose signatures may still come; of older ones the wait is not told. */
const waitingMax = 16_384;

const sum = <Row>(rows: readonly Row[], of: (row: Row) => number): number =>
  rows.reduce((total, row) => total + of(row), 0);

/** All of it, read once for a scrape. */
function readOnce({ tabs, budgets, usage, ledger }: LedgerMetricsSource) {
  const read = () => ({
    tabs: tabs.status(),
    leases: budgets.status().flatMap(({ leases }) => leases),
    budgets: budgets.status(),
    shares: budgets.shares(),
    usage: usage.totals(),
    ledger: ledger.status(),
  });
  let known: ReturnType<typeof read> | undefined;
  return () => {
    if (known === undefined) {
      known = read();
      queueMicrotask(() => {
        known = undefined;
      });
    }
    return known;
  };
}

/** From a statement's block to that of the node's signature, both signed here. */
function watchLag({ ledger }: LedgerMetricsSource, lag: Histogram): void {
  const statedMs = new Memory<number>(waitingMax);
  ledger.onEntry(({ entry, place }: HeldEntry) => {
    if (!ledger.isOwn(place.author)) return;
    if (entry.kind === 'statement') statedMs.set(`${place.epoch} ${entry.node} ${entry.number}`, place.timeMs);
    if (entry.kind !== 'countersign') return;
    const fromMs = statedMs.get(`${entry.epoch} ${entry.node} ${entry.number}`);
    if (fromMs !== undefined) lag.observe(Math.max(0, place.timeMs - fromMs) / 1_000);
  });
}

/** Adds them to a registry; from now on signatures are timed. */
export function addLedgerMetrics(registry: Registry, source: LedgerMetricsSource): void {
  const registers = [registry];
  const read = readOnce(source);
  type Known = ReturnType<typeof read>;
  const gauge = (name: string, help: string, of: (known: Known) => number): void => {
    const made: Gauge = new Gauge({
      name: `helixflow_${name}`,
      help,
      registers,
      collect: () => made.set(of(read())),
    });
  };
  const credits = (micro: number): number => micro / creditMicro;

  gauge('gateway_attempts_running', 'Attempts without a line yet.', ({ tabs }) => sum(tabs, (tab) => tab.running));
  gauge('gateway_lines', 'Lines that this process has stated.', ({ tabs }) => sum(tabs, (tab) => tab.lines));
  gauge('gateway_lines_unstated', 'Lines on disk that no statement holds yet.', ({ tabs }) =>
    sum(tabs, (tab) => tab.unstated),
  );
  gauge('gateway_lines_refused', 'Lines of this process that nodes refused.', ({ tabs }) =>
    sum(tabs, (tab) => tab.refused),
  );
  gauge('gateway_statements', 'Statements of this process.', ({ tabs }) => sum(tabs, (tab) => tab.statements));
  gauge('gateway_statements_waiting', 'Statements that a node has not signed yet.', ({ tabs }) =>
    sum(tabs, (tab) => tab.waiting),
  );
  gauge('gateway_statements_unattested', 'Statements that a node has not signed in time.', ({ tabs }) =>
    sum(tabs, (tab) => tab.unattested),
  );
  gauge('gateway_leases', 'Money leases that this gateway holds.', ({ leases }) => leases.length);
  gauge('gateway_leased_credits', 'What they were given for.', ({ leases }) =>
    credits(sum(leases, ({ amountMicro }) => amountMicro)),
  );
  gauge('gateway_lease_left_credits', 'What is left of them.', ({ leases }) =>
    credits(sum(leases, ({ leftMicro }) => leftMicro)),
  );
  gauge('gateway_held_credits', 'Set aside for requests under way.', ({ budgets }) =>
    credits(sum(budgets, ({ heldMicro }) => heldMicro)),
  );
  gauge('gateway_grace_credits', 'Spent without a lease in this period, at the gateway’s expense.', ({ budgets }) =>
    credits(sum(budgets, ({ graceMicro }) => graceMicro)),
  );
  gauge('gateway_limits_shared', 'Limits that other gateways share.', ({ shares }) => shares.shared);
  gauge('gateway_limits_unshared', 'Of these, those that count in full here for now.', ({ shares }) => shares.unshared);

  gauge('ledger_blocks', 'Blocks held, of every author.', ({ ledger }) => ledger.blocks);
  gauge('ledger_authors', 'Authors whose feeds are held.', ({ ledger }) => ledger.authors);
  gauge('ledger_authors_frozen', 'Authors that have forked.', ({ ledger }) => ledger.frozen.length);
  gauge('ledger_statements', 'Statements of every gateway.', ({ usage }) => usage.statements);
  gauge(
    'ledger_statements_unattested',
    'Of these, those that no node has signed in time.',
    ({ usage }) => usage.unattested,
  );
  gauge('ledger_claims', 'Records of nodes whose work a gateway does not cover.', ({ usage }) => usage.claims);
  gauge('ledger_requests', 'Requests that were billed.', ({ usage }) => usage.requests);
  gauge('ledger_attempts', 'Attempts that were settled.', ({ usage }) => usage.attempts);
  gauge('ledger_attempts_refused', 'Of these, those whose line a node refused.', ({ usage }) => usage.refused);
  gauge('ledger_attempts_lower', 'Of these, those settled at the lower of two counts.', ({ usage }) => usage.lower);
  gauge('ledger_accounts_credits', 'What accounts owe.', ({ usage }) => credits(usage.accountMicro));
  gauge('ledger_gateways_credits', 'What gateways owe themselves.', ({ usage }) => credits(usage.gatewayMicro));

  const lag = new Histogram({
    name: 'helixflow_gateway_countersign_seconds',
    help: 'From a statement to the node’s signature on it.',
    registers,
    buckets: lagBuckets,
  });
  watchLag(source, lag);
}
