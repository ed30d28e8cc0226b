/** Who owes what, watched from outside: every answer leaves one line, everywhere the same, and strict budgets hold. */

import type { Access } from '../gateway/access/judge.ts';
import type { Budget } from '../ledger/money.ts';
import { settleAll } from '../ledger/settle.ts';
import type { Settled } from '../ledger/settlement.ts';
import { isHelixFlowError } from '../protocol/errors.ts';
import { issuerIdOf } from '../protocol/grants.ts';
import type { AccountId, KeyId, PeerId, PriceId, RequestId } from '../protocol/ids.ts';
import { unixMs } from '../protocol/units.ts';
import type { Phase, Violation, WatchedRequest } from './checkers.ts';
import { epochMs } from './clock.ts';
import { readUsage, type UsageRead } from './feeds-read.ts';
import type { Sites } from './sites.ts';
import type { World } from './world.ts';

/** What accounts may spend, and what it costs them. */
export interface MoneyPlan {
  /** With more than they ever need; every second one is strict. */
  readonly rich: number;
  /** Strict ones that run out while faults are about. */
  readonly poor: number;
  readonly poorMicro: number;
  /** Micro-credits for a million tokens. */
  readonly promptMicro: number;
  readonly completionMicro: number;
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
}

type Caller = Access & { readonly budget: Budget };

const retryMs = 500;
const richMicro = 1_000_000_000_000;

/** All money of one run. */
export class Money {
  readonly #world: World;
  readonly #sites: Sites;
  readonly #plan: MoneyPlan;
  readonly #violate: (violation: Violation) => void;
  readonly #callers: readonly Caller[];
  #counts: MoneyCounts | undefined;

