/** Prompts are computed in chunks whose size follows the time they take. */

import type { LlamaContextSequence, Token } from 'node-llama-cpp';
import { describe, test } from 'vitest';
import { createChunkSize, prefill } from '../../../../node/engines/llama/prefill.ts';

const never = new AbortController().signal;

/** A slot that remembers `held` tokens; notes what it is asked to compute. */
function slot(held: number) {
  const chunks: number[] = [];
  const sequence = {
    nextTokenIndex: held,
    adaptStateToTokens: () => Promise.resolve(),
    evaluateWithoutGeneratingNewTokens: (tokens: readonly Token[]) => Promise.resolve(void chunks.push(tokens.length)),
  };
  return { chunks, sequence: sequence as unknown as LlamaContextSequence };
}

const prompt = (length: number): Token[] => Array.from({ length }, (_, id) => id as Token);

describe('the size of a chunk', () => {
  test('grows while chunks are short, stays when they take their time, shrinks when they take too long', ({
    expect,
  }) => {
    const chunk = createChunkSize(64);
    const after = (tookMs: number): number => {
      chunk.took(tookMs);
      return chunk.tokens;
    };
    expect([chunk.tokens, ...[1, 45, 1, 1, 500, 500, 500].map(after)]).toEqual([16, 32, 32, 64, 64, 32, 16, 16]);
  });

  test('is never more than a call can take', ({ expect }) => {
    expect(createChunkSize(8).tokens).toBe(8);
  });
});

describe('a prompt', () => {
  test('is computed up to its last token, without what is remembered, and told as it goes', async ({ expect }) => {
    const { chunks, sequence } = slot(10);
    const told: number[] = [];
    const job = {
      chunk: { tokens: 16, took: () => {} },
      signal: never,
      worked: (tokens: number) => void told.push(tokens),
    };
    expect(await prefill(sequence, prompt(50), job)).toBe(10);
    expect(chunks).toEqual([16, 16, 7]);
    expect(told).toEqual(chunks);
  });

  test('judges the size by whole chunks only', async ({ expect }) => {
    const took: number[] = [];
    const chunk = { tokens: 16, took: (tookMs: number) => void took.push(tookMs) };
    await prefill(slot(0).sequence, prompt(40), { chunk, signal: never, worked: () => {} });
    expect(took.length).toBe(2);
  });

  test('ends after the chunk in which nobody wants it any more', async ({ expect }) => {
    const { chunks, sequence } = slot(0);
    const abort = new AbortController();
    const reason = new Error('gone');
    const job = {
      chunk: { tokens: 16, took: () => {} },
      signal: abort.signal,
      worked: () => {
        if (chunks.length === 2) abort.abort(reason);
      },
    };
    await expect(prefill(sequence, prompt(1_000), job)).rejects.toBe(reason);
    expect(chunks).toEqual([16, 16]);
  });
});
