/** Budgets and limits over all gateways: what a gateway may spend, given by the account's authority (design §6). */

import type { HelixFlowError } from '../protocol/errors.ts';
import type { AccountId, IssuerId, KeyId, LeaseId, Tag } from '../protocol/ids.ts';
import type { BudgetPeriod } from './money.ts';

/** An account with a budget, as a request names it. */
export interface BudgetAccount {
  readonly issuer: IssuerId;
  readonly account: AccountId;
  /** Never overspent, also in a partition: without a lease it is refused. Others may spend `graceMicro` here. */
  readonly strict: boolean;
}

/** Micro-credits set aside for one request from leases held here. */
export interface MoneyHold {
  /** What the lines of the request name. */
  readonly lease: Tag | undefined;
  /** Whether anything of it is outside a lease: then the gateway pays. */
  readonly isGrace: boolean;
  /** Sets aside more. @returns false where there is none: end the answer with `length`. */
  grow(amountMicro: number): boolean;
  /** The request has ended and its lines cost this much; the rest is free again. The first call counts. */
  settle(spentMicro: number): void;
}

/** A budget as a gateway sees it. */
export interface BudgetStatus {
  readonly account: AccountId;
  readonly leases: readonly { readonly lease: LeaseId; readonly amountMicro: number; readonly leftMicro: number }[];
  readonly heldMicro: number;
  readonly graceMicro: number;
}

/** A window that is shared by all gateways: requests or tokens per minute, or requests at a time. */
export type SharedLimit = 'rpm' | 'tpm' | 'concurrency';

/** What a key or account may use at this gateway now, where its limit is shared out. */
export interface ShareQuery {
  readonly issuer: IssuerId;
  /** A key, or a whole account. */
  readonly subject:
    | { readonly kind: 'key'; readonly key: KeyId }
    | { readonly kind: 'account'; readonly account: AccountId };
  readonly limit: SharedLimit;
  /** Of all gateways together. */
  readonly total: number;
  /** Without a share nothing passes; others may use the whole limit here while it cannot be shared. */
  readonly strict: boolean;
  /** What is used and held of it here at any moment; kept, and asked again as long as there is a share. */
  readonly used: () => number;
  /** What the request at hand would take; 0 where nothing asks for it. */
  readonly need: number;
}

/** How a limit is shared out, for `status`. */
export interface ShareStatus {
  /** Limits that others may use, too. */
  readonly shared: number;
  /** Those of them that count in full here, since whoever shares them out cannot be reached. */
  readonly unshared: number;
}

/** The holder's side: local, quick, asks the authority ahead of need. */
export interface Budgets {
  /**
   * Sets money aside for a request; undefined where the account has no budget. Where the leases held here do not
   * suffice, asks the authority and waits at most `waitMs`.
   * @returns HelixFlowError BUDGET_EXHAUSTED, BUDGET_UNAVAILABLE
   */
  hold(
    account: BudgetAccount,
    needMicro: number,
  ): MoneyHold | undefined | HelixFlowError | Promise<MoneyHold | HelixFlowError>;
  /** This gateway's part of a limit; all of it where nobody shares it. Never waits; asks for more in the background. */
  share(query: ShareQuery): number;
  status(): readonly BudgetStatus[];
  shares(): ShareStatus;
  /** Closes the leases held here, so that what is left of them is free again. */
  close(): Promise<void>;
}

/** The authority's side of one account's budget, for listings. */
export interface BudgetSheet {
  readonly account: AccountId;
  readonly amountMicro: number;
  readonly period: BudgetPeriod;
  /** Closed leases and writte-off ones: spent. Open ones: their whole amount. */
  readonly spentMicro: number;
  readonly leasedMicro: number;
  readonly leftMicro: number;
  readonly leases: readonly {
    readonly lease: LeaseId;
    readonly holder: string;
    readonly amountMicro: number;
    readonly state: 'open' | 'closed' | 'written-off';
    readonly spentMicro: number;
  }[];
}
