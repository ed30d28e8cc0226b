/** Asking the daemon that holds a data directory, over its `control.sock`. */

import { type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { type AdminApi, type OperationName, requestFor } from '../gateway/admin/operations.ts';
import { type ErrorDetails, HelixFlowError, isErrorCode } from '../protocol/errors.ts';
import type { ControlApi } from './control.ts';
import { systemCode } from './files.ts';

const answerMaxBytes = 16_777_216;
const aliveTimeoutMs = 2_000;
/** Longer than a writer waits for what it wrote before. */
const answerTimeoutMs = 30_000;

/** False only when nobody listens at `path`; one that is slow to accept is alive. */
export const isSocketAlive = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(path);
    const settle = (alive: boolean): void => {
      socket.destroy();
      resolve(alive);
    };
    socket.setTimeout(aliveTimeoutMs, () => settle(true));
    socket.once('connect', () => settle(true));
    socket.once('error', (error) => settle(!['ECONNREFUSED', 'ENOENT', 'ENOTSOCK'].includes(systemCode(error) ?? '')));
  });

/** The body of an answer; longer ones are cut off with an error. */
async function readBody(message: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of message) {
    bytes += chunk.length;
    if (bytes > answerMaxBytes) throw new HelixFlowError('FRAME_TOO_LARGE', { bytes, maxBytes: answerMaxBytes });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseFailure(body: unknown, path: string): HelixFlowError {
  const error: unknown = Object(body).error;
  const { code, details } = Object(error);
  if (!isErrorCode(code)) return new HelixFlowError('DAEMON_UNREACHABLE', { path });
  return new HelixFlowError(code, Object(details) as ErrorDetails[typeof code]);
}

interface Call {
  readonly method: string;
  readonly path: string;
  /** JSON, or undefined. */
  readonly body: string | undefined;
  readonly timeoutMs: number;
}

const send = (socketPath: string, { method, path, body, timeoutMs }: Call): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(timeoutMs);
    // Without its length the body of a DELETE would be taken for a request of its own.
    const length = body === undefined ? 0 : Buffer.byteLength(body);
    const headers = body === undefined ? {} : { 'content-type': 'application/json', 'content-length': length };
    request({ socketPath, method, path, headers, signal, agent: false, setDefaultHeaders: true }, resolve)
      .once('error', reject)
      .end(body);
  });

async function call(socketPath: string, asked: Call): Promise<unknown> {
  try {
    const message = await send(socketPath, asked);
    const body: unknown = JSON.parse(await readBody(message));
    if (message.statusCode !== 200) throw parseFailure(body, socketPath);
    return body;
  } catch (cause) {
    if (cause instanceof HelixFlowError) throw cause;
    throw new HelixFlowError('DAEMON_UNREACHABLE', { path: socketPath }, { cause });
  }
}

/**
 * Asks the daemon that holds a data directory.
 * @throws HelixFlowError DAEMON_UNREACHABLE when none runs, or it does not answer in time; whatever it answers.
 */
export async function callDaemon<Route extends keyof ControlApi>(
  socketPath: string,
  route: Route,
  options: { readonly body?: ControlApi[Route]['request']; readonly timeoutMs?: number } = {},
): Promise<ControlApi[Route]['response']> {
  const [method = '', path = ''] = route.split(' ');
  const body = options.body === undefined ? undefined : JSON.stringify(options.body);
  const asked = { method, path, body, timeoutMs: options.timeoutMs ?? answerTimeoutMs };
  return (await call(socketPath, asked)) as ControlApi[Route]['response'];
}

/** Asks the daemon for an operation of the admin API. @throws HelixFlowError as `callDaemon`. */
export async function callOperation<Name extends OperationName>(
  socketPath: string,
  name: Name,
  request: AdminApi[Name]['request'],
): Promise<AdminApi[Name]['response']> {
  const { method, url, body } = requestFor(name, request);
  const asked = { method, path: url, body, timeoutMs: answerTimeoutMs };
  return (await call(socketPath, asked)) as AdminApi[Name]['response'];
}
