/** One answer of the llama engine: prompt into the slot's memory, then token by token until it ends. */

import { randomInt } from 'node:crypto';
import type { LlamaContextSequence, Token } from 'node-llama-cpp';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { ChatRequest } from '../../../protocol/messages/chat.ts';
import type { EngineDelta, EngineDone } from '../../../protocol/ports.ts';
import { ms } from '../../../protocol/units.ts';
import { createAnswerText } from '../../answer-text.ts';
import type { PromptPart } from './prompt.ts';
import type { Runtime } from './runtime.ts';
import { mixSeed } from './seeds.ts';
import { countPrompt, createDetokenizer, tokenizePrompt } from './tokens.ts';

/** One prefill call should take about this long: the time for which it delays others, and a cancel. */
const prefillTargetMs = 150;
const prefillTokensMin = 32;
/** llama.cpp's habit; a full sort of a large vocabulary would cost more than the decoding. */
const topK = 40;
const seedEnd = 0xffff_ffff;

/** Takes one piece of the answer; a promise asks to wait. */
export type TakeDelta = (delta: EngineDelta) => Promise<void> | undefined;

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

/** Samples without end from a slot that holds all of the prompt but its last token. */
async function* sampleTokens(
  sequence: LlamaContextSequence,
  last: Token,
  chat: ChatRequest,
): AsyncGenerator<Token, void, void> {
  const sampling = chooseSampling(chat);
  const { seed } = chat;
  if (seed === undefined || sampling.temperature === 0) {
    yield* sequence.evaluate([last], { ...sampling, seed: randomInt(seedEnd), yieldEogToken: true });
    return;
  }
  let input = last;
  for (let position = 0; ; position += 1) {
    const options = { ...sampling, seed: mixSeed(seed, position) };
    const [output] = await sequence.controlledEvaluate([[input, { generateNext: { token: true, options } }]]);
    const token = output?.next.token;
    if (token === undefined || token === null) throw new HelixFlowError('ENGINE_FAILED', { reason: 'no token' });
    yield token;
    input = token;
  }
}

/** Computes all of `tokens` but the last; returns how many needed no computing. */
async function prefill(
  runtime: Runtime,
  sequence: LlamaContextSequence,
  tokens: readonly Token[],
  signal: AbortSignal,
) {
  await sequence.adaptStateToTokens(tokens.slice(0, -1), false);
  const cachedTokens = sequence.nextTokenIndex;
  let size = prefillTokensMin;
  for (let at = cachedTokens; at < tokens.length - 1; ) {
    signal.throwIfAborted();
    const startMs = performance.now();
    const slice = tokens.slice(at, Math.min(at + size, tokens.length - 1));
    await sequence.evaluateWithoutGeneratingNewTokens(slice);
    at += slice.length;
    const tookMs = performance.now() - startMs;
    if (tookMs < prefillTargetMs / 2) size = Math.min(size * 2, runtime.batchTokens);
    else if (tookMs > prefillTargetMs) size = Math.max(size >> 1, prefillTokensMin);
  }
  return cachedTokens;
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

/** Where an answer begins and how far it may go. */
interface Start {
  readonly sequence: LlamaContextSequence;
  readonly prompt: readonly Token[];
  readonly signal: AbortSignal;
}

async function decode(runtime: Runtime, start: Start, chat: ChatRequest, take: TakeDelta) {
  const { model, contextTokens } = runtime;
  const { sequence, prompt, signal } = start;
  const tokensMax = Math.min(chat.maxTokens ?? contextTokens, contextTokens - prompt.length);
  const text = createAnswerText(chat.stop);
  const detokenizer = createDetokenizer(model, prompt);
  let finish: EngineDone['finish'] = 'length';
  let firstMs = 0;
  let count = 0;
  for await (const token of sampleTokens(sequence, prompt.at(-1) as Token, chat)) {
    count += 1;
    if (count === 1) firstMs = performance.now();
    signal.throwIfAborted();
    if (model.isEogToken(token)) {
      text.push('', [...detokenizer.rest(), token]);
      finish = 'stop';
      break;
    }
    const complete = detokenizer.push(token);
    const delta = complete && text.push(complete.text, complete.tokenIds);
    const wait = delta && take(delta);
    if (wait !== undefined) await wait;
    signal.throwIfAborted();
    if (text.stopped) finish = 'stop';
    if (text.stopped || count >= tokensMax) break;
  }
  if (finish === 'length') text.push('', detokenizer.rest());
  const rest = text.flush();
  if (rest !== undefined) await take(rest);
  return { finish, completionTokens: text.counted(), firstMs };
}

/** The first piece tells of the prompt, too. */
function tellPrompt(take: TakeDelta, promptTokens: number): TakeDelta {
  let isTold = false;
  return (delta) => {
    if (isTold) return take(delta);
    isTold = true;
    return take({ ...delta, promptTokens });
  };
}

/**
 * Generates one answer in a slot of its own; the slot is free again when the promise settles.
 * @throws HelixFlowError CONTEXT_LENGTH_EXCEEDED, REQUEST_UNSUPPORTED, ENGINE_FAILED; the signal's reason.
 */
export async function generateAnswer(
  runtime: Runtime,
  chat: ChatRequest,
  take: TakeDelta,
  signal: AbortSignal,
): Promise<EngineDone> {
  const prompt = await readPrompt(runtime, chat, signal);
  const slot = await runtime.slots.take(prompt, signal);
  const { sequence } = slot;
  try {
    const startMs = performance.now();
    const cachedTokens = await prefill(runtime, sequence, prompt, signal);
    const tell = tellPrompt(take, prompt.length);
    const { finish, completionTokens, firstMs } = await decode(runtime, { sequence, prompt, signal }, chat, tell);
    return {
      finish,
      promptTokens: prompt.length,
      cachedTokens,
      completionTokens,
      prefillMs: ms(firstMs - startMs),
      decodeMs: ms(performance.now() - firstMs),
    };
  } finally {
    runtime.slots.giveBack(slot);
  }
}
