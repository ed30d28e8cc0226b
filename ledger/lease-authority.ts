/** Who keeps budgets: leases of them are written down before they are handed out, and never come to more than there is. */

import { isHelixFlowError } from '../protocol/errors.ts';
import type { IssuerCertificate } from '../protocol/grants.ts';
import { issuerIdOf } from '../protocol/grants.ts';
import type { AccountId, AuthorId, EpochId, IssuerId, LeaseId, PeerId } from '../protocol/ids.ts';
import type { HoldingsReport, MoneyAsk, MoneyGrant, MoneyRefusal } from '../protocol/messages/lease.ts';
import type { Cancel, Clock, Log, Store } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import { authorKeyOf } from './block.ts';
import type { BudgetSheet } from './budgets.ts';
import { createLanes, type InLane } from './feed-lanes.ts';
import type { EntryPlace, HeldEntry } from './feeds.ts';
import { authorOf } from './issuers.ts';
import { LeaseBook, type LeaseFacts } from './lease-book.ts';
import { RollCall } from './lease-roll.ts';
import type { Ledger } from './ledger.ts';
import { budgetPeriods, type LeaseEntry, periodOf } from './money.ts';
import { comparePlaces } from './placed.ts';
import { accountIn, accountOf } from './succession.ts';

export interface AuthorityDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: Pick<Ledger, 'append' | 'standing' | 'authorsOf' | 'roots' | 'holdsBefore' | 'own'>;
  /** What lines known here have taken from a lease. */
  readonly spentFrom: (lease: LeaseEntry) => number;
  /** Asks a holder to close a lease. */
  readonly recall: (holder: PeerId, lease: LeaseId) => void;
}

export interface AuthorityOptions {
  readonly self: PeerId;
  /** Of the issuer whose key is held here. */
  readonly author: AuthorId;
}

/** The authority of the accounts of one issuer, and of those that it took over from. */
export interface LeaseAuthority {
  /** Call after `Ledger.open`. @throws HelixFlowError STORE_FAILED */
  open(): Promise<void>;
  /** True for issuers whose accounts are looked after here. */
  keeps(issuer: IssuerId): boolean;
  ask(from: PeerId, ask: MoneyAsk): Promise<MoneyGrant | MoneyRefusal>;
  /** What a gateway says that it holds; leases that were forgotten here are written down again. */
  report(from: PeerId, report: HoldingsReport): Promise<void>;
  entry(held: HeldEntry): void;
  /** An account has other terms: where less is left than was leased, what is not spent yet is called back. */
  changed(account: AccountId): void;
  /** Gateways that must be heard from before strict accounts get anything. */
  missing(): readonly PeerId[];
  sheet(account: AccountId): BudgetSheet | undefined;
  openLease(lease: LeaseId): LeaseFacts | undefined;
}

/** How long others may take to give back what somebody lacks. */
const recallWaitMs = ms(300);
/** A lease that was called back is not called again for this long. */
const recallAgainMs = 2_000;

/** What is asked for, as far as the amount depends on it. */
export interface AmountAsk {
  readonly leftMicro: number;
  readonly leastMicro: number;
  readonly needMicro: number;
  readonly wantMicro: number;
}

/** 1 in this many parts of what is left, where neither need nor want is more. */
const leftParts = 100;

/** How much to give; 0 where less than the least is left. */
export function amountToGive({ leftMicro, leastMicro, needMicro, wantMicro }: AmountAsk): number {
  if (leftMicro < Math.max(1, leastMicro)) return 0;
  const wish = Math.max(needMicro, wantMicro, Math.floor(leftMicro / leftParts));
  // Half of what is left stays for others, unless less than that would be of no use.
  return Math.min(leftMicro, Math.max(1, leastMicro, Math.min(wish, Math.ceil(leftMicro / 2))));
}

/** What became of an ask, once it was its account's turn. */
type Given =
  | { readonly kind: 'given'; readonly grant: MoneyGrant }
  | { readonly kind: 'short'; readonly leftMicro: number }
  | { readonly kind: 'over' };

interface Basis {
  readonly leftMicro: number;
  readonly period: number;
  /** What the lease is already. */
  readonly hadMicro: number;
}

const isRaisable = (known: LeaseFacts, asked: Pick<LeaseEntry, 'holder' | 'account' | 'epoch' | 'period'>): boolean =>
  known.state === 'open' &&
  known.holder === asked.holder &&
  known.account === asked.account &&
  known.epoch === asked.epoch &&
  known.period === asked.period;

