/** The server of `control.sock`: HTTP whose authentication is the file's permissions. */

import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { AdminContext } from '../gateway/admin/operation.ts';
import { adminPrefix, findOperation, runOperation } from '../gateway/admin/operations.ts';
import { errorRow, HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { RootToken } from '../protocol/peer/roots.ts';
import type { Contact } from '../protocol/ports.ts';
import type { Deed } from './audit-note.ts';
import type { Drained } from './ending.ts';
import type { DaemonStatus } from './status.ts';

/** What a daemon answers beside the operations of the admin API, by method and path. */
export interface ControlApi {
  'GET /holder': {
    request: undefined;
    response: { readonly command: string; readonly pid: number; readonly since: string };
  };
  'GET /status': { request: undefined; response: DaemonStatus };
  /** Gateways that this one could reach; for backups. */
  'GET /contacts': { request: undefined; response: readonly Contact[] };
  /** Ends the daemon; answered when all has ended but the process. Without `graceMs` it takes its own time. */
  'POST /drain': { request: { readonly graceMs?: number }; response: Drained };
  /** What a command did in the directory, for the audit log. */
  'POST /notes': { request: Deed; response: { readonly noted: true } };
  /** Tokens that the root has signed elsewhere, to be kept and spread. */
  'POST /roots': { request: readonly RootToken[]; response: { readonly taken: number } };
}

export type ControlRoutes = {
  readonly [Route in keyof ControlApi]?: (
    body: unknown,
  ) => ControlApi[Route]['response'] | Promise<ControlApi[Route]['response']>;
} & {
  /** What the operations of the admin API work on. @throws HelixFlowError where there is none. */
  readonly admin?: () => AdminContext;
};

const bodyMaxBytes = 262_144;

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body ?? null));
}

function answerError(response: ServerResponse, error: unknown): void {
  if (isHelixFlowError(error)) {
    answer(response, errorRow(error.code).http || 500, { error: { code: error.code, details: error.details } });
    return;
  }
  answer(response, 500, { error: { code: 'GATEWAY_FAILED', details: {} } });
  // A fault of our own ends the daemon, as it would anywhere else; the log shows its stack.
  queueMicrotask(() => {
    throw error;
  });
}

/** The JSON of a request; undefined when it has no body. */
async function readJson(message: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of message) {
    bytes += chunk.length;
    if (bytes > bodyMaxBytes) throw new HelixFlowError('REQUEST_TOO_LARGE', { maxBytes: bodyMaxBytes });
    chunks.push(chunk);
  }
  if (bytes === 0) return undefined;
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'The body is no JSON.' }, { cause });
  }
}

async function dispatch(routes: ControlRoutes, message: IncomingMessage): Promise<unknown> {
  const { method = '', url = '' } = message;
  const body = await readJson(message);
  if (url.startsWith(adminPrefix) && routes.admin !== undefined) {
    const { operation, input } = findOperation({ method, url, body });
    return runOperation(operation.name, routes.admin(), input, 'local');
  }
  if (routes.admin === undefined && (method !== 'GET' || url.startsWith(adminPrefix))) {
    throw new HelixFlowError('LEDGER_UNREADY', { reason: 'what holds the directory is starting, or about to end' });
  }
  const path = url.split('?')[0] ?? '';
  const route = routes[`${method} ${path}` as keyof ControlApi];
  if (route !== undefined) return route(body);
  throw new HelixFlowError('ROUTE_NOT_FOUND', { method, path, hint: 'It may not be up yet.' });
}

async function handle(routes: ControlRoutes, message: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    answer(response, 200, await dispatch(routes, message));
  } catch (error) {
    // Whoever asked has gone before they had said it all.
    if (message.errored !== null && message.errored === error) return;
    // A body that was not read to its end would be taken for the next request.
    if (!message.readableEnded) response.setHeader('connection', 'close');
    answerError(response, error);
  }
}

/** Answers the routes of the moment. */
export const serveControl =
  (routes: () => ControlRoutes): RequestListener =>
  (message, response) => {
    void handle(routes(), message, response);
  };
