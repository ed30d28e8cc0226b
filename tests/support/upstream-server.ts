/** A server that speaks OpenAI's dialect, as other people's servers do: correct unless a test bends it. */

import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import { countPromptTokens, hashPrompt, syntheticDelta } from '../../node/synthetic-text.ts';

/** The body of a request as it came; checked by nobody. */
export interface UpstreamRequest {
  readonly model: string;
  readonly messages: { role: 'user'; content: string }[];
  readonly max_tokens?: number;
  readonly stop?: string[];
  readonly [field: string]: unknown;
}

export type Handler = (request: UpstreamRequest, response: ServerResponse) => Promise<void> | void;

export interface UpstreamServer extends AsyncDisposable {
  readonly url: string;
  /** Bodies of all chats so far. */
  readonly chats: UpstreamRequest[];
  readonly headers: IncomingMessage['headers'][];
  /** Chats that have begun and not ended, on the server's side. */
  open: number;
  /** Answers `GET /v1/models`. */
  models: (response: ServerResponse) => void;
  /** Answers `POST /v1/chat/completions`. */
  chat: Handler;
  /** Answers every other path; 404 where none is named. */
  readonly routes: Map<string, Handler>;
}

export const contextTokens = 500;

export const json = (response: ServerResponse, status: number, body: unknown): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
};

/** One `data:` event. */
export const event = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`;

/** A chunk with content, or with a finish reason. */
export const chunk = (content: string, finish: string | null = null): string =>
  event({ choices: [{ index: 0, delta: finish === null ? { content } : {}, finish_reason: finish }] });

/** Answers as a well-behaved server does: words by position, `stop`, `max_tokens`, usage, `[DONE]`. */
export const answerWell: Handler = async (request, response) => {
  const { messages, max_tokens: count = 16, stop = [] } = request;
  const promptTokens = countPromptTokens({ messages });
  if (promptTokens >= contextTokens) {
    const message = `This model's maximum context length is ${contextTokens} tokens. However, your request has ${promptTokens} input tokens.`;
    json(response, 400, { error: { message, type: 'BadRequestError', code: 400 } });
    return;
  }
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const hash = hashPrompt({ messages });
  let text = '';
  for (let position = 0; position < count; position += 1) text += syntheticDelta(hash, position).text;
  const cuts = stop.map((one) => text.indexOf(one)).filter((at) => at >= 0);
  const shown = text.slice(0, cuts.length > 0 ? Math.min(...cuts) : text.length);
  const words = shown.match(/\s?\S+|\s+/g) ?? [];
  for (const word of words) {
    if (response.destroyed) return;
    response.write(chunk(word));
    await setImmediate();
  }
  response.write(chunk('', cuts.length > 0 ? 'stop' : 'length'));
  response.write(event({ choices: [], usage: { prompt_tokens: promptTokens, completion_tokens: words.length } }));
  response.end('data: [DONE]\n\n');
};

async function readBody(request: IncomingMessage): Promise<UpstreamRequest> {
  let text = '';
  for await (const piece of request.setEncoding('utf8')) text += piece;
  return JSON.parse(text || '{}') as UpstreamRequest;
}

/** Starts a server on loopback. */
export async function startUpstream(): Promise<UpstreamServer> {
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (request.url === '/v1/models') {
      upstream.models(response);
      return;
    }
    const isChat = request.url === '/v1/chat/completions';
    const handler = isChat ? upstream.chat : upstream.routes.get(request.url ?? '');
    if (handler === undefined) {
      json(response, 404, { error: { message: 'Not Found' } });
      return;
    }
    upstream.open += 1;
    response.once('close', () => {
      upstream.open -= 1;
    });
    const body = await readBody(request);
    if (isChat) upstream.chats.push(body);
    if (isChat) upstream.headers.push(request.headers);
    await handler(body, response);
  };
  const server: Server = createServer((request, response) => void serve(request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const upstream: UpstreamServer = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    chats: [],
    headers: [],
    open: 0,
    models: (response) => {
      const data = [{ id: 'words-1', object: 'model', owned_by: 'tests', max_model_len: contextTokens }];
      json(response, 200, { object: 'list', data });
    },
    chat: answerWell,
    routes: new Map(),
    async [Symbol.asyncDispose]() {
      if (!server.listening) return;
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return upstream;
}
