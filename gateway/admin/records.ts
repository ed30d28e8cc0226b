/** What this gateway knows of work and money, for whoever may read it. */

import { authorIdOf } from '../../ledger/block.ts';
import type { BudgetSheet } from '../../ledger/budgets.ts';
import type { Prices } from '../../ledger/prices.ts';
import type { Standing } from '../../ledger/standing.ts';
import type { Tags } from '../../ledger/tags.ts';
import type { Usage } from '../../ledger/usage.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { AccountId, PeerId } from '../../protocol/ids.ts';
import { assert } from '../../protocol/invariant.ts';
import { publicKeyOf } from '../../protocol/peer/identity.ts';
import type { Clock } from '../../protocol/ports.ts';
import type { AdminContext } from './operation.ts';
import { createOwners, type Owners } from './owners.ts';

export interface Records {
  readonly usage: Pick<Usage, 'rollUp' | 'totals' | 'newestMs'>;
  readonly prices: Pick<Prices, 'list'>;
  readonly owners: Owners;
  /** The budget of an account in its period of this moment; undefined where it has none, or is kept elsewhere. */
  sheet(account: AccountId): BudgetSheet | undefined;
}

/** What records are made of: the parts of one gateway. */
export interface RecordsParts extends Omit<Records, 'owners'> {
  readonly self: PeerId;
  readonly clock: Pick<Clock, 'turn'>;
  readonly standing: Pick<Standing, 'accounts' | 'keys'>;
  readonly tags: Pick<Tags, 'accountTags' | 'keyTags'>;
}

export function createRecords({ self, clock, standing, tags, ...read }: RecordsParts): Records {
  const key = publicKeyOf(self);
  assert(key !== undefined, 'this gateway’s id holds its key');
  return { ...read, owners: createOwners({ tags, standing, clock, self: authorIdOf(key) }) };
}

/** @throws HelixFlowError SUBJECT_UNKNOWN on the directory of a node, which gets none of this. */
export function recordsOf({ records }: Pick<AdminContext, 'records'>): Records {
  if (records === undefined)
    throw new HelixFlowError('SUBJECT_UNKNOWN', {
      kind: 'record',
      id: 'of usage or prices (a node keeps none: ask at a gateway)',
    });
  return records;
}
