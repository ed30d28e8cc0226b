/** What is counted, under which labels, and where it can be read. */

import { test } from 'vitest';
import type { RequestRecord } from '../../../gateway/http/exchange.ts';
import { createGatewayMetrics, startMetricsServer } from '../../../gateway/http/metrics.ts';
import { logRequests } from '../../../gateway/http/request-log.ts';
import type { RequestId } from '../../../protocol/ids.ts';
import { ms } from '../../../protocol/units.ts';
import { end, FakeService, served } from './fakes.ts';

const record = (more: Partial<RequestRecord> = {}): RequestRecord => ({
  requestId: 'ab'.repeat(16) as RequestId,
  method: 'POST',
  route: '/v1/chat/completions',
  status: 200,
  outcome: 'ok',
  durationMs: ms(50),
  isStream: true,
  model: 'helix-tiny@abababab',
  served,
  firstTokenMs: ms(20),
  end,
  ...more,
});

const here = { host: '127.0.0.1', port: 0, option: '--metrics-listen' };

test('requests, answers and tokens are counted by model', async ({ expect }) => {
  const { observer, registry } = createGatewayMetrics(new FakeService(), '1.2.3');
  observer.started?.();
  observer.finished(record());
  const text = await registry.metrics();
  for (const line of [
    'helixflow_gateway_http_requests_total{route="/v1/chat/completions",method="POST",status="200"} 1',
    'helixflow_gateway_inference_requests_total{model="helix-tiny",op="chat",outcome="ok"} 1',
    'helixflow_gateway_tokens_total{model="helix-tiny",direction="input"} 7',
    'helixflow_gateway_tokens_total{model="helix-tiny",direction="cached"} 3',
    'helixflow_gateway_tokens_total{model="helix-tiny",direction="output"} 2',
    'helixflow_gateway_time_to_first_token_seconds_count{model="helix-tiny"} 1',
    'helixflow_gateway_request_duration_seconds_sum{route="/v1/chat/completions"} 0.05',
    'helixflow_gateway_inflight_requests 0',
    'helixflow_gateway_providers{model="helix-tiny"} 2',
    'helixflow_build_info{version="1.2.3"} 1',
  ]) {
    expect(text).toContain(line);
  }
});

test.for([
  [{ outcome: 'failed', status: 400, error: 'REQUEST_MALFORMED' }, 'client_error'],
  [{ outcome: 'failed', status: 503, error: 'MODEL_UNAVAILABLE' }, 'no_capacity'],
  [{ outcome: 'failed', status: 502, error: 'NODE_LOST' }, 'upstream_error'],
  [{ outcome: 'failed', status: 200, error: 'STREAM_INTERRUPTED', served }, 'interrupted'],
  [{ outcome: 'cancelled', status: 499 }, 'cancelled'],
  [{ outcome: 'stalled', status: 200, served }, 'stalled'],
] as const)('%o counts as %s', async ([more, outcome], { expect }) => {
  const { observer, registry } = createGatewayMetrics(new FakeService(), '1');
  const { served: _, end: __, firstTokenMs: ___, ...plain } = record();
  observer.finished({ ...plain, ...more });
  expect(await registry.metrics()).toContain(`op="chat",outcome="${outcome}"} 1`);
});

test('no client can make labels', async ({ expect }) => {
  const { observer, registry } = createGatewayMetrics(new FakeService(), '1');
  const { served: _, end: __, ...unserved } = record();
  for (let index = 0; index < 1_000; index += 1) {
    observer.finished({ ...unserved, model: `made-up-${index}`, method: `X${index}`, outcome: 'failed', status: 404 });
  }
  for (let index = 0; index < 1_000; index += 1) observer.finished(record({ model: `served-${index}` }));
  const text = await registry.metrics();
  expect(text).not.toContain('made-up');
  expect(text.match(/^helixflow_gateway_inference_requests_total/gm)?.length).toBeLessThan(150);
});

test('are served on a port of their own, and nothing else is', async ({ expect }) => {
  const { registry } = createGatewayMetrics(new FakeService(), '1');
  await using server = await startMetricsServer(registry, here);
  const response = await fetch(server.url);
  expect([response.status, response.headers.get('content-type')]).toEqual([200, expect.stringContaining('text/plain')]);
  expect(await response.text()).toContain('process_cpu_seconds_total');
  expect((await fetch(server.url.replace('/metrics', '/'))).status).toBe(404);
  expect((await fetch(server.url, { method: 'POST' })).status).toBe(404);
});

test('a taken port is PORT_IN_USE', async ({ expect }) => {
  const { registry } = createGatewayMetrics(new FakeService(), '1');
  await using server = await startMetricsServer(registry, here);
  await expect(startMetricsServer(registry, { ...here, port: server.port })).rejects.toMatchObject({
    code: 'PORT_IN_USE',
    details: { option: '--metrics-listen' },
  });
});

test('the request log has one line per request, and none for probes that succeed', ({ expect }) => {
  const lines: unknown[] = [];
  const write = (_: string, fields?: object): void => void lines.push(fields);
  const log = { debug: write, info: write, warn: write, error: write, with: () => log };
  const observer = logRequests(log);
  observer.finished(record());
  observer.finished(record({ route: '/livez' }));
  observer.finished(record({ route: '/readyz', status: 503 }));
  expect(lines).toMatchObject([
    { method: 'POST', status: 200, ms: 50, node: served.node, promptTokens: 7, completionTokens: 2 },
    { route: '/readyz', status: 503 },
  ]);
});
