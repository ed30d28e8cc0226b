/** What an upstream's error answer means: one pure function from status and body to an error of ours. */

import { z } from 'zod';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { ChatRequest } from '../../../protocol/messages/chat.ts';
import { upstreamFault } from './http.ts';

const retryAfterDefaultMs = 1_000;
const retryAfterMaxMs = 60_000;

/** OpenAI's shape, with llama-server's numbers; some servers leave out the outer `error`. */
const fault = z.object({
  message: z.string().optional(),
  n_prompt_tokens: z.int().optional(),
  n_ctx: z.int().optional(),
});
const body = z.union([z.object({ error: fault }).transform(({ error }) => error), fault]);

/** Wordings of OpenAI, vLLM and SGLang, the only place where these servers tell the numbers. */
const limitWords = [/context length (?:is|of)(?: only)? (\d+)/i, /context length \((\d+) tokens?\)/i];
const promptWords = [
  /(\d+) in the messages/i,
  /(?:has|passed) (\d+) input tokens/i,
  /input \((\d+) tokens?\)/i,
  /(\d+) tokens from the input/i,
  /messages resulted in (\d+) tokens/i,
];
const completionWords = [
  /(\d+) in the completion/i,
  /requested (\d+) output tokens/i,
  /(\d+) tokens for the completion/i,
  /too large: (\d+)/i,
];

function findNumber(patterns: readonly RegExp[], text: string): number | undefined {
  for (const pattern of patterns) {
    const found = pattern.exec(text)?.[1];
    if (found !== undefined) return Number(found);
  }
  return undefined;
}

function readOverflow(text: string, chat: ChatRequest): HelixFlowError | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  const { data } = body.safeParse(json);
  if (data === undefined) return undefined;
  const { message = '' } = data;
  const contextTokens = data.n_ctx ?? findNumber(limitWords, message);
  const promptTokens = data.n_prompt_tokens ?? findNumber(promptWords, message);
  if (contextTokens === undefined || promptTokens === undefined) return undefined;
  const completionTokens = findNumber(completionWords, message) ?? chat.maxTokens ?? 1;
  const requestedTokens = promptTokens + completionTokens;
  return new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', {
    contextTokens,
    requestedTokens,
    promptTokens,
    completionTokens,
  });
}

/** `retry-after` in seconds, bounded; servers also send dates, which count as absent. */
function readRetryAfterMs(header: string | undefined): number {
  const seconds = Number(header);
  if (header === undefined || !Number.isFinite(seconds) || seconds < 0) return retryAfterDefaultMs;
  return Math.min(seconds * 1_000, retryAfterMaxMs);
}

export interface Refusal {
  readonly status: number;
  readonly retryAfter: string | undefined;
  /** The body, or as much of it as was read. */
  readonly text: string;
}

/** The error that a status other than 200 stands for. */
export function explainRefusal({ status, retryAfter, text }: Refusal, chat: ChatRequest): HelixFlowError {
  switch (status) {
    case 400:
    case 404:
    case 413:
    case 422:
      return readOverflow(text, chat) ?? new HelixFlowError('ENGINE_REFUSED', { status });
    case 429:
    case 503:
      return new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: readRetryAfterMs(retryAfter) });
    case 401:
    case 403:
      return upstreamFault(`it refuses the node's own credentials (status ${status}); check the node's API key for it`);
    default:
      return upstreamFault(`it answered with status ${status}`);
  }
}