class IssuerAuthority implements LeaseAuthority {
  readonly #deps: AuthorityDeps;
  readonly #options: AuthorityOptions;
  readonly #book: LeaseBook;
  readonly #roll: RollCall;
  readonly #inLane: InLane = createLanes();
  #isOpen = false;
  readonly #recalledMs = new Map<LeaseId, number>();
  readonly #waiting = new Map<AccountId, Set<() => void>>();
  /** Which generation each epoch of an author is, to tell what stands after a handover. */
  readonly #generations = new Map<EpochId, number>();

  constructor(deps: AuthorityDeps, options: AuthorityOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#book = new LeaseBook({
      isOurs: (author) => this.#isOurs(author),
      mayGive: (place) => this.#mayGive(place),
      isStrict: ({ account }) => accountIn(deps.ledger, account, this.#issuer())?.strict !== false,
      spentFrom: deps.spentFrom,
    });
    this.#roll = new RollCall(
      { ...deps, book: this.#book },
      { ...options, hasPredecessor: () => this.#certificate()?.succeeds !== undefined },
    );
  }

  #issuer(): IssuerId {
    return issuerIdOf(authorKeyOf(this.#options.author));
  }

  #certificate(): IssuerCertificate | undefined {
    return this.#deps.ledger.roots.certificateOf(this.#issuer());
  }

