/** Who owes what, watched from outside: every answer leaves one line, everywhere the same, strict budgets hold, liars gain nothing. */

import type { Access } from '../gateway/access/judge.ts';
import { settleAll } from '../ledger/settle.ts';
import type { PeerId } from '../protocol/ids.ts';
import { Accounts, type AccountsPlan } from './accounts.ts';
import type { Phase, Violation, WatchedRequest } from './checkers.ts';
import { Custody } from './custody.ts';
import { readUsage, type UsageRead } from './feeds-read.ts';
import { ForkedFeed } from './fork.ts';
import type { Gain } from './gains.ts';
import { judgeLiars } from './judge-liars.ts';
import { Liars } from './liars.ts';
import { checkLimits, type LimitsUsed } from './limits-used.ts';
import { checkBudgets, checkSame, MoneyChecks, sumOf, type Violate } from './money-checks.ts';
import type { End, MoneyFault } from './play.ts';
import { Replay } from './replay.ts';
import type { Site, Sites } from './sites.ts';
import { Truth } from './truth.ts';
import type { World } from './world.ts';

/** What a scenario plays about money. */
export interface MoneyPlan extends AccountsPlan {
  /** After the faults a gateway shows each half of the others another feed, while they cannot reach each other for so long. */
  readonly forkApartMs?: number;
}

/** What it came to. */
export interface MoneyCounts {
  readonly statements: number;
  readonly lines: number;
  readonly claims: number;
  readonly waiting: number;
  /** Micro-credits: what all accounts owe, and what gateways owe themselves. */
  readonly accountMicro: number;
  readonly gatewayMicro: number;
  /** Of the accounts that run out, together. */
  readonly poorSpentMicro: number;
  readonly poorBudgetMicro: number;
  /** Lines that nobody held any more when a disk was damaged. */
  readonly lost: number;
  /** Of each lie, the most that was gained by it from one other member. */
  readonly gains: readonly Gain[];
  /** How many honest nodes serve a lying gateway no more. */
  readonly stopped: number;
  /** From the moment when both halves could reach each other to the last gateway's proof. */
  readonly forkProvenMs?: number;
  /** Of the key that all gateways share. */
  readonly limits?: LimitsUsed;
}

/** All money of one run. */
export class Money {
  readonly custody: Custody;
  readonly #world: World;
  readonly #sites: Sites;
  readonly #plan: MoneyPlan;
  readonly #violate: (violation: Violation) => void;
  readonly #accounts: Accounts;
  readonly #truth: Truth;
  readonly #liars: Liars;
  readonly #replay: Replay;
  readonly #fork: ForkedFeed | undefined;
  #counts: MoneyCounts | undefined;

  constructor(world: World, sites: Sites, plan: MoneyPlan, violate: (violation: Violation) => void) {
    this.#world = world;
    this.#sites = sites;
    this.#plan = plan;
    this.#violate = violate;
    this.#accounts = new Accounts(world, sites, plan);
    this.#truth = new Truth(world, sites);
    this.#liars = new Liars(world, sites);
    this.#replay = new Replay(world, sites);
    this.custody = new Custody(sites);
    if (plan.forkApartMs !== undefined) this.#fork = new ForkedFeed(world, sites, this.#accounts.price);
  }

  readonly callersIn = (phase: Phase): readonly Access[] => this.#accounts.in(phase);

  /** Lets the issuer set the price and open the accounts. */
  open(): void {
    this.#accounts.open();
  }

  readonly isHonest = (peer: PeerId): boolean => this.#liars.isHonest(peer);

  /** Begins a fault that is about words. */
  readonly begin = (fault: MoneyFault, site: Site): End | undefined => {
    if (fault.kind === 'replay') return this.#replay.begin(site, fault.times);
    this.#liars.begin(fault, site);
    return undefined;
  };

  /** When the faults are over, a gateway may fork. */
  async betray(): Promise<void> {
    await this.#fork?.betray(this.#plan.forkApartMs ?? 0);
  }

  /** All faults are over, and everyone has had time to state, sign and replicate. */
  async check(requests: readonly WatchedRequest[]): Promise<void> {
    const violate = (check: string, detail: string): void =>
      this.#violate({ atMs: this.#world.kernel.nowMs, check, detail });
    const reads: UsageRead[] = [];
    for (const { gateway, machine } of this.#sites.gateways) {
      if (gateway === undefined) violate('all run again', machine.name);
      else reads.push(await readUsage(gateway.ledger));
    }
    const [read] = reads;
    if (read === undefined) return;
    const forked = this.#fork?.author;
    const facts = read.attempts.filter(({ author }) => author !== forked);
    const settled = settleAll(facts);
    const lost = await this.custody.lost();
    const found = { read, facts, settled, requests, lost };
    const parts = { sites: this.#sites, truth: this.#truth, liars: this.#liars, custody: this.custody };
    checkSame(reads, forked, violate);
    new MoneyChecks(parts, found, violate).all();
    const spent = checkBudgets(this.#accounts.callers, read.leases, { settled, violate });
    const { gains, stopped } = judgeLiars(parts, found, violate);
    for (const problem of this.#fork?.problems(reads.flatMap(({ attempts }) => attempts)) ?? []) {
      violate('forks settle as a union', problem);
    }
    const limits = this.#checkLimits(requests, violate);
    const { poor } = this.#accounts;
    const provenMs = this.#fork?.provenMs;
    this.#counts = {
      statements: read.statements,
      lines: facts.length,
      claims: read.claims,
      waiting: [...read.waiting.values()].reduce((sum, count) => sum + count, 0),
      ...sumOf(settled),
      poorSpentMicro: poor.reduce((sum, { account }) => sum + (spent.get(account) ?? 0), 0),
      poorBudgetMicro: poor.length * this.#plan.poorMicro,
      lost: lost.size,
      gains,
      stopped,
      ...(provenMs === undefined ? {} : { forkProvenMs: provenMs }),
      ...(limits === undefined ? {} : { limits }),
    };
  }

  #checkLimits(requests: readonly WatchedRequest[], violate: Violate): LimitsUsed | undefined {
    const { limited } = this.#accounts;
    const { restartsMs } = this.#truth;
    return limited && checkLimits(limited, { requests, attempts: this.#truth.attempts(), restartsMs }, violate);
  }

  counts(): MoneyCounts | undefined {
    return this.#counts;
  }
}
