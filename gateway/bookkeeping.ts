/** Everything that keeps account at a gateway: tabs, prices, tags, usage and budgets, over its ledger. */

import { authorIdOf } from '../ledger/block.ts';
import { createCheckpoints } from '../ledger/checkpoint.ts';
import { createUsage } from '../ledger/create-usage.ts';
import { createGatewayTabs } from '../ledger/gateway-tabs.ts';
import { createIssuers } from '../ledger/issuers.ts';
import { type BudgetOptions, createBudgets, type GatewayBudgets } from '../ledger/lease-holder.ts';
import type { Ledger, LedgerPorts } from '../ledger/ledger.ts';
import { leaseTag } from '../ledger/money.ts';
import { createPrices, type Prices } from '../ledger/prices.ts';
import { createRetention, type Retention, type RetentionOptions } from '../ledger/retention.ts';
import type { GatewayTabs } from '../ledger/tabs.ts';
import { createTags, type TagKeys } from '../ledger/tag-keys.ts';
import type { Usage } from '../ledger/usage.ts';
import type { MeshId, ProcessId } from '../protocol/ids.ts';
import { publicKeyOf } from '../protocol/peer/identity.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import { type AccountingDeps, createAccounting } from './accounting.ts';

export interface BookkeepingOptions extends BudgetOptions, RetentionOptions {
  readonly meshId: MeshId;
  /** Names this process in its lines. */
  readonly run: ProcessId;
  readonly roots: Roots;
}

/** Make it before `Ledger.open`, which tells it all that is on disk. */
export interface Bookkeeping {
  readonly accounting: AccountingDeps;
  readonly tabs: GatewayTabs;
  readonly tags: TagKeys;
  readonly prices: Prices;
  readonly usage: Usage;
  readonly budgets: GatewayBudgets;
  readonly retention: Pick<Retention, 'fold' | 'last'>;
  /** Call before `Ledger.open`: usage goes on from its last checkpoint. @throws HelixFlowError STORE_FAILED */
  load(): Promise<void>;
  /** Call after `Ledger.open`. @throws HelixFlowError STORE_FAILED */
  open(): Promise<void>;
  /** States what was done, and gives back what is left of leases: while others can still be told. */
  leave(): Promise<void>;
  /** As `leave`; before the ledger is closed. */
  close(): Promise<void>;
}

export function createBookkeeping(
  ports: LedgerPorts & { readonly ledger: Ledger },
  options: BookkeepingOptions,
): Bookkeeping {
  const { ledger, network, log, clock } = ports;
  const { meshId, run, roots } = options;
  const issuers = createIssuers(roots);
  const prices = createPrices((author) => issuers.counts(author));
  const usage = createUsage(ports, { meshId });
  const checkpoints = createCheckpoints({ ...ports, usage });
  const retention = createRetention({ ...ports, usage, checkpoints }, options);
  const tags = createTags(ports);
  const tabs = createGatewayTabs(
    ports,
    { meshId, self: network.self, run },
    {
      refused: (node, lines) => log.warn('lines.refused', { node, lines: lines.length }),
      claimed: (node, about, attempts) => log.warn('work.claimed', { node, about, attempts }),
    },
  );
  const budgets = createBudgets(
    {
      ...ports,
      tags,
      isStated: () => tabs.status().every(({ unstated }) => unstated === 0),
      spentFrom: ({ lease, holder }) => {
        const key = publicKeyOf(holder);
        return key === undefined ? 0 : usage.spentFrom(authorIdOf(key), leaseTag(lease));
      },
    },
    options,
  );
  const cancels = [
    ledger.onEntry((held) => {
      prices.apply(held);
      usage.apply(held);
    }),
    ledger.onChange(({ kind }) => {
      if (kind === 'roots') issuers.changed();
    }),
  ];
  /** Lines before leases: what is closed has been accounted for. */
  const leave = async (): Promise<void> => {
    await tabs.close();
    await budgets.close();
  };
  return {
    accounting: createAccounting({ clock, tabs, tags, prices, budgets }),
    tabs,
    tags,
    prices,
    usage,
    budgets,
    retention,
    load: async () => {
      await checkpoints.open();
    },
    open: async () => {
      await tags.open();
      await tabs.open();
      await budgets.open();
      retention.start();
    },
    leave,
    close: async () => {
      await leave();
      await retention.close();
      await tags.close();
      for (const cancel of cancels) cancel();
    },
  };
}
