/** Servers that behave like vLLM, SGLang, llama-server and Ollama do, as far as an engine that fronts them can tell. */

import type { ServerResponse } from 'node:http';
import { setImmediate } from 'node:timers/promises';
import { bytesOf, decodeIds, encodePrompt, encodeText, endId, nextToken, vocabularySize } from './upstream-model.ts';
import { event, json, startUpstream, type UpstreamRequest, type UpstreamServer } from './upstream-server.ts';

export type Kind = 'vllm' | 'sglang' | 'llamacpp' | 'ollama';

export interface KindOptions {
  /** Before 0.10.2, vLLM told no ids. */
  readonly tellsIds?: boolean;
  /** The chat template cuts white space off the ends of a message, as Llama 3's does. */
  readonly trims?: boolean;
  /** Between March and May 2026, llama-server showed the text that it went on from. */
  readonly echoes?: boolean;
  /** Tokens in one chunk (vLLM's `--stream-interval`). */
  readonly interval?: number;
  readonly contextTokens?: number;
  /** Called after each chunk of text of a stream, with the tokens so far; it goes on when that resolves. */
  readonly pace?: (tokens: number) => Promise<void>;
}

interface Step {
  readonly text: string;
  readonly ids: readonly number[];
  readonly finish: 'stop' | 'length' | null;
  /** The stop text that ended it. */
  readonly stop: string | null;
}

interface Run {
  readonly prompt: Uint8Array;
  /** Where the answer begins; what follows is the text to go on from, maybe up to the middle of a word. */
  readonly answerAt?: number;
  readonly maxTokens: number;
  readonly stops: readonly string[];
  readonly interval: number;
}

/** What a model that was given the beginning of a word writes first: the rest of the word that it had in mind. */
function restOfWord(prompt: Uint8Array, answerAt: number): Uint8Array {
  const given = Buffer.from(prompt);
  let bytes = prompt.subarray(0, answerAt);
  while (bytes.length < given.length) bytes = Buffer.concat([bytes, nextToken(bytes).bytes]);
  return given.equals(bytes.subarray(0, given.length)) ? bytes.subarray(given.length) : new Uint8Array();
}

/** Generates as these servers do: half characters are held back, and so is as much text as could belong to a stop text. */
function* generate({ prompt, answerAt, maxTokens, stops, interval }: Run): Generator<Step> {
  const decoder = new TextDecoder();
  const heldMax = Math.max(0, ...stops.map((stop) => stop.length - 1));
  let bytes = prompt;
  let text = '';
  let shown = 0;
  let ids: number[] = [];
  const rest = restOfWord(prompt, answerAt ?? prompt.length);
  for (let count = 1; ; count += 1) {
    const token = count === 1 && rest.length > 0 ? { id: 0, bytes: rest } : nextToken(bytes);
    bytes = Buffer.concat([bytes, token.bytes]);
    ids.push(token.id);
    const isEnd = token.id === endId;
    if (!isEnd) text += decoder.decode(token.bytes, { stream: true });
    const cuts = stops.map((stop) => ({ stop, at: text.indexOf(stop) })).filter(({ at }) => at >= 0);
    const cut = cuts.sort((a, b) => a.at - b.at)[0];
    const finish = cut !== undefined || isEnd ? 'stop' : count >= maxTokens ? 'length' : null;
    if (finish === null && count % interval > 0) continue;
    const to = cut?.at ?? (finish === null ? Math.max(shown, text.length - heldMax) : text.length);
    // They count in characters, not in halves of them.
    const end = text.slice(0, to).isWellFormed() ? to : to - 1;
    yield { text: text.slice(shown, end), ids, finish, stop: cut?.stop ?? null };
    if (finish !== null) return;
    shown = end;
    ids = [];
  }
}

interface Chat extends UpstreamRequest {
  readonly continue_final_message?: boolean;
  readonly add_generation_prompt?: boolean;
  readonly return_token_ids?: boolean;
  readonly prompt?: number[];
  readonly tokens?: number[];
}

const begins = (response: ServerResponse): ServerResponse =>
  response.writeHead(200, { 'content-type': 'text/event-stream' });

/** Messages, and the text that the last of them leaves open. */
function openMessage({ messages }: Chat, isOpen: boolean) {
  const last = messages.at(-1);
  if (!isOpen || (last?.role as string) !== 'assistant') return { messages, prefill: '' };
  return { messages: messages.slice(0, -1), prefill: last?.content ?? '' };
}

const usage = (prompt: number, completion: number) => ({
  prompt_tokens: prompt,
  completion_tokens: completion,
  total_tokens: prompt + completion,
});

/** Refuses what does not fit. */
function fits(response: ServerResponse, contextTokens: number, prompt: number, maxTokens: number): boolean {
  if (prompt + maxTokens <= contextTokens) return true;
  const message = `This model's maximum context length is ${contextTokens} tokens. However, your request has ${prompt} input tokens.`;
  json(response, 400, { error: { message, type: 'BadRequestError', code: 400 } });
  return false;
}

