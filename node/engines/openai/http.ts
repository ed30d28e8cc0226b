/** HTTP towards one upstream server, with a bound on everything that it may send or leave unsent. */

import { Agent, errors } from 'undici';
import { type ErrorDetails, HelixFlowError } from '../../../protocol/errors.ts';
import type { Clock } from '../../../protocol/ports.ts';
import { type Ms, ms } from '../../../protocol/units.ts';

/** A local server that does not take a connection by then is down. */
const connectTimeoutMs = 3_000;
const headersMaxBytes = 32_768;

export interface HttpDeps {
  readonly clock: Clock;
  /** With `/v1`, without a slash at the end. */
  readonly baseUrl: string;
  readonly apiKey?: string;
}

export interface HttpRequest {
  readonly path: string;
  /** The path is one beside `/v1`, not below it. */
  readonly isBeside?: true;
  /** Sent as JSON by POST; absent: GET. */
  readonly json?: unknown;
  /** Silence after which the server is given up. */
  readonly idleTimeoutMs: Ms;
  readonly signal?: AbortSignal;
}

export interface HttpResponse {
  readonly status: number;
  readonly header: (name: string) => string | undefined;
  /** The body piece by piece; the next one is read when it is asked for. Ends when the server ends it. */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface UpstreamHttp {
  /**
   * Sends a request and hands its answer to `use`; the connection is closed when that settles early.
   * @throws HelixFlowError ENGINE_FAILED for everything that is wrong below HTTP's meaning; the signal's reason.
   */
  request<Result>(request: HttpRequest, use: (response: HttpResponse) => Promise<Result>): Promise<Result>;
  close(): Promise<void>;
}

/** ENGINE_FAILED with a reason for people. */
export const upstreamFault = (reason: string, cause?: unknown): HelixFlowError<'ENGINE_FAILED'> =>
  new HelixFlowError('ENGINE_FAILED', { reason } satisfies ErrorDetails['ENGINE_FAILED'], { cause });

const causeReasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOTFOUND: 'its host name is unknown',
  ECONNRESET: 'it closed the connection',
  UND_ERR_CONNECT_TIMEOUT: 'it does not take the connection',
  UND_ERR_HEADERS_OVERFLOW: 'its headers never end',
  UND_ERR_SOCKET: 'it closed the connection',
};

function explain(error: unknown): HelixFlowError {
  if (error instanceof HelixFlowError) return error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined;
  if (code === undefined && !(error instanceof errors.UndiciError)) throw error;
  return upstreamFault((code && causeReasons[code]) ?? `the connection failed (${code})`, error);
}

/** Aborts when nothing has happened for a while; one timer, however many signs of life there are. */
function createWatchdog(clock: Clock, idleTimeoutMs: Ms, bark: () => void) {
  let aliveMs = clock.nowMs();
  const arm = (delayMs: Ms): (() => void) =>
    clock.timer(delayMs, () => {
      const leftMs = aliveMs + idleTimeoutMs - clock.nowMs();
      if (leftMs <= 0) bark();
      else cancel = arm(ms(leftMs));
    });
  let cancel = arm(idleTimeoutMs);
  return {
    alive: () => {
      aliveMs = clock.nowMs();
    },
    stop: () => cancel(),
  };
}

async function* watch(body: AsyncIterable<Uint8Array>, alive: () => void): AsyncGenerator<Uint8Array> {
  try {
    for await (const piece of body) {
      yield piece;
      // Counted from when the consumer asks for more: its own slowness is not the server's silence.
      alive();
    }
  } catch (error) {
    throw explain(error);
  }
}

/** Opens a pool of connections; a redirect is not followed. */
export function createUpstreamHttp({ clock, baseUrl, apiKey }: HttpDeps): UpstreamHttp {
  const agent = new Agent({
    connect: { timeout: connectTimeoutMs },
    maxHeaderSize: headersMaxBytes,
    headersTimeout: 0,
    bodyTimeout: 0,
  });
  const { origin, pathname } = new URL(baseUrl);
  const beside = pathname.slice(0, -'/v1'.length);
  const authorization = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };

  return {
    async request({ path, isBeside, json, idleTimeoutMs, signal }, use) {
      signal?.throwIfAborted();
      const abort = new AbortController();
      const aborted = (): void => abort.abort(signal?.reason);
      signal?.addEventListener('abort', aborted, { once: true });
      const seconds = Math.round(idleTimeoutMs / 1_000);
      const watchdog = createWatchdog(clock, idleTimeoutMs, () =>
        abort.abort(upstreamFault(`it has been silent for ${seconds} s`)),
      );
      try {
        const { statusCode, headers, body } = await agent.request({
          origin,
          path: `${isBeside === true ? beside : pathname}${path}`,
          method: json === undefined ? 'GET' : 'POST',
          headers: {
            accept: 'application/json, text/event-stream',
            'content-type': 'application/json',
            ...authorization,
          },
          body: json === undefined ? null : JSON.stringify(json),
          signal: abort.signal,
        });
        watchdog.alive();
        // An abort surfaces through the reading; without a listener it would also end the process.
        body.on('error', () => {});
        try {
          const header = (name: string): string | undefined => [headers[name]].flat()[0];
          return await use({ status: statusCode, header, body: watch(body, watchdog.alive) });
        } finally {
          body.destroy();
        }
      } catch (error) {
        throw abort.signal.aborted ? abort.signal.reason : explain(error);
      } finally {
        watchdog.stop();
        signal?.removeEventListener('abort', aborted);
      }
    },
    close: () => agent.destroy(),
  };
}

/**
 * A whole body as text.
 * @throws HelixFlowError ENGINE_FAILED when it is longer than `maxBytes`.
 */
export async function readText(response: HttpResponse, maxBytes: number): Promise<string> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of response.body) {
    bytes += piece.length;
    if (bytes > maxBytes) throw upstreamFault(`it sent more than ${maxBytes} bytes where a short answer was due`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}
