/** One attempt of a call as the ledger will know it: what came of it so far, and what its line says in the end. */

import type { Price, TokenCounts } from '../../ledger/price.ts';
import type { AttemptEnd, OpenLine } from '../../ledger/tabs.ts';
import {
  bytesPerToken,
  type Counted,
  countDelta,
  deliveredTokens,
  nothingCounted,
  promptTokensOf,
  wholeTokens,
} from '../../protocol/counting.ts';
import type { Tag } from '../../protocol/ids.ts';
import type { Cancelled, Delta, Done } from '../../protocol/messages/session.ts';
import type { Attempt } from '../../protocol/session/outgoing.ts';
import { type Ms, ms } from '../../protocol/units.ts';
import type { Serving } from '../nodes.ts';
import type { AttemptHealth } from './health.ts';
import type { ShownPiece } from './shown.ts';
import type { AttemptPurpose } from './trace.ts';

/** Ids before any text; with more of them nobody is asked to go on. */
const earlyIdsMax = 16_384;

interface Early extends ShownPiece {
  tokenIds: number[];
  isOpaque: boolean;
}

/** The attempts of which nobody pays the prompt: it belongs to the one that ended its request (design §6). */
const isPromptPaid = ({ outcome }: AttemptEnd): boolean => outcome === 'done' || outcome === 'cancelled';

/** What of a line its payer owes; as settlement has it. */
export const owedOf = (end: AttemptEnd): TokenCounts => {
  const { promptTokens, cachedTokens, completionTokens } = end;
  return isPromptPaid(end)
    ? { promptTokens, cachedTokens, completionTokens }
    : { promptTokens: 0, cachedTokens: 0, completionTokens };
};

export interface AttemptFacts {
  readonly serving: Serving;
  readonly purpose: AttemptPurpose;
  /** `Score.firstMs`, 0 where too little was known of the node, and how much of the body's beginning it should hold. */
  readonly expectedMs: number;
  readonly cachedBytes: number;
  readonly line: OpenLine;
  /** The tag that the node knows the account by. */
  readonly account: Tag;
  readonly price: Price;
  readonly bodyBytes: number;
  readonly startedMs: number;
  /** Of so many tokens of its answer, those that may be charged by now. */
  readonly charged: (tokens: number) => number;
}

/** From the moment it is about to leave; `attempt` is there once it has. */
export class RunningAttempt {
  readonly serving: Serving;
  readonly purpose: AttemptPurpose;
  readonly expectedMs: number;
  readonly cachedBytes: number;
  readonly line: OpenLine;
  readonly account: Tag;
  readonly price: Price;
  readonly startedMs: number;
  /** When anything of it last came. */
  lastPieceMs: number;
  /** Its text is in the answer. */
  hasContent = false;
  attempt: Attempt | undefined;
  health: AttemptHealth | undefined;
  /** When text of it last came. */
  lastTextMs: number;
  /** The pieces without text that came before any content, as one. */
  #early: Early | undefined;
  readonly #bodyBytes: number;
  readonly #charged: (tokens: number) => number;
  #counted: Counted = nothingCounted;
  #firstMs = ms(0);

  constructor(facts: AttemptFacts) {
    this.serving = facts.serving;
    this.purpose = facts.purpose;
    this.expectedMs = facts.expectedMs;
    this.cachedBytes = facts.cachedBytes;
    this.line = facts.line;
    this.account = facts.account;
    this.price = facts.price;
    this.#bodyBytes = facts.bodyBytes;
    this.startedMs = facts.startedMs;
    this.lastPieceMs = facts.startedMs;
    this.lastTextMs = facts.startedMs;
    this.#charged = facts.charged;
  }

  /** From the start to the first content; 0 before it. */
  get firstMs(): Ms {
    return this.#firstMs;
  }

  /** What may be charged of what has come. */
  get tokens(): number {
    return deliveredTokens(this.#counted);
  }

  /** UTF-8 bytes of text that have come. */
  get textBytes(): number {
    return this.#counted.bytes;
  }

  /** A piece has come. @returns `tokens`. */
  received({ text, tokenIds }: Delta): number {
    this.#counted = countDelta(this.#counted, text, tokenIds.length);
    const { tokens } = this;
    // What its statements tell of an attempt is owed, as its line is.
    this.line.received(this.#charged(tokens));
    return tokens;
  }

  /** A piece without text that came before any content: only what another node would need of it is kept. */
  held({ tokenIds, isOpaque }: Delta): void {
    if (tokenIds.length === 0 && isOpaque !== true) return;
    this.#early ??= { text: '', tokenIds: [], isOpaque: false };
    this.#early.isOpaque ||= isOpaque === true || this.#early.tokenIds.length + tokenIds.length > earlyIdsMax;
    if (this.#early.isOpaque) this.#early.tokenIds = [];
    else this.#early.tokenIds.push(...tokenIds);
  }

  /** What was held. */
  get early(): ShownPiece | undefined {
    return this.#early;
  }

  /** The first content has come so long after the start. */
  began(firstMs: Ms): void {
    this.#firstMs = firstMs;
  }

  /** The line of a whole answer. @param within The most tokens that may be charged of an answer. */
  doneEnd(done: Done, within: (tokens: number) => number): AttemptEnd {
    const promptTokens = promptTokensOf(done.promptTokens, this.#bodyBytes);
    return {
      outcome: 'done',
      firstMs: this.#firstMs,
      promptTokens,
      cachedTokens: Math.min(done.cachedTokens, promptTokens),
      completionTokens: within(wholeTokens(done.completionTokens, this.#counted)),
      nodeTokens: done.completionTokens,
    };
  }

  /** The line of one whose client wanted no more, with what its node said of it, if it did. */
  cancelledEnd(said: Cancelled | Done | undefined, within: (tokens: number) => number): AttemptEnd {
    // Of a node that is not heard, only content proves that it worked on the prompt.
    const guess = this.tokens === 0 ? 0 : Math.ceil(this.#bodyBytes / bytesPerToken);
    return {
      outcome: 'cancelled',
      firstMs: this.#firstMs,
      promptTokens: promptTokensOf(said?.promptTokens ?? guess, this.#bodyBytes),
      cachedTokens: 0,
      completionTokens: within(this.tokens),
      ...(said === undefined ? {} : { nodeTokens: said.completionTokens }),
    };
  }

  /**
   * The line of one that its node, what lies between, or this gateway has ended: nobody is paid for its prompt. `hedged`:
   * its text, if there was any, is in no answer.
   */
  failedEnd(outcome: 'lost' | 'failed' | 'cut' | 'hedged', within: (tokens: number) => number): AttemptEnd {
    return {
      outcome,
      firstMs: this.#firstMs,
      promptTokens: 0,
      cachedTokens: 0,
      completionTokens: within(this.tokens),
    };
  }
}