/**
 * vLLM: `chat_completion_stream_generator` and `completion_stream_generator` in vllm/entrypoints/openai/
 * {chat_completion,completion}/serving.py (a first chunk with the role, an empty content and `prompt_token_ids`; then
 * `token_ids` in each choice, the end token's in the last; usage in a chunk of its own), `/detokenize` in
 * vllm/entrypoints/serve/tokenize; `continue_final_message` as transformers' chat_template_utils.py renders it.
 */
function likeVllm(upstream: UpstreamServer, options: Required<KindOptions>): void {
  const id = 'chatcmpl-1';
  const head = { id, created: 1, model: 'words-1' };
  const step = ({ ids, finish, stop }: Step, told: boolean) => ({
    finish_reason: finish,
    ...(finish === null ? {} : { stop_reason: stop }),
    ...(told ? { token_ids: ids } : {}),
  });
  upstream.chat = async (body, response) => {
    const chat: Chat = body;
    if (chat.continue_final_message === true && chat.add_generation_prompt !== false) {
      json(response, 400, { error: { message: 'Cannot set both', type: 'BadRequestError', code: 400 } });
      return;
    }
    const { messages, prefill } = openMessage(chat, chat.continue_final_message === true);
    const rendered = options.trims ? prefill.trimEnd() : prefill;
    const ids = encodePrompt(messages);
    const told = options.tellsIds && chat.return_token_ids === true;
    const promptIds = [...ids, ...encodeText(rendered)];
    const { max_tokens: maxTokens = options.contextTokens - promptIds.length, stop: stops = [] } = chat;
    if (!fits(response, options.contextTokens, promptIds.length, maxTokens)) return;
    const steps = generate({
      prompt: bytesOf(promptIds),
      answerAt: bytesOf(ids).length,
      maxTokens,
      stops,
      interval: options.interval,
    });
    if (chat['stream'] !== true) {
      const all = [...steps];
      const token_ids = all.flatMap((one) => one.ids);
      const content = all.map(({ text }) => text).join('');
      const choice = { index: 0, message: { role: 'assistant', content }, ...(told ? { token_ids } : {}) };
      const more = told ? { prompt_token_ids: promptIds } : {};
      json(response, 200, { ...head, object: 'chat.completion', choices: [choice], ...more });
      return;
    }
    const object = 'chat.completion.chunk';
    const first = { index: 0, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null };
    begins(response).write(
      event({ ...head, object, choices: [first], ...(told ? { prompt_token_ids: promptIds } : {}) }),
    );
    let count = 0;
    for (const one of steps) {
      if (response.destroyed) return;
      count += one.ids.length;
      const choice = { index: 0, delta: { content: one.text }, logprobs: null, ...step(one, told) };
      response.write(event({ ...head, object, choices: [choice] }));
      await options.pace(count);
    }
    response.write(event({ ...head, object, choices: [], usage: usage(promptIds.length, count) }));
    response.end('data: [DONE]\n\n');
  };

  upstream.routes.set('/v1/completions', async (body, response) => {
    const { prompt: promptIds = [], max_tokens: maxTokens = 16, stop: stops = [], return_token_ids } = body as Chat;
    if (!fits(response, options.contextTokens, promptIds.length, maxTokens)) return;
    const told = options.tellsIds && return_token_ids === true;
    const object = 'text_completion';
    let count = 0;
    begins(response);
    for (const one of generate({ prompt: bytesOf(promptIds), maxTokens, stops, interval: options.interval })) {
      if (response.destroyed) return;
      const prompt = told && count === 0 ? { prompt_token_ids: promptIds } : {};
      count += one.ids.length;
      const choice = { index: 0, text: one.text, logprobs: null, ...step(one, told), ...prompt };
      response.write(event({ ...head, object, choices: [choice] }));
      await options.pace(count);
    }
    response.write(event({ ...head, object, choices: [], usage: usage(promptIds.length, count) }));
    response.end('data: [DONE]\n\n');
  });

  upstream.routes.set('/detokenize', (body, response) => {
    if ((body as Chat).tokens?.some((id) => id >= vocabularySize) === true) {
      json(response, 400, { error: { message: 'token out of vocabulary', code: 400 } });
      return;
    }
    json(response, 200, { prompt: decodeIds((body as Chat).tokens ?? []) });
  });
}

interface Style {
  /** Delta of the first chunk. */
  readonly first: unknown;
  readonly delta: (text: string) => unknown;
  /** The finish reason rides on a delta of this shape. */
  readonly last: unknown;
  readonly isOpen: (chat: Chat) => boolean;
}

