/** What both of the gateway's doors share: a hardened HTTP server that refuses in OpenAI's shape; routes are added to it. */

import type { Server as TlsServer } from 'node:tls';
import fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
} from 'fastify';
import { HelixFlowError, toHelixFlowError } from '../../protocol/errors.ts';
import type { RequestId } from '../../protocol/ids.ts';
import { InvariantError } from '../../protocol/invariant.ts';
import { acceptOnlyJson } from './body.ts';
import { answerClientError } from './client-error.ts';
import { allowPages, type PageRules } from './cors.ts';
import { Exchange, Exchanges } from './exchange.ts';
import type { GatewayAppDeps, GatewayAppOptions } from './options.ts';
import { requestIds } from './request-ids.ts';
import { type Responding, respondError } from './respond.ts';
import { type Guard, guardRoutes } from './roles.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** Requests under way; for whoever closes the door. */
    readonly exchanges: Exchanges;
  }
  interface FastifyRequest {
    exchange: Exchange;
  }
}

export type DoorDeps = Pick<GatewayAppDeps, 'clock' | 'random' | 'log' | 'observers' | 'tls'>;

export type DoorOptions = Pick<
  GatewayAppOptions,
  | 'bodyMaxBytes'
  | 'headersMaxBytes'
  | 'headersTimeoutMs'
  | 'requestTimeoutMs'
  | 'stallMs'
  | 'idleTimeoutMs'
  | 'connectionsMax'
>;

export interface DoorRules {
  readonly guard: Guard;
  /** `exact`: a path is found as it is written, by the methods of the table alone. */
  readonly paths: 'forgiving' | 'exact';
  /** Why no route took a request, and headers that say more. */
  unknownRoute(method: string, url: string): { error: HelixFlowError; headers: Record<string, string> };
  /** Web pages that may use this door; none without. */
  readonly pages?: PageRules;
  /** Told of every request that is answered with an error. */
  refused?(request: FastifyRequest, error: HelixFlowError): void;
}

const paramMaxChars = 512;

/** Everything that reaches Fastify's error handler, as one of ours. */
function errorOf(error: FastifyError | HelixFlowError, request: FastifyRequest, bodyMaxBytes: number): HelixFlowError {
  if (error instanceof InvariantError) {
    // Fastify would keep it to itself; whoever runs the process must hear of it.
    queueMicrotask(() => {
      throw error;
    });
    return new HelixFlowError('GATEWAY_FAILED', {}, { cause: error });
  }
  return toHelixFlowError(error, (cause) => {
    const { code, statusCode = 500 } = error as FastifyError;
    if (code === 'FST_ERR_CTP_BODY_TOO_LARGE')
      return new HelixFlowError('REQUEST_TOO_LARGE', { maxBytes: bodyMaxBytes });
    if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
      const found = request.headers['content-type'];
      const shown = found === undefined ? 'no content-type' : `'content-type: ${found.slice(0, 64)}'`;
      return new HelixFlowError('MEDIA_TYPE_UNSUPPORTED', { found: shown });
    }
    if (statusCode >= 500) return new HelixFlowError('GATEWAY_FAILED', {}, { cause });
    return new HelixFlowError('REQUEST_MALFORMED', { reason: 'The request cannot be read.' }, { cause });
  });
}

function serverOptions(options: DoorOptions, tls: DoorDeps['tls']): object {
  const server = {
    maxHeaderSize: options.headersMaxBytes,
    headersTimeout: options.headersTimeoutMs,
    requestTimeout: options.requestTimeoutMs,
    connectionsCheckingInterval: Math.max(100, Math.min(5_000, options.headersTimeoutMs / 2)),
    insecureHTTPParser: false,
    keepAlive: true,
    keepAliveInitialDelay: 30_000,
    noDelay: true,
  };
  return tls === undefined ? { http: server } : { https: { ...server, ...tls.serverOptions() } };
}

type Refuse = (
  request: FastifyRequest,
  reply: FastifyReply,
  error: HelixFlowError,
  headers?: Readonly<Record<string, string>>,
) => void;

const fastifyOptions = (options: DoorOptions, refuse: Refuse, isForgiving: boolean): FastifyServerOptions => ({
  logger: false,
  requestIdHeader: false,
  bodyLimit: options.bodyMaxBytes,
  onProtoPoisoning: 'error',
  onConstructorPoisoning: 'error',
  return503OnClosing: false,
  forceCloseConnections: true,
  requestTimeout: options.requestTimeoutMs,
  keepAliveTimeout: options.idleTimeoutMs,
  exposeHeadRoutes: isForgiving,
  routerOptions: {
    maxParamLength: paramMaxChars,
    ignoreTrailingSlash: isForgiving,
    ignoreDuplicateSlashes: isForgiving,
  },
  frameworkErrors: (error, request, reply) => {
    const reason = 'The URL cannot be read.';
    const malformed = new HelixFlowError('REQUEST_MALFORMED', { reason }, { cause: error });
    refuse(request as FastifyRequest, reply as FastifyReply, malformed);
  },
});

/**
 * Builds a door without routes. It answers `inject` at once, and the network once something listens with it
 * (`listen.ts`). Every error has OpenAI's shape; none tells more than its row in `protocol/errors.ts`.
 */
export function createDoor(deps: DoorDeps, options: DoorOptions, rules: DoorRules): FastifyInstance {
  const { clock, log, tls } = deps;
  const responding: Responding = { clock, log, stallMs: options.stallMs };
  const exchanges = new Exchanges(deps.observers ?? []);

  const begin = ({ id, raw: request }: FastifyRequest, { raw }: FastifyReply, route: string): Exchange => {
    const exchange = new Exchange({ id: id as RequestId, request, raw, route }, clock);
    exchanges.begin(exchange);
    return exchange;
  };
  const refuse: Refuse = (request, reply, error, headers = {}) => {
    reply.hijack();
    request.exchange ??= begin(request, reply, 'unknown');
    rules.refused?.(request, error);
    respondError(request.exchange, error, responding, headers);
  };

  const app: FastifyInstance = fastify({
    ...fastifyOptions(options, refuse, rules.paths === 'forgiving'),
    ...serverOptions(options, tls),
    genReqId: requestIds(deps.random),
    clientErrorHandler: answerClientError(options, (socket) => exchanges.isAnswering(socket)),
  });
  app.server.maxConnections = options.connectionsMax;
  tls?.attach(app.server as unknown as TlsServer);
  acceptOnlyJson(app);
  app.decorate('exchanges', exchanges);
  app.decorateRequest('exchange', undefined as unknown as Exchange);
  app.decorateRequest('grant', undefined);
  app.addHook('onRequest', (request, reply, done) => {
    request.exchange = begin(request, reply, request.routeOptions.url ?? 'unknown');
    done();
  });
  if (rules.pages !== undefined) allowPages(app, rules.pages);
  guardRoutes(app, rules.guard);
  // Here and not in the handler for it: before that, a body would be read that nobody asked for.
  app.addHook('onRequest', (request, reply, done) => {
    if (!request.is404) {
      done();
      return;
    }
    const { error, headers } = rules.unknownRoute(request.method, request.url);
    refuse(request, reply, error, headers);
  });
  app.setErrorHandler<FastifyError>((error, request, reply) =>
    refuse(request, reply, errorOf(error, request, options.bodyMaxBytes)),
  );
  return app;
}
