/** What routing has done, for scrapers: attempts, splices, hedges, waits, breakers, and how fast cancels were over. */

import { Counter, Gauge, type Metric, type Registry } from '@prometheus-io/client';
import type { Gateway } from '../gateway.ts';
import { type SettleTimes, settleBucketsMs } from '../route/counts.ts';

/** The parts of a gateway that are counted. */
export type RouteMetricsSource = Pick<Gateway, 'counts' | 'waiting' | 'breakers'>;

/** A histogram that was counted elsewhere; the library's own can only be fed one value at a time. */
function registerSettles(registry: Registry, settles: SettleTimes): void {
  const name = 'helixflow_gateway_cancel_settle_seconds';
  const help = 'From the end of an attempt that was stopped here to a free slot at its node.';
  const bounds = [...settleBucketsMs.map((bound) => String(bound / 1_000)), '+Inf'];
  const series = (): object[] => {
    let below = 0;
    const buckets = bounds.map((le, at) => {
      below += settles.counts[at] ?? 0;
      return { metricName: `${name}_bucket`, labels: { le }, value: below };
    });
    return [
      ...buckets,
      { metricName: `${name}_sum`, value: settles.sumMs / 1_000 },
      { metricName: `${name}_count`, value: settles.total },
    ];
  };
  const told = { name, help, type: 'histogram', aggregator: 'sum' };
  const metric = { ...told, get: () => Promise.resolve({ ...told, values: series() }) };
  registry.registerMetric(metric as unknown as Metric<string>);
}

/** Adds them to a registry. */
export function addRouteMetrics(registry: Registry, gateway: RouteMetricsSource): void {
  const { counts } = gateway;
  const registers = [registry];
  /** One series for each of `values`, under `label`. */
  const counter = (name: string, help: string, [label, values]: readonly [string, () => object]): void => {
    const made: Counter<string> = new Counter({
      ...{ name: `helixflow_gateway_${name}`, help, labelNames: [label], registers },
      collect() {
        made.reset();
        for (const [value, count] of Object.entries(values())) made.inc({ [label]: value }, count as number);
      },
    });
  };
  const total = (name: string, help: string, value: () => number): void => {
    const made: Counter = new Counter({
      ...{ name: `helixflow_gateway_${name}`, help, registers },
      collect() {
        made.reset();
        made.inc(value());
      },
    });
  };

  counter('attempts_total', 'Attempts at nodes, by what they were for.', ['purpose', () => counts.attempts]);
  total('attempts_stalled_total', 'Attempts that were moved since nothing came of them.', () => counts.stalled);
  counter('splices_total', 'Answers that lost their node, by whether another one went on.', [
    'outcome',
    () => counts.splices,
  ]);
  counter('hedges_total', 'Second attempts beside a late one, by whether they were sooner.', [
    'outcome',
    () => counts.hedges,
  ]);
  counter('waits_total', 'Requests that began to wait for a node, were refused a place, or waited in vain.', [
    'event',
    () => counts.waits,
  ]);
  counter('prefix_attempts_total', 'Attempts at nodes that should hold the beginning of their request, or not.', [
    'outcome',
    () => ({ hit: counts.prefix.hits, miss: counts.prefix.misses }),
  ]);
  total('prefix_bytes_total', 'Bytes of the requests of these attempts.', () => counts.prefix.bytes);
  total('prefix_held_bytes_total', 'Of these, those that the node should have held.', () => counts.prefix.heldBytes);
  total('cancels_unheard_total', 'Stopped attempts of whose end a node said nothing.', () => counts.settles.unheard);
  registerSettles(registry, counts.settles);
  const waiting: Gauge = new Gauge({
    ...{ name: 'helixflow_gateway_waiting_requests', help: 'Requests that wait for a node.', registers },
    collect: () => waiting.set(gateway.waiting()),
  });
  const breakers: Gauge<'state'> = new Gauge({
    ...{ name: 'helixflow_gateway_breakers', help: 'Models at nodes, by the state of their breakers.' },
    ...{ labelNames: ['state'], registers },
    collect() {
      for (const [state, count] of Object.entries(gateway.breakers())) breakers.set({ state }, count);
    },
  });
}
