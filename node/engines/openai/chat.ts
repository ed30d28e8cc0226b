/** One chat at an upstream server: our request in its words, its stream of chunks in ours. */

import { createParser } from 'eventsource-parser';
import { z } from 'zod';
import { limits } from '../../../protocol/limits.ts';
import type { ChatRequest } from '../../../protocol/messages/chat.ts';
import type { EngineDelta, EngineDone } from '../../../protocol/ports.ts';
import { upstreamFault } from './http.ts';

/** One event of the stream. The ids of a prompt of a million tokens come in one. */
const eventMaxChars = 8_388_608;
const answerMaxBytes = 67_108_864;

/** A template may write this much of its own: around each message, and once. */
const promptTokensPerMessage = 64;
const promptTokensOfTemplate = 1_024;

/** A count as an upstream tells it; what is none is as good as not told, for the answer is whole without it. */
const count = z.number().min(0).transform(Math.round).nullish().catch(undefined);
const tokenId = z.int().min(0).max(0xffff_ffff);
/** Ids that make no sense are as good as none. */
const tokenIds = z.array(tokenId).nullish().catch(undefined);
/** Only counted here: checking each id of a long prompt would cost more than it is worth. */
const promptIds = z.array(z.unknown()).nullish().catch(undefined);
/** Something beside the text. */
const hidden = z
  .union([z.string(), z.array(z.unknown()), z.record(z.string(), z.unknown())])
  .nullish()
  .catch(undefined);

