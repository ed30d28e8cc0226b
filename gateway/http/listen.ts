/** Opens the app's port, and closes it without cutting anyone who could still be served. */

import { type AddressInfo, BlockList, isIP } from 'node:net';
import { Server as TlsServer } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { Clock } from '../../protocol/ports.ts';
import { type Ms, seconds } from '../../protocol/units.ts';

export interface ListenOptions {
  readonly host: string;
  /** 0 takes any free one. */
  readonly port: number;
  /** The flag that sets the port, for the message when it is taken. */
  readonly option: string;
}

/** An open port. */
export interface Listening extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** What clients set as their base URL: `http://127.0.0.1:7420/v1`, or `https:` when the app speaks TLS. */
  readonly baseUrl: string;
  /**
   * Begins no more chats, finishes the answers under way for up to `graceMs` or until `hurry` aborts, ends the rest with
   * an error that their clients can read, and closes. A second call closes at once.
   */
  close(graceMs: Ms, hurry?: AbortSignal): Promise<void>;
}

/** For the last bytes to be taken after the last answers have been ended. */
const flushMs = seconds(1);

/** What went wrong when a port could not be opened. */
export function listenError(cause: unknown, { host, port, option }: ListenOptions): HelixFlowError {
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE') return new HelixFlowError('PORT_IN_USE', { host, port, option }, { cause });
  const reason = `cannot listen on ${host}:${port} (${code ?? 'unknown error'}); choose another with --host or ${option}`;
  return new HelixFlowError('CONFIG_INVALID', { reason }, { cause });
}

/** A host as it stands in a URL; one that means every address is shown as loopback. */
export function urlHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** Whether only this machine can reach what listens on `host`; of names only `localhost` is known to be. */
export function isLoopback(host: string): boolean {
  const family = isIP(host);
  return family === 0 ? host === 'localhost' : loopback.check(host, family === 4 ? 'ipv4' : 'ipv6');
}

/**
 * With TLS `localhost` is 127.0.0.1 alone: Fastify's second server for ::1 would not hear of later certificates.
 * @throws HelixFlowError PORT_IN_USE; CONFIG_INVALID when the host or port cannot be used.
 */
export async function startListening(app: FastifyInstance, clock: Clock, options: ListenOptions): Promise<Listening> {
  const { host, port } = options;
  const isTls = app.server instanceof TlsServer;
  try {
    await app.listen({ host: isTls && host === 'localhost' ? '127.0.0.1' : host, port });
  } catch (cause) {
    throw listenError(cause, options);
  }
  const bound = (app.server.address() as AddressInfo).port;
  const again = new AbortController();

  const idleWithin = async (delayMs: Ms, sooner?: AbortSignal): Promise<void> => {
    if (again.signal.aborted || sooner?.aborted) return;
    using deadline = clock.deadline(delayMs, again.signal);
    const { promise, resolve } = Promise.withResolvers<void>();
    deadline.signal.addEventListener('abort', () => resolve(), { once: true });
    sooner?.addEventListener('abort', () => resolve(), { once: true });
    await Promise.race([app.exchanges.idle(), promise]);
  };
  const shut = async (graceMs: Ms, hurry: AbortSignal | undefined): Promise<void> => {
    app.exchanges.drain();
    await idleWithin(graceMs, hurry);
    app.exchanges.abandonAll();
    await idleWithin(flushMs);
    await app.close();
  };
  let closing: Promise<void> | undefined;
  const close = (graceMs: Ms, hurry?: AbortSignal): Promise<void> => {
    if (closing !== undefined) again.abort();
    closing ??= shut(graceMs, hurry);
    return closing;
  };
  return {
    host,
    port: bound,
    baseUrl: `${isTls ? 'https' : 'http'}://${urlHost(host)}:${bound}/v1`,
    close,
    [Symbol.asyncDispose]: () => close(0 as Ms),
  };
}
