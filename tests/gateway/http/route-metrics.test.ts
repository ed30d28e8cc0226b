/** What scrapers read of routing. */

import { Registry } from '@prometheus-io/client';
import { test } from 'vitest';
import { addRouteMetrics } from '../../../gateway/http/route-metrics.ts';
import { createRouteCounts } from '../../../gateway/route/counts.ts';

test('what routing has counted is told as it stands at each scrape', async ({ expect }) => {
  const registry = new Registry();
  const counts = createRouteCounts();
  addRouteMetrics(registry, { counts, waiting: () => 3, breakers: () => ({ closed: 4, open: 1, 'half-open': 0 }) });
  counts.attempts.splice = 2;
  counts.splices.resumed = 2;
  counts.hedges.won = 1;
  counts.waits.expired = 5;
  counts.stalled = 6;
  Object.assign(counts.prefix, { hits: 7, misses: 8, heldBytes: 9, bytes: 10 });
  for (const elapsedMs of [4, 5, 70, 9_000]) counts.settles.add(elapsedMs);
  counts.settles.unheard = 11;
  await registry.metrics();
  counts.attempts.first = 12;
  const text = await registry.metrics();
  for (const line of [
    'attempts_total{purpose="first"} 12',
    'attempts_total{purpose="splice"} 2',
    'attempts_total{purpose="hedge"} 0',
    'attempts_stalled_total 6',
    'splices_total{outcome="resumed"} 2',
    'splices_total{outcome="failed"} 0',
    'hedges_total{outcome="won"} 1',
    'waits_total{event="expired"} 5',
    'prefix_attempts_total{outcome="hit"} 7',
    'prefix_attempts_total{outcome="miss"} 8',
    'prefix_held_bytes_total 9',
    'prefix_bytes_total 10',
    'cancels_unheard_total 11',
    'cancel_settle_seconds_bucket{le="0.005"} 2',
    'cancel_settle_seconds_bucket{le="0.05"} 2',
    'cancel_settle_seconds_bucket{le="0.1"} 3',
    'cancel_settle_seconds_bucket{le="2"} 3',
    'cancel_settle_seconds_bucket{le="+Inf"} 4',
    'cancel_settle_seconds_sum 9.079',
    'cancel_settle_seconds_count 4',
    'waiting_requests 3',
    'breakers{state="closed"} 4',
    'breakers{state="half-open"} 0',
  ]) {
    expect(text.split('\n')).toContain(`helixflow_gateway_${line}`);
  }
  expect(text).toContain('# TYPE helixflow_gateway_cancel_settle_seconds histogram');
});
