/** The money of one request: what is set aside for it, how far that reaches, and what its attempts have cost. */

import type { MoneyHold } from '../../ledger/budgets.ts';
import { costMicro, type Price, type TokenCounts } from '../../ledger/price.ts';
import type { Tag } from '../../protocol/ids.ts';

/** What a request may take at worst. */
export interface Need {
  /** No prompt has more tokens than the bytes it comes in. */
  readonly promptBound: number;
  /** What is set aside for the answer at first. */
  readonly completionTokens: number;
  /** No honest node makes more: the bound that the client named, or the model's context. */
  readonly mostTokens: number;
}

/** What is set aside grows in these steps while an answer without a bound comes. */
const stepTokens = 1_024;
/** So long before the end of what is set aside more is asked for, and then again after so many tokens. */
const aheadTokens = 256;
const againTokens = 64;

/** What an attempt costs at worst; a cached token may well be dearer than a fresh one. */
export const worstMicro = (price: Price, promptBound: number, completionTokens: number): number =>
  costMicro(
    { ...price, prompt: Math.max(price.prompt, price.cached) },
    { promptTokens: promptBound, cachedTokens: 0, completionTokens },
  );

/** Of one request. What hedges cost is the gateway's own; the others run one after the other. */
export class Funds {
  readonly #hold: MoneyHold;
  readonly #need: Need;
  #heldMicro: number;
  #spentMicro = 0;
  #price: Price | undefined;
  #keptTokens = 0;
  /** Tokens of the answer that are paid for in advance. */
  #tokens: number;
  #growAtTokens: number;

  constructor(hold: MoneyHold, heldMicro: number, need: Need) {
    this.#hold = hold;
    this.#heldMicro = heldMicro;
    this.#need = need;
    this.#tokens = need.completionTokens;
    this.#growAtTokens = this.#nextGrowth();
  }

  /** What the lines of the request name. */
  get lease(): Tag | undefined {
    return this.#hold.lease;
  }

  /** True when anything of it is outside a lease. */
  get isGrace(): boolean {
    return this.#hold.isGrace;
  }

  /**
   * Sets aside what an attempt at this price may take beside what earlier ones have cost.
   * @param keptTokens Tokens of the answer that earlier attempts have made.
   * @returns false when it is not there.
   */
  covers(price: Price, keptTokens: number): boolean {
    return this.#holdFor(price, this.#tokens, keptTokens);
  }

  /** The rest of the answer comes at this price. */
  use(price: Price, keptTokens: number): void {
    this.#price = price;
    this.#keptTokens = keptTokens;
  }

  /** More of the answer has come: so many tokens by now. @returns false when what is set aside ends here, and there is no more. */
  reaches(tokens: number): boolean {
    if (tokens < this.#growAtTokens) return true;
    if (this.#growTo(Math.min(this.#tokens + stepTokens, this.#need.mostTokens))) return true;
    this.#growAtTokens = Math.min(tokens + againTokens, this.#tokens);
    return tokens < this.#tokens;
  }

  /** Of so many tokens of an answer, those that money is set aside for by now. */
  charged(tokens: number): number {
    return Math.min(tokens, this.#tokens);
  }

  /** How many tokens of an answer may be charged: all of them where they are, or can be, set aside. */
  within(completionTokens: number): number {
    if (completionTokens > this.#tokens) this.#growTo(Math.min(completionTokens, this.#need.mostTokens));
    return Math.min(completionTokens, this.#tokens);
  }

  /** An attempt has ended with these tokens to pay for. */
  spend(price: Price, counts: TokenCounts): void {
    this.#spentMicro += costMicro(price, counts);
  }

  /** The request has ended: the rest is free again. */
  settle(): void {
    this.#hold.settle(this.#spentMicro);
  }

  #holdFor(price: Price, tokens: number, keptTokens: number): boolean {
    const restTokens = Math.max(0, tokens - keptTokens);
    const needMicro = this.#spentMicro + worstMicro(price, this.#need.promptBound, restTokens);
    const moreMicro = needMicro - this.#heldMicro;
    if (moreMicro > 0 && !this.#hold.grow(moreMicro)) return false;
    this.#heldMicro = Math.max(this.#heldMicro, needMicro);
    return true;
  }

  #growTo(tokens: number): boolean {
    if (this.#price === undefined || !this.#holdFor(this.#price, tokens, this.#keptTokens)) return false;
    this.#tokens = tokens;
    this.#growAtTokens = this.#nextGrowth();
    return true;
  }

  /** Where no honest answer goes on there is nothing to ask for; what a dishonest node sends beyond it is not charged. */
  #nextGrowth(): number {
    if (this.#tokens >= this.#need.mostTokens) return Number.POSITIVE_INFINITY;
    return Math.max(1, this.#tokens - aheadTokens);
  }
}