/** A server that tells texts only, and appends what it goes on from to the prompt as it is. */
function likeTextServer(upstream: UpstreamServer, options: Required<KindOptions>, style: Style): void {
  upstream.chat = async (body, response) => {
    const chat: Chat = body;
    const { messages, prefill } = openMessage(chat, style.isOpen(chat));
    const ids = encodePrompt(messages);
    const promptIds = [...ids, ...encodeText(prefill)];
    const answerAt = bytesOf(ids).length;
    const { max_tokens: maxTokens = options.contextTokens - promptIds.length, stop: stops = [] } = chat;
    if (!fits(response, options.contextTokens, promptIds.length, maxTokens)) return;
    const echo = options.echoes ? prefill : '';
    const steps = generate({ prompt: bytesOf(promptIds), answerAt, maxTokens, stops, interval: options.interval });
    if (chat['stream'] !== true) {
      const content = echo + [...steps].map(({ text }) => text).join('');
      json(response, 200, {
        choices: [{ index: 0, finish_reason: 'length', message: { role: 'assistant', content } }],
      });
      return;
    }
    const object = 'chat.completion.chunk';
    const write = (delta: unknown, finish_reason: string | null): boolean =>
      response.write(event({ object, choices: [{ index: 0, delta, finish_reason }] }));
    begins(response);
    write(style.first, null);
    let count = 0;
    let shown = echo;
    for (const one of steps) {
      if (response.destroyed) return;
      count += one.ids.length;
      shown += one.text;
      // Such servers send nothing while there is no text to show.
      if (shown !== '') write(style.delta(shown), null);
      if (one.finish !== null) write(style.last, one.finish);
      shown = '';
      await options.pace(count);
    }
    response.write(event({ object, choices: [], usage: usage(promptIds.length, count) }));
    response.end('data: [DONE]\n\n');
  };
}

/**
 * llama-server: `to_json_oaicompat_chat_stream` in tools/server/server-task.cpp (a first delta with `content: null`, a
 * last one that is empty), `owned_by` and `/apply-template` in server-context.cpp; `continue_final_message` and `echo`
 * as of pull requests 23012 and 23089.
 */
function likeLlamaServer(upstream: UpstreamServer, options: Required<KindOptions>): void {
  likeTextServer(upstream, options, {
    first: { role: 'assistant', content: null },
    delta: (content) => ({ content }),
    last: {},
    isOpen: () => true,
  });
  upstream.routes.set('/apply-template', (body, response) => {
    const { messages, prefill } = openMessage(body as Chat, true);
    json(response, 200, { prompt: decodeIds(encodePrompt(messages)) + prefill });
  });
}

/**
 * SGLang: `_generate_chat_stream` and `_apply_jinja_template` in python/sglang/srt/entrypoints/openai/serving_chat.py
 * (the prompt with its generation prompt, then the last message as it is).
 */
function likeSglang(upstream: UpstreamServer, options: Required<KindOptions>): void {
  likeTextServer(upstream, options, {
    first: { role: 'assistant', content: '' },
    delta: (content) => ({ content, reasoning_content: null, tool_calls: null }),
    last: { content: null, reasoning_content: null, tool_calls: null },
    isOpen: (chat) => chat.continue_final_message === true,
  });
  const properties = { messages: {}, continue_final_message: { type: 'boolean', default: false } };
  upstream.routes.set('/openapi.json', (_, response) => {
    json(response, 200, { openapi: '3.1.0', components: { schemas: { ChatCompletionRequest: { properties } } } });
  });
}

/** Ollama: `toChunk` and `FinishChunk` in openai/openai.go, `/api/version` in server/routes.go; `owned_by` is a namespace. */
function likeOllama(upstream: UpstreamServer, options: Required<KindOptions>): void {
  likeTextServer(upstream, options, {
    first: { role: 'assistant', content: '' },
    delta: (content) => ({ content }),
    last: {},
    isOpen: () => true,
  });
  upstream.routes.set('/api/version', (_, response) => json(response, 200, { version: '0.13.1' }));
}

const kinds = { vllm: likeVllm, sglang: likeSglang, llamacpp: likeLlamaServer, ollama: likeOllama };
const owners = { vllm: 'vllm', sglang: 'sglang', llamacpp: 'llamacpp', ollama: 'library' };

/** Starts a server like `kind` on loopback. */
export async function startKind(kind: Kind, options: KindOptions = {}): Promise<UpstreamServer> {
  const upstream = await startUpstream();
  const pace = async (): Promise<void> => await setImmediate();
  const whole = { tellsIds: true, trims: false, echoes: false, interval: 1, contextTokens: 4_096, pace, ...options };
  upstream.models = (response) => {
    const data = [{ id: 'words-1', object: 'model', owned_by: owners[kind], max_model_len: whole.contextTokens }];
    json(response, 200, { object: 'list', data });
  };
  kinds[kind](upstream, whole);
  return upstream;
}
