/** What this gateway knows of work and money, for whoever may read it. */

import type { BudgetSheet } from '../../ledger/budgets.ts';
import type { Prices } from '../../ledger/prices.ts';
import type { Usage } from '../../ledger/usage.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { AccountId, IssuerId } from '../../protocol/ids.ts';
import type { AdminContext } from './operation.ts';
import type { Owners } from './owners.ts';

export interface Records {
  readonly usage: Pick<Usage, 'rollUp' | 'totals' | 'newestMs'>;
  readonly prices: Pick<Prices, 'list'>;
  readonly owners: Owners;
  /** The budget of an account in its period of this moment; undefined where it has none, or is kept elsewhere. */
  sheet(issuer: IssuerId, account: AccountId): BudgetSheet | undefined;
}

/** @throws HelixFlowError SUBJECT_UNKNOWN on the directory of a node, which gets none of this. */
export function recordsOf({ records }: Pick<AdminContext, 'records'>): Records {
  if (records === undefined) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'record', id: 'of usage' });
  return records;
}
