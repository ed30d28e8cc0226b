/** What the gateway counts, and the port on which it may be asked for. Labels are bounded: no key, peer or request. */

import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from '@prometheus-io/client';
import { parseModelReference } from '../../protocol/model-reference.ts';
import type { GatewayService } from '../service.ts';
import type { RequestObserver, RequestRecord } from './exchange.ts';
import { type ListenOptions, listenError, urlHost } from './listen.ts';

export interface GatewayMetrics {
  readonly observer: RequestObserver;
  readonly registry: Registry;
}

/** Models beyond these are counted together; a mesh may list as many as it likes. */
const modelLabelsMax = 128;
const firstTokenBuckets = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
const durationBuckets = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const statusClass = /^[1-5]\d\d$/;
const methods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** A client names the model, so only those that have answered become labels. */
function modelLabels(): (record: RequestRecord) => string {
  const seen = new Set<string>();
  return ({ model, served }) => {
    if (model === undefined) return 'other';
    const name = parseModelReference(model).name;
    if (served !== undefined && seen.size < modelLabelsMax) seen.add(name);
    return seen.has(name) ? name : 'other';
  };
}

/** `ok`, `cancelled`, `stalled`, `interrupted`, `no_capacity`, `upstream_error` or `client_error`. */
function outcomeOf({ outcome, served, status }: RequestRecord): string {
  if (outcome !== 'failed') return outcome;
  if (served !== undefined) return 'interrupted';
  if (status === 503) return 'no_capacity';
  return status >= 500 || status < 400 ? 'upstream_error' : 'client_error';
}

/** Makes the gateway's metrics; hand `observer` to the app. */
export function createGatewayMetrics(service: GatewayService, version: string): GatewayMetrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const named = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) => ({
    name: `helixflow_${name}`,
    help,
    labelNames,
    registers,
  });
  const info = new Gauge(named('build_info', 'Always 1; the version is in the label.', ['version']));
  info.set({ version }, 1);
  const http = new Counter(named('gateway_http_requests_total', 'Responses sent.', ['route', 'method', 'status']));
  const inference = new Counter(
    named('gateway_inference_requests_total', 'Chats, by how they ended.', ['model', 'op', 'outcome']),
  );
  const duration = new Histogram({
    ...named('gateway_request_duration_seconds', 'From arrival to the last byte.', ['route']),
    buckets: durationBuckets,
  });
  const firstToken = new Histogram({
    ...named('gateway_time_to_first_token_seconds', 'From arrival to the first content.', ['model']),
    buckets: firstTokenBuckets,
  });
  const tokens = new Counter(
    named('gateway_tokens_total', 'Tokens of answers that ended well, as their nodes count.', ['model', 'direction']),
  );
  const inflight = new Gauge(named('gateway_inflight_requests', 'Requests under way.', []));
  const providers: Gauge<'model'> = new Gauge({
    ...named('gateway_providers', 'Nodes that serve a model now.', ['model']),
    collect() {
      providers.reset();
      for (const { name, nodes } of service.models().slice(0, modelLabelsMax)) providers.set({ model: name }, nodes);
    },
  });
  const labelOf = modelLabels();

  const countAnswer = (record: RequestRecord): void => {
    const model = labelOf(record);
    inference.inc({ model, op: 'chat', outcome: outcomeOf(record) });
    if (record.firstTokenMs !== undefined) firstToken.observe({ model }, record.firstTokenMs / 1_000);
    if (record.end === undefined) return;
    tokens.inc({ model, direction: 'input' }, record.end.promptTokens);
    tokens.inc({ model, direction: 'cached' }, record.end.cachedTokens);
    tokens.inc({ model, direction: 'output' }, record.end.completionTokens);
  };
  const observer: RequestObserver = {
    started: () => inflight.inc(),
    finished: (record) => {
      inflight.dec();
      const { route, durationMs } = record;
      const method = methods.has(record.method) ? record.method : 'other';
      const status = statusClass.test(String(record.status)) ? String(record.status) : 'other';
      http.inc({ route, method, status });
      duration.observe({ route }, durationMs / 1_000);
      if (record.model !== undefined) countAnswer(record);
    },
  };
  return { observer, registry };
}

/** An open metrics port. */
export interface MetricsListening extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
}

const answerMetrics =
  (registry: Registry): RequestListener =>
  async (request, response) => {
    if (request.url?.split('?', 1)[0] !== '/metrics' || (request.method !== 'GET' && request.method !== 'HEAD')) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('GET /metrics\n');
      return;
    }
    try {
      const text = await registry.metrics();
      response.writeHead(200, { 'content-type': registry.contentType }).end(text);
    } catch {
      response.writeHead(500).end();
    }
  };

/** Serves `GET /metrics`, without a key, on a port of its own. @throws HelixFlowError PORT_IN_USE, CONFIG_INVALID */
export async function startMetricsServer(registry: Registry, options: ListenOptions): Promise<MetricsListening> {
  const server = createServer({ headersTimeout: 10_000, requestTimeout: 10_000 }, answerMetrics(registry));
  server.maxConnections = 64;
  const { host, port } = options;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(port, host, () => resolve());
  try {
    await promise;
  } catch (cause) {
    throw listenError(cause, options);
  }
  const bound = (server.address() as AddressInfo).port;
  return {
    port: bound,
    url: `http://${urlHost(host)}:${bound}/metrics`,
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise((close) => server.close(close));
      server.closeAllConnections();
      await closed;
    },
  };
}
