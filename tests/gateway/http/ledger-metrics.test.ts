/** The ledger in numbers: what is counted, that it is read once for a scrape, and how long signatures took. */

import { Registry } from '@prometheus-io/client';
import { test } from 'vitest';
import { addLedgerMetrics, type LedgerMetricsSource } from '../../../gateway/http/ledger-metrics.ts';
import type { BudgetStatus } from '../../../ledger/budgets.ts';
import type { HeldEntry } from '../../../ledger/feeds.ts';
import type { LedgerStatus } from '../../../ledger/ledger.ts';
import type { TabStatus } from '../../../ledger/tabs.ts';
import type { AuthorId } from '../../../protocol/ids.ts';
import { peer } from '../../protocol/mesh-fixture.ts';
import { counts } from '../admin/records-stage.ts';

const own = '0a'.repeat(32) as AuthorId;
const other = '0b'.repeat(32) as AuthorId;
const tab = (changes: Partial<TabStatus> = {}): TabStatus => ({
  node: peer('node'),
  running: 1,
  unstated: 2,
  waiting: 3,
  unattested: 4,
  statements: 5,
  lines: 60,
  refused: 7,
  ...changes,
});

function stage() {
  const registry = new Registry();
  let reads = 0;
  let tell: (held: HeldEntry) => void = () => {};
  const budget = { leases: [{ amountMicro: 1_500_000, leftMicro: 250_000 }], heldMicro: 10, graceMicro: 20 };
  const source: LedgerMetricsSource = {
    tabs: {
      status: () => {
        reads += 1;
        return [tab(), tab({ node: peer('other'), lines: 40 })];
      },
    },
    budgets: { status: () => [budget as unknown as BudgetStatus], shares: () => ({ shared: 2, unshared: 1 }) },
    usage: {
      totals: () => ({ ...counts({ accountMicro: 2_500_000, refused: 1 }), statements: 9, claims: 2, unattested: 3 }),
    },
    ledger: {
      status: () => ({ authors: 2, blocks: 40, frozen: ['x'] }) as unknown as LedgerStatus,
      onEntry: (listener) => {
        tell = listener;
        return () => {};
      },
      isOwn: (author) => author === own,
    },
  };
  addLedgerMetrics(registry, source);
  return { registry, tell: (held: object) => tell(held as HeldEntry), reads: () => reads };
}

test('lines, statements, leases and settlement are counted, over all nodes and accounts', async ({ expect }) => {
  const { registry, reads } = stage();
  const text = await registry.metrics();
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#') && !line.includes('_seconds_'));
  expect(lines).toEqual([
    'helixflow_gateway_attempts_running 2',
    'helixflow_gateway_lines 100',
    'helixflow_gateway_lines_unstated 4',
    'helixflow_gateway_lines_refused 14',
    'helixflow_gateway_statements 10',
    'helixflow_gateway_statements_waiting 6',
    'helixflow_gateway_statements_unattested 8',
    'helixflow_gateway_leases 1',
    'helixflow_gateway_leased_credits 1.5',
    'helixflow_gateway_lease_left_credits 0.25',
    'helixflow_gateway_held_credits 0.00001',
    'helixflow_gateway_grace_credits 0.00002',
    'helixflow_gateway_limits_shared 2',
    'helixflow_gateway_limits_unshared 1',
    'helixflow_ledger_blocks 40',
    'helixflow_ledger_authors 2',
    'helixflow_ledger_authors_frozen 1',
    'helixflow_ledger_statements 9',
    'helixflow_ledger_statements_unattested 3',
    'helixflow_ledger_claims 2',
    'helixflow_ledger_requests 1',
    'helixflow_ledger_attempts 1',
    'helixflow_ledger_attempts_refused 1',
    'helixflow_ledger_attempts_lower 0',
    'helixflow_ledger_accounts_credits 2.5',
    'helixflow_ledger_gateways_credits 0',
  ]);
  expect(reads()).toBe(1);
  await registry.metrics();
  expect(reads()).toBe(2);
});

test('the wait for a signature is that of own statements alone', async ({ expect }) => {
  const { registry, tell } = stage();
  const node = peer('node');
  const epoch = 'e0'.repeat(16);
  const at = (timeMs: number, author = own) => ({ author, epoch, timeMs, number: 0 });
  const signed = { kind: 'countersign', node, epoch };
  tell({ entry: { kind: 'statement', node, number: 0 }, place: at(1_000) });
  tell({ entry: { kind: 'statement', node, number: 0 }, place: at(0, other) });
  tell({ entry: { ...signed, number: 0 }, place: at(1_250) });
  tell({ entry: { ...signed, number: 0 }, place: at(9_000, other) });
  tell({ entry: { ...signed, number: 1 }, place: at(9_000) });
  const text = await registry.metrics();
  expect(text).toContain('helixflow_gateway_countersign_seconds_sum 0.25');
  expect(text).toContain('helixflow_gateway_countersign_seconds_count 1');
});