  /** Whoever was first in the line of handovers that this issuer stands in. */
  #firstOf(issuer: IssuerId): IssuerId {
    const { roots } = this.#deps.ledger;
    const seen = new Set<IssuerId>();
    let first = issuer;
    for (let at = roots.certificateOf(issuer); at !== undefined && !seen.has(at.issuer); ) {
      seen.add(at.issuer);
      first = at.succeeds?.issuer ?? at.issuer;
      at = at.succeeds && roots.certificateOf(at.succeeds.issuer);
    }
    return first;
  }

  /** What heirs leased stands, too, whoever of them was taken back since. */
  #isOurs(author: AuthorId): boolean {
    if (author === this.#options.author) return true;
    return this.#firstOf(issuerIdOf(authorKeyOf(author))) === this.#firstOf(this.#issuer());
  }

  /** Its own word, and that of whom it took over from, up to the handover. */
  #mayGive(place: EntryPlace): boolean {
    if (place.author === this.#options.author) return true;
    const seen = new Set<IssuerId>();
    for (let at = this.#certificate(); at?.succeeds !== undefined && !seen.has(at.issuer); ) {
      seen.add(at.issuer);
      const { issuer, last } = at.succeeds;
      const before = this.#deps.ledger.roots.certificateOf(issuer);
      if (before !== undefined && authorOf(before) === place.author) return this.#isUpTo(place, last);
      at = before;
    }
    return false;
  }

  #isUpTo(place: EntryPlace, last: { readonly epoch: EpochId; readonly number: number } | undefined): boolean {
    if (last === undefined) return false;
    if (place.epoch === last.epoch) return place.number <= last.number;
    const generation = this.#generations.get(last.epoch);
    return generation !== undefined && comparePlaces(place, { ...last, generation, index: 0 }) <= 0;
  }

  async open(): Promise<void> {
    await this.#roll.open();
    this.#isOpen = true;
  }

  /** Others have given back what this issuer had written: its store knows less than it did. */
  #isLost({ author, epoch }: EntryPlace): boolean {
    return author === this.#options.author && epoch !== this.#deps.ledger.own('issuer')?.epoch;
  }

  #forgot(): void {
    this.#roll.forgot().catch((error: unknown) => {
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.warn('lease.restore-not-noted', { code: error.code });
    });
  }

  keeps(issuer: IssuerId): boolean {
    return this.#deps.ledger.authorsOf(issuer).at(-1) === this.#options.author;
  }

  missing(): readonly PeerId[] {
    return this.#roll.missing();
  }

  entry(held: HeldEntry): void {
    const { place } = held;
    if (this.#isOpen && this.#isLost(place)) this.#forgot();
    this.#generations.set(place.epoch, place.generation);
    const account = this.#book.apply(held);
    if (account !== undefined) for (const wake of [...(this.#waiting.get(account) ?? [])]) wake();
  }

  changed(account: AccountId): void {
    const budget = accountIn(this.#deps.ledger, account, this.#issuer())?.budget;
    if (budget === undefined) return;
    const period = periodOf(budget.period, this.#deps.clock.wallMs());
    if (this.#book.takenMicro(account, period) > budget.amountMicro) this.#recall(account, period, undefined);
  }

  async ask(from: PeerId, ask: MoneyAsk): Promise<MoneyGrant | MoneyRefusal> {
    const refusal = (reason: MoneyRefusal['reason'], leftMicro = 0): MoneyRefusal => {
      return { type: 'refusal', id: ask.id, reason, leftMicro };
    };
    if (!this.keeps(ask.issuer)) return refusal('unknown');
    try {
      // What this issuer wrote before it started has to be known first.
      await this.#deps.ledger.append('issuer', []);
      const account = accountOf(this.#deps.ledger, ask.account, ask.issuer);
      if (account?.budget === undefined) return refusal('unknown');
      if ((ask.isStrict || account.strict) && !(await this.#knowsAll(ask.issuer))) return refusal('unready');
      const first = await this.#give(from, ask);
      if (first.kind === 'given') return first.grant;
      if (first.kind === 'over') return refusal('over');
      // What is asked for ahead of need is nothing to trouble others for.
      if (ask.needMicro === 0 || !(await this.#callBack(ask, first.leftMicro))) {
        return refusal('exhausted', first.leftMicro);
      }
      const second = await this.#give(from, ask);
      if (second.kind === 'given') return second.grant;
      return second.kind === 'over' ? refusal('over') : refusal('exhausted', second.leftMicro);
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.warn('lease.not-given', { account: ask.account, code: error.code });
      return refusal('unready');
    }
  }

  async #knowsAll(issuer: IssuerId): Promise<boolean> {
    return this.#deps.ledger.holdsBefore(issuer) && (await this.#roll.isComplete());
  }

  #give(from: PeerId, ask: MoneyAsk): Promise<Given> {
    return this.#inLane(ask.account, async () => {
      const budget = accountOf(this.#deps.ledger, ask.account, ask.issuer)?.budget;
      if (budget === undefined) return { kind: 'over' };
      const period = periodOf(budget.period, this.#deps.clock.wallMs());
      const running = budgetPeriods.map((kind) => periodOf(kind, this.#deps.clock.wallMs()));
      this.#book.forgetBefore(ask.account, period, running);
      const known = this.#book.of(ask.lease);
      if (known !== undefined && !isRaisable(known, { ...ask, holder: from, period })) return { kind: 'over' };
      // What the holder knows of and this authority does not was forgotten here, as by a restore.
      const hadMicro = Math.max(known?.amountMicro ?? 0, ask.knownMicro);
      const takenMicro = this.#book.takenMicro(ask.account, period) + hadMicro - (known?.amountMicro ?? 0);
      const leftMicro = Math.max(0, budget.amountMicro - takenMicro);
      return await this.#giveOf({ leftMicro, period, hadMicro }, from, ask);
    });
  }

  async #giveOf({ leftMicro, period, hadMicro }: Basis, from: PeerId, ask: MoneyAsk): Promise<Given> {
    const { account, epoch, lease } = ask;
    // The answer that told of it was lost.
    const aheadMicro = Math.max(0, hadMicro - ask.knownMicro);
    const moreOf = (micro: number): number => Math.max(0, micro - aheadMicro);
    const isEnough = aheadMicro > 0 && aheadMicro >= ask.leastMicro;
    const amounts = { leastMicro: moreOf(ask.leastMicro), needMicro: moreOf(ask.needMicro) };
    const moreMicro = isEnough ? 0 : amountToGive({ leftMicro, ...amounts, wantMicro: moreOf(ask.wantMicro) });
    if (moreMicro === 0 && !isEnough) return { kind: 'short', leftMicro };
    const amountMicro = hadMicro + moreMicro;
    if (moreMicro > 0) await this.#write({ kind: 'lease', lease, account, holder: from, epoch, period, amountMicro });
    const grant = { type: 'grant', id: ask.id, lease, period, amountMicro, leftMicro: leftMicro - moreMicro } as const;
    return { kind: 'given', grant };
  }

  async #write(entry: LeaseEntry): Promise<void> {
    const [place] = await this.#deps.ledger.append('issuer', [entry]);
    if (place !== undefined) this.#book.apply({ entry, place });
  }

  /** @returns true where somebody may be about to give something back. */
  #recall(account: AccountId, period: number, butFor: LeaseId | undefined): boolean {
    const nowMs = this.#deps.clock.nowMs();
    for (const [lease, atMs] of this.#recalledMs) if (nowMs - atMs > recallAgainMs) this.#recalledMs.delete(lease);
    let isAwaited = false;
    for (const { holder, lease, state, period: of } of this.#book.leasesOf(account)) {
      if (state !== 'open' || of !== period || lease === butFor) continue;
      const atMs = this.#recalledMs.get(lease);
      if (atMs === undefined) {
        this.#recalledMs.set(lease, nowMs);
        this.#deps.recall(holder, lease);
      }
      isAwaited ||= nowMs - (atMs ?? nowMs) < recallWaitMs;
    }
    return isAwaited;
  }

  /** @returns whether anything was given back. */
  async #callBack(ask: MoneyAsk, leftMicro: number): Promise<boolean> {
    const { clock } = this.#deps;
    const budget = accountOf(this.#deps.ledger, ask.account, ask.issuer)?.budget;
    if (budget === undefined) return false;
    const period = periodOf(budget.period, clock.wallMs());
    const left = (): number => budget.amountMicro - this.#book.takenMicro(ask.account, period);
    if (!this.#recall(ask.account, period, ask.lease) && left() <= leftMicro) return false;
    const waiting = this.#waiting.get(ask.account) ?? new Set();
    this.#waiting.set(ask.account, waiting);
    await new Promise<void>((resolve) => {
      let cancel: Cancel = () => {};
      const look = (isOver: boolean): void => {
        if (!isOver && left() < ask.leastMicro) return;
        cancel();
        waiting.delete(wake);
        if (waiting.size === 0) this.#waiting.delete(ask.account);
        resolve();
      };
      const wake = (): void => look(false);
      waiting.add(wake);
      cancel = clock.timer(recallWaitMs, () => look(true));
      look(false);
    });
    return left() >= ask.leastMicro;
  }

  async report(from: PeerId, { issuer, isLast, leases }: HoldingsReport): Promise<void> {
    if (issuer !== this.#issuer()) return;
    for (const { lease, account, epoch, period, amountMicro } of leases) {
      const known = this.#book.of(lease);
      if (known !== undefined && known.amountMicro >= amountMicro) continue;
      if (known !== undefined && (known.holder !== from || known.account !== account)) continue;
      if (accountIn(this.#deps.ledger, account, this.#issuer())?.budget === undefined) continue;
      this.#deps.log.warn('lease.forgotten', { lease, account, holder: from, amountMicro });
      const entry: LeaseEntry = { kind: 'lease', lease, account, holder: from, epoch, period, amountMicro };
      await this.#inLane(account, () => this.#write(entry));
    }
    if (isLast) this.#roll.heard(from);
  }

  sheet(account: AccountId): BudgetSheet | undefined {
    const budget = accountIn(this.#deps.ledger, account, this.#issuer())?.budget;
    if (budget === undefined) return undefined;
    const period = periodOf(budget.period, this.#deps.clock.wallMs());
    const leases = this.#book.leasesOf(account).filter((lease) => lease.period === period);
    const sum = (of: (lease: LeaseFacts) => number): number => leases.reduce((total, lease) => total + of(lease), 0);
    const takenMicro = sum((lease) => lease.takenMicro);
    return {
      account,
      amountMicro: budget.amountMicro,
      period: budget.period,
      spentMicro: sum(({ state, spentMicro }) => (state === 'open' ? 0 : spentMicro)),
      leasedMicro: sum(({ state, takenMicro: taken }) => (state === 'open' ? taken : 0)),
      leftMicro: Math.max(0, budget.amountMicro - takenMicro),
      leases: leases.map(({ lease, holder, amountMicro, state, spentMicro }) => {
        return { lease, holder, amountMicro, state, spentMicro };
      }),
    };
  }

  openLease(lease: LeaseId): LeaseFacts | undefined {
    const facts = this.#book.of(lease);
    return facts?.state === 'open' ? facts : undefined;
  }
}

export const createLeaseAuthority = (deps: AuthorityDeps, options: AuthorityOptions): LeaseAuthority =>
  new IssuerAuthority(deps, options);
