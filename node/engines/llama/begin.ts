/** Where an answer begins: after its prompt, or after what another engine had told of it. */

import type { Token } from 'node-llama-cpp';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { EngineDone, GenerateRequest, Resume } from '../../../protocol/ports.ts';
import { type AnswerText, createAnswerText } from '../../answer-text.ts';
import type { Runtime } from './runtime.ts';
import { createDetokenizer, type Detokenizer } from './tokens.ts';

/** What there is of an answer before its next token. */
export interface Beginning {
  /** Ids of the answer that were told before. */
  readonly ids: readonly Token[];
  readonly text: AnswerText;
  readonly detokenizer: Detokenizer;
  /** Ids that the whole answer may have. */
  readonly tokensMax: number;
  /** How the answer has ended already, if it has. */
  readonly finish: EngineDone['finish'] | undefined;
}

/** A part of the runtime. */
type BeginRuntime = Pick<Runtime, 'model' | 'contextTokens' | 'vocabularySize'>;

const refused = (reason: string): HelixFlowError => new HelixFlowError('RESUME_REFUSED', { reason });

/** A gateway is trusted with the ids of an answer no more than with anything else. */
function checkIds({ model, vocabularySize }: BeginRuntime, { tokenIds }: Resume, roomTokens: number): Token[] {
  if (tokenIds.length > roomTokens) throw refused('it has more ids than the context has room');
  const isId = (id: number): boolean => Number.isInteger(id) && id >= 0 && id < vocabularySize;
  if (!tokenIds.every(isId)) throw refused('it has ids that are not of this vocabulary');
  const ids = tokenIds as readonly number[] as Token[];
  if (ids.slice(0, -1).some((id) => model.isEogToken(id))) throw refused('it goes on after the end of its answer');
  return ids;
}

/**
 * Prepares an answer: nothing of it is computed here.
 * @throws HelixFlowError RESUME_REFUSED
 */
export function beginAnswer(
  runtime: BeginRuntime,
  prompt: readonly Token[],
  { chat, resume }: Pick<GenerateRequest, 'chat' | 'resume'>,
): Beginning {
  const { model, contextTokens } = runtime;
  const roomTokens = contextTokens - prompt.length;
  const tokensMax = Math.min(chat.maxTokens ?? contextTokens, roomTokens);
  const detokenizer = createDetokenizer(model, prompt);
  if (resume === undefined) {
    return { ids: [], text: createAnswerText(chat.stop), detokenizer, tokensMax, finish: undefined };
  }
  const ids = checkIds(runtime, resume, roomTokens);
  const last = ids.at(-1);
  const isEnded = last !== undefined && model.isEogToken(last);
  const replayed = detokenizer.replay(isEnded ? ids.slice(0, -1) : ids);
  const text = createAnswerText(chat.stop, { text: replayed, shown: resume.text });
  const isLong = ids.length >= tokensMax;
  return {
    ids,
    text,
    detokenizer,
    tokensMax,
    finish: isEnded || text.stopped ? 'stop' : isLong ? 'length' : undefined,
  };
}
