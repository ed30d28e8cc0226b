/** The gateway's HTTP skin: OpenAI's routes over the service, hardened; built here, listening elsewhere. */

import type { Server as TlsServer } from 'node:tls';
import fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { HelixFlowError, toHelixFlowError } from '../../protocol/errors.ts';
import type { RequestId } from '../../protocol/ids.ts';
import { InvariantError } from '../../protocol/invariant.ts';
import { acceptOnlyJson } from './body.ts';
import { answerClientError } from './client-error.ts';
import { addEndpoints } from './endpoints.ts';
import { Exchange, Exchanges } from './exchange.ts';
import { type GatewayAppDeps, type GatewayAppOptions, gatewayAppDefaults } from './options.ts';
import { requestIds } from './request-ids.ts';
import { type Responding, respondError } from './respond.ts';
import { unknownRoute } from './routes.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /** Requests under way; for whoever closes the door. */
    readonly exchanges: Exchanges;
  }
  interface FastifyRequest {
    exchange: Exchange;
  }
}

const modelNameMaxChars = 512;

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

function serverOptions(options: GatewayAppOptions): object {
  return {
    maxHeaderSize: options.headersMaxBytes,
    headersTimeout: options.headersTimeoutMs,
    requestTimeout: options.requestTimeoutMs,
    connectionsCheckingInterval: Math.max(100, Math.min(5_000, options.headersTimeoutMs / 2)),
    insecureHTTPParser: false,
    keepAlive: true,
    keepAliveInitialDelay: 30_000,
    noDelay: true,
  };
}

/**
 * Builds the app. It answers `inject` at once, and the network once something listens with it (`listen.ts`).
 * Every error has OpenAI's shape; none tells more than its row in `protocol/errors.ts`.
 */
export function createGatewayApp(
  deps: GatewayAppDeps,
  options: GatewayAppOptions = gatewayAppDefaults,
): FastifyInstance {
  const { clock, log, tls } = deps;
  const responding: Responding = { clock, log, stallMs: options.stallMs };
  const exchanges = new Exchanges(deps.observers ?? []);
  const nextId = requestIds(deps.random);

  const begin = ({ id, raw: request }: FastifyRequest, { raw }: FastifyReply, route: string): Exchange => {
    const exchange = new Exchange({ id: id as RequestId, request, raw, route }, clock);
    exchanges.begin(exchange);
    return exchange;
  };
  const refuse = (request: FastifyRequest, reply: FastifyReply, error: HelixFlowError, headers = {}): void => {
    reply.hijack();
    request.exchange ??= begin(request, reply, 'unknown');
    respondError(request.exchange, error, responding, headers);
  };

  const app = fastify({
    logger: false,
    genReqId: nextId,
    requestIdHeader: false,
    bodyLimit: options.bodyMaxBytes,
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'error',
    return503OnClosing: false,
    forceCloseConnections: true,
    requestTimeout: options.requestTimeoutMs,
    keepAliveTimeout: options.idleTimeoutMs,
    routerOptions: { maxParamLength: modelNameMaxChars, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true },
    ...(tls === undefined
      ? { http: serverOptions(options) }
      : { https: { ...serverOptions(options), ...tls.serverOptions() } as never }),
    clientErrorHandler: answerClientError(options, (socket) => exchanges.isAnswering(socket)),
    frameworkErrors: (error, request, reply) => {
      const malformed = new HelixFlowError(
        'REQUEST_MALFORMED',
        { reason: 'The URL cannot be read.' },
        { cause: error },
      );
      refuse(request as FastifyRequest, reply as FastifyReply, malformed);
    },
  });
  if (tls !== undefined) tls.attach(app.server as unknown as TlsServer);
  app.server.maxConnections = options.connectionsMax;
  acceptOnlyJson(app);
  app.decorate('exchanges', exchanges);
  app.decorateRequest('exchange', undefined as unknown as Exchange);
  app.decorateRequest('grant', undefined);
  app.addHook('onRequest', (request, reply, done) => {
    request.exchange = begin(request, reply, request.routeOptions.url ?? 'unknown');
    done();
  });
  app.setErrorHandler<FastifyError>((error, request, reply) =>
    refuse(request, reply, errorOf(error, request, options.bodyMaxBytes)),
  );
  app.setNotFoundHandler((request, reply) => {
    const { error, headers } = unknownRoute(request.method, request.url);
    refuse(request, reply, error, headers);
  });
  addEndpoints(app, deps, { options, responding });
  return app;
}
