/** What each route does with a checked request. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { HelixFlowError } from '../../protocol/errors.ts';
import { allowsModel } from '../../protocol/grants.ts';
import { assert } from '../../protocol/invariant.ts';
import type { Access } from '../access/judge.ts';
import type { ChatAsked } from '../openai/chat.ts';
import { parseChatBody } from '../openai/chat.ts';
import { selfKey } from '../openai/key.ts';
import { modelList, oneModel } from '../openai/models.ts';
import type { GatewayService, ListedModel } from '../service.ts';
import { boundPieces } from './body.ts';
import type { GatewayAppDeps, GatewayAppOptions } from './options.ts';
import { type Responding, respond } from './respond.ts';
import { routes } from './routes.ts';
import { ChatStream } from './stream.ts';
import { WholeAnswer } from './whole.ts';

interface EndpointContext {
  readonly options: GatewayAppOptions;
  readonly responding: Responding;
}

const drainingRetryMs = 1_000;

/** Answers about a key are for its bearer alone. */
const privately = { 'cache-control': 'no-store' } as const;

const callerOf = ({ grant }: FastifyRequest): Access => {
  assert(grant !== undefined, 'the guard has let this request pass');
  return grant;
};

const listedFor = (request: FastifyRequest, service: GatewayService): readonly ListedModel[] => {
  const caller = callerOf(request);
  return service.models().filter(({ name }) => allowsModel(caller, name));
};

function addChat(app: FastifyInstance, deps: GatewayAppDeps, { options, responding }: EndpointContext): void {
  const { service, clock } = deps;
  const sinkFor = (request: FastifyRequest, asked: ChatAsked): ChatStream | WholeAnswer => {
    const { exchange } = request;
    const identity = { request: exchange.id, model: asked.model, createdS: Math.floor(clock.wallMs() / 1_000) };
    return asked.stream
      ? new ChatStream(exchange, { identity, includeUsage: asked.includeUsage }, { responding, options })
      : new WholeAnswer(exchange, identity, responding);
  };
  const serve = (request: FastifyRequest, reply: FastifyReply): void => {
    const { exchange } = request;
    const asked = parseChatBody(request.body);
    const caller = callerOf(request);
    exchange.model = asked.model;
    if (!allowsModel(caller, asked.model)) throw new HelixFlowError('KEY_MODEL_NOT_ALLOWED', { model: asked.model });
    if (app.exchanges.isDraining) throw new HelixFlowError('GATEWAY_DRAINING', { retryAfterMs: drainingRetryMs });
    if (exchange.isGone) {
      reply.hijack();
      return;
    }
    const sink = sinkFor(request, asked);
    const { model, chat } = asked;
    const call = { request: exchange.id, caller, model, chat, deadlineMs: options.answerTimeoutMs };
    const answer = service.chat(call, sink);
    exchange.rate = answer.rate;
    reply.hijack();
    sink.start(answer);
  };
  app.post(routes.chat, { preParsing: boundPieces }, serve);
}

function addModels(app: FastifyInstance, { service }: GatewayAppDeps, { responding }: EndpointContext): void {
  app.get(routes.models, (request, reply) => {
    const body = modelList(listedFor(request, service));
    reply.hijack();
    respond(request.exchange, { status: 200, body }, responding);
  });
  app.get<{ Params: { '*': string } }>(routes.model, (request, reply) => {
    const body = oneModel(listedFor(request as FastifyRequest, service), request.params['*']);
    reply.hijack();
    respond(request.exchange, { status: 200, body }, responding);
  });
}

function addSelf(app: FastifyInstance, { service }: GatewayAppDeps, { responding }: EndpointContext): void {
  app.get(routes.self, (request, reply) => {
    const caller = callerOf(request);
    const body = selfKey(caller, service.rateOf(caller));
    reply.hijack();
    respond(request.exchange, { status: 200, body, headers: privately }, responding);
  });
}

function addHealth(app: FastifyInstance, { service }: GatewayAppDeps, { responding }: EndpointContext): void {
  app.get(routes.livez, (request, reply) => {
    reply.hijack();
    respond(request.exchange, { status: 200, body: '{"status":"ok"}' }, responding);
  });
  app.get<{ Querystring: { verbose?: unknown } }>(routes.readyz, (request, reply) => {
    const { ready, degraded, nodes } = service.readiness();
    const isReady = ready && !app.exchanges.isDraining;
    const status = isReady ? (degraded ? 'degraded' : 'ok') : 'draining';
    const checks = { accepting: isReady, nodes: nodes > 0 };
    const body = JSON.stringify(request.query.verbose === undefined ? { status } : { status, nodes, checks });
    reply.hijack();
    respond(request.exchange, { status: isReady ? 200 : 503, body }, responding);
  });
}

/** Adds the routes of OpenAI's API that this gateway serves, and those that watch it. */
export function addEndpoints(app: FastifyInstance, deps: GatewayAppDeps, context: EndpointContext): void {
  addChat(app, deps, context);
  addModels(app, deps, context);
  addSelf(app, deps, context);
  addHealth(app, deps, context);
}
