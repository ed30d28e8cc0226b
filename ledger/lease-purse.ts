/** What one gateway holds of one account's budget: leases, what is set aside of them, and who waits for more. */

import type { HelixFlowError } from '../protocol/errors.ts';
import type { AccountId, EpochId, IssuerId, LeaseId, Tag } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { MoneyAsk } from '../protocol/messages/lease.ts';
import type { Cancel } from '../protocol/ports.ts';
import { dayMs, type UnixMs, unixMs } from '../protocol/units.ts';
import type { MoneyHold } from './budgets.ts';
import { type Budget, leaseTag, periodOf } from './money.ts';

/** A lease as its holder keeps it. Never more is set aside and spent than it is. */
export interface HeldLease {
  readonly lease: LeaseId;
  readonly tag: Tag;
  /** Undefined until something was given. */
  period: number | undefined;
  amountMicro: number;
  heldMicro: number;
  spentMicro: number;
  /**
   * `retiring`: nothing more is set aside of it, and it is closed once nothing is; `closing`: a close was written, with what
   * is still set aside counted as spent, and another one follows when that is settled.
   */
  state: 'open' | 'retiring' | 'closing';
  /** What its last close says was spent. */
  closedMicro: number | undefined;
  /** When something was last set aside or settled. */
  usedMs: number;
}

/** Somebody whose request cannot begin before there is money. */
export interface Waiter {
  readonly needMicro: number;
  readonly isStrict: boolean;
  cancel: Cancel;
  readonly resolve: (result: MoneyHold | HelixFlowError) => void;
}

/** A question that has no answer yet. */
export interface PendingAsk {
  readonly id: number;
  readonly sentMs: number;
}

/** Spending is forgotten by half in about this time; its sum is what is spent in ten seconds. */
const recentMs = 10_000;

/** Which periods it may be now, by this clock or by one that others may have; asked often, so a second's answers are kept. */
export class Periods {
  readonly #answers = new Map<Budget['period'], (of: number) => boolean>();
  #second = -1;

  isNow({ period }: Budget, wallMs: UnixMs): (of: number) => boolean {
    const second = Math.floor(wallMs / 1_000);
    if (second !== this.#second) this.#answers.clear();
    this.#second = second;
    let answer = this.#answers.get(period);
    if (answer === undefined) {
      const { clockSkewMaxMs } = limits;
      const around = [0, -clockSkewMaxMs, clockSkewMaxMs].map((offMs) => periodOf(period, unixMs(wallMs + offMs)));
      answer = (of) => around.includes(of);
      this.#answers.set(period, answer);
    }
    return answer;
  }
}

export const leftOf = ({ amountMicro, heldMicro, spentMicro }: HeldLease): number =>
  Math.max(0, amountMicro - heldMicro - spentMicro);

class LeaseHold implements MoneyHold {
  readonly lease: Tag | undefined;
  readonly isGrace = false;
  readonly #purse: Purse;
  readonly #from: HeldLease;
  #heldMicro: number;
  #isSettled = false;

  constructor(purse: Purse, from: HeldLease, amountMicro: number) {
    this.lease = from.tag;
    this.#purse = purse;
    this.#from = from;
    this.#heldMicro = amountMicro;
    from.heldMicro += amountMicro;
  }

  grow(amountMicro: number): boolean {
    if (this.#isSettled || this.#from.state === 'closing') return false;
    const isThere = amountMicro <= leftOf(this.#from);
    if (isThere) {
      this.#from.heldMicro += amountMicro;
      this.#heldMicro += amountMicro;
    }
    this.#purse.taken(isThere ? 0 : amountMicro);
    return isThere;
  }

  settle(spentMicro: number): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#from.heldMicro -= this.#heldMicro;
    this.#from.spentMicro += spentMicro;
    this.#purse.settled(this.#from, spentMicro);
  }
}

class GraceHold implements MoneyHold {
  readonly lease = undefined;
  readonly isGrace = true;
  readonly #purse: Purse;
  #heldMicro: number;
  #isSettled = false;

  constructor(purse: Purse, amountMicro: number) {
    this.#purse = purse;
    this.#heldMicro = amountMicro;
  }

  grow(amountMicro: number): boolean {
    if (this.#isSettled || !this.#purse.growGrace(amountMicro)) return false;
    this.#heldMicro += amountMicro;
    return true;
  }

  settle(spentMicro: number): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#purse.settleGrace(this.#heldMicro, spentMicro);
  }
}

export interface PurseOptions {
  readonly issuer: IssuerId;
  readonly account: AccountId;
  readonly graceMicro: number;
}

export interface PurseEvents {
  /** Something was set aside, or (above 0) so much was missing. */
  taken(purse: Purse, missingMicro: number): void;
  /** Something is free again. */
  settled(purse: Purse, lease: HeldLease | undefined): void;
  nowMs(): number;
  wallMs(): number;
}

/** Plain bookkeeping; what it takes to get more is the holder's affair. */
export class Purse {
  readonly issuer: IssuerId;
  readonly account: AccountId;
  readonly leases: HeldLease[] = [];
  readonly waiting: Waiter[] = [];
  pending: PendingAsk | undefined;
  /** Until when it is known that no more can be had, and why. */
  refused: { readonly untilMs: number; readonly error: HelixFlowError } | undefined;
  /** By how much it grew last; less than half of that left is the time to ask. */
  lastStepMicro = 0;
  readonly #graceMaxMicro: number;
  readonly #events: PurseEvents;
  #graceDay = -1;
  #graceHeldMicro = 0;
  #graceSpentMicro = 0;
  /** The most that could not be set aside since it grew. */
  #missedMicro = 0;
  #recentMicro = 0;
  #recentAtMs: number;

