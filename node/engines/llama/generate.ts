/** One answer of the llama engine: prompt into the slot's memory, then token by token until it ends. */

import { randomInt } from 'node:crypto';
import type { LlamaContextSequence, Token } from 'node-llama-cpp';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { ChatRequest } from '../../../protocol/messages/chat.ts';
import type { EngineDelta, EngineDone, GenerateRequest } from '../../../protocol/ports.ts';
import { ms } from '../../../protocol/units.ts';
import { prefill } from './prefill.ts';
import type { PromptPart } from './prompt.ts';
import type { Runtime } from './runtime.ts';
import { mixSeed } from './seeds.ts';
import { countPrompt, tokenizePrompt } from './tokens.ts';
import { createWriting, type Writing } from './writing.ts';

/** llama.cpp's habit; a full sort of a large vocabulary would cost more than the decoding. */
const topK = 40;
const seedEnd = 0xffff_ffff;

/** Takes one piece of the answer; a promise asks to wait. */
type TakeDelta = (delta: EngineDelta) => Promise<void> | undefined;

/** Who an answer is generated for. */
export interface Sink {
  readonly take: TakeDelta;
  /** So many tokens of the prompt were computed, or of the answer generated. */
  worked(tokens: number): void;
}

interface Sampling {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
}

function chooseSampling({ temperature = 1, topP = 1 }: ChatRequest): Sampling {
  // A nucleus of nothing is its most likely token.
  return { temperature: topP === 0 ? 0 : temperature, topP: topP === 0 ? 1 : topP, topK, minP: 0 };
}

/** A slot that holds all tokens but the last. */
interface Start {
  readonly sequence: LlamaContextSequence;
  readonly last: Token;
  /** Of the next token in its answer. */
  readonly position: number;
}

/** Samples without end. */
async function* sampleTokens(
  { sequence, last, ...start }: Start,
  chat: ChatRequest,
): AsyncGenerator<Token, void, void> {
  const sampling = chooseSampling(chat);
  const { seed } = chat;
  if (seed === undefined || sampling.temperature === 0) {
    yield* sequence.evaluate([last], { ...sampling, seed: randomInt(seedEnd), yieldEogToken: true });
    return;
  }
  let input = last;
  for (let { position } = start; ; position += 1) {
    const options = { ...sampling, seed: mixSeed(seed, position) };
    const [output] = await sequence.controlledEvaluate([[input, { generateNext: { token: true, options } }]]);
    const token = output?.next.token;
    if (token === undefined || token === null) throw new HelixFlowError('ENGINE_FAILED', { reason: 'no token' });
    yield token;
    input = token;
  }
}

async function readPrompt(runtime: Runtime, chat: ChatRequest, signal: AbortSignal): Promise<Token[]> {
  const { contextTokens, tokenMaxChars, model } = runtime;
  const parts: readonly PromptPart[] = runtime.prompts.render(chat.messages);
  const characters = parts.reduce((sum, { text }) => sum + text.length, 0);
  const hopeless = characters > contextTokens * tokenMaxChars;
  const tokens = hopeless ? [] : tokenizePrompt(runtime, parts);
  const promptTokens = hopeless ? await countPrompt(model, parts, signal) : tokens.length;
  if (promptTokens === 0)
    throw new HelixFlowError('REQUEST_UNSUPPORTED', { param: 'messages', reason: 'they are empty' });
  if (promptTokens < contextTokens) return tokens;
  const completionTokens = chat.maxTokens ?? 1;
  const requestedTokens = promptTokens + completionTokens;
  throw new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', {
    contextTokens,
    requestedTokens,
    promptTokens,
    completionTokens,
  });
}

/** One answer on its way. */
interface Job {
  readonly chat: ChatRequest;
  readonly writing: Writing;
  readonly sink: Sink;
  readonly signal: AbortSignal;
}

/** Generates until the answer ends; returns when its first token was there. */
async function decode(start: Start, { chat, writing, sink, signal }: Job): Promise<number> {
  let firstMs = 0;
  for await (const token of sampleTokens(start, chat)) {
    firstMs ||= performance.now();
    sink.worked(1);
    signal.throwIfAborted();
    const delta = writing.add(token);
    const wait = delta && sink.take(delta);
    if (wait !== undefined) await wait;
    signal.throwIfAborted();
    if (writing.finish !== undefined) break;
  }
  return firstMs;
}

/** Hands over what was held back. */
async function finish({ writing, sink }: Job): Promise<Pick<EngineDone, 'finish' | 'completionTokens'>> {
  const rest = writing.rest();
  if (rest !== undefined) await sink.take(rest);
  return { finish: writing.finish ?? 'length', completionTokens: writing.counted() };
}

/** The first piece tells of the prompt, too. */
function tellPrompt({ take, worked }: Sink, promptTokens: number): Sink {
  let isTold = false;
  return {
    worked,
    take(delta) {
      if (isTold) return take(delta);
      isTold = true;
      return take({ ...delta, promptTokens });
    },
  };
}

/**
 * Generates one answer in a slot of its own, or the rest of one; the slot is free again when the promise settles.
 *
 * An answer that goes on has the tokens that it would have had if nobody had cut it, where temperature is 0 or a seed is
 * given and digest, build and backend are the same as before the cut: bit for bit on a CPU with one thread, and with
 * more threads up to 256 tokens of prompt and answer (`chunkTokensExact`). Beyond that, and on a GPU, llama.cpp rounds
 * otherwise for tokens that it computes in chunks or beside others, so that of two tokens that are nearly as likely it
 * may take the other one. Without a seed, what comes after the cut is drawn anew; what came before always stays.
 * @throws HelixFlowError CONTEXT_LENGTH_EXCEEDED, REQUEST_UNSUPPORTED, RESUME_REFUSED, ENGINE_FAILED; the signal's reason.
 */
export async function generateAnswer(
  runtime: Runtime,
  request: Pick<GenerateRequest, 'chat' | 'resume'>,
  sink: Sink,
  signal: AbortSignal,
): Promise<EngineDone> {
  const { chat } = request;
  const prompt = await readPrompt(runtime, chat, signal);
  const promptTokens = prompt.length;
  const writing = createWriting(runtime, prompt, request);
  const job: Job = { chat, writing, sink: tellPrompt(sink, promptTokens), signal };
  if (writing.finish !== undefined) {
    return { ...(await finish(job)), promptTokens, cachedTokens: promptTokens, prefillMs: ms(0), decodeMs: ms(0) };
  }
  const tokens = [...prompt, ...writing.ids];
  const slot = await runtime.slots.take(tokens, signal);
  const { sequence } = slot;
  try {
    signal.throwIfAborted();
    const startMs = performance.now();
    const heldTokens = await prefill(sequence, tokens, { chunk: runtime.chunk, signal, worked: sink.worked });
    const firstMs = await decode({ sequence, last: tokens.at(-1) as Token, position: writing.ids.length }, job);
    return {
      ...(await finish(job)),
      promptTokens,
      cachedTokens: Math.min(heldTokens, promptTokens),
      prefillMs: ms(firstMs - startMs),
      decodeMs: ms(performance.now() - firstMs),
    };
  } finally {
    runtime.slots.giveBack(slot);
  }
}
