/** What serving a request asks of the ledger: whose it is, what it costs, whether that may be spent, and its lines. */

import type { Budgets, MoneyHold } from '../ledger/budgets.ts';
import type { Caller } from '../ledger/line.ts';
import { freePrice, type Price, type PriceQuery, type PriceRule } from '../ledger/price.ts';
import type { AttemptStart, GatewayTabs, OpenLine } from '../ledger/tabs.ts';
import type { Tags } from '../ledger/tags.ts';
import type { HelixFlowError } from '../protocol/errors.ts';
import type { PeerId } from '../protocol/ids.ts';
import type { Clock } from '../protocol/ports.ts';
import type { Access } from './access/judge.ts';

/** Asked for with each request, so every answer but that of `hold` comes from memory, at once. */
export interface AccountingDeps {
  /** What stands in lines for whoever asks. */
  callerOf(access: Access): Caller;
  /** What this node's work costs from now on. */
  priceOf(model: string, node: PeerId): Price;
  /** As `Budgets.hold`; undefined where the account may spend what it likes. */
  hold(access: Access, needMicro: number): ReturnType<Budgets['hold']>;
  /** This gateway's part of a limit that others share; all of it without this. */
  readonly share?: Budgets['share'];
  /** Why no new work may begin; undefined while it may. */
  refusal(): HelixFlowError | undefined;
  begin(start: AttemptStart): OpenLine;
}

/** What accounting is made of. */
export interface AccountingParts {
  readonly clock: Clock;
  readonly tabs: Pick<GatewayTabs, 'refusal' | 'begin'>;
  readonly tags: Pick<Tags, 'callerOf'>;
  readonly prices: { inForce(query: PriceQuery): PriceRule | undefined };
  readonly budgets: Pick<Budgets, 'hold'> & Partial<Pick<Budgets, 'share'>>;
}

/** Nobody asks a budget that is not there. */
const unlimited: MoneyHold | undefined = undefined;

/** Joins the parts of the ledger for the hot path. */
export const createAccounting = ({ clock, tabs, tags, prices, budgets }: AccountingParts): AccountingDeps => ({
  callerOf: ({ issuer, account, keyId }) => tags.callerOf({ issuer, account, key: keyId }, clock.wallMs()),
  priceOf: (model, node) => prices.inForce({ model, node, atMs: clock.wallMs() }) ?? freePrice,
  hold: ({ budget, issuer, account, strict }, needMicro) =>
    budget === undefined ? unlimited : budgets.hold({ issuer, account, strict }, needMicro),
  ...(budgets.share === undefined ? {} : { share: (query) => budgets.share?.(query) ?? query.total }),
  refusal: () => tabs.refusal(),
  begin: (start) => tabs.begin(start),
});
