/** The time that prompts take at an engine without a model, and what it pretends to remember of them. */

import type { ChatMessage } from '../../protocol/messages/chat.ts';
import type { Clock } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';
import type { Meter } from './meter.ts';
import { createPrefixCache, promptBlocks } from './prefix-cache.ts';

/** So often progress shows. */
const stepMs = 100;

/** What is to be computed before the first token. */
export interface SyntheticPrompt {
  readonly messages: readonly ChatMessage[];
  readonly promptTokens: number;
  /** Of the answer, where one is taken up. */
  readonly answerTokens: number;
}

/** A prompt that has been computed. */
export interface HeldPrompt {
  /** Of the prompt, what needed no computing. */
  readonly cachedTokens: number;
  /** The answer is whole: the next turn of the conversation begins with both. */
  answered(text: () => string): void;
}

export interface SyntheticPrefill {
  /** Takes the time that computing takes; each prompt takes its own. @throws the signal's reason. */
  compute(prompt: SyntheticPrompt, signal: AbortSignal): Promise<HeldPrompt>;
}

/** @returns undefined where prompts take no time. */
export function createSyntheticPrefill(
  { clock, meter }: { readonly clock: Clock; readonly meter: Meter },
  options: { readonly prefillTokensPerSecond?: number; readonly cacheTokens?: number },
): SyntheticPrefill | undefined {
  const { prefillTokensPerSecond, cacheTokens = 0 } = options;
  if (prefillTokensPerSecond === undefined) return undefined;
  const cache = createPrefixCache(cacheTokens);
  const stepTokens = Math.max(1, Math.round((prefillTokensPerSecond * stepMs) / 1_000));

  return {
    async compute({ messages, promptTokens, answerTokens }, signal) {
      const blocks = promptBlocks(messages);
      // Never all of it: each message counts for more tokens than its text.
      const cachedTokens = cache.match(blocks);
      const startMs = clock.nowMs();
      const total = promptTokens - cachedTokens + answerTokens;
      let computed = 0;
      try {
        while (computed < total) {
          const step = Math.min(stepTokens, total - computed);
          const waitMs = startMs + ((computed + step) * 1_000) / prefillTokensPerSecond - clock.nowMs();
          if (waitMs > 0) await clock.sleep(ms(waitMs), signal);
          signal.throwIfAborted();
          computed += step;
          meter.worked(step);
        }
      } finally {
        cache.remember(blocks, cachedTokens + computed);
      }
      return {
        cachedTokens,
        answered(text) {
          const whole = promptBlocks([...messages, { role: 'assistant', content: text() }]);
          cache.remember(whole, Number.POSITIVE_INFINITY);
        },
      };
    },
  };
}
