/** Responses that leave in one piece: JSON answers and errors. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { HelixFlowError } from '../../protocol/errors.ts';
import type { Clock, Log } from '../../protocol/ports.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import { errorAnswer, isGatewayFault } from '../openai/errors.ts';
import type { Exchange } from './exchange.ts';

/** What responding takes beside the response. */
export interface Responding {
  readonly clock: Clock;
  readonly log: Log;
  /** A client that has read nothing for this long is cut. */
  readonly stallMs: Ms;
}

export interface Response {
  readonly status: number;
  /** JSON. */
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Bodies up to here are read to their end, so that the connection can go on. */
const restMaxBytes = 65_536;
/** Of a longer body this much more is read and dropped: a client that still sends would not see the response. */
const lingerMaxBytes = 67_108_864;
/** What reading one piece costs, in bytes that could have been read instead. */
const pieceBytes = 4_096;
const lingerMs = ms(30_000);
/** A client that takes a whole answer more slowly than this is cut. */
const slowestBytesPerMs = 10;

function hasLongRest({ complete, readableEnded, headers }: IncomingMessage): boolean {
  if (complete || readableEnded) return false;
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > restMaxBytes;
}

function endAfterBody(request: IncomingMessage, raw: ServerResponse, clock: Clock): void {
  let dropped = 0;
  const finish = (): void => {
    cancel();
    request.off('data', count);
    raw.end();
  };
  const count = (chunk: Uint8Array): void => {
    dropped += chunk.length + pieceBytes;
    if (dropped > lingerMaxBytes) finish();
  };
  const cancel = clock.timer(lingerMs, finish);
  request.once('end', finish).once('close', cancel).on('data', count).resume();
}

function cutWhenStalled(exchange: Exchange, { clock, stallMs }: Responding): void {
  const { raw } = exchange;
  const patienceMs = ms(stallMs + raw.writableLength / slowestBytesPerMs);
  const cancel = clock.timer(patienceMs, () => {
    exchange.outcome = 'stalled';
    raw.destroy();
  });
  raw.once('close', cancel);
}

/** Sends `response` whole; when the request's body is still on its way, closes the connection after it. */
export function respond(exchange: Exchange, { status, body, headers }: Response, responding: Responding): void {
  const { raw, request } = exchange;
  if (exchange.isGone || raw.headersSent) return;
  const all = exchange.headers();
  if (headers !== undefined) Object.assign(all, headers);
  all['content-type'] = 'application/json; charset=utf-8';
  all['content-length'] = String(Buffer.byteLength(body));
  if (hasLongRest(request)) {
    all['connection'] = 'close';
    raw.writeHead(status, all);
    raw.write(body);
    endAfterBody(request, raw, responding.clock);
    return;
  }
  raw.writeHead(status, all);
  raw.end(body);
  if (raw.writableLength > 0 && !raw.writableFinished) cutWhenStalled(exchange, responding);
}

/** Notes why the request failed; what went wrong in this process goes to the log. */
export function noteFailure(exchange: Exchange, error: HelixFlowError, log: Log): void {
  exchange.outcome = 'failed';
  exchange.error = error.code;
  if (isGatewayFault(error)) log.error('request failed', { request: exchange.id, route: exchange.route }, error);
}

/** Answers with `error` as the table says. */
export function respondError(
  exchange: Exchange,
  error: HelixFlowError,
  responding: Responding,
  extra?: Readonly<Record<string, string>>,
): void {
  noteFailure(exchange, error, responding.log);
  const answer = errorAnswer(error);
  respond(exchange, { ...answer, headers: { ...answer.headers, ...extra } }, responding);
}
