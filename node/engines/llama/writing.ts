/** One answer as its tokens come, from its first one or from where another engine was cut: what may be shown, when it ends. */

import type { LlamaModel, Token } from 'node-llama-cpp';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { EngineDelta, EngineDone, GenerateRequest, Resume } from '../../../protocol/ports.ts';
import { createAnswerText } from '../../answer-text.ts';
import { createDetokenizer } from './tokens.ts';

/** What must be known of a model; a part of the runtime. */
export interface WritingModel {
  readonly model: Pick<LlamaModel, 'detokenize' | 'isEogToken'>;
  readonly contextTokens: number;
  readonly vocabularySize: number;
}

export interface Writing {
  /** Ids of the answer that were told before; the next token's position is their number. */
  readonly ids: readonly Token[];
  /** How the answer has ended; undefined while more is to come. */
  readonly finish: EngineDone['finish'] | undefined;
  /** Adds the next token; returns what may be shown now. */
  add(token: Token): EngineDelta | undefined;
  /** What was held back. Call once, after the end. */
  rest(): EngineDelta | undefined;
  /** As `AnswerText.counted`: without what was told before. */
  counted(): number;
}

const refused = (reason: string): HelixFlowError => new HelixFlowError('RESUME_REFUSED', { reason });

/** A gateway is trusted with the ids of an answer no more than with anything else. */
function checkIds({ model, vocabularySize }: WritingModel, { tokenIds }: Resume, roomTokens: number): Token[] {
  if (tokenIds.length > roomTokens) throw refused('it has more ids than the context has room');
  const isId = (id: number): boolean => Number.isInteger(id) && id >= 0 && id < vocabularySize;
  if (!tokenIds.every(isId)) throw refused('it has ids that are not of this vocabulary');
  const ids = tokenIds as readonly number[] as Token[];
  if (ids.slice(0, -1).some((id) => model.isEogToken(id))) throw refused('it goes on after the end of its answer');
  return ids;
}

/**
 * Begins an answer, or takes it up: an answer that was whole when it was cut has ended at once.
 * @throws HelixFlowError RESUME_REFUSED, `add` and `rest` too.
 */
export function createWriting(
  { model, ...context }: WritingModel,
  prompt: readonly Token[],
  { chat, resume }: Pick<GenerateRequest, 'chat' | 'resume'>,
): Writing {
  const roomTokens = context.contextTokens - prompt.length;
  const tokensMax = Math.min(chat.maxTokens ?? roomTokens, roomTokens);
  const detokenizer = createDetokenizer(model, prompt);
  const ids = resume === undefined ? [] : checkIds({ model, ...context }, resume, roomTokens);
  const isEnded = ids.slice(-1).some((id) => model.isEogToken(id));
  const replayed = detokenizer.replay(isEnded ? ids.slice(0, -1) : ids);
  const text = createAnswerText(chat.stop, resume && { text: replayed, shown: resume.text });
  // What the gateway says was counted is what its account is held against: no more comes than is left of that.
  let count = Math.max(ids.length, resume?.tokens ?? 0);
  let eog: readonly Token[] = [];

  const judge = (hasEnded: boolean): EngineDone['finish'] | undefined =>
    hasEnded || text.stopped ? 'stop' : count >= tokensMax ? 'length' : undefined;
  let finish = judge(isEnded);

  return {
    ids,
    get finish() {
      return finish;
    },
    add(token) {
      count += 1;
      if (model.isEogToken(token)) {
        eog = [token];
        finish = 'stop';
        return undefined;
      }
      const complete = detokenizer.push(token);
      const delta = complete && text.push(complete.text, complete.tokenIds);
      finish = judge(false);
      return delta;
    },
    rest: () => text.flush([...detokenizer.rest(), ...eog]),
    counted: text.counted,
  };
}
