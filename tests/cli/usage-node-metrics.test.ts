/** What a node counts of its tabs with gateways, for scrapers. */

import { test } from 'vitest';
import { type CountedNode, createNodeMetrics } from '../../cli/node-metrics.ts';
import type { WorkStatus } from '../../ledger/work.ts';
import { ms } from '../../protocol/units.ts';
import { peer } from '../protocol/mesh-fixture.ts';

const tab = (name: string, changes: Partial<WorkStatus>): WorkStatus => ({
  gateway: peer(name),
  running: 0,
  uncovered: 0,
  uncoveredMs: ms(0),
  statements: 0,
  lines: 0,
  refused: 0,
  claimed: 0,
  ...changes,
});

const served = { done: 3, failed: 0, cancelled: 0 };
const node = (tabs: readonly WorkStatus[]): CountedNode => ({
  server: { status: () => ({ active: 1, queued: 0, slots: 8, tokensPerSecond: 0, offeredTo: [], served }) } as never,
  tabs: { status: () => tabs },
});

test('work that no statement covers, and the age of the oldest, over all gateways', async ({ expect }) => {
  const tabs = [
    tab('a', { uncovered: 2, uncoveredMs: ms(9_500), lines: 40, refused: 1 }),
    tab('b', { uncovered: 1, uncoveredMs: ms(300), lines: 2, claimed: 4 }),
  ];
  const text = await createNodeMetrics(node(tabs), '1').metrics();
  for (const line of [
    'helixflow_node_uncovered_attempts 3',
    'helixflow_node_uncovered_age_seconds 9.5',
    'helixflow_node_lines 42',
    'helixflow_node_lines_refused 1',
    'helixflow_node_claims 4',
  ]) {
    expect(text.split('\n')).toContain(line);
  }
  const alone = await createNodeMetrics(node([]), '1').metrics();
  expect(alone.split('\n')).toContain('helixflow_node_uncovered_age_seconds 0');
});
