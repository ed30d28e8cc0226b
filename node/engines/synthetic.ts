/** An engine without a model, for benchmarks and load tests: exactly as many tokens as asked for, at once or paced. */

import { sha256Hex } from '../../protocol/crypto.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest } from '../../protocol/ids.ts';
import type { Clock, Engine, EngineDone, EngineModel, GenerateRequest } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';
import { type AnswerText, createAnswerText } from '../answer-text.ts';
import { countPromptTokens, hashPrompt, syntheticDelta, syntheticText } from '../synthetic-text.ts';
import { untilTaken } from '../taken.ts';
import { createMeter, type Meter } from './meter.ts';
import { createQueue } from './queue.ts';
import { createSyntheticPrefill } from './synthetic-prefill.ts';

/** Part of the digest: raise it when the text changes. */
const textVersion = 1;
const completionTokensDefault = 16;
/** Tokens handed over before others, and a cancel, get their turn. */
const tokensPerTurn = 256;

export interface SyntheticOptions {
  /** Must contain `synthetic`, so that nobody takes it for a model. */
  readonly name?: string;
  /** Of each answer; absent: as fast as they are taken. */
  readonly tokensPerSecond?: number;
  /** Prompt tokens of each answer that are computed per second; absent: prompts take no time. */
  readonly prefillTokensPerSecond?: number;
  /** Tokens that it pretends to remember, which take no time again: by default none. Only with `prefillTokensPerSecond`. */
  readonly cacheTokens?: number;
  /** Answers at the same time; others wait. */
  readonly slots?: number;
  readonly contextTokens?: number;
}

type Emit = Parameters<Engine['generate']>[1];

/** One answer, from its slot to its end. */
interface Job {
  readonly request: GenerateRequest;
  readonly promptTokens: number;
  readonly promptHash: number;
  /** Tokens of the whole answer. */
  readonly count: number;
  /** Stop texts, and what is taken up; absent where there is neither. */
  readonly text: AnswerText | undefined;
  readonly emit: Emit;
  readonly signal: AbortSignal;
}

const refused = (reason: string): HelixFlowError => new HelixFlowError('RESUME_REFUSED', { reason });

function createModel(name: string, contextTokens: number, { tokensPerSecond }: SyntheticOptions): EngineModel {
  if (!name.includes('synthetic')) {
    throw new HelixFlowError('CONFIG_INVALID', {
      reason: `the synthetic engine serves no model, so the name '${name}' must contain 'synthetic'`,
    });
  }
  return {
    name,
    digest: sha256Hex(JSON.stringify(['synthetic', textVersion, name])) as ModelDigest,
    digestKind: 'synthetic',
    contextTokens,
    continuation: 'tokens',
    build: `synthetic text ${textVersion}, ${tokensPerSecond === undefined ? 'instant' : `${tokensPerSecond} tokens/s`}`,
  };
}

/** How many tokens the prompt has, and the answer; refuses what does not fit. */
function measure({ chat, resume }: GenerateRequest, contextTokens: number) {
  const { maxTokens: completionTokens = completionTokensDefault } = chat;
  const promptTokens = countPromptTokens(chat);
  const requestedTokens = promptTokens + completionTokens;
  // What the gateway says was counted is what its account is held against: no more comes than is left of that.
  const beyondIds = resume === undefined ? 0 : Math.max(0, resume.tokens - resume.tokenIds.length);
  if (requestedTokens <= contextTokens) return { promptTokens, count: completionTokens - beyondIds };
  const details = { contextTokens, requestedTokens, promptTokens, completionTokens };
  throw new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', details);
}

/** Where the text is a function of prompt and position, so are the ids. */
function openText({ chat, resume }: GenerateRequest, promptHash: number): AnswerText | undefined {
  if (resume === undefined) return chat.stop && createAnswerText(chat.stop);
  const { tokenIds, text: shown } = resume;
  const isOurs = tokenIds.every((id, position) => syntheticDelta(promptHash, position).tokenIds[0] === id);
  if (!isOurs) throw refused('its ids are not those of this prompt');
  return createAnswerText(chat.stop, { text: syntheticText(promptHash, tokenIds.length), shown });
}

