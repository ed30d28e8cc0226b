/** Everything that can go wrong and that a caller may act on. The rows are in `error-table.ts`. */

import { type ErrorRow, errorTable } from './error-table.ts';
import type { KeyId } from './ids.ts';

/** A code of the table. */
export type ErrorCode = keyof typeof errorTable;

type Reason = { reason: string };
type None = Record<never, never>;
/** Named where its signature was found good. */
type OfKey = { keyId?: KeyId };

/** What each code tells beside its name. Everything here may cross the wire, so nothing here is secret. */
export interface ErrorDetails {
  REQUEST_MALFORMED: { reason: string; param?: string };
  REQUEST_UNSUPPORTED: { param: string; reason: string };
  REQUEST_TOO_LARGE: { maxBytes: number };
  REQUEST_TIMEOUT: { timeoutMs: number };
  MEDIA_TYPE_UNSUPPORTED: { found: string };
  HEADERS_TOO_LARGE: { maxBytes: number };
  CONTEXT_LENGTH_EXCEEDED: {
    contextTokens: number;
    requestedTokens: number;
    promptTokens: number;
    completionTokens: number;
  };
  KEY_MISSING: None;
  KEY_INVALID: None;
  KEY_EXPIRED: OfKey;
  KEY_REVOKED: OfKey;
  KEY_NOT_HERE: OfKey;
  KEY_ROLE_NOT_ALLOWED: { role: string; allowed: string };
  ORIGIN_REFUSED: None;
  KEY_UNVERIFIABLE: OfKey & { staleSeconds: number };
  RATE_LIMITED: { limit: number; unit: string; scope: string; retryAfterMs: number };
  REQUEST_OVER_LIMIT: { tokens: number; limit: number; scope: string };
  BUDGET_EXHAUSTED: { leftMicro: number; needMicro: number };
  BUDGET_UNAVAILABLE: None;
  IDEMPOTENCY_MISMATCH: None;
  IDEMPOTENCY_GONE: { request: string };
  USAGE_UNRECORDED: None;
  TAB_UNCOVERED: { ageMs: number };
  KEY_MODEL_NOT_ALLOWED: { model: string };
  MODEL_NOT_FOUND: { model: string };
  ROUTE_NOT_FOUND: { method: string; path: string; hint: string };
  METHOD_NOT_ALLOWED: { method: string; path: string; allowed: string };
  MODEL_UNAVAILABLE: { model: string; retryAfterMs: number };
  REQUEST_CANCELLED: None;
  DEADLINE_EXCEEDED: { deadlineMs: number };
  STREAM_INTERRUPTED: None;
  GATEWAY_DRAINING: { retryAfterMs: number };
  GATEWAY_FAILED: None;
  NODE_OVERLOADED: { retryAfterMs: number };
  NODE_DRAINING: None;
  NODE_MODEL_MISSING: { model: string };
  NODE_LOST: None;
  NODE_STALLED: { silentMs: number };
  RESUME_REFUSED: { reason: string };
  GATEWAY_OVERLOADED: { retryAfterMs: number };
  ACCOUNT_OVERLOADED: { retryAfterMs: number };
  NODES_EXCLUDED: { model: string; reason: string };
  REQUEST_UNKNOWN: { request: string };
  ENGINE_FAILED: { reason: string };
  ENGINE_REFUSED: { status: number };
  FRAME_TOO_LARGE: { bytes: number; maxBytes: number };
  FRAME_MALFORMED: Reason;
  PROTOCOL_VIOLATION: Reason;
  VERSION_UNSUPPORTED: { min: number; max: number; ourMin: number; ourMax: number };
  CHANNEL_CLOSED: Reason;
  CHANNEL_OVERFLOW: { bytes: number };
  BLOCK_INVALID: { author: string; number: number; reason: string };
  FEED_FROZEN: { author: string };
  LEDGER_UNREADY: { reason: string };
  SUBJECT_UNKNOWN: { kind: string; id: string };
  SESSION_SILENT: { silentMs: number };
  SESSION_REPLACED: None;
  CONNECT_FAILED: { peer: string };
  RELAY_REFUSED: { peer: string; reason: string };
  ADDRESS_REFUSED: { address: string; reason: string };
  HELLO_REFUSED: Reason;
  HELLO_TIMEOUT: None;
  MEMBERSHIP_INVALID: Reason;
  INVITE_INVALID: Reason;
  ADMISSION_UNAVAILABLE: Reason;
  MESH_MISMATCH: { theirs: string; ours: string };
  TOKEN_INVALID: Reason;
  ADVERT_INVALID: Reason;
  DIRECTORY_UNAVAILABLE: Reason;
  STORE_FAILED: Reason;
  EXPORT_FAILED: { target: string; reason: string };
  OUTPUT_FAILED: Reason;
  LEASE_UNKNOWN: { lease: string };
  CONFIG_INVALID: Reason;
  DATA_DIR_HELD: { path: string; holder: string };
  DATA_DIR_UNUSABLE: { path: string; reason: string };
  FORMAT_TOO_NEW: { path: string; found: number; known: number };
  PORT_IN_USE: { host: string; port: number; option: string };
  MESH_MISSING: None;
  ISSUER_MISSING: { meshId: string };
  ISSUER_RETIRED: { issuer: string; reason: 'revoked' | 'succeeded' };
  ROOT_MISSING: { meshId: string };
  PASSPHRASE_WRONG: { path: string };
  BACKUP_INVALID: { path: string; reason: string };
  SECRET_AT_STAKE: { path: string; secrets: string };
  MESH_EXISTS: { meshId: string };
  MODEL_FILE_INVALID: { path: string; reason: string };
  ENGINE_MISSING: { engine: string; reason: string };
  UPSTREAM_UNREACHABLE: { url: string; reason: string };
  GATEWAY_UNKNOWN: None;
  DAEMON_UNREACHABLE: { path: string };
  CHECK_FAILED: Reason;
}

