/** How tokens are counted by both sides of a session, so that an honest pair never disagrees (design §6). */

import { wireCount } from './messages/session-fields.ts';
import { utf8Length } from './utf8.ts';

/** The usual rule of thumb for English text; for text whose engine tells no token ids. */
export const bytesPerToken = 4;

/** What was received, or sent, of one answer. */
export interface Counted {
  /** Ids where they came, else a guess from the bytes. */
  readonly tokens: number;
  readonly bytes: number;
  /** Every piece of text came with its ids. */
  readonly hasIds: boolean;
}

/** Before the first piece. */
export const nothingCounted: Counted = { tokens: 0, bytes: 0, hasIds: true };

/** With one more piece. Text always counts for something; ids never for more than the bytes they came with. */
export function countDelta({ tokens, bytes, hasIds }: Counted, text: string, ids: number): Counted {
  const more = utf8Length(text);
  return {
    tokens: tokens + (ids > 0 ? ids : Math.ceil(more / bytesPerToken)),
    bytes: bytes + more,
    hasIds: hasIds && (ids > 0 || more === 0),
  };
}

/** What of it may be charged where it is cut: no more tokens than bytes. */
export const deliveredTokens = ({ tokens, bytes }: Counted): number => Math.min(tokens, bytes);

/** What was counted of an answer, as far as its request had asked for: nobody owes for tokens beyond `maxTokens`. */
export const countedWithin = (counted: Counted, maxTokens: number | undefined): Counted =>
  maxTokens === undefined || counted.tokens <= maxTokens ? counted : { ...counted, tokens: maxTokens };

/**
 * The completion of a whole answer: what the node reports, but never more than the ids it sent and one end token, nor
 * than the bytes it sent and one. Numbers that no frame carries count as the nearest that one does, as at the other end.
 */
export const wholeTokens = (reported: number, { tokens, bytes, hasIds }: Counted): number =>
  Math.min(wireCount(reported), bytes + 1, hasIds ? tokens + 1 : bytes + 1);

/** What a prompt may be charged as: the node's count, but never more than the bytes it came in. */
export const promptTokensOf = (reported: number, bodyBytes: number): number => Math.min(wireCount(reported), bodyBytes);