/**
 * Creates an engine whose text is a function of prompt and position. Sampling parameters change nothing.
 * @throws HelixFlowError CONFIG_INVALID when the name does not say that the engine is synthetic.
 */
export function createSyntheticEngine(deps: { readonly clock: Clock }, options: SyntheticOptions = {}): Engine {
  const { clock } = deps;
  const { name = 'synthetic', tokensPerSecond, slots = 1_000_000, contextTokens = 131_072 } = options;
  const models = [createModel(name, contextTokens, options)];
  const meter: Meter = createMeter(clock);
  const prefill = createSyntheticPrefill({ clock, meter }, options);
  const queue = createQueue<void>();
  let running = 0;

  /** Until the token after `tokens` is due. */
  function pause(startMs: number, tokens: number, signal: AbortSignal): Promise<void> | undefined {
    if (tokensPerSecond === undefined) {
      return tokens % tokensPerTurn === tokensPerTurn - 1 ? clock.turn() : undefined;
    }
    const waitMs = startMs + ((tokens + 1) * 1_000) / tokensPerSecond - clock.nowMs();
    return waitMs > 0 ? clock.sleep(ms(waitMs), signal) : undefined;
  }

  async function decode({ request, promptTokens, promptHash, count, text, emit, signal }: Job) {
    const from = request.resume?.tokenIds.length ?? 0;
    let isTold = false;
    const startMs = clock.nowMs();
    for (let position = from; position < count && text?.stopped !== true; position += 1) {
      const idle = pause(startMs, position - from, signal);
      if (idle !== undefined) await idle;
      signal.throwIfAborted();
      meter.worked(1);
      const token = syntheticDelta(promptHash, position);
      const delta = text === undefined ? token : text.push(token.text, token.tokenIds);
      const taken = delta && emit(isTold ? delta : { ...delta, promptTokens });
      isTold ||= delta !== undefined;
      if (taken !== undefined) await untilTaken(taken, signal);
    }
    const rest = text?.flush();
    const restTaken = rest && emit(rest);
    if (restTaken !== undefined) await untilTaken(restTaken, signal);
    return {
      finish: text?.stopped === true ? ('stop' as const) : ('length' as const),
      completionTokens: text?.counted() ?? count,
    };
  }

  async function run(job: Job): Promise<EngineDone> {
    const { request, promptTokens, promptHash, signal } = job;
    const position = request.resume?.tokenIds.length ?? 0;
    const isOver = position >= job.count || job.text?.stopped === true;
    const startMs = clock.nowMs();
    const prompt = { messages: request.chat.messages, promptTokens, answerTokens: position };
    const held = isOver || prefill === undefined ? undefined : await prefill.compute(prompt, signal);
    const firstMs = clock.nowMs();
    const ended = await decode(job);
    meter.tokens(ended.completionTokens);
    held?.answered(() => syntheticText(promptHash, position + ended.completionTokens));
    return {
      ...ended,
      promptTokens,
      cachedTokens: isOver ? promptTokens : (held?.cachedTokens ?? 0),
      prefillMs: ms(firstMs - startMs),
      decodeMs: ms(clock.nowMs() - firstMs),
    };
  }

  return {
    kind: 'synthetic',
    slots,
    models: () => models,
    stats: () => ({ active: meter.active, slots, tokensPerSecond: meter.perSecond(), progress: meter.progress }),
    onChange: () => () => {},
    close: () => Promise.resolve(),
    async generate(request, emit, signal): Promise<EngineDone> {
      if (request.model !== name) throw new HelixFlowError('NODE_MODEL_MISSING', { model: request.model });
      const size = measure(request, contextTokens);
      signal.throwIfAborted();
      const promptHash = hashPrompt(request.chat);
      const job: Job = { request, ...size, promptHash, text: openText(request, promptHash), emit, signal };
      const end = meter.begin();
      try {
        if (running < slots) running += 1;
        else await queue.wait(signal);
      } catch (error) {
        end();
        throw error;
      }
      try {
        signal.throwIfAborted();
        return await run(job);
      } finally {
        if (!queue.hand()) running -= 1;
        end();
      }
    },
  };
}
