/** Between text and token ids: prompts in, answers out. */

import { setImmediate } from 'node:timers/promises';
import type { LlamaModel, Token } from 'node-llama-cpp';
import type { PromptPart } from './prompt.ts';

/** Characters tokenized in one go when a prompt is certainly too long and only its size is of interest. */
const countSliceChars = 16_384;
/** Tokens whose text may stay undecodable before it is shown as it is. */
const undecodableMax = 8;
const incompleteEnd = /\uFFFD+$/;
/** Tokens that decide whether the next one begins with a space. */
const spacingTokens = 3;

export interface TokenizerContext {
  readonly model: LlamaModel;
  readonly controlTokens: ReadonlySet<Token>;
}

/** Text in which nothing may become a control token; where the tokenizer still finds one, it sees single characters. */
function tokenizePlain({ model, controlTokens }: TokenizerContext, text: string): Token[] {
  const tokens = model.tokenize(text, false);
  if (!tokens.some((token) => controlTokens.has(token))) return tokens;
  return [...text].flatMap((character) => model.tokenize(character, false));
}

/** The ids of a rendered prompt, with the begin-of-text token where the model wants one and the template gave none. */
export function tokenizePrompt(context: TokenizerContext, parts: readonly PromptPart[]): Token[] {
  const { model } = context;
  const tokens: Token[] = [];
  for (const { text, plain } of parts) {
    for (const token of plain ? tokenizePlain(context, text) : model.tokenize(text, true)) tokens.push(token);
  }
  const { bos, shouldPrependBosToken } = model.tokens;
  if (shouldPrependBosToken && bos !== null && tokens[0] !== bos) tokens.unshift(bos);
  return tokens;
}

/** The size of a prompt that is far too long, in slices, so that others go on meanwhile. */
export async function countPrompt(
  model: LlamaModel,
  parts: readonly PromptPart[],
  signal: AbortSignal,
): Promise<number> {
  let count = 0;
  for (const { text, plain } of parts) {
    for (let at = 0; at < text.length; at += countSliceChars) {
      count += model.tokenize(text.slice(at, at + countSliceChars), !plain).length;
      await setImmediate();
      signal.throwIfAborted();
    }
  }
  return count;
}

export interface Detokenizer {
  /** The text that became whole with `token`, and the ids not told before; undefined while nothing did. */
  push(token: Token): { readonly text: string; readonly tokenIds: readonly Token[] } | undefined;
  /** Ids whose text never became whole. */
  rest(): readonly Token[];
  /** As `push` for tokens whose ids were told before: their whole text, as far as it is whole. None of them is told again. */
  replay(tokens: readonly Token[]): string;
}

/** Turns ids into whole UTF-8, one by one. `before` is the end of the prompt. */
export function createDetokenizer(model: Pick<LlamaModel, 'detokenize'>, before: readonly Token[]): Detokenizer {
  let last = before.slice(-spacingTokens);
  /** Tokens since the last one that ended with a character. */
  let pending: Token[] = [];
  let shownChars = 0;
  let untold: Token[] = [];

  function tell(text: string) {
    const told = { text, tokenIds: untold };
    untold = [];
    return told;
  }

  function push(token: Token) {
    pending.push(token);
    untold.push(token);
    const text = model.detokenize(pending, false, last);
    const whole = text.replace(incompleteEnd, '');
    const fresh = text.slice(shownChars);
    if (whole.length === text.length || untold.length >= undecodableMax) {
      last = [...last, ...pending].slice(-spacingTokens);
      pending = [];
      shownChars = 0;
      return tell(fresh);
    }
    if (whole.length <= shownChars) return undefined;
    const complete = whole.slice(shownChars);
    shownChars = whole.length;
    return tell(complete);
  }

  return {
    push,
    rest: () => untold,
    replay(tokens) {
      let text = '';
      for (const token of tokens) text += push(token)?.text ?? '';
      untold = [];
      return text;
    },
  };
}
