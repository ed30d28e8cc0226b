/** Computes prompts in chunks that are short enough for others, and a cancel, to get their turn. */

import type { LlamaContextSequence, Token } from 'node-llama-cpp';

/** One chunk should take at most about this long: a cancel waits for it, and so do the answers beside. */
const chunkTargetMs = 60;
/** Below this a CPU computes much less per second: with 16 tokens 0.7 of what it does with 64, with 8 half of it. */
const chunkTokensMin = 16;

/**
 * On a CPU, llama.cpp computes the attention of 64 or more tokens of one sequence in tiles, which rounds otherwise; below
 * that a token comes out the same, bit for bit, whatever is computed with it. So answers do not depend on how their
 * prompts were cut, and one that is taken up, whose tokens are computed in chunks, goes on exactly.
 */
export const chunkTokensExact = 60;

/** How many tokens to compute at once, by how long it took before; one for all answers of a model. */
export interface ChunkSize {
  readonly tokens: number;
  /** A chunk of `tokens` took `tookMs`. */
  took(tookMs: number): void;
}

/** @param tokensMax What one call can take. */
export function createChunkSize(tokensMax: number): ChunkSize {
  const least = Math.min(chunkTokensMin, tokensMax);
  let tokens = least;
  return {
    get tokens() {
      return tokens;
    },
    took(tookMs) {
      if (tookMs < chunkTargetMs / 2) tokens = Math.min(tokens * 2, tokensMax);
      else if (tookMs > chunkTargetMs) tokens = Math.max(tokens >> 1, least);
    },
  };
}

/** What a prompt is computed with, and for. */
export interface PrefillJob {
  readonly chunk: ChunkSize;
  readonly signal: AbortSignal;
  /** So many tokens were computed. */
  worked(tokens: number): void;
}

/**
 * Computes all of `tokens` but the last.
 * @returns how many needed no computing.
 * @throws the signal's reason, after the chunk that is under way.
 */
export async function prefill(
  sequence: LlamaContextSequence,
  tokens: readonly Token[],
  { chunk, signal, worked }: PrefillJob,
): Promise<number> {
  const end = tokens.length - 1;
  await sequence.adaptStateToTokens(tokens.slice(0, end), false);
  const heldTokens = sequence.nextTokenIndex;
  for (let at = heldTokens; at < end; ) {
    signal.throwIfAborted();
    const { tokens: size } = chunk;
    const slice = tokens.slice(at, Math.min(at + size, end));
    const startMs = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(slice);
    // A shorter one, the last of a prompt, tells nothing of a whole one.
    if (slice.length === size) chunk.took(performance.now() - startMs);
    at += slice.length;
    worked(slice.length);
  }
  return heldTokens;
}
