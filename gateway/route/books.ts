/** The books of one call: the money set aside for it, the lines of its attempts, and what they cost. */

import type { MoneyHold } from '../../ledger/budgets.ts';
import type { Caller } from '../../ledger/line.ts';
import type { Price } from '../../ledger/price.ts';
import type { AttemptEnd } from '../../ledger/tabs.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest } from '../../protocol/ids.ts';
import type { Ms } from '../../protocol/units.ts';
import type { AccountingDeps } from '../accounting.ts';
import type { NodeEntry } from '../nodes.ts';
import type { ChatCall } from '../service.ts';
import { owedOf, RunningAttempt } from './attempt.ts';
import { Funds, type Need, worstMicro } from './funds.ts';

/** Where a call may go. */
export interface Target {
  /** The model's name without a pinned digest. */
  readonly name: string;
  readonly digest: ModelDigest;
  /** The digest's nodes at this moment. */
  readonly group: () => readonly NodeEntry[];
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
  #isClosed = false;

  constructor(accounting: AccountingDeps, work: BooksWork) {
    this.#accounting = accounting;
    this.#work = work;
    this.#caller = accounting.callerOf(work.call.caller);
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

  /** An attempt is about to leave. @returns why it cannot be paid for. */
  begin(node: NodeEntry, startedMs: Ms): RunningAttempt | HelixFlowError {
    const { call, target, body } = this.#work;
    const price = this.#accounting.priceOf(target.name, node.peer);
    // Another price may count by now than when money was set aside, and other nodes may have come.
    if (!this.#covers(price)) return new HelixFlowError('BUDGET_UNAVAILABLE', {});
    const lease = this.#funds?.lease;
    const line = this.#accounting.begin({
      node: node.peer,
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
    const charged = (tokens: number): number => this.#funds?.charged(tokens) ?? this.#ordered(tokens);
    return new RunningAttempt({ node, line, account, price, bodyBytes: body.length, startedMs, charged });
  }

  /** It has left: it is the request's first, unless another was. */
  left({ line }: RunningAttempt): void {
    this.#first ??= line.serial;
  }

  /** As `Funds.reaches`. */
  reaches(tokens: number): boolean {
    return this.#funds === undefined || this.#funds.reaches(tokens);
  }

  /** As `Funds.within`; never more than was asked for. */
  readonly within = (tokens: number): number => {
    const ordered = this.#ordered(tokens);
    return this.#funds?.within(ordered) ?? ordered;
  };

  /** An attempt has ended. `durable` is called in a later turn. */
  write({ line, price }: RunningAttempt, end: AttemptEnd, durable: Durable): void {
    const owed = owedOf(end);
    this.isBilled ||= owed.promptTokens + owed.completionTokens > 0;
    this.#funds?.spend(price, owed);
    line.end(end, durable);
  }

  /** Nothing more will be spent; later calls do nothing. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#funds?.settle();
    this.#work.closed();
  }

  #ordered(tokens: number): number {
    return Math.min(tokens, this.#work.call.chat.maxTokens ?? tokens);
  }

  #covers(price: Price): boolean {
    if (this.#funds !== undefined) return this.#funds.covers(price);
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
      .map(({ peer }) => this.#accounting.priceOf(target.name, peer))
      .reduce((most, price) => Math.max(most, worstMicro(price, promptBound, completionTokens)), 0);
  }
}
