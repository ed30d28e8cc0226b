/** What an upstream is asked so that it goes on with an answer, and what of its reply was shown before: pure. */

import { HelixFlowError } from '../../../protocol/errors.ts';
import type { ChatRequest } from '../../../protocol/messages/chat.ts';
import type { Resume } from '../../../protocol/ports.ts';
import { toUpstreamBody } from './chat.ts';
import type { Continuing, ServerKind } from './kinds.ts';

export const refuseResume = (reason: string, cause?: unknown): HelixFlowError<'RESUME_REFUSED'> =>
  new HelixFlowError('RESUME_REFUSED', { reason }, { cause });

/** How models mark that they think aloud. Chat templates rewrite such texts, so nobody can go on from their words. */
const thinkingMarks = ['<think', '<|channel|>', '[THINK]', '<reasoning>', '<seed:think>', '<|begin_of_thought|>'];

/** Whether an answer begins with thinking aloud. */
export const isThinking = (text: string): boolean => thinkingMarks.some((mark) => text.trimStart().startsWith(mark));

/** Whether it may yet turn out to: it was cut within the mark. */
const mayThink = (text: string): boolean => {
  const start = text.trimStart();
  return start !== '' && thinkingMarks.some((mark) => mark.startsWith(start));
};

/** What is left of `maxTokens` after the cut; undefined where the client set no limit. */
export const tokensLeft = ({ maxTokens }: ChatRequest, { tokens }: Resume): number | undefined =>
  maxTokens === undefined ? undefined : maxTokens - tokens;

/** The request of the rest: servers draw by position in the request, so the same seed would repeat the first draws. */
export function restOf(chat: ChatRequest, resume: Resume): ChatRequest {
  const { maxTokens: _, seed, ...rest } = chat;
  const maxTokens = tokensLeft(chat, resume);
  return {
    ...rest,
    ...(maxTokens === undefined ? {} : { maxTokens }),
    ...(seed === undefined ? {} : { seed: Math.abs(seed + resume.tokens) % 2 ** 31 }),
  };
}

/** A request that goes on from text, and what its reply may begin with although it was shown. */
export interface TextContinuation {
  readonly json: Record<string, unknown>;
  /** Shown again by the server, word for word. */
  readonly echoed: string;
  /** White space that the server did not get to see, and the model may write once more. */
  readonly space: string;
}

/**
 * Gives the text as the beginning of the last message.
 * @throws HelixFlowError RESUME_REFUSED
 */
export function continueText(
  { model, chat, resume }: { readonly model: string; readonly chat: ChatRequest; readonly resume: Resume },
  kind: ServerKind,
  { echoes, keepsSpace }: Continuing,
): TextContinuation {
  if (isThinking(resume.text) || mayThink(resume.text))
    throw refuseResume('the model thinks aloud, and its template rewrites that');
  const prefill = keepsSpace ? resume.text : resume.text.trimEnd();
  const rest = restOf(chat, resume);
  const space = resume.text.slice(prefill.length);
  if (prefill === '') return { json: toUpstreamBody(model, rest), echoed: '', space };
  const messages: ChatRequest['messages'] = [...rest.messages, { role: 'assistant', content: prefill }];
  const json = {
    ...toUpstreamBody(model, { ...rest, messages }),
    // Ollama goes on with a last message of the assistant by itself, where the model's template allows it.
    ...(kind === 'ollama' ? {} : { continue_final_message: true, add_generation_prompt: false }),
    ...(kind === 'llamacpp' ? { echo: false } : {}),
  };
  return { json, echoed: echoes ? prefill : '', space };
}

export interface Overlap {
  /**
   * The part of the next text that was not shown before.
   * @throws HelixFlowError RESUME_REFUSED when it is not what the server was given to go on from.
   */
  push(text: string): string;
}

const commonLength = (a: string, b: string): number => {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length += 1;
  return length;
};

/** Takes what is echoed, and then white space that was shown, off the beginning of a reply. */
export function createOverlap({ echoed, space }: Pick<TextContinuation, 'echoed' | 'space'>): Overlap {
  let must = echoed;
  let may = space;
  return {
    push(text) {
      const repeated = commonLength(must, text);
      if (repeated < Math.min(must.length, text.length)) throw refuseResume('the server does not go on from the text');
      must = must.slice(repeated);
      const fresh = text.slice(repeated);
      const again = commonLength(may, fresh);
      may = again === fresh.length ? may.slice(again) : '';
      return fresh.slice(again);
    },
  };
}
