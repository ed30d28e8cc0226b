/** How many threads a model runs best on, by trying: small models lose far more to waiting than they gain from help. */

import type { LlamaModel } from 'node-llama-cpp';

/** Above this size more threads always win, and a measurement would take too long. */
const smallModelBytes = 268_435_456;
const tokensPerTry = 24;
const tryMaxMs = 60;
/** More threads must be this much faster, since on a busy machine they lose first. */
const gainMin = 1.25;

/** Milliseconds per token; the first two tokens are not counted. */
async function timeToken(model: LlamaModel, threads: number): Promise<number> {
  await using context = await model.createContext({ contextSize: 64, sequences: 1, batchSize: 64, threads });
  const prompt = model.tokenize('a').slice(0, 1);
  let tokens = -2;
  let startMs = 0;
  for await (const _ of context.getSequence().evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    tokens += 1;
    if (tokens === 0) startMs = performance.now();
    if (tokens === tokensPerTry || (tokens > 0 && performance.now() - startMs > tryMaxMs)) break;
  }
  return (performance.now() - startMs) / tokens;
}

/**
 * Measures 1, 2, 4 … threads as long as doubling pays; takes at most about 300 ms.
 * @param coresMax Cores fit for mathematics.
 */
export async function measureThreads(model: LlamaModel, coresMax: number): Promise<number> {
  if (model.size > smallModelBytes) return coresMax;
  let best = 1;
  let bestMs = await timeToken(model, 1);
  for (let threads = 2; threads <= coresMax; threads *= 2) {
    const tokenMs = await timeToken(model, threads);
    if (tokenMs * gainMin > bestMs) break;
    best = threads;
    bestMs = tokenMs;
  }
  return best;
}
