/** What the engine must know of a model's vocabulary: its control tokens, and how long a token can be. */

import type { LlamaModel, Token } from 'node-llama-cpp';

/** Read once, when the model is loaded. */
export interface Vocabulary {
  readonly controlTokens: ReadonlySet<Token>;
  readonly controlTexts: readonly string[];
  readonly tokenMaxChars: number;
  /** Ids are below this. */
  readonly vocabularySize: number;
}

/** llama.cpp's own view of the attributes counts, since it mends files that mark theirs wrongly. */
export function readVocabulary(model: LlamaModel): Vocabulary {
  const texts: readonly string[] = model.fileInfo.metadata.tokenizer?.ggml?.tokens ?? [];
  const controlTokens = new Set<Token>();
  const controlTexts: string[] = [];
  let tokenMaxChars = 1;
  for (const [index, text] of texts.entries()) {
    const token = index as Token;
    tokenMaxChars = Math.max(tokenMaxChars, text.length);
    const attributes = model.getTokenAttributes(token);
    if (!attributes.control && !attributes.unknown && !model.isEogToken(token)) continue;
    controlTokens.add(token);
    controlTexts.push(text);
  }
  return { controlTokens, controlTexts, tokenMaxChars, vocabularySize: texts.length };
}
