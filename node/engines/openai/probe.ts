/** Finds out which server an upstream is and how it goes on with an answer: by what it tells, never by a guess. */

import { z } from 'zod';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import { seconds } from '../../../protocol/units.ts';
import { readText, type UpstreamHttp } from './http.ts';
import { type Continuing, notContinuing, type ServerKind } from './kinds.ts';
import type { ListedModel } from './models.ts';

const answerMaxBytes = 4_194_304;
export const probeTimeoutMs = seconds(5);

/** The beginning of an answer that no model would write by itself, with white space that templates cut off. */
const begun = 'One, two, three,\n';
const question = { role: 'user', content: 'Count.' };

interface Answer {
  readonly status: number;
  /** Undefined where the body is not JSON. */
  readonly json: unknown;
}

interface Question {
  readonly path: string;
  readonly isBeside?: true;
  readonly json?: unknown;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

const ask = (http: UpstreamHttp, question: Question, signal: AbortSignal): Promise<Answer> =>
  http.request({ ...question, idleTimeoutMs: probeTimeoutMs, signal }, async (response) => ({
    status: response.status,
    json: parse(await readText(response, answerMaxBytes)),
  }));

/** What the server answered; undefined for a refusal that will not change. One that may is thrown. */
async function told<Told>(
  http: UpstreamHttp,
  question: Question,
  schema: z.ZodType<Told>,
  signal: AbortSignal,
): Promise<Told | undefined> {
  const { status, json } = await ask(http, question, signal);
  if (status === 429 || status >= 500) throw new BusyError();
  return status === 200 ? schema.safeParse(json).data : undefined;
}

/** The server could not answer now. */
class BusyError extends Error {}

async function orLater<Result>(ask: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof BusyError || isHelixFlowError(error)) return undefined;
    throw error;
  }
}

const version = z.object({ version: z.string().min(1) });

/** Of a server whose list of models does not tell; undefined when it did not answer now. */
export async function askKind(http: UpstreamHttp, signal: AbortSignal): Promise<ServerKind | undefined> {
  return await orLater(async () => {
    const answer = await told(http, { path: '/api/version', isBeside: true }, version, signal);
    return answer === undefined ? 'other' : 'ollama';
  });
}

const someIds = z.array(z.int().min(0)).min(1);
const withIds = z.object({
  prompt_token_ids: someIds,
  choices: z.array(z.object({ token_ids: someIds })).min(1),
});
const detokenized = z.object({ prompt: z.string() });

/**
 * vLLM: one token, to see whether its id comes with it, and whether ids can be read back. A vLLM that tells ids (0.10.2)
 * is newer than `continue_final_message` (0.6.4); of one that does not, nobody knows whether it ignores the latter.
 */
async function probeVllm(http: UpstreamHttp, model: string, signal: AbortSignal): Promise<Continuing> {
  const chat = { model, messages: [question], max_tokens: 1, return_token_ids: true };
  const answer = await told(http, { path: '/chat/completions', json: chat }, withIds, signal);
  if (answer === undefined) return notContinuing;
  const tokens = answer.choices[0]?.token_ids ?? [];
  const back = { path: '/detokenize', isBeside: true, json: { model, tokens } } as const;
  const text = await told(http, back, detokenized, signal);
  return { ...notContinuing, by: text === undefined ? 'text' : 'tokens' };
}

const openApi = z.object({
  components: z.object({
    schemas: z.object({
      ChatCompletionRequest: z.object({ properties: z.object({ continue_final_message: z.unknown() }) }),
    }),
  }),
});
const hasOwn = (value: object | undefined, key: string): boolean => value !== undefined && Object.hasOwn(value, key);

/** SGLang ignores fields that it does not know, so its own list of them is asked for; it appends the text as it is. */
async function probeSglang(http: UpstreamHttp, signal: AbortSignal): Promise<Continuing> {
  const answer = await told(http, { path: '/openapi.json', isBeside: true }, openApi, signal);
  const fields = answer?.components.schemas.ChatCompletionRequest.properties;
  if (!hasOwn(fields, 'continue_final_message')) return notContinuing;
  return { by: 'text', echoes: false, keepsSpace: true };
}

const rendered = z.object({ prompt: z.string() });
const message = z.object({ choices: z.array(z.object({ message: z.object({ content: z.string() }) })).min(1) });

/** llama-server: first the prompt that its template makes, then one token, to see whether the text is shown again. */
async function probeLlamaServer(http: UpstreamHttp, model: string, signal: AbortSignal): Promise<Continuing> {
  const messages = [question, { role: 'assistant', content: begun }];
  const chat = { model, messages, continue_final_message: true, add_generation_prompt: false, echo: false };
  const template = await told(http, { path: '/apply-template', isBeside: true, json: chat }, rendered, signal);
  if (template === undefined || !template.prompt.trimEnd().endsWith(begun.trimEnd())) return notContinuing;
  const answer = await told(http, { path: '/chat/completions', json: { ...chat, max_tokens: 1 } }, message, signal);
  if (answer === undefined) return notContinuing;
  const echoes = answer.choices[0]?.message.content.startsWith(begun.trimEnd()) ?? false;
  return { by: 'text', echoes, keepsSpace: template.prompt.endsWith(begun) };
}

/** How `model` goes on with an answer that was begun elsewhere; undefined when the server could not tell now. */
export async function probeContinuing(
  http: UpstreamHttp,
  kind: ServerKind,
  { name }: Pick<ListedModel, 'name'>,
  signal: AbortSignal,
): Promise<Continuing | undefined> {
  return await orLater(async () => {
    if (kind === 'vllm') return await probeVllm(http, name, signal);
    if (kind === 'sglang') return await probeSglang(http, signal);
    return kind === 'llamacpp' ? await probeLlamaServer(http, name, signal) : notContinuing;
  });
}
