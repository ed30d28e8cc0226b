/** The books of one call: the money set aside for it, the lines of its attempts, and what they cost. */

import type { MoneyHold } from '../../ledger/budgets.ts';
import type { Caller } from '../../ledger/line.ts';
import type { Price } from '../../ledger/price.ts';
import type { AttemptEnd } from '../../ledger/tabs.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest } from '../../protocol/ids.ts';
import type { AccountingDeps } from '../accounting.ts';
import type { Serving } from '../nodes.ts';
import type { ChatCall } from '../service.ts';
import { owedOf, RunningAttempt } from './attempt.ts';
import { Funds, type Need, worstMicro } from './funds.ts';
import type { AttemptPurpose } from './trace.ts';

/** Where a call may go. */
export interface Target {
  /** The model's name without a pinned digest. */
  readonly name: string;
  readonly digest: ModelDigest;
  /** The digest's nodes at this moment. */
  readonly group: () => readonly Serving[];
}

/** What is to be paid for. */
export interface BooksWork {
  readonly call: ChatCall;
  readonly target: Target;
  /** `encodeChatRequest`. */
  readonly body: Uint8Array;
  /** Asked only where money is set aside. */
  readonly need: () => Need;
  /** The last line is written, and all money given back. */
  readonly closed: () => void;
}

export type Durable = (error?: HelixFlowError<'STORE_FAILED'>) => void;

/** An attempt that is about to leave. */
export interface BooksAttempt {
  readonly serving: Serving;
  readonly purpose: AttemptPurpose;
  readonly startedMs: number;
  /** `Score.firstMs`, and how much of the body's beginning the node should hold. */
  readonly expectedMs: number;
  readonly cachedBytes: number;
}

/** Of one call, from `open` to `close`. */
export class Books {
  /** Something of the call may be charged. */
  isBilled = false;
  readonly #accounting: AccountingDeps;
  readonly #work: BooksWork;
  readonly #caller: Caller;
  #funds: Funds | undefined;
  /** Serial of the first attempt that left. */
  #first: number | undefined;
  /** Tokens of the answer that were made by attempts before the one that runs. */
  #keptTokens = 0;
  /** Attempts that have begun, and have no line yet. */
  #unwritten = 0;
  #isClosing = false;

  constructor(accounting: AccountingDeps, work: BooksWork) {
    this.#accounting = accounting;
    this.#work = work;
    this.#caller = accounting.callerOf(work.call.caller);
  }

  /** Tokens of the answer that earlier attempts have made, as they are charged. */
  get keptTokens(): number {
    return this.#keptTokens;
  }

  /** Sets aside what the dearest node may take, where the account has a budget. @returns why that cannot be. */
  open(): HelixFlowError | undefined | Promise<HelixFlowError | undefined> {
    const { caller } = this.#work.call;
    if (caller.budget === undefined) return undefined;
    const needMicro = this.#worstMicro();
    // Who has no money left may still ask for what costs none.
    if (needMicro === 0) return undefined;
    const hold = this.#accounting.hold(caller, needMicro);
    return hold instanceof Promise ? hold.then((held) => this.#held(held, needMicro)) : this.#held(hold, needMicro);
  }

  /** What the model costs at a node now. */
  priceOf(serving: Serving): Price {
    return this.#accounting.priceOf(this.#work.target.name, serving.peer);
  }

  /** An attempt is about to leave. @returns why it cannot be paid for. */
  begin(attempt: BooksAttempt): RunningAttempt | HelixFlowError {
    const { call, target, body } = this.#work;
    const price = this.priceOf(attempt.serving);
    // Another price may count by now than when money was set aside, and other nodes may have come.
    if (!this.#covers(price)) return new HelixFlowError('BUDGET_UNAVAILABLE', {});
    const lease = this.#funds?.lease;
    const line = this.#accounting.begin({
      node: attempt.serving.peer,
      request: call.request,
      ...(this.#first === undefined ? {} : { first: this.#first }),
      model: target.name,
      digest: target.digest,
      caller: this.#caller,
      price,
      ...(lease === undefined ? {} : { lease }),
      payer: this.#funds?.isGrace ? 'gateway' : 'account',
    });
    const { account } = this.#caller;
    const kept = this.#keptTokens;
    const charged = (tokens: number): number =>
      Math.max(0, (this.#funds?.charged(kept + tokens) ?? this.#ordered(kept + tokens)) - kept);
    this.#unwritten += 1;
    return new RunningAttempt({ ...attempt, line, account, price, bodyBytes: body.length, charged });
  }

  /** It has left: it is the request's first, unless another was. */
  left({ line }: RunningAttempt): void {
    this.#first ??= line.serial;
  }

  /** The answer comes from this attempt, not from another that ran beside it. */
  chose({ price }: RunningAttempt): void {
    this.#funds?.use(price, this.#keptTokens);
  }

  /** As `Funds.reaches`, for the tokens of the running attempt. */
  reaches(tokens: number): boolean {
    return this.#funds === undefined || this.#funds.reaches(this.#keptTokens + tokens);
  }

  /** As `Funds.within`, for the tokens of the running attempt; never more than was asked for. */
  readonly within = (tokens: number): number => {
    const ordered = this.#ordered(this.#keptTokens + tokens);
    return Math.max(0, (this.#funds?.within(ordered) ?? ordered) - this.#keptTokens);
  };

  /** An attempt has ended. `durable` is called in a later turn. */
  write({ line, price }: RunningAttempt, end: AttemptEnd, durable: Durable): void {
    if (end.outcome !== 'hedged') {
      const owed = owedOf(end);
      this.isBilled ||= owed.promptTokens + owed.completionTokens > 0;
      this.#funds?.spend(price, owed);
    }
    line.end(end, durable);
    this.#written();
  }

  /** An attempt never left: it leaves no line. */
  drop({ line }: RunningAttempt): void {
    line.drop();
    this.#written();
  }

  /** An attempt has ended with so many tokens that stay in the answer. */
  kept(tokens: number): void {
    this.#keptTokens += tokens;
  }

  /** Nothing more will be spent; `closed` follows when the last attempt has its line. Later calls do nothing. */
  close(): void {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#funds?.settle();
    if (this.#unwritten === 0) this.#work.closed();
  }

  #written(): void {
    this.#unwritten -= 1;
    if (this.#isClosing && this.#unwritten === 0) this.#work.closed();
  }

  #ordered(tokens: number): number {
    return Math.min(tokens, this.#work.call.chat.maxTokens ?? tokens);
  }

  #covers(price: Price): boolean {
    if (this.#funds !== undefined) return this.#funds.covers(price, this.#keptTokens);
    const { call, need } = this.#work;
    return call.caller.budget === undefined || worstMicro(price, need().promptBound, 1) === 0;
  }

  #held(hold: MoneyHold | HelixFlowError | undefined, heldMicro: number): HelixFlowError | undefined {
    if (hold instanceof HelixFlowError) return hold;
    if (hold !== undefined) this.#funds = new Funds(hold, heldMicro, this.#work.need());
    return undefined;
  }

  #worstMicro(): number {
    const { need, target } = this.#work;
    const { promptBound, completionTokens } = need();
    return target
      .group()
      .map((serving) => this.priceOf(serving))
      .reduce((most, price) => Math.max(most, worstMicro(price, promptBound, completionTokens)), 0);
  }
}
