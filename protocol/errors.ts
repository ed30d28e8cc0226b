/** Everything that can go wrong and that a caller may act on: one row per code, from which every surface derives. */

/** Whether another try can help: on the same peer, on another node, or nowhere. */
export type Retry = 'never' | 'same-node' | 'other-node';

/** Process exit codes of the CLI: 1 error, 2 usage, 3 not found, 4 not authorised, 5 unavailable, 6 check failed. */
export type ExitCode = 1 | 2 | 3 | 4 | 5 | 6;

/** What every surface needs to know of one code. */
export interface ErrorRow {
  /** HTTP status of the OpenAI-shaped answer; 0 where the code never reaches a client. */
  readonly http: number;
  /** `error.type` of the answer. */
  readonly type: string;
  /** `error.code` of the answer. */
  readonly code: string | null;
  readonly retry: Retry;
  readonly exit: ExitCode;
  /** What happened and what to do, in one sentence, without anything secret. `{name}` is filled from the details. */
  readonly text: string;
}

const invalid = 'invalid_request_error';
const server = 'server_error';
const local = { http: 0, type: server, code: null, retry: 'never' } as const;

/** Rows are never renamed or reused; `protocol/README.md` lists the same codes, and a test keeps them in step. */
export const errorTable = {
  // What a client sent.
  REQUEST_MALFORMED: { http: 400, type: invalid, code: null, retry: 'never', exit: 2, text: '{reason}' },
  REQUEST_UNSUPPORTED: {
    http: 400,
    type: invalid,
    code: 'unsupported_value',
    retry: 'never',
    exit: 2,
    text: "Unsupported value for '{param}': {reason}",
  },
  REQUEST_TOO_LARGE: {
    http: 413,
    type: invalid,
    code: 'request_too_large',
    retry: 'never',
    exit: 2,
    text: 'The request body is larger than {maxBytes} bytes; send a smaller one.',
  },
  REQUEST_TIMEOUT: {
    http: 408,
    type: invalid,
    code: 'request_timeout',
    retry: 'same-node',
    exit: 5,
    text: 'The request did not arrive whole within {timeoutMs} ms; send it again.',
  },
  MEDIA_TYPE_UNSUPPORTED: {
    http: 415,
    type: invalid,
    code: 'unsupported_media_type',
    retry: 'never',
    exit: 2,
    text: "The body must be plain JSON, sent with 'content-type: application/json'; this request has {found}.",
  },
  HEADERS_TOO_LARGE: {
    http: 431,
    type: invalid,
    code: 'headers_too_large',
    retry: 'never',
    exit: 2,
    text: 'The request headers are larger than {maxBytes} bytes; send fewer or shorter ones.',
  },
  CONTEXT_LENGTH_EXCEEDED: {
    http: 400,
    type: invalid,
    code: 'context_length_exceeded',
    retry: 'never',
    exit: 2,
    text: "This model's maximum context length is {contextTokens} tokens. However, you requested {requestedTokens} tokens ({promptTokens} in the messages, {completionTokens} in the completion). Please reduce the length of the messages or completion.",
  },
  KEY_MISSING: {
    http: 401,
    type: invalid,
    code: 'invalid_api_key',
    retry: 'never',
    exit: 4,
    text: "You didn't provide an API key; send it as 'Authorization: Bearer sk-hx-…'.",
  },
  KEY_INVALID: {
    http: 401,
    type: invalid,
    code: 'invalid_api_key',
    retry: 'never',
    exit: 4,
    text: 'Incorrect API key provided; it is not a key of this mesh. Ask its operator for one (helixflow keys create).',
  },
  KEY_EXPIRED: {
    http: 401,
    type: invalid,
    code: 'invalid_api_key',
    retry: 'never',
    exit: 4,
    text: 'The API key has expired; ask the operator of the mesh for a new one.',
  },
  KEY_REVOKED: {
    http: 401,
    type: invalid,
    code: 'invalid_api_key',
    retry: 'never',
    exit: 4,
    text: 'The API key has been revoked; ask the operator of the mesh for a new one.',
  },
  KEY_NOT_HERE: {
    http: 403,
    type: 'permission_error',
    code: 'key_not_allowed_here',
    retry: 'never',
    exit: 4,
    text: 'This API key is good at other gateways only; use one that it names.',
  },
  KEY_ROLE_NOT_ALLOWED: {
    http: 403,
    type: 'permission_error',
    code: 'role_not_allowed',
    retry: 'never',
    exit: 4,
    text: "A key with role '{role}' may not do this; it takes {allowed}.",
  },
  ORIGIN_REFUSED: {
    http: 403,
    type: 'permission_error',
    code: 'origin_not_allowed',
    retry: 'never',
    exit: 4,
    text: 'This port takes no requests from web pages; use a program, or the helixflow command.',
  },
  KEY_UNVERIFIABLE: {
    http: 503,
    type: server,
    code: 'key_unverifiable',
    retry: 'other-node',
    exit: 5,
    text: 'This gateway has heard nothing new of the issuer of the key for {staleSeconds} s, so it does not take it; try again later, or at another gateway.',
  },
  RATE_LIMITED: {
    http: 429,
    type: 'rate_limit_error',
    code: 'rate_limit_exceeded',
    retry: 'never',
    exit: 5,
    text: 'The limit of {limit} {unit} for this {scope} is reached; try again in {retryAfterMs} ms.',
  },
  REQUEST_OVER_LIMIT: {
    http: 429,
    type: 'rate_limit_error',
    code: 'request_over_limit',
    retry: 'never',
    exit: 2,
    text: 'This request may take {tokens} tokens, more than the {limit} tokens per minute of this {scope}; ask for fewer with max_tokens.',
  },
  BUDGET_EXHAUSTED: {
    http: 429,
    type: 'insufficient_quota',
    code: 'insufficient_quota',
    retry: 'never',
    exit: 5,
    text: 'The budget of this account is used up: {leftMicro} micro-credits are left and this request may take {needMicro}. Ask for fewer tokens with max_tokens, or ask the operator of the mesh for more.',
  },
  BUDGET_UNAVAILABLE: {
    http: 503,
    type: server,
    code: 'budget_unavailable',
    retry: 'other-node',
    exit: 5,
    text: 'This gateway cannot reach the one that keeps the budget of this account, and what it was given is spent; try again later, or at another gateway.',
  },
  IDEMPOTENCY_MISMATCH: {
    http: 422,
    type: invalid,
    code: 'idempotency_key_reused',
    retry: 'never',
    exit: 2,
    text: 'This Idempotency-Key was used with another request body; use a new one for each new request.',
  },
  IDEMPOTENCY_GONE: {
    http: 409,
    type: invalid,
    code: 'idempotency_answer_gone',
    retry: 'never',
    exit: 1,
    text: 'The request with this Idempotency-Key was run as {request}, and its answer is no longer held; nothing was run or billed again. Use a new key to run it once more.',
  },
  USAGE_UNRECORDED: {
    http: 503,
    type: server,
    code: 'usage_unrecorded',
    retry: 'other-node',
    exit: 5,
    text: 'This gateway cannot write down what is used, so it serves nothing; its operator finds the reason in its log. Try another gateway.',
  },
  KEY_MODEL_NOT_ALLOWED: {
    http: 403,
    type: 'permission_error',
    code: 'model_not_allowed',
    retry: 'never',
    exit: 4,
    text: "This API key may not use the model '{model}'.",
  },
  MODEL_NOT_FOUND: {
    http: 404,
    type: invalid,
    code: 'model_not_found',
    retry: 'never',
    exit: 3,
    text: "The model '{model}' does not exist in this mesh; GET /v1/models lists those that do.",
  },
  ROUTE_NOT_FOUND: {
    http: 404,
    type: invalid,
    code: null,
    retry: 'never',
    exit: 3,
    text: 'Unknown route: {method} {path}. {hint}',
  },
  METHOD_NOT_ALLOWED: {
    http: 405,
    type: invalid,
    code: null,
    retry: 'never',
    exit: 2,
    text: '{path} does not take {method}; use {allowed}.',
  },
  MODEL_UNAVAILABLE: {
    http: 503,
    type: server,
    code: 'no_capacity',
    retry: 'same-node',
    exit: 5,
    text: "No node can serve the model '{model}' right now; try again shortly.",
  },
  REQUEST_CANCELLED: {
    http: 499,
    type: server,
    code: 'cancelled',
    retry: 'never',
    exit: 1,
    text: 'The request was cancelled by the client.',
  },
  DEADLINE_EXCEEDED: {
    http: 504,
    type: server,
    code: 'timeout',
    retry: 'other-node',
    exit: 5,
    text: 'No answer before the deadline; try again, or ask for fewer tokens.',
  },
  STREAM_INTERRUPTED: {
    http: 502,
    type: server,
    code: 'stream_interrupted',
    retry: 'never',
    exit: 5,
    text: 'The node that served this answer was lost before its end; what was sent is incomplete. Send the request again.',
  },
  GATEWAY_DRAINING: {
    http: 503,
    type: server,
    code: 'server_is_overloaded',
    retry: 'same-node',
    exit: 5,
    text: 'This gateway is shutting down; use another one, or try again shortly.',
  },
  GATEWAY_FAILED: {
    http: 500,
    type: server,
    code: 'internal_error',
    retry: 'never',
    exit: 1,
    text: 'The gateway failed; its log holds the reason under this request id.',
  },
  // What a node answered.
  NODE_OVERLOADED: {
    http: 503,
    type: server,
    code: 'server_is_overloaded',
    retry: 'other-node',
    exit: 5,
    text: 'All nodes that serve this model are busy and their queues are full; try again shortly.',
  },
  NODE_DRAINING: {
    http: 503,
    type: server,
    code: 'server_is_overloaded',
    retry: 'other-node',
    exit: 5,
    text: 'The node is shutting down; try again shortly.',
  },
  TAB_UNCOVERED: {
    http: 503,
    type: server,
    code: 'no_capacity',
    retry: 'other-node',
    exit: 5,
    text: 'The node has work of this gateway that no statement has covered for {ageMs} ms; it takes no more before it is covered.',
  },
  NODE_MODEL_MISSING: {
    http: 503,
    type: server,
    code: 'no_capacity',
    retry: 'other-node',
    exit: 5,
    text: 'The node no longer serves this model; try again shortly.',
  },
  NODE_LOST: {
    http: 502,
    type: server,
    code: 'upstream_error',
    retry: 'other-node',
    exit: 5,
    text: 'The node was lost before it answered, and no other could take over; try again.',
  },
  ENGINE_FAILED: {
    http: 502,
    type: server,
    code: 'upstream_error',
    retry: 'other-node',
    exit: 5,
    text: 'The engine of the node failed, and no other node could take over; try again.',
  },
  ENGINE_REFUSED: {
    http: 400,
    type: invalid,
    code: 'upstream_refused',
    retry: 'never',
    exit: 2,
    text: 'The engine behind the node refused the request with status {status}; check its parameters against what that server supports.',
  },
  // What a peer did on the wire.
  FRAME_TOO_LARGE: { ...local, exit: 1, text: 'a frame of {bytes} bytes exceeds the limit of {maxBytes}' },
  FRAME_MALFORMED: { ...local, exit: 1, text: 'a frame does not parse: {reason}' },
  PROTOCOL_VIOLATION: { ...local, exit: 1, text: 'the peer broke the protocol: {reason}' },
  VERSION_UNSUPPORTED: {
    ...local,
    exit: 1,
    text: 'the peer speaks versions {min} to {max}, this process {ourMin} to {ourMax}; upgrade the older one',
  },
  CHANNEL_CLOSED: { ...local, retry: 'other-node', exit: 5, text: 'the channel closed: {reason}' },
  CHANNEL_OVERFLOW: {
    ...local,
    retry: 'other-node',
    exit: 5,
    text: '{bytes} bytes wait on a channel whose peer does not read',
  },
  SESSION_SILENT: { ...local, retry: 'other-node', exit: 5, text: 'the peer has been silent for {silentMs} ms' },
  SESSION_REPLACED: { ...local, retry: 'other-node', exit: 5, text: 'another session with the same peer took over' },
  CONNECT_FAILED: { ...local, retry: 'other-node', exit: 5, text: 'the peer {peer} cannot be reached' },
  ADDRESS_REFUSED: { ...local, exit: 2, text: 'the address {address} may not be dialled: {reason}; name another' },
  HELLO_REFUSED: { ...local, exit: 4, text: 'the peer refused us: {reason}' },
  HELLO_TIMEOUT: { ...local, exit: 5, text: 'the peer did not finish its hello in time' },
  MEMBERSHIP_INVALID: {
    ...local,
    exit: 4,
    text: 'the membership is not valid: {reason}; join again with --join <token>',
  },
  INVITE_INVALID: {
    ...local,
    http: 400,
    type: invalid,
    code: 'invite_invalid',
    exit: 4,
    text: 'the invite is not valid: {reason}; ask for a new one (helixflow mesh invite)',
  },
  ADMISSION_UNAVAILABLE: {
    ...local,
    retry: 'same-node',
    exit: 5,
    text: 'no gateway can admit this peer right now: {reason}; try again shortly',
  },
  MESH_MISMATCH: {
    ...local,
    exit: 4,
    text: 'the token is for mesh {theirs}, this directory belongs to mesh {ours}; use another --data-dir',
  },
  TOKEN_INVALID: {
    ...local,
    exit: 4,
    text: 'the token is not valid: {reason}; have it made again: a request by mesh handover --prepare, a grant by mesh handover --to',
  },
  ADVERT_INVALID: { ...local, exit: 1, text: 'the advert is not valid: {reason}' },
  DIRECTORY_UNAVAILABLE: { ...local, retry: 'same-node', exit: 5, text: 'the directory cannot be reached: {reason}' },
  BLOCK_INVALID: { ...local, exit: 6, text: 'the block {number} of {author} is not valid: {reason}' },
  FEED_FROZEN: {
    ...local,
    http: 503,
    code: 'feed_frozen',
    exit: 6,
    text: 'the feed of {author} has forked and is frozen; the root must lift that (helixflow mesh unfreeze)',
  },
  LEDGER_UNREADY: {
    ...local,
    http: 503,
    code: 'ledger_unready',
    retry: 'same-node',
    exit: 5,
    text: 'this peer cannot sign yet: {reason}; try again in a few seconds',
  },
  SUBJECT_UNKNOWN: {
    ...local,
    http: 404,
    type: invalid,
    code: 'not_found',
    exit: 3,
    text: 'There is no {kind} {id} here.',
  },
  STORE_FAILED: { ...local, exit: 1, text: 'the store failed: {reason}' },
  EXPORT_FAILED: { ...local, exit: 5, text: 'cannot export to {target}: {reason}' },
  LEASE_UNKNOWN: {
    ...local,
    exit: 3,
    text: 'no lease {lease} is open; helixflow accounts show <account> lists those that are',
  },
  // What stops a process from starting, or a command from running.
  CONFIG_INVALID: { ...local, exit: 2, text: '{reason}' },
  DATA_DIR_HELD: {
    ...local,
    exit: 5,
    text: 'the data directory {path} is held by {holder}; stop that, or use another --data-dir',
  },
  DATA_DIR_UNUSABLE: {
    ...local,
    exit: 1,
    text: 'the data directory {path} cannot be used: {reason}; fix that, or use another --data-dir',
  },
  FORMAT_TOO_NEW: {
    ...local,
    exit: 1,
    text: '{path} has format {found}, this version knows up to {known}; upgrade helixflow',
  },
  PORT_IN_USE: {
    ...local,
    exit: 5,
    text: 'port {port} on {host} is in use; stop what uses it, or choose another with {option} (0 takes any free one)',
  },
  MESH_MISSING: {
    ...local,
    exit: 2,
    text: 'this directory belongs to no mesh; run helixflow mesh create, or join one with --join <token>',
  },
  ISSUER_RETIRED: {
    ...local,
    http: 409,
    type: invalid,
    code: 'issuer_retired',
    exit: 4,
    text: 'the issuer {issuer} signs no more ({reason}): the root has taken it back, or handed its authority over; run the command at the gateway that took over, which helixflow mesh show names',
  },
  ISSUER_MISSING: {
    ...local,
    http: 409,
    type: invalid,
    code: 'issuer_missing',
    exit: 4,
    text: 'this directory holds no issuer’s key of mesh {meshId}; run the command where that key is held: helixflow mesh show names the gateway',
  },
  ROOT_MISSING: {
    ...local,
    exit: 4,
    text: 'this directory holds no root key of mesh {meshId}; run the command where its root.key is kept',
  },
  PASSPHRASE_WRONG: {
    ...local,
    exit: 4,
    text: 'the passphrase does not open {path}; try again, or restore a backup (helixflow mesh restore)',
  },
  BACKUP_INVALID: { ...local, exit: 1, text: 'the backup {path} cannot be used: {reason}; use another copy of it' },
  SECRET_AT_STAKE: {
    ...local,
    exit: 2,
    text: '{path} holds {secrets}, which nobody can make again; run helixflow mesh backup first, then repeat with --force',
  },
  MESH_EXISTS: {
    ...local,
    exit: 2,
    text: 'this directory already holds mesh {meshId}; use another --data-dir for another mesh',
  },
  MODEL_FILE_INVALID: {
    ...local,
    exit: 1,
    text: 'the model file {path} cannot be served: {reason}; name a GGUF file with --model',
  },
  ENGINE_MISSING: {
    ...local,
    exit: 1,
    text: 'the engine {engine} is not installed: {reason}; run npm ci without --omit=optional, or serve an --upstream',
  },
  UPSTREAM_UNREACHABLE: {
    ...local,
    exit: 5,
    text: 'the server at {url} does not answer: {reason}; start it, or correct --upstream',
  },
  GATEWAY_UNKNOWN: {
    ...local,
    http: 409,
    type: invalid,
    code: 'gateway_unknown',
    exit: 5,
    text: 'no reachable address of a gateway is known; start helixflow gateway first, or give one with --gateway <multiaddr>',
  },
  DAEMON_UNREACHABLE: {
    ...local,
    exit: 5,
    text: 'no helixflow runs on {path}; start one, or name its directory with --data-dir',
  },
  CHECK_FAILED: { ...local, exit: 6, text: '{reason}' },
} as const satisfies Record<string, ErrorRow>;

/** A code of the table. */
export type ErrorCode = keyof typeof errorTable;

type Reason = { reason: string };
type None = Record<never, never>;

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
  KEY_EXPIRED: None;
  KEY_REVOKED: Record<string, never>;
  KEY_NOT_HERE: Record<string, never>;
  KEY_ROLE_NOT_ALLOWED: { role: string; allowed: string };
  ORIGIN_REFUSED: None;
  KEY_UNVERIFIABLE: { staleSeconds: number };
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

/** The public sentence of `code`, with `{name}` filled from `details`. */
export function errorText<Code extends ErrorCode>(code: Code, details: ErrorDetails[Code]): string {
  const values = details as Readonly<Record<string, unknown>>;
  return errorTable[code].text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? '?'));
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