/** Of a chat (`delta`), or of a completion (`text`), which vLLM goes on with. */
const chunk = z.object({
  choices: z
    .array(
      z.object({
        delta: z
          .object({
            content: z.string().nullish(),
            /** Its name with DeepSeek, SGLang, llama-server and older vLLM; newer vLLM and Ollama say `reasoning`. */
            reasoning_content: hidden,
            reasoning: hidden,
            tool_calls: hidden,
            function_call: hidden,
          })
          .nullish(),
        text: z.string().nullish(),
        finish_reason: z.string().nullish(),
        stop_reason: z.unknown().optional(),
        token_ids: tokenIds,
        prompt_token_ids: promptIds,
      }),
    )
    .nullish(),
  prompt_token_ids: promptIds,
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

type Choice = NonNullable<z.infer<typeof chunk>['choices']>[number];

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
  /**
   * Takes the next bytes of the body; returns the pieces that became whole with them. One that is opaque says that the
   * server has told something beside the text.
   */
  feed(bytes: Uint8Array): EngineDelta[];
  /** True after `[DONE]`: nothing of use follows. */
  readonly isComplete: boolean;
  /** True once a finish reason was seen: the text is whole, only the usage may still come. */
  readonly isFinished: boolean;
  /** Of the whole prompt, once the server has told its ids. */
  readonly promptTokens: number | undefined;
  /**
   * How the answer ended, by the upstream's own counts where it tells any that can be true.
   * @param isStopped We have found a stop text in it and left the rest.
   * @throws HelixFlowError ENGINE_FAILED when the stream ended without a finish reason.
   */
  end(isStopped?: boolean): Pick<EngineDone, 'finish' | 'promptTokens' | 'cachedTokens' | 'completionTokens'>;
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
export const guessPromptTokens = ({ messages }: ChatRequest): number =>
  messages.reduce((sum, { content }) => sum + Math.ceil(Buffer.byteLength(content) / 4), 0);

/** No tokenizer makes more tokens than bytes. */
export const promptTokensMax = ({ messages }: ChatRequest): number =>
  messages.reduce(
    (sum, { content }) => sum + Buffer.byteLength(content) + promptTokensPerMessage,
    promptTokensOfTemplate,
  );

/**
 * Reads the JSON of one event.
 * @throws HelixFlowError ENGINE_FAILED when it is no chunk, or an error.
 */
function readChunk(data: string): z.infer<typeof chunk> {
  let json: unknown;
  try {
    json = JSON.parse(data);
  } catch (cause) {
    throw upstreamFault('it sent an event that is not JSON', cause);
  }
  const parsed = chunk.safeParse(json);
  if (!parsed.success) throw upstreamFault('it sent an event that is no chat completion chunk', parsed.error);
  if (parsed.data.error != null) throw upstreamFault('it reported an error in mid-stream');
  return parsed.data;
}

const isTold = (value: z.infer<typeof hidden>): boolean => value != null && Object.keys(value).length > 0;

const isOpaque = ({ delta }: Choice): boolean =>
  delta != null && [delta.reasoning_content, delta.reasoning, delta.tool_calls, delta.function_call].some(isTold);

/** The ids behind the text. vLLM tells the end token's, too, which nobody may go on after; `stop_reason` is then no text. */
function idsOf({ token_ids: ids, finish_reason: finish, stop_reason: reason }: Choice): readonly number[] {
  if (ids == null) return [];
  return finish === 'stop' && typeof reason !== 'string' ? ids.slice(0, -1) : ids;
}

/**
 * Reads a stream of chunks, of a chat or of a completion.
 * All methods throw HelixFlowError ENGINE_FAILED when the upstream breaks the format or reports an error.
 * @param prefillTokens Of what the server was given to go on from: part of its prompt, not of the client's.
 */
export function createChatStream(chat: ChatRequest, prefillTokens = 0): ChatStream {
  const decoder = new TextDecoder();
  let pieces: EngineDelta[] = [];
  let finish: EngineDone['finish'] | undefined;
  let usage: NonNullable<z.infer<typeof chunk>['usage']> | undefined;
  let isComplete = false;
  let receivedBytes = 0;
  let textBytes = 0;
  let contents = 0;
  let ids = 0;
  let promptIdsTold: number | undefined;

  function takeChoice(choice: Choice): void {
    const opaque = isOpaque(choice) ? { isOpaque: true } : {};
    const text = (choice.delta?.content ?? choice.text ?? '').toWellFormed();
    const known = idsOf(choice);
    ids += choice.token_ids?.length ?? 0;
    if (text !== '') {
      contents += 1;
      textBytes += Buffer.byteLength(text);
    }
    if (text === '' && known.length === 0 && !isOpaque(choice)) return;
    const [first = '', ...rest] = splitText(text);
    pieces.push({ text: first, tokenIds: known, ...opaque });
    for (const more of rest) pieces.push({ text: more, tokenIds: [] });
  }

  function take(data: string): void {
    const { choices, usage: told, prompt_token_ids: told_ids } = readChunk(data);
    if (told != null) usage = told;
    const choice = choices?.[0];
    promptIdsTold ??= (told_ids ?? choice?.prompt_token_ids)?.length;
    if (choice === undefined) return;
    if (finish === undefined) takeChoice(choice);
    if (choice.finish_reason != null) finish = choice.finish_reason === 'length' ? 'length' : 'stop';
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

  /** Of the client's prompt: what the server counts, without what it was given to go on from. */
  function countPrompt(): number | undefined {
    const tokens = promptIdsTold ?? usage?.prompt_tokens;
    return tokens == null ? undefined : Math.min(Math.max(0, tokens - prefillTokens), promptTokensMax(chat));
  }

  return {
    get isComplete() {
      return isComplete;
    },
    get isFinished() {
      return finish !== undefined;
    },
    get promptTokens() {
      return promptIdsTold === undefined ? undefined : countPrompt();
    },
    feed(bytes) {
      receivedBytes += bytes.length;
      if (receivedBytes > answerMaxBytes) throw upstreamFault('it sent an answer without end');
      pieces = [];
      parser.feed(decoder.decode(bytes, { stream: true }));
      return pieces;
    },
    end(isStopped = false) {
      if (finish === undefined && !isStopped) throw upstreamFault('it ended the answer in the middle');
      const promptTokens = countPrompt() ?? Math.min(guessPromptTokens(chat), promptTokensMax(chat));
      return {
        finish: isStopped ? 'stop' : (finish ?? 'stop'),
        promptTokens,
        cachedTokens: Math.min(usage?.prompt_tokens_details?.cached_tokens ?? 0, promptTokens),
        // Never more than the bytes shown and one end token (design §6).
        completionTokens: Math.min(usage?.completion_tokens ?? (ids > 0 ? ids : contents), textBytes + 1),
      };
    },
  };
}
