/** What each route does with a checked request. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { HelixFlowError } from '../../protocol/errors.ts';
import { allowsModel } from '../../protocol/grants.ts';
import { assert } from '../../protocol/invariant.ts';
import type { Access } from '../access/judge.ts';
import type { AnswerIdentity } from '../openai/answer.ts';
import type { ChatAsked } from '../openai/chat.ts';
import { parseChatBody } from '../openai/chat.ts';
import { selfKey } from '../openai/key.ts';
import { modelList, oneModel } from '../openai/models.ts';
import type { ChatCall, GatewayService, ListedModel } from '../service.ts';
import { boundPieces } from './body.ts';
import type { Exchange } from './exchange.ts';
import { idempotencyKeyOf } from './idempotency-key.ts';
import type { GatewayAppDeps, GatewayAppOptions } from './options.ts';
import { type Responding, respond } from './respond.ts';
import { routes } from './routes.ts';
import { ChatStream } from './stream.ts';
import { addUsage, noRecords } from './usage.ts';
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
  const { service, clock, idempotency } = deps;
  const sinkFor = (exchange: Exchange, asked: ChatAsked, identity: AnswerIdentity): ChatStream | WholeAnswer =>
    asked.stream
      ? new ChatStream(exchange, { identity, includeUsage: asked.includeUsage }, { responding, options })
      : new WholeAnswer(exchange, identity, responding);
  const callOf = ({ exchange }: FastifyRequest, caller: Access, asked: ChatAsked): ChatCall => ({
    request: exchange.id,
    caller,
    model: asked.model,
    chat: asked.chat,
    deadlineMs: options.answerTimeoutMs,
    isWhole: !asked.stream,
    ...(asked.preferences === undefined ? {} : { preferences: asked.preferences }),
  });
  /** The same answer for everyone who asks with the same key. */
  const share = async (request: FastifyRequest, reply: FastifyReply, asked: ChatAsked, key: string): Promise<void> => {
    const { exchange } = request;
    const caller = callerOf(request);
    const body = `${routes.chat}\n${JSON.stringify(request.body)}`;
    const { run, isFirst } = await idempotency.claim({ caller, key, body, request: exchange.id });
    if (exchange.isGone && !run.isAwaited) {
      if (isFirst) run.abandon();
      reply.hijack();
      return;
    }
    if (isFirst) run.begin((events) => service.chat(callOf(request, caller, asked), events));
    exchange.isReplay = !isFirst;
    const sink = sinkFor(exchange, asked, { request: run.request, model: asked.model, createdS: run.createdS });
    const answer = run.join(sink);
    exchange.rate = isFirst ? run.rate : service.rateOf(caller);
    reply.hijack();
    sink.start(answer);
    if (exchange.isGone) sink.gone();
  };
  const serve = (request: FastifyRequest, reply: FastifyReply): void => {
    const { exchange } = request;
    const key = idempotencyKeyOf(request.headers);
    const asked = parseChatBody(request.body);
    const caller = callerOf(request);
    exchange.model = asked.model;
    exchange.tellsProvenance = options.tellsProvenance;
    if (!allowsModel(caller, asked.model)) throw new HelixFlowError('KEY_MODEL_NOT_ALLOWED', { model: asked.model });
    if (app.exchanges.isDraining) throw new HelixFlowError('GATEWAY_DRAINING', { retryAfterMs: drainingRetryMs });
    if (exchange.isGone) {
      reply.hijack();
      return;
    }
    if (key !== undefined) {
      share(request, reply, asked, key).catch((error: unknown) => reply.send(error));
      return;
    }
    const createdS = Math.floor(clock.wallMs() / 1_000);
    const sink = sinkFor(exchange, asked, { request: exchange.id, model: asked.model, createdS });
    const answer = service.chat(callOf(request, caller, asked), sink);
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
  addUsage(app, deps.records ?? noRecords, { clock: deps.clock, responding: context.responding });
  addHealth(app, deps, context);
}