/** Micro-credits are for machines: people read credits. */
const creditsText = (micro: number): string => (micro / 1_000_000).toFixed(6).replace(/\.?0+$/, '');

const valueText = (name: string, value: unknown): string =>
  name.endsWith('Micro') && typeof value === 'number' ? creditsText(value) : String(value ?? '?');

/** The public sentence of `code`, with `{name}` filled from `details`. */
export function errorText<Code extends ErrorCode>(code: Code, details: ErrorDetails[Code]): string {
  const values = details as Readonly<Record<string, unknown>>;
  return errorTable[code].text.replace(/\{(\w+)\}/g, (_, name: string) => valueText(name, values[name]));
}

/** An operating error: expected, typed, handled by its code. Never matched by its message. */
export class HelixFlowError<Code extends ErrorCode = ErrorCode> extends Error {
  override readonly name = 'HelixFlowError';
  readonly code: Code;
  readonly details: ErrorDetails[Code];

  constructor(code: Code, details: ErrorDetails[Code], options?: { cause?: unknown }) {
    super(`${code}: ${errorText(code, details)}`, options);
    this.code = code;
    this.details = details;
  }
}

/** Every code, in the order of the table. */
export const errorCodes: readonly ErrorCode[] = Object.keys(errorTable) as ErrorCode[];

const known: ReadonlySet<string> = new Set(errorCodes);

/** True for a code of this version's table; a newer peer may send others. */
export const isErrorCode = (text: unknown): text is ErrorCode => typeof text === 'string' && known.has(text);

/** Narrows by code, so that callers never need `instanceof`. */
export function isHelixFlowError<Code extends ErrorCode = ErrorCode>(
  error: unknown,
  code?: Code,
): error is HelixFlowError<Code> {
  return error instanceof HelixFlowError && (code === undefined || error.code === code);
}

/** The table's row for an error's code. */
export const errorRow = (code: ErrorCode): ErrorRow => errorTable[code];

/**
 * Makes any thrown value an operating error: one of ours as it is, anything else as `fallback`.
 * An `InvariantError` is not converted: it is thrown again.
 */
export function toHelixFlowError(error: unknown, fallback: (cause: unknown) => HelixFlowError): HelixFlowError {
  if (error instanceof HelixFlowError) return error;
  if (error instanceof Error && error.name === 'InvariantError') throw error;
  return fallback(error);
}