  constructor(world: World, sites: Sites, plan: MoneyPlan, violate: (violation: Violation) => void) {
    this.#world = world;
    this.#sites = sites;
    this.#plan = plan;
    this.#violate = violate;
    const issuer = issuerIdOf(sites.mesh.issuer.key.publicKey);
    this.#callers = Array.from({ length: plan.rich + plan.poor }, (_, at) => {
      const isPoor = at >= plan.rich;
      return {
        keyId: at.toString(16).padStart(16, '0') as KeyId,
        issuer,
        account: `account-${at}` as AccountId,
        role: 'user',
        models: [],
        limits: {},
        gateways: [],
        strict: isPoor || at % 2 === 0,
        budget: { amountMicro: isPoor ? plan.poorMicro : richMicro, period: 'total' },
      };
    });
  }

  /** The poor run out: only while something is broken may a request be refused. */
  readonly callersIn = (phase: Phase): readonly Access[] =>
    phase === 'faults' ? this.#callers : this.#callers.slice(0, this.#plan.rich);

  /** Lets the issuer set the price and open the accounts; tried again until its disk holds them. */
  open(): void {
    void this.#open().catch((error: unknown) => this.#world.kernel.fail(error));
  }

  async #open(): Promise<void> {
    const ledger = this.#sites.gateways[0]?.gateway?.ledger;
    const { promptMicro, completionMicro } = this.#plan;
    const price = { prompt: promptMicro, cached: promptMicro, completion: completionMicro, fromMs: unixMs(0) };
    try {
      await ledger?.append('issuer', [
        { kind: 'price', id: '00000000000000aa' as PriceId, model: '*', ...price },
        ...this.#callers.map(
          ({ account, strict, budget }) => ({ kind: 'account', account, limits: {}, strict, budget }) as const,
        ),
      ]);
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
    }
    if (ledger === undefined || ledger.standing.accounts().length < this.#callers.length) {
      this.#world.kernel.schedule(retryMs, () => this.open());
    }
  }

  #break(check: string, detail: string): void {
    this.#violate({ atMs: this.#world.kernel.nowMs, check, detail });
  }

  /** All faults are over, and everyone has had time to state, sign and replicate. */
  async check(requests: readonly WatchedRequest[]): Promise<void> {
    const reads: UsageRead[] = [];
    for (const { gateway, machine } of this.#sites.gateways) {
      if (gateway === undefined) this.#break('all run again', machine.name);
      else reads.push(await readUsage(gateway.ledger));
    }
    const [first] = reads;
    if (first === undefined) return;
    const amounts = reads.map((read) => JSON.stringify(sumOf(settleAll(read.attempts))));
    if (new Set(amounts).size > 1) this.#break('all owe the same', [...new Set(amounts)].join(' or '));
    this.#checkLines(first, requests);
    this.#checkTabs(first);
    this.#checkBudgets(first);
  }

  #checkLines(read: UsageRead, requests: readonly WatchedRequest[]): void {
    const byRequest = new Map<RequestId, Settled[]>();
    for (const settled of settleAll(read.attempts)) {
      const { request } = settled.line;
      byRequest.set(request, [...(byRequest.get(request) ?? []), settled]);
    }
    for (const { facts, end, outcome } of requests) {
      const settled = byRequest.get(facts.id) ?? [];
      const ended = settled.filter(({ promptTokens }) => promptTokens > 0);
      if (ended.length > 1) this.#break('billed once', `request ${facts.number} is billed ${ended.length} times`);
      if (outcome?.kind !== 'done' || end === undefined) continue;
      const whole = settled.filter(({ line }) => line.outcome === 'done');
      const told = whole.map((one) => [one.promptTokens, one.completionTokens]);
      if (JSON.stringify(told) !== JSON.stringify([[end.promptTokens, end.completionTokens]])) {
        this.#break(
          'an answered request has its line',
          `request ${facts.number} was told ${end.promptTokens}+${end.completionTokens}, lines say ${JSON.stringify(told)}`,
        );
      }
    }
  }

  #checkTabs({ statements, waiting, attempts }: UsageRead): void {
    for (const { said, node } of attempts) {
      for (const { line, refused } of said) {
        if (refused === undefined) continue;
        const { outcome, promptTokens, completionTokens, nodeTokens, startMs, durationMs } = line;
        const counts = `${promptTokens}+${completionTokens} (node ${nodeTokens ?? 'none'})`;
        const times = `begun ${startMs - epochMs} ms, for ${durationMs} ms`;
        this.#break(
          'nothing honest is refused',
          `${refused}: ${outcome}, ${counts}, ${times}, at ${this.#nameOf(node)}`,
        );
      }
    }
    if (waiting > 0) this.#break('statements are countersigned', `${waiting} of ${statements} are not`);
    for (const { node, machine } of this.#sites.nodes) {
      // What a gateway's crash has made it forget stays so; it stands against nobody.
      for (const { gateway, uncovered, uncoveredMs } of node?.tabs.status() ?? []) {
        if (uncoveredMs > 0) this.#break('work is covered', `${uncovered} attempts of ${gateway} at ${machine.name}`);
      }
    }
  }

  #nameOf(peer: PeerId): string {
    return this.#sites.nodes.find(({ machine }) => machine.peer === peer)?.machine.name ?? peer;
  }

  #checkBudgets(read: UsageRead): void {
    const spent = new Map<AccountId, number>();
    const settled = settleAll(read.attempts);
    for (const { line, payer, amountMicro } of settled) {
      const account = line.lease && read.leases.get(line.lease);
      if (payer === 'account' && account !== undefined) spent.set(account, (spent.get(account) ?? 0) + amountMicro);
    }
    const strict = this.#callers.filter((caller) => caller.strict);
    for (const { account, budget } of strict) {
      const micro = spent.get(account) ?? 0;
      if (micro > budget.amountMicro) {
        this.#break('strict budgets hold', `${account} spent ${micro} of ${budget.amountMicro}`);
      }
    }
    const poor = this.#callers.slice(this.#plan.rich);
    this.#counts = {
      statements: read.statements,
      lines: read.attempts.length,
      claims: read.claims,
      waiting: read.waiting,
      ...sumOf(settled),
      poorSpentMicro: poor.reduce((sum, { account }) => sum + (spent.get(account) ?? 0), 0),
      poorBudgetMicro: poor.length * this.#plan.poorMicro,
    };
  }

  counts(): MoneyCounts | undefined {
    return this.#counts;
  }
}

function sumOf(settled: readonly Settled[]): { accountMicro: number; gatewayMicro: number } {
  const of = (payer: Settled['payer']): number =>
    settled.reduce((sum, one) => sum + (one.payer === payer ? one.amountMicro : 0), 0);
  return { accountMicro: of('account'), gatewayMicro: of('gateway') };
}
