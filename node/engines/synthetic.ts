/** An engine without a model, for benchmarks and load tests: exactly as many tokens as asked for, at once or paced. */

import { sha256Hex } from '../../protocol/crypto.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest } from '../../protocol/ids.ts';
import type { Clock, Engine, EngineDone, EngineModel, GenerateRequest } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';
import { createAnswerText } from '../answer-text.ts';
import { countPromptTokens, hashPrompt, syntheticDelta } from '../synthetic-text.ts';
import { createMeter } from './meter.ts';

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
  readonly slots?: number;
  readonly contextTokens?: number;
}

type Emit = Parameters<Engine['generate']>[1];

/**
 * Creates an engine whose text is a function of prompt and position. Sampling parameters change nothing.
 * @throws HelixFlowError CONFIG_INVALID when the name does not say that the engine is synthetic.
 */
export function createSyntheticEngine(deps: { readonly clock: Clock }, options: SyntheticOptions = {}): Engine {
  const { clock } = deps;
  const { name = 'synthetic', tokensPerSecond, slots = 1_000_000, contextTokens = 131_072 } = options;
  if (!name.includes('synthetic')) {
    throw new HelixFlowError('CONFIG_INVALID', {
      reason: `the synthetic engine serves no model, so the name '${name}' must contain 'synthetic'`,
    });
  }
  const model: EngineModel = {
    name,
    digest: sha256Hex(JSON.stringify(['synthetic', textVersion, name])) as ModelDigest,
    digestKind: 'synthetic',
    contextTokens,
    continuation: 'none',
    build: `synthetic text ${textVersion}, ${tokensPerSecond === undefined ? 'instant' : `${tokensPerSecond} tokens/s`}`,
  };
  const models = [model];
  const meter = createMeter(clock);

  function pause(startMs: number, position: number, signal: AbortSignal): Promise<void> | undefined {
    if (tokensPerSecond === undefined) {
      return position % tokensPerTurn === tokensPerTurn - 1 ? clock.turn() : undefined;
    }
    const waitMs = startMs + ((position + 1) * 1_000) / tokensPerSecond - clock.nowMs();
    return waitMs > 0 ? clock.sleep(ms(waitMs), signal) : undefined;
  }

  async function run({ chat }: GenerateRequest, count: number, emit: Emit, signal: AbortSignal) {
    const promptHash = hashPrompt(chat);
    const promptTokens = countPromptTokens(chat);
    let isTold = false;
    const text = chat.stop && createAnswerText(chat.stop);
    const startMs = clock.nowMs();
    for (let position = 0; position < count && text?.stopped !== true; position += 1) {
      const idle = pause(startMs, position, signal);
      if (idle !== undefined) await idle;
      signal.throwIfAborted();
      const token = syntheticDelta(promptHash, position);
      const delta = text === undefined ? token : text.push(token.text, token.tokenIds);
      const taken = delta && emit(isTold ? delta : { ...delta, promptTokens });
      isTold ||= delta !== undefined;
      if (taken !== undefined) await taken;
    }
    const rest = text?.flush();
    if (rest !== undefined) await emit(rest);
    return text?.stopped === true
      ? { finish: 'stop' as const, completionTokens: text.counted() }
      : { finish: 'length' as const, completionTokens: count };
  }

  return {
    kind: 'synthetic',
    slots,
    models: () => models,
    stats: () => ({ active: meter.active, slots, tokensPerSecond: meter.perSecond() }),
    onChange: () => () => {},
    close: () => Promise.resolve(),
    async generate(request, emit, signal): Promise<EngineDone> {
      if (request.model !== name) throw new HelixFlowError('NODE_MODEL_MISSING', { model: request.model });
      const { maxTokens: completionTokens = completionTokensDefault } = request.chat;
      const promptTokens = countPromptTokens(request.chat);
      const requestedTokens = promptTokens + completionTokens;
      if (requestedTokens > contextTokens) {
        throw new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', {
          contextTokens,
          requestedTokens,
          promptTokens,
          completionTokens,
        });
      }
      signal.throwIfAborted();
      const end = meter.begin();
      const startMs = clock.nowMs();
      try {
        const ended = await run(request, completionTokens, emit, signal);
        meter.tokens(ended.completionTokens);
        return { ...ended, promptTokens, cachedTokens: 0, prefillMs: ms(0), decodeMs: ms(clock.nowMs() - startMs) };
      } finally {
        end();
      }
    },
  };
}
