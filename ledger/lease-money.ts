/** What this gateway may spend: holds from leases held here, which are asked for ahead of need and given back after it. */

import { toHex } from '../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { AccountId, AuthorId, EpochId, IssuerId, LeaseId, PeerId } from '../protocol/ids.ts';
import type { Holding, LeaseAnswer, MoneyAsk, MoneyGrant, MoneyRefusal } from '../protocol/messages/lease.ts';
import type { Cancel, Clock, Log, Random } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import type { BudgetAccount, BudgetStatus, Budgets, MoneyHold } from './budgets.ts';
import type { HeldEntry } from './feeds.ts';
import { type HeldLease, leftOf, Periods, Purse, type PurseEvents, type Waiter } from './lease-purse.ts';
import type { Ledger } from './ledger.ts';
import type { Budget } from './money.ts';
import { accountOf } from './succession.ts';

export interface HolderDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly ledger: Pick<Ledger, 'append' | 'begin' | 'standing' | 'authorsOf' | 'holderOf'>;
  /** Asks whoever keeps the budgets of an issuer's accounts. @returns false where that one cannot be reached. */
  readonly ask: (issuer: IssuerId, ask: MoneyAsk) => Promise<boolean>;
}

export interface HolderOptions {
  readonly self: PeerId;
  /** What an account that is not strict may spend in a day while its authority cannot be reached, at our expense. */
  readonly graceMicro: number;
  /** How long a request waits for money. */
  readonly waitMs: number;
}

/** The holder's side of money. */
export interface MoneyHolder {
  hold(account: BudgetAccount, needMicro: number): ReturnType<Budgets['hold']>;
  /** An answer of this peer's. */
  told(peer: PeerId | 'here', answer: Extract<LeaseAnswer, MoneyGrant | MoneyRefusal>): void;
  recalled(lease: LeaseId): void;
  entry(held: HeldEntry): void;
  /** An account has other terms. */
  changed(account: AccountId): void;
  /** What is held of accounts that this author keeps. */
  holdings(author: AuthorId): readonly Holding[];
  status(): readonly BudgetStatus[];
  close(): Promise<void>;
}

/** Accounts with budgets that are in use here; about 1 kB each. */
const pursesMax = 65_536;
/** Requests of one account that wait for money. */
const waitersMax = 1_024;
/** A question without an answer is asked again, with the same id. */
const askAgainMs = 1_000;
/** What was refused is not asked for again within this time. */
const refusedMs = 250;
const tidyEveryMs = ms(5_000);
/** A lease that nobody uses goes back after this long. */
const idleMs = 600_000;
/** At the end, answers under way have this long to settle. */
const settleMs = 1_000;

const unavailable = (): HelixFlowError => new HelixFlowError('BUDGET_UNAVAILABLE', {});

class Holder implements MoneyHolder {
  readonly #deps: HolderDeps;
  readonly #options: HolderOptions;
  /** By who keeps the account, and the account. */
  readonly #purses = new Map<string, Purse>();
  readonly #events: PurseEvents;
  readonly #byAsk = new Map<number, Purse>();
  readonly #byLease = new Map<LeaseId, Purse>();
  readonly #periods = new Periods();
  #asks = 0;
  #epoch: EpochId | undefined;
  #cancelTidy: Cancel = () => {};
  #isClosed = false;

