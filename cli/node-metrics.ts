/** What a node counts, for `--metrics-listen`. Labels are bounded: no peer, no request. */

import { Counter, collectDefaultMetrics, Gauge, Registry } from '@prometheus-io/client';
import type { NodeTabs, WorkStatus } from '../ledger/work.ts';
import type { NodeServer } from '../node/serve.ts';

/** The parts of a node that are counted. */
export interface CountedNode {
  readonly server: NodeServer;
  readonly tabs: Pick<NodeTabs, 'status'>;
}

const sum = (tabs: CountedNode['tabs'], of: (tab: WorkStatus) => number): number =>
  tabs.status().reduce((total, tab) => total + of(tab), 0);

/** A registry that asks the server at each scrape. */
export function createNodeMetrics({ server, tabs }: CountedNode, version: string): Registry {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  new Gauge({
    name: 'helixflow_build_info',
    help: 'Always 1; the version is in the label.',
    labelNames: ['version'],
    registers,
  }).set({ version }, 1);
  const gauge = (name: string, help: string, read: () => number): void => {
    const made: Gauge = new Gauge({ name: `helixflow_node_${name}`, help, registers, collect: () => made.set(read()) });
  };
  gauge('requests_running', 'Answers being generated.', () => server.status().active);
  gauge('requests_waiting', 'Requests that wait for a slot.', () => server.status().queued);
  gauge('slots', 'Answers that can be generated at the same time.', () => server.status().slots);
  gauge('tokens_per_second', 'Decoding speed lately.', () => server.status().tokensPerSecond);
  gauge('gateways', 'Gateways that hold the current offer.', () => server.status().offeredTo.length);
  gauge('uncovered_attempts', 'Work that no statement covers yet.', () => sum(tabs, ({ uncovered }) => uncovered));
  gauge(
    'uncovered_age_seconds',
    'How old the oldest of it is, of the gateway that is furthest behind.',
    () => Math.max(0, ...tabs.status().map(({ uncoveredMs }) => uncoveredMs)) / 1_000,
  );
  gauge('lines', 'Lines that gateways have stated of this node’s work.', () => sum(tabs, ({ lines }) => lines));
  gauge('lines_refused', 'Lines that this node refused.', () => sum(tabs, ({ refused }) => refused));
  gauge('claims', 'Attempts that this node has claimed.', () => sum(tabs, ({ claimed }) => claimed));
  const attempts: Counter<'outcome'> = new Counter({
    name: 'helixflow_node_attempts_total',
    help: 'Attempts by how they ended.',
    labelNames: ['outcome'],
    registers,
    collect: () => {
      attempts.reset();
      for (const [outcome, count] of Object.entries(server.status().served)) attempts.inc({ outcome }, count);
    },
  });
  return registry;
}
