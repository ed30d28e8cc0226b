/** Errors as OpenAI's clients read them, all from the table in `protocol/errors.ts`. */

import type { ErrorRow } from '../../protocol/error-table.ts';
import { errorRow, errorText, HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';

/** What leaves the process for an error: nothing but what the table says about its code and its details. */
export interface ErrorAnswer {
  readonly status: number;
  /** `{"error":{…}}` as JSON. */
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** The official clients do not honour a longer wait. */
const retryAfterMaxMs = 60_000;
/** The official clients send these again by themselves, and everything from 500 up. */
const repeatedStatuses: ReadonlySet<number> = new Set([408, 409, 429]);

/** Errors that are not for clients come out as a failure of the gateway. */
const forClient = (error: HelixFlowError): HelixFlowError =>
  errorRow(error.code).http === 0 ? new HelixFlowError('GATEWAY_FAILED', {}, { cause: error }) : error;

/** True when the reason is in this process and must be looked up in its log. */
export const isGatewayFault = (error: HelixFlowError): boolean => forClient(error).code === 'GATEWAY_FAILED';

const defaultParams: Readonly<Record<string, string>> = {
  MODEL_NOT_FOUND: 'model',
  KEY_MODEL_NOT_ALLOWED: 'model',
  CONTEXT_LENGTH_EXCEEDED: 'messages',
};

/** OpenAI says in `type` what ran out. */
const unitTypes: Readonly<Record<string, string>> = {
  'requests per minute': 'requests',
  'tokens per minute': 'tokens',
  'concurrent requests': 'requests',
};

function typeOf(error: HelixFlowError): string {
  if (!isHelixFlowError(error, 'RATE_LIMITED')) return errorRow(error.code).type;
  const { unit } = error.details;
  return unitTypes[unit] ?? errorRow(error.code).type;
}

function errorObject(error: HelixFlowError): object {
  const { code } = errorRow(error.code);
  const type = typeOf(error);
  const details = error.details as { readonly param?: unknown };
  const param = typeof details.param === 'string' ? details.param : (defaultParams[error.code] ?? null);
  return { message: errorText(error.code, error.details), type, param, code };
}

function retryHeaders(error: HelixFlowError, row: ErrorRow): Record<string, string> {
  const { retryAfterMs } = error.details as { readonly retryAfterMs?: unknown };
  if (typeof retryAfterMs === 'number' && retryAfterMs >= 0) {
    const waitMs = Math.min(Math.ceil(retryAfterMs), retryAfterMaxMs);
    return { 'retry-after': String(Math.ceil(waitMs / 1_000)), 'retry-after-ms': String(waitMs) };
  }
  const isRepeated = row.http >= 500 || repeatedStatuses.has(row.http);
  // A cut answer is not carried on by this gateway, but its client may well ask for it again.
  const isHopeless = row.retry === 'never' && error.code !== 'STREAM_INTERRUPTED';
  return isRepeated && isHopeless ? { 'x-should-retry': 'false' } : {};
}

/** The HTTP answer to `error`. */
export function errorAnswer(original: HelixFlowError): ErrorAnswer {
  const error = forClient(original);
  const row = errorRow(error.code);
  const headers: Record<string, string> = { 'x-helixflow-error': error.code, ...retryHeaders(error, row) };
  if (row.http === 401) headers['www-authenticate'] = 'Bearer';
  return { status: row.http, body: JSON.stringify({ error: errorObject(error) }), headers };
}

/** The event that ends a stream which cannot be finished; no `[DONE]` follows it. */
export function errorEvent(original: HelixFlowError): string {
  const error = forClient(original);
  return `data: ${JSON.stringify({ error: errorObject(error), helixflow: { error: error.code } })}\n\n`;
}
