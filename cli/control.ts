/** The admin API on `control.sock`: HTTP whose authentication is the file's permissions; its server and its client. */

import { type IncomingMessage, type RequestListener, request, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { type ErrorDetails, errorRow, HelixFlowError, isErrorCode, isHelixFlowError } from '../protocol/errors.ts';
import { systemCode } from './files.ts';
import type { DaemonStatus } from './status.ts';

/** What a daemon answers, by method and path. */
export interface ControlApi {
  'GET /holder': {
    response: { readonly command: string; readonly pid: number; readonly since: string };
  };
  'GET /status': { response: DaemonStatus };
}

export type ControlRoutes = {
  readonly [Route in keyof ControlApi]?: () => ControlApi[Route]['response'] | Promise<ControlApi[Route]['response']>;
};

const answerMaxBytes = 16_777_216;

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

function answerError(response: ServerResponse, error: unknown): void {
  if (isHelixFlowError(error)) {
    answer(response, errorRow(error.code).http || 500, { error: { code: error.code, details: error.details } });
  } else {
    answer(response, 500, { error: { code: 'GATEWAY_FAILED', details: {} } });
  }
}

async function handle(routes: ControlRoutes, message: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method = '', url = '' } = message;
  const path = url.split('?')[0] ?? '';
  const route = routes[`${method} ${path}` as keyof ControlApi];
  if (route === undefined) {
    answerError(response, new HelixFlowError('ROUTE_NOT_FOUND', { method, path, hint: 'It may not be up yet.' }));
    return;
  }
  try {
    answer(response, 200, await route());
  } catch (error) {
    answerError(response, error);
  }
}

/** Answers the routes of the moment; no body is read. */
export const serveControl =
  (routes: () => ControlRoutes): RequestListener =>
  (message, response) => {
    message.resume();
    void handle(routes(), message, response);
  };

const aliveTimeoutMs = 2_000;

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

const openRequest = (socketPath: string, route: string, timeoutMs: number): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const [method, path] = route.split(' ');
    const signal = AbortSignal.timeout(timeoutMs);
    const options = { socketPath, method, path, signal, agent: false, setDefaultHeaders: true };
    request(options, resolve).once('error', reject).end();
  });

/**
 * Asks the daemon that holds a data directory.
 * @throws HelixFlowError DAEMON_UNREACHABLE when none runs, or it does not answer in time; whatever it answers.
 */
export async function callDaemon<Route extends keyof ControlApi>(
  socketPath: string,
  route: Route,
  timeoutMs = 10_000,
): Promise<ControlApi[Route]['response']> {
  try {
    const message = await openRequest(socketPath, route, timeoutMs);
    const body: unknown = JSON.parse(await readBody(message));
    if (message.statusCode !== 200) throw parseFailure(body, socketPath);
    return body as ControlApi[Route]['response'];
  } catch (cause) {
    if (cause instanceof HelixFlowError) throw cause;
    throw new HelixFlowError('DAEMON_UNREACHABLE', { path: socketPath }, { cause });
  }
}
