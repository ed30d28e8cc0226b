/** One chat at an upstream server: our request in its words, its stream of chunks in ours. */

import { createParser } from 'eventsource-parser';
import { z } from 'zod';
import { limits } from '../../../protocol/limits.ts';
import type { ChatRequest } from '../../../protocol/messages/chat.ts';
import type { EngineDone } from '../../../protocol/ports.ts';
import { upstreamFault } from './http.ts';

/** One event of the stream; far above what any server puts into one. */
const eventMaxChars = 1_048_576;
const answerMaxBytes = 67_108_864;

/** A template may write this much of its own: around each message, and once. */
const promptTokensPerMessage = 64;
const promptTokensOfTemplate = 1_024;

/** A count as an upstream tells it; what is none is as good as not told, for the answer is whole without it. */
const count = z.number().min(0).transform(Math.round).nullish().catch(undefined);

const chunk = z.object({
  choices: z
    .array(
      z.object({
        delta: z.object({ content: z.string().nullish() }).nullish(),
        finish_reason: z.string().nullish(),
      }),
    )
    .nullish(),
  usage: z
    .object({
      prompt_tokens: count,
      completion_tokens: count,
      prompt_tokens_details: z.object({ cached_tokens: count }).nullish().catch(undefined),
    })
    .nullish()
    .catch(undefined),
  error: z.unknown().optional(),
});

/** The body of `POST /chat/completions`; what the client left open stays open. */
export const toUpstreamBody = (model: string, chat: ChatRequest): Record<string, unknown> => ({
  model,
  messages: chat.messages,
  stream: true,
  stream_options: { include_usage: true },
  max_tokens: chat.maxTokens,
  stop: chat.stop,
  temperature: chat.temperature,
  top_p: chat.topP,
  seed: chat.seed,
});

export interface ChatStream {
  /** Takes the next bytes of the body; returns the texts that became whole with them. */
  feed(bytes: Uint8Array): string[];
  /** True after `[DONE]`: nothing of use follows. */
  readonly isComplete: boolean;
  /** True once a finish reason was seen: the text is whole, only the usage may still come. */
  readonly isFinished: boolean;
  /**
   * How the answer ended, by the upstream's own counts where it tells any that can be true.
   * @throws HelixFlowError ENGINE_FAILED when the stream ended without a finish reason.
   */
  end(): Pick<EngineDone, 'finish' | 'promptTokens' | 'cachedTokens' | 'completionTokens'>;
}

/** Cuts text into pieces that fit a delta, between characters. */
export function splitText(text: string, maxBytes: number = limits.deltaTextMaxBytes): string[] {
  // No UTF-16 unit needs more than three bytes.
  if (text.length * 3 <= maxBytes) return [text];
  const pieces: string[] = [];
  const unitsMax = Math.floor(maxBytes / 3);
  for (let at = 0; at < text.length; ) {
    let to = Math.min(at + unitsMax, text.length);
    const unit = text.charCodeAt(to - 1);
    if (to < text.length && unit >= 0xd800 && unit <= 0xdbff) to -= 1;
    pieces.push(text.slice(at, to));
    at = to;
  }
  return pieces;
}

/** Four bytes a token: only for servers that tell no usage. */
const guessPromptTokens = ({ messages }: ChatRequest): number =>
  messages.reduce((sum, { content }) => sum + Math.ceil(Buffer.byteLength(content) / 4), 0);

/** No tokenizer makes more tokens than bytes. */
const promptTokensMax = ({ messages }: ChatRequest): number =>
  messages.reduce(
    (sum, { content }) => sum + Buffer.byteLength(content) + promptTokensPerMessage,
    promptTokensOfTemplate,
  );

/**
 * Reads a stream of chat completion chunks.
 * All methods throw HelixFlowError ENGINE_FAILED when the upstream breaks the format or reports an error.
 */
export function createChatStream(chat: ChatRequest): ChatStream {
  const decoder = new TextDecoder();
  let texts: string[] = [];
  let finish: EngineDone['finish'] | undefined;
  let usage: NonNullable<z.infer<typeof chunk>['usage']> | undefined;
  let isComplete = false;
  let receivedBytes = 0;
  let textBytes = 0;
  let contents = 0;

  function take(data: string): void {
    let json: unknown;
    try {
      json = JSON.parse(data);
    } catch (cause) {
      throw upstreamFault('it sent an event that is not JSON', cause);
    }
    const parsed = chunk.safeParse(json);
    if (!parsed.success) throw upstreamFault('it sent an event that is no chat completion chunk', parsed.error);
    if (parsed.data.error != null) throw upstreamFault('it reported an error in mid-stream');
    if (parsed.data.usage != null) usage = parsed.data.usage;
    const choice = parsed.data.choices?.[0];
    const text = choice?.delta?.content;
    if (text != null && text !== '' && finish === undefined) {
      contents += 1;
      textBytes += Buffer.byteLength(text);
      texts.push(...splitText(text.toWellFormed()));
    }
    if (choice?.finish_reason != null) finish = choice.finish_reason === 'length' ? 'length' : 'stop';
  }

  const parser = createParser({
    maxBufferSize: eventMaxChars,
    onEvent({ data }) {
      if (isComplete) return;
      if (data.trim() === '[DONE]') isComplete = true;
      else take(data);
    },
    onError(error) {
      if (error.type === 'max-buffer-size-exceeded') throw upstreamFault('it sent an event without end', error);
    },
  });

  return {
    get isComplete() {
      return isComplete;
    },
    get isFinished() {
      return finish !== undefined;
    },
    feed(bytes) {
      receivedBytes += bytes.length;
      if (receivedBytes > answerMaxBytes) throw upstreamFault('it sent an answer without end');
      texts = [];
      parser.feed(decoder.decode(bytes, { stream: true }));
      return texts;
    },
    end() {
      if (finish === undefined) throw upstreamFault('it ended the answer in the middle');
      const promptTokens = Math.min(usage?.prompt_tokens ?? guessPromptTokens(chat), promptTokensMax(chat));
      return {
        finish,
        promptTokens,
        cachedTokens: Math.min(usage?.prompt_tokens_details?.cached_tokens ?? 0, promptTokens),
        // Never more than the bytes shown and one end token (design §6).
        completionTokens: Math.min(usage?.completion_tokens ?? contents, textBytes + 1),
      };
    },
  };
}