  constructor(deps: HolderDeps, options: HolderOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#events = {
      nowMs: () => deps.clock.nowMs(),
      wallMs: () => deps.clock.wallMs(),
      taken: (purse, missingMicro) => this.#askAhead(purse, missingMicro),
      settled: (purse, lease) => {
        this.#serve(purse);
        if (lease !== undefined && lease.state !== 'open' && lease.heldMicro === 0) void this.#close(purse, lease);
      },
    };
    this.#tidyLater();
  }

  #tidyLater(): void {
    this.#cancelTidy = this.#deps.clock.timer(tidyEveryMs, () => {
      this.#tidy();
      this.#tidyLater();
    });
  }

  #nameOf(issuer: IssuerId, account: AccountId): string {
    return `${this.#deps.ledger.authorsOf(issuer).at(-1) ?? ''}${account}`;
  }

  #purse(issuer: IssuerId, account: AccountId): Purse | undefined {
    const name = this.#nameOf(issuer, account);
    const known = this.#purses.get(name);
    if (known !== undefined || this.#purses.size >= pursesMax) return known;
    const made = new Purse({ issuer, account, graceMicro: this.#options.graceMicro }, this.#events);
    this.#purses.set(name, made);
    return made;
  }

  #budget({ issuer, account }: Pick<Purse, 'issuer' | 'account'>): Budget | undefined {
    return accountOf(this.#deps.ledger, account, issuer)?.budget;
  }

  #isNow(budget: Budget): (of: number) => boolean {
    return this.#periods.isNow(budget, this.#deps.clock.wallMs());
  }

  hold(account: BudgetAccount, needMicro: number): ReturnType<MoneyHolder['hold']> {
    const budget = this.#budget(account);
    if (budget === undefined) return undefined;
    const purse = this.#isClosed ? undefined : this.#purse(account.issuer, account.account);
    if (purse === undefined) return unavailable();
    if (purse.waiting.length === 0) {
      const taken = purse.take(needMicro, this.#isNow(budget));
      if (taken !== undefined) return taken;
    }
    const { refused } = purse;
    if (refused !== undefined && refused.untilMs > this.#deps.clock.nowMs() && purse.waiting.length === 0) {
      const isOverspent = isHelixFlowError(refused.error, 'BUDGET_EXHAUSTED');
      if (!isOverspent) return this.#graceOr(purse, { needMicro, isStrict: account.strict }, refused.error);
      const leftMicro = refused.error.details.leftMicro + this.#freeMicro(purse, budget);
      if (leftMicro < needMicro) return new HelixFlowError('BUDGET_EXHAUSTED', { leftMicro, needMicro });
    }
    if (purse.waiting.length >= waitersMax) return unavailable();
    return this.#wait(purse, needMicro, account.strict);
  }

  #freeMicro(purse: Purse, budget: Budget): number {
    const open = purse.open(this.#isNow(budget));
    return open === undefined ? 0 : leftOf(open);
  }

  #graceOr(
    purse: Purse,
    { needMicro, isStrict }: Pick<Waiter, 'needMicro' | 'isStrict'>,
    error: HelixFlowError,
  ): MoneyHold | HelixFlowError {
    const mayGrace = !isStrict && !isHelixFlowError(error, 'BUDGET_EXHAUSTED');
    return (mayGrace ? purse.takeGrace(needMicro) : undefined) ?? error;
  }

  #wait(purse: Purse, needMicro: number, isStrict: boolean): Promise<MoneyHold | HelixFlowError> {
    return new Promise((resolve) => {
      const waiter: Waiter = { needMicro, isStrict, resolve, cancel: () => {} };
      waiter.cancel = this.#deps.clock.timer(ms(this.#options.waitMs), () => {
        const at = purse.waiting.indexOf(waiter);
        if (at >= 0) purse.waiting.splice(at, 1);
        resolve(this.#graceOr(purse, waiter, unavailable()));
      });
      purse.waiting.push(waiter);
      this.#askFor(purse);
    });
  }

  /** Those who wait, in their order, as far as what is free goes. */
  #serve(purse: Purse): void {
    if (purse.waiting.length === 0) return;
    const budget = this.#budget(purse);
    while (purse.waiting.length > 0 && budget !== undefined) {
      const [first] = purse.waiting;
      const taken = first && purse.take(first.needMicro, this.#isNow(budget));
      if (first === undefined || taken === undefined) return;
      purse.waiting.shift();
      first.cancel();
      first.resolve(taken);
    }
  }

  #fail(purse: Purse, errorFor: (waiter: Waiter) => HelixFlowError): void {
    for (const waiter of purse.waiting.splice(0)) {
      waiter.cancel();
      waiter.resolve(this.#graceOr(purse, waiter, errorFor(waiter)));
    }
  }

  #askAhead(purse: Purse, missingMicro: number): void {
    if (purse.pending !== undefined || this.#isClosed) return;
    if (missingMicro === 0 && 2 * purse.freeMicro() >= purse.lastStepMicro) return;
    if ((purse.refused?.untilMs ?? 0) > this.#deps.clock.nowMs()) return;
    this.#askFor(purse);
  }

  /** One question at a time, for all who wait. */
  #askFor(purse: Purse): void {
    const { clock } = this.#deps;
    const nowMs = clock.nowMs();
    if (purse.pending !== undefined && nowMs - purse.pending.sentMs < askAgainMs) return;
    const budget = this.#budget(purse);
    if (budget === undefined) return;
    const id = purse.pending?.id ?? ++this.#asks;
    purse.pending = { id, sentMs: nowMs };
    this.#byAsk.set(id, purse);
    void this.#ask(purse, budget, id).catch((error: unknown) => {
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.debug('lease.not-asked', { account: purse.account, code: error.code });
      this.#unreached(purse, id);
    });
  }

  async #ask(purse: Purse, budget: Budget, id: number): Promise<void> {
    this.#epoch ??= await this.#deps.ledger.begin();
    const lease = purse.raisable(this.#isNow(budget), () => this.#draw(purse));
    const to = { epoch: this.#epoch, lease };
    if (!(await this.#deps.ask(purse.issuer, { id, ...purse.asking(to) }))) this.#unreached(purse, id);
  }

  #draw(purse: Purse): LeaseId {
    const lease = toHex(this.#deps.random.bytes(16)) as LeaseId;
    this.#byLease.set(lease, purse);
    return lease;
  }

  #unreached(purse: Purse, id: number): void {
    if (purse.pending?.id !== id) return;
    this.#answered(purse);
    purse.refused = { untilMs: this.#deps.clock.nowMs() + refusedMs, error: unavailable() };
    this.#fail(purse, unavailable);
  }

  told(peer: PeerId | 'here', answer: MoneyGrant | MoneyRefusal): void {
    const purse = this.#byAsk.get(answer.id);
    // What one that keeps the account no more has leased since, its successor does not know of.
    if (purse === undefined || !this.#isKept(purse, peer)) return;
    this.#answered(purse);
    if (answer.type === 'grant') this.#granted(purse, answer);
    else if (answer.reason === 'over') this.#ended(purse);
    else this.#refused(purse, answer);
  }

  #answered(purse: Purse): void {
    if (purse.pending !== undefined) this.#byAsk.delete(purse.pending.id);
    purse.pending = undefined;
  }

  /** The lease that was asked about can be raised no more. */
  #ended(purse: Purse): void {
    for (const lease of [...purse.leases]) if (lease.state === 'open') this.#retire(purse, lease);
    if (purse.waiting.length > 0) this.#askFor(purse);
  }

  #isKept({ issuer }: Purse, peer: PeerId | 'here'): boolean {
    return peer === 'here' || this.#deps.ledger.holderOf(issuer) === peer;
  }

  #granted(purse: Purse, { lease, period, amountMicro }: MoneyGrant): void {
    purse.refused = undefined;
    const isNews = purse.raise(lease, period, amountMicro);
    this.#serve(purse);
    if (purse.waiting.length === 0) return;
    if (isNews) this.#askFor(purse);
    else this.#fail(purse, unavailable);
  }

  #refused(purse: Purse, { reason, leftMicro }: MoneyRefusal): void {
    const budget = this.#budget(purse);
    const freeMicro = budget === undefined ? 0 : this.#freeMicro(purse, budget);
    const exhausted = (needMicro: number): HelixFlowError =>
      new HelixFlowError('BUDGET_EXHAUSTED', { leftMicro: leftMicro + freeMicro, needMicro });
    const isExhausted = reason === 'exhausted';
    const error = isExhausted ? new HelixFlowError('BUDGET_EXHAUSTED', { leftMicro, needMicro: 0 }) : unavailable();
    purse.refused = { untilMs: this.#deps.clock.nowMs() + refusedMs, error };
    const first = purse.waiting.shift();
    if (first !== undefined) {
      first.cancel();
      first.resolve(this.#graceOr(purse, first, isExhausted ? exhausted(first.needMicro) : error));
    }
    if (!isExhausted) this.#fail(purse, unavailable);
    this.#serve(purse);
    // Whoever comes next may need less.
    const next = purse.waiting[0];
    if (next === undefined) return;
    if (next.needMicro <= leftMicro + freeMicro) this.#askFor(purse);
    else this.#fail(purse, ({ needMicro }) => exhausted(needMicro));
  }

  changed(account: AccountId): void {
    for (const purse of this.#purses.values()) if (purse.account === account) purse.refused = undefined;
  }

  entry({ entry, place }: HeldEntry): void {
    if (entry.kind !== 'lease' && entry.kind !== 'writeoff') return;
    const purse = this.#byLease.get(entry.lease);
    // One that was replaced may not know it; what it leases now, its successor does not know of.
    if (purse === undefined || this.#deps.ledger.authorsOf(purse.issuer).at(-1) !== place.author) return;
    if (entry.kind === 'writeoff') this.recalled(entry.lease);
    else if (entry.holder === this.#options.self && entry.epoch === this.#epoch) {
      if (purse.raise(entry.lease, entry.period, entry.amountMicro)) this.#serve(purse);
    }
  }

  recalled(lease: LeaseId): void {
    const purse = this.#byLease.get(lease);
    const held = purse?.leases.find((one) => one.lease === lease);
    // Somebody waits for it, so it does not wait for answers under way.
    if (purse !== undefined && held?.state === 'open' && leftOf(held) > 0) void this.#close(purse, held);
  }

  #retire(purse: Purse, lease: HeldLease): void {
    lease.state = 'retiring';
    if (lease.heldMicro === 0) void this.#close(purse, lease);
  }

  /** Gives back what is left. What is still set aside counts as spent until it is settled. */
  async #close(purse: Purse, lease: HeldLease): Promise<void> {
    const spentMicro = Math.min(lease.amountMicro, lease.spentMicro + lease.heldMicro);
    const isGiven = lease.amountMicro > 0;
    lease.state = 'closing';
    if (isGiven && lease.closedMicro !== spentMicro) {
      lease.amountMicro = spentMicro;
      lease.closedMicro = spentMicro;
      try {
        await this.#deps.ledger.append('gateway', [{ kind: 'close', lease: lease.lease, spentMicro }]);
      } catch (error) {
        if (!isHelixFlowError(error)) throw error;
        // It stays spent until the operator writes it off.
        this.#deps.log.warn('lease.not-closed', { lease: lease.lease, account: purse.account, code: error.code });
        return;
      }
    }
    if (lease.heldMicro > 0 || (isGiven && lease.closedMicro !== lease.spentMicro)) return;
    purse.drop(lease);
    this.#byLease.delete(lease.lease);
  }

  #tidy(): void {
    const nowMs = this.#deps.clock.nowMs();
    for (const [name, purse] of this.#purses) {
      const budget = this.#budget(purse);
      const isNow = budget === undefined ? () => false : this.#isNow(budget);
      for (const lease of [...purse.leases]) {
        const isOver =
          (lease.period !== undefined && !isNow(lease.period)) ||
          (lease.heldMicro === 0 && nowMs - lease.usedMs >= idleMs);
        if (lease.state === 'open' && isOver) this.#retire(purse, lease);
      }
      if (purse.waiting.length > 0) this.#askFor(purse);
      if (purse.isIdle()) this.#purses.delete(name);
      else this.#follow(name, purse);
    }
  }

  /** Another keeps the account now: what is held stays, and is reported to it. */
  #follow(name: string, purse: Purse): void {
    const now = this.#nameOf(purse.issuer, purse.account);
    if (now === name || this.#purses.has(now)) return;
    this.#purses.delete(name);
    this.#purses.set(now, purse);
  }

  holdings(author: AuthorId): readonly Holding[] {
    const epoch = this.#epoch;
    if (epoch === undefined) return [];
    return [...this.#purses.values()]
      .filter(({ issuer }) => this.#deps.ledger.authorsOf(issuer).at(-1) === author)
      .flatMap(({ account, leases }) =>
        leases.flatMap(({ lease, period, amountMicro }) =>
          period === undefined ? [] : [{ lease, account, epoch, period, amountMicro }],
        ),
      );
  }

  status(): readonly BudgetStatus[] {
    return [...this.#purses.values()].map((purse) => ({
      account: purse.account,
      leases: purse.leases.map((lease) => ({
        lease: lease.lease,
        amountMicro: lease.amountMicro,
        leftMicro: leftOf(lease),
      })),
      heldMicro: purse.heldMicro(),
      graceMicro: purse.graceMicro(),
    }));
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cancelTidy();
    const purses = [...this.#purses.values()];
    for (const purse of purses) this.#fail(purse, unavailable);
    if (purses.some((purse) => purse.heldMicro() > 0)) await this.#deps.clock.sleep(ms(settleMs));
    await Promise.all(purses.flatMap((purse) => [...purse.leases].map((lease) => this.#close(purse, lease))));
  }
}

export const createMoneyHolder = (deps: HolderDeps, options: HolderOptions): MoneyHolder => new Holder(deps, options);
