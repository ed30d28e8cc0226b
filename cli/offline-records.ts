/** Usage, prices and budgets for a command on a directory that no daemon holds. */

import { createRecords, type Records } from '../gateway/admin/records.ts';
import { authorIdOf } from '../ledger/block.ts';
import { createCheckpoints } from '../ledger/checkpoint.ts';
import { createUsage } from '../ledger/create-usage.ts';
import type { OpenLease } from '../ledger/desk.ts';
import { createIssuers } from '../ledger/issuers.ts';
import { createLeaseAuthority } from '../ledger/lease-authority.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { leaseTag } from '../ledger/money.ts';
import { createPrices } from '../ledger/prices.ts';
import { createTags } from '../ledger/tag-keys.ts';
import type { LeaseId, PeerId } from '../protocol/ids.ts';
import type { IssuerRecord, MeshRecord } from '../protocol/mesh.ts';
import { publicKeyOf } from '../protocol/peer/identity.ts';
import type { Store } from '../protocol/ports.ts';
import type { World } from './peer-runtime.ts';

interface OfflineParts {
  readonly self: PeerId;
  readonly store: Store;
  readonly ledger: Ledger;
  readonly mesh: Pick<MeshRecord, 'meshId'>;
  readonly issuer: IssuerRecord | undefined;
}

export interface OfflineRecords extends AsyncDisposable {
  readonly records: Records;
  /** Call before `Ledger.open`: some of what was settled may be held nowhere else. @throws HelixFlowError STORE_FAILED */
  load(): Promise<void>;
  /** Call after `Ledger.open`. @throws HelixFlowError STORE_FAILED */
  open(): Promise<void>;
  openLease(lease: LeaseId): OpenLease | undefined;
}

/** Make it before `Ledger.open`, which tells it all that is on disk. Nobody is here to be leased to. */
export function createOfflineRecords(world: World, parts: OfflineParts): OfflineRecords {
  const { self, store, ledger, mesh, issuer } = parts;
  const issuers = createIssuers(ledger.roots);
  const prices = createPrices((author) => issuers.counts(author));
  const usage = createUsage(world, { meshId: mesh.meshId });
  const tags = createTags({ ...world, store });
  const spentFrom = ({ lease, holder }: { readonly lease: LeaseId; readonly holder: PeerId }): number => {
    const key = publicKeyOf(holder);
    return key === undefined ? 0 : usage.spentFrom(authorIdOf(key), leaseTag(lease));
  };
  const authority =
    issuer &&
    createLeaseAuthority(
      { ...world, store, ledger, spentFrom, recall: () => {} },
      { self, author: authorIdOf(issuer.key.publicKey) },
    );
  const cancel = ledger.onEntry((held) => {
    prices.apply(held);
    usage.apply(held);
    authority?.entry(held);
  });
  return {
    records: createRecords({
      ...{ self, clock: world.clock, standing: ledger.standing, usage, prices, tags },
      sheet: (account) => authority?.sheet(account),
    }),
    load: async () => {
      await createCheckpoints({ ...world, store, usage }).open();
    },
    open: () => tags.open(),
    openLease: (lease) => authority?.openLease(lease),
    [Symbol.asyncDispose]: async () => {
      cancel();
      await tags.close();
    },
  };
}
