/** Whose money is spent in a run, and the entries that open it: a price, accounts with budgets. */

import type { Access } from '../gateway/access/judge.ts';
import type { Budget } from '../ledger/money.ts';
import type { Price } from '../ledger/price.ts';
import { isHelixFlowError } from '../protocol/errors.ts';
import { issuerIdOf, type RateLimits } from '../protocol/grants.ts';
import type { AccountId, KeyId, PriceId } from '../protocol/ids.ts';
import { unixMs } from '../protocol/units.ts';
import type { Phase } from './checkers.ts';
import type { Sites } from './sites.ts';
import type { World } from './world.ts';

/** What accounts may spend, and what it costs them. */
export interface AccountsPlan {
  /** With more than they ever need; every second one is strict. */
  readonly rich: number;
  /** Strict ones that run out while faults are about. */
  readonly poor: number;
  readonly poorMicro: number;
  /** Micro-credits for a million tokens. */
  readonly promptMicro: number;
  readonly completionMicro: number;
  /** A strict key that all gateways share, and that asks while faults are about, too. */
  readonly limited?: RateLimits;
  /** Only those that run out, and that key, ask while faults are about. */
  readonly isHammered?: boolean;
}

/** A caller with the budget of its account, where it has one. */
export type Caller = Access & { readonly budget?: Budget };

const retryMs = 500;
const richMicro = 1_000_000_000_000;
const priceId = '00000000000000aa' as PriceId;

/** All accounts of one run. */
export class Accounts {
  readonly #world: World;
  readonly #sites: Sites;
  readonly #plan: AccountsPlan;
  readonly callers: readonly Caller[];
  readonly limited: Caller | undefined;

  constructor(world: World, sites: Sites, plan: AccountsPlan) {
    this.#world = world;
    this.#sites = sites;
    this.#plan = plan;
    this.callers = Array.from({ length: plan.rich + plan.poor }, (_, at) => {
      const isPoor = at >= plan.rich;
      const budget: Budget = { amountMicro: isPoor ? plan.poorMicro : richMicro, period: 'total' };
      return { ...this.#access(at, {}, isPoor || at % 2 === 0), budget };
    });
    this.limited = plan.limited && this.#access(this.callers.length, plan.limited, true);
  }

  #access(at: number, limits: RateLimits, strict: boolean): Access {
    const issuer = issuerIdOf(this.#sites.mesh.issuer.key.publicKey);
    const keyId = at.toString(16).padStart(16, '0') as KeyId;
    const account = `account-${at}` as AccountId;
    return { keyId, issuer, account, role: 'user', models: [], limits, gateways: [], strict };
  }

  get poor(): readonly Caller[] {
    return this.callers.slice(this.#plan.rich);
  }

  get price(): Price {
    const { promptMicro: prompt, completionMicro: completion } = this.#plan;
    return { id: priceId, prompt, cached: prompt, completion };
  }

  /** The poor run out: only while something is broken may a request be refused. */
  in(phase: Phase): readonly Access[] {
    if (phase !== 'faults') return this.callers.slice(0, this.#plan.rich);
    const limited = this.limited === undefined ? [] : [this.limited];
    return [...(this.#plan.isHammered ? this.poor : this.callers), ...limited];
  }

  /** Lets the issuer set the price and open the accounts; tried again until its disk holds them. */
  open(): void {
    void this.#open().catch((error: unknown) => this.#world.kernel.fail(error));
  }

  async #open(): Promise<void> {
    const ledger = this.#sites.gateways[0]?.gateway?.ledger;
    try {
      await ledger?.append('issuer', [
        { kind: 'price', model: '*', ...this.price, id: priceId, fromMs: unixMs(0) },
        ...this.callers.map(({ account, strict, budget }) => {
          return { kind: 'account', account, limits: {}, strict, ...(budget ? { budget } : {}) } as const;
        }),
      ]);
    } catch (error) {
      if (!isHelixFlowError(error)) throw error;
    }
    if (ledger === undefined || ledger.standing.accounts().length < this.callers.length) {
      this.#world.kernel.schedule(retryMs, () => this.open());
    }
  }
}
