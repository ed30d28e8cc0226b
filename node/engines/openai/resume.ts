/** Goes on with an answer that another node had begun: by its ids where the server takes them, else by its text. */

import { z } from 'zod';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import type { EngineDone, GenerateRequest, Resume } from '../../../protocol/ports.ts';
import { ms } from '../../../protocol/units.ts';
import { createAnswerText } from '../../answer-text.ts';
import { begin, pass, type Run, refuse, type Serving, withIds } from './answer.ts';
import { guessPromptTokens, toUpstreamBody } from './chat.ts';
import { continueText, createOverlap, refuseResume, restOf, tokensLeft } from './continue.ts';
import type { FollowedModel } from './follow.ts';
import { type HttpRequest, readText, upstreamFault } from './http.ts';

/** Ids before a text that decide how its beginning reads: some tokenizers drop a first space. */
const contextIds = 8;
const idsMaxBytes = 67_108_864;

type Resumed = GenerateRequest & { readonly resume: Resume };

const promptIdsOf = z.object({ prompt_token_ids: z.array(z.int().min(0)).min(1) });
const textOf = z.object({ prompt: z.string() });

function parse<Told>(schema: z.ZodType<Told>, text: string): Told | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch (cause) {
    throw upstreamFault('its answer is not JSON', cause);
  }
}

/**
 * Ids of the prompt, as the server's template makes it: a chat of one token tells them. Tokenizing it by the server's
 * `/tokenize` would save that token, but not know of template arguments that the server adds to chats.
 */
async function readPromptIds(
  { http, idleTimeoutMs }: Serving,
  { model, chat }: GenerateRequest,
  signal: AbortSignal,
): Promise<number[]> {
  const json = { model, messages: chat.messages, max_tokens: 1, return_token_ids: true };
  return await http.request({ path: '/chat/completions', json, idleTimeoutMs, signal }, async (response) => {
    if (response.status !== 200) return await refuse(response, chat);
    const ids = parse(promptIdsOf, await readText(response, idsMaxBytes))?.prompt_token_ids;
    if (ids === undefined) throw refuseResume('the server does not tell the ids of its prompt');
    return ids;
  });
}

async function decode(
  { http, idleTimeoutMs }: Serving,
  json: { readonly model: string; readonly tokens: readonly number[] },
  signal: AbortSignal,
): Promise<string> {
  const request: HttpRequest = { path: '/detokenize', isBeside: true, json, idleTimeoutMs, signal };
  return await http.request(request, async (response) => {
    const text = response.status === 200 ? parse(textOf, await readText(response, idsMaxBytes))?.prompt : undefined;
    if (text === undefined) throw refuseResume('the server does not read ids back');
    return text;
  });
}

/** What the ids of the answer stand for after their prompt. */
async function readIds(serving: Serving, { model, resume }: Resumed, promptIds: number[], signal: AbortSignal) {
  const before = promptIds.slice(-contextIds);
  const [start, whole] = await Promise.all([
    decode(serving, { model, tokens: before }, signal),
    decode(serving, { model, tokens: [...before, ...resume.tokenIds] }, signal),
  ]);
  if (!whole.startsWith(start)) throw refuseResume('the server does not read ids back as it wrote them');
  return whole.slice(start.length);
}

/** An answer that was complete where it was cut. */
const nothingMore = (finish: EngineDone['finish'], promptTokens: number): EngineDone => ({
  finish,
  promptTokens,
  cachedTokens: 0,
  completionTokens: 0,
  prefillMs: ms(0),
  decodeMs: ms(0),
});

/** Nothing is left of `maxTokens`. */
const isSpent = ({ chat, resume }: Resumed): boolean => (tokensLeft(chat, resume) ?? 1) <= 0;

/** Servers that go on from ids also do from text. */
const takesText = ({ kind, continuing: { by } }: FollowedModel): boolean =>
  by === 'text' || (by === 'tokens' && kind !== 'other');

async function resumeText(serving: Serving, model: FollowedModel, request: Resumed, run: Run) {
  if (!takesText(model)) throw refuseResume('the server behind the node does not go on from text');
  const { kind, continuing } = model;
  const { chat, resume } = request;
  if (isSpent(request)) return nothingMore('length', guessPromptTokens(chat));
  const { json, ...shown } = continueText(request, kind, continuing);
  return await pass(
    serving,
    {
      path: '/chat/completions',
      json,
      chat,
      text: createAnswerText(chat.stop),
      overlap: createOverlap(shown),
      prefillTokens: resume.tokens,
      marksThinking: false,
      isResumed: true,
    },
    run,
  );
}

/** Ids that end within a character, or before the text does (a part of it was told without): only the text is whole. */
const endsEarly = (ids: string, { text }: Resume): boolean => ids.endsWith('\ufffd') || ids.length < text.length;

/** vLLM goes on from ids as a completion, token for token. */
async function resumeTokens(serving: Serving, followed: FollowedModel, request: Resumed, run: Run) {
  const { model, chat, resume } = request;
  const { emit, signal } = run;
  const promptIds = await readPromptIds(serving, request, signal);
  const ids = resume.tokenIds;
  const replayed = await readIds(serving, request, promptIds, signal);
  const text = createAnswerText(chat.stop, { text: replayed.replace(/\ufffd+$/, ''), shown: resume.text });
  if (!text.stopped && endsEarly(replayed, resume)) return await resumeText(serving, followed, request, run);
  const room = followed.model.contextTokens - promptIds.length - ids.length;
  if (room < 0) throw refuseResume('it does not fit the context');
  const maxTokens = Math.min(tokensLeft(chat, resume) ?? room, room);
  if (text.stopped || maxTokens <= 0) {
    const rest = text.flush();
    if (rest !== undefined) await emit(rest);
    return nothingMore(text.stopped ? 'stop' : 'length', promptIds.length);
  }
  const { messages: _, ...json } = toUpstreamBody(model, { ...restOf(chat, resume), maxTokens });
  return await pass(
    serving,
    {
      path: '/completions',
      json: { ...json, prompt: [...promptIds, ...ids], ...withIds },
      chat,
      text,
      prefillTokens: ids.length,
      marksThinking: false,
      isResumed: true,
    },
    run,
  );
}

/**
 * Goes on with `request.resume`; emits only what comes after it.
 * @throws HelixFlowError RESUME_REFUSED, and what a chat throws.
 */
export async function resumeAnswer(
  serving: Serving,
  model: FollowedModel,
  request: Resumed,
  run: Run,
): Promise<EngineDone> {
  const { chat, resume } = request;
  const byTokens = model.continuing.by === 'tokens' && resume.tokenIds.length > 0;
  if (model.continuing.by === 'none') throw refuseResume('the server behind the node goes on from nothing');
  // With stop texts some of the answer may not have been shown yet, although its ids were told.
  const mayHold = byTokens && chat.stop !== undefined;
  if (isSpent(request) && !mayHold) return nothingMore('length', guessPromptTokens(chat));
  if (resume.text === '' && resume.tokenIds.length === 0) {
    return await begin(serving, model, { model: request.model, chat: restOf(chat, resume) }, run);
  }
  try {
    return await (byTokens ? resumeTokens : resumeText)(serving, model, request, run);
  } catch (error) {
    // The chat was good enough for the node that began it: it is the continuation that this server does not take.
    if (isHelixFlowError(error, 'ENGINE_REFUSED')) throw refuseResume('the server does not take it', error);
    if (isHelixFlowError(error, 'CONTEXT_LENGTH_EXCEEDED')) throw refuseResume('it does not fit the context', error);
    throw error;
  }
}
