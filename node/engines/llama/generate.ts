/** One answer of the llama engine: prompt into the slot's memory, then token by token until it ends. */

import { randomInt } from 'node:crypto';
import type { LlamaContextSequence, Token } from 'node-llama-cpp';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { ChatRequest } from '../../../protocol/messages/chat.ts';
import type { EngineDelta, EngineDone, GenerateRequest } from '../../../protocol/ports.ts';
import { ms } from '../../../protocol/units.ts';
import { type Beginning, beginAnswer } from './begin.ts';
import type { PromptPart } from './prompt.ts';
import type { Runtime } from './runtime.ts';
import { mixSeed } from './seeds.ts';
import { countPrompt, tokenizePrompt } from './tokens.ts';

/** One prefill call should take about this long: the time for which it delays others, and a cancel. */
const prefillTargetMs = 150;
const prefillTokensMin = 32;
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

/** Computes all of `tokens` but the last; returns how many needed no computing. */
async function prefill(
  runtime: Runtime,
  sequence: LlamaContextSequence,
  tokens: readonly Token[],
  job: Job,
): Promise<number> {
  await sequence.adaptStateToTokens(tokens.slice(0, -1), false);
  const cachedTokens = sequence.nextTokenIndex;
  let size = prefillTokensMin;
  for (let at = cachedTokens; at < tokens.length - 1; ) {
    job.signal.throwIfAborted();
    const startMs = performance.now();
    const slice = tokens.slice(at, Math.min(at + size, tokens.length - 1));
    await sequence.evaluateWithoutGeneratingNewTokens(slice);
    at += slice.length;
    job.sink.worked(slice.length);
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

/** One answer on its way. */
interface Job extends Beginning {
  readonly chat: ChatRequest;
  readonly sink: Sink;
  readonly signal: AbortSignal;
}

async function decode(runtime: Runtime, start: Start, job: Job) {
  const { model } = runtime;
  const { text, detokenizer, sink, signal, tokensMax } = job;
  let finish: EngineDone['finish'] = 'length';
  let firstMs = 0;
  let count = start.position;
  for await (const token of sampleTokens(start, job.chat)) {
    count += 1;
    sink.worked(1);
    firstMs ||= performance.now();
    signal.throwIfAborted();
    if (model.isEogToken(token)) {
      text.push('', [...detokenizer.rest(), token]);
      finish = 'stop';
      break;
    }
    const complete = detokenizer.push(token);
    const delta = complete && text.push(complete.text, complete.tokenIds);
    const wait = delta && sink.take(delta);
    if (wait !== undefined) await wait;
    signal.throwIfAborted();
    if (text.stopped) finish = 'stop';
    if (text.stopped || count >= tokensMax) break;
  }
  if (finish === 'length') text.push('', detokenizer.rest());
  const rest = text.flush();
  if (rest !== undefined) await sink.take(rest);
  return { finish, completionTokens: text.counted(), firstMs };
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

/** Ends an answer that was over when it was cut: only text that had been held back may be missing. */
async function endAtOnce({ text, sink, finish }: Job, promptTokens: number): Promise<EngineDone> {
  const rest = text.flush();
  if (rest !== undefined) await sink.take(rest);
  const nothing = { cachedTokens: promptTokens, completionTokens: 0, prefillMs: ms(0), decodeMs: ms(0) };
  return { finish: finish ?? 'stop', promptTokens, ...nothing };
}

/**
 * Generates one answer in a slot of its own, or the rest of one; the slot is free again when the promise settles.
 *
 * An answer that goes on has the tokens that it would have had if nobody had cut it, where temperature is 0 or a seed is
 * given and the model's digest, the build of llama.cpp and the backend are the same as before the cut. The tokens
 * received are then computed again in chunks, not one by one: a backend that rounds otherwise for chunks may take the
 * other one of two tokens that are as good as equally likely. Without a seed, what comes after the cut is drawn anew.
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
  const beginning = beginAnswer(runtime, prompt, request);
  const job: Job = { ...beginning, chat, sink: tellPrompt(sink, prompt.length), signal };
  if (job.finish !== undefined) return await endAtOnce(job, prompt.length);
  const tokens = [...prompt, ...job.ids];
  const slot = await runtime.slots.take(tokens, signal);
  const { sequence } = slot;
  try {
    signal.throwIfAborted();
    const startMs = performance.now();
    const cachedTokens = await prefill(runtime, sequence, tokens, job);
    const start = { sequence, last: tokens.at(-1) as Token, position: job.ids.length };
    const { finish, completionTokens, firstMs } = await decode(runtime, start, job);
    return {
      finish,
      promptTokens: prompt.length,
      cachedTokens: Math.min(cachedTokens, prompt.length),
      completionTokens,
      prefillMs: ms(firstMs - startMs),
      decodeMs: ms(performance.now() - firstMs),
    };
  } finally {
    runtime.slots.giveBack(slot);
  }
}
