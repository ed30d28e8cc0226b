/** What Node itself refuses before there is a request: bytes that are no HTTP, headers too large, requests too slow. */

import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { HelixFlowError } from '../../protocol/errors.ts';
import { errorAnswer } from '../openai/errors.ts';

export interface DoorLimits {
  readonly headersMaxBytes: number;
  readonly requestTimeoutMs: number;
}

function refusal(code: string | undefined, limits: DoorLimits): HelixFlowError {
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new HelixFlowError('HEADERS_TOO_LARGE', { maxBytes: limits.headersMaxBytes });
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new HelixFlowError('REQUEST_TIMEOUT', { timeoutMs: limits.requestTimeoutMs });
  }
  return new HelixFlowError('REQUEST_MALFORMED', { reason: 'The request is not valid HTTP/1.1.' });
}

/** Answers in OpenAI's shape, unless a response is already on its way on this socket; then closes it. */
export const answerClientError =
  (limits: DoorLimits, isAnswering: (socket: Socket) => boolean) =>
  (error: Error & { code?: string }, socket: Socket): void => {
    // A handshake that failed leaves nobody who could read an answer.
    if (
      /^(?:ERR_SSL_|ERR_TLS_|EPROTO$|ECONNRESET$)/.test(error.code ?? '') ||
      !socket.writable ||
      isAnswering(socket)
    ) {
      socket.destroy();
      return;
    }
    const { status, body, headers } = errorAnswer(refusal(error.code, limits));
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.end(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nconnection: close\r\ncontent-type: application/json; charset=utf-8\r\n` +
        `content-length: ${Buffer.byteLength(body)}\r\n${lines.join('')}\r\n${body}`,
      () => socket.destroy(),
    );
  };