  constructor(options: PurseOptions, events: PurseEvents) {
    this.issuer = options.issuer;
    this.account = options.account;
    this.#graceMaxMicro = options.graceMicro;
    this.#events = events;
    this.#recentAtMs = events.nowMs();
  }

  /** The lease that is spent from now. */
  open(isNow: (period: number) => boolean): HeldLease | undefined {
    return this.leases.findLast(({ state, period }) => state === 'open' && period !== undefined && isNow(period));
  }

  /** What is left of leases that are open, whenever. */
  freeMicro(): number {
    let free = 0;
    for (const lease of this.leases) if (lease.state === 'open') free += leftOf(lease);
    return free;
  }

  /** Sets aside, where the open lease has enough. */
  take(needMicro: number, isNow: (period: number) => boolean): MoneyHold | undefined {
    const lease = this.open(isNow);
    if (lease === undefined || needMicro > leftOf(lease)) return undefined;
    lease.usedMs = this.#events.nowMs();
    const hold = new LeaseHold(this, lease, needMicro);
    this.taken(0);
    return hold;
  }

  taken(missingMicro: number): void {
    this.#missedMicro = Math.max(this.#missedMicro, missingMicro);
    this.#events.taken(this, missingMicro);
  }

  settled(lease: HeldLease, spentMicro: number): void {
    const nowMs = this.#events.nowMs();
    lease.usedMs = nowMs;
    this.#recentMicro = this.recentMicro() + spentMicro;
    this.#recentAtMs = nowMs;
    this.#events.settled(this, lease);
  }

  /** About what was spent in the last ten seconds. */
  recentMicro(): number {
    return this.#recentMicro * Math.exp((this.#recentAtMs - this.#events.nowMs()) / recentMs);
  }

  /** The lease to ask more of; one that is drawn, where there is none that may be raised. */
  raisable(isNow: (period: number) => boolean, draw: () => LeaseId): HeldLease {
    const known = this.leases.findLast(
      ({ state, period }) => state === 'open' && (period === undefined || isNow(period)),
    );
    if (known !== undefined) return known;
    const lease = draw();
    const made: HeldLease = {
      ...{ lease, tag: leaseTag(lease), period: undefined, amountMicro: 0, heldMicro: 0, spentMicro: 0 },
      ...{ state: 'open', closedMicro: undefined, usedMs: this.#events.nowMs() },
    };
    this.leases.push(made);
    return made;
  }

  /**
   * What a lease is now; the largest that was told counts. One that is not here was closed, whatever comes late.
   * @returns false where that is no news.
   */
  raise(lease: LeaseId, period: number, amountMicro: number): boolean {
    const known = this.leases.find((held) => held.lease === lease);
    if (known === undefined || known.state === 'closing' || amountMicro <= known.amountMicro) return false;
    this.lastStepMicro = amountMicro - known.amountMicro;
    this.#missedMicro = 0;
    known.period = period;
    known.amountMicro = amountMicro;
    // Whoever raised it has not called it back since.
    if (known.state === 'retiring') known.state = 'open';
    return true;
  }

  /** What to ask for: enough for all who wait, and twice that, so that answers that grow find something. */
  asking({ epoch, lease }: { readonly epoch: EpochId; readonly lease: HeldLease }): Omit<MoneyAsk, 'id'> {
    const { issuer, account } = this;
    const freeMicro = leftOf(lease);
    const needs = this.waiting.map(({ needMicro }) => needMicro);
    const together = needs.reduce((sum, need) => sum + need, 0);
    return {
      ...{ type: 'ask', issuer, account, epoch, lease: lease.lease, knownMicro: lease.amountMicro },
      isStrict: this.waiting.some(({ isStrict }) => isStrict),
      leastMicro: Math.max(1, (needs[0] ?? 0) - freeMicro),
      needMicro: needs.length === 0 ? 0 : Math.max(1, together - freeMicro),
      wantMicro: Math.ceil(Math.max(2 * Math.max(this.#missedMicro, ...needs), this.recentMicro(), this.lastStepMicro)),
    };
  }

  drop(lease: HeldLease): void {
    const at = this.leases.indexOf(lease);
    if (at >= 0) this.leases.splice(at, 1);
  }

  #graceToday(): number {
    const today = Math.floor(this.#events.wallMs() / dayMs);
    if (today !== this.#graceDay) {
      this.#graceDay = today;
      this.#graceSpentMicro = 0;
    }
    return this.#graceSpentMicro + this.#graceHeldMicro;
  }

  /** Outside any lease, at this gateway's expense. */
  takeGrace(needMicro: number): MoneyHold | undefined {
    return this.growGrace(needMicro) ? new GraceHold(this, needMicro) : undefined;
  }

  growGrace(amountMicro: number): boolean {
    if (this.#graceToday() + amountMicro > this.#graceMaxMicro) return false;
    this.#graceHeldMicro += amountMicro;
    return true;
  }

  settleGrace(heldMicro: number, spentMicro: number): void {
    this.#graceToday();
    this.#graceHeldMicro -= heldMicro;
    this.#graceSpentMicro += spentMicro;
    this.#events.settled(this, undefined);
  }

  graceMicro(): number {
    return this.#graceToday();
  }

  heldMicro(): number {
    return this.leases.reduce((sum, lease) => sum + lease.heldMicro, this.#graceHeldMicro);
  }

  /** Nothing is lost when it is forgotten. */
  isIdle(): boolean {
    const isEmpty = this.leases.length === 0 && this.waiting.length === 0 && this.pending === undefined;
    return isEmpty && this.#graceToday() === 0;
  }
}
