/** One quiet line per request. */

import type { Log, LogFields } from '../../protocol/ports.ts';
import type { RequestObserver, RequestRecord } from './exchange.ts';

/** What one line says: never a prompt, an answer or a key. */
export const requestFields = (record: RequestRecord): LogFields => ({
  request: record.requestId,
  method: record.method,
  route: record.route,
  status: record.status,
  outcome: record.outcome,
  ms: Math.round(record.durationMs * 10) / 10,
  error: record.error,
  model: record.model,
  stream: record.model === undefined ? undefined : record.isStream,
  node: record.served?.node,
  attempts: record.served?.attempts,
  splices: record.served?.splices,
  firstTokenMs: record.firstTokenMs === undefined ? undefined : Math.round(record.firstTokenMs * 10) / 10,
  promptTokens: record.end?.promptTokens,
  completionTokens: record.end?.completionTokens,
});

/** Writes every request to `log`; health checks only when they fail. */
export const logRequests = (log: Log): RequestObserver => ({
  finished: (record) => {
    const isProbe = record.route === '/livez' || record.route === '/readyz';
    if (!isProbe || record.status >= 400) log.info('request', requestFields(record));
  },
});
