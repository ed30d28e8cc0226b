/** The desk of an issuer whose key is in the directory, over the directory's own store. */

import { createDesk, type DeskDeps } from '../ledger/create-desk.ts';
import type { Desk } from '../ledger/desk.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { createNames } from '../ledger/names.ts';
import type { IssuerRecord, MeshRecord } from '../protocol/mesh.ts';
import type { Store } from '../protocol/ports.ts';
import type { World } from './peer-runtime.ts';

interface DeskParts extends Required<Pick<DeskDeps, 'openLease'>> {
  readonly ledger: Ledger;
  /** Keeps the names that people gave. */
  readonly store: Store;
  readonly mesh: Pick<MeshRecord, 'meshId' | 'rootPublicKey' | 'name' | 'isOpen'>;
  readonly issuer: IssuerRecord;
}

export const openDesk = ({ clock, random, tokens, audit }: World, parts: DeskParts): Desk => {
  const { ledger, store, mesh, issuer, openLease } = parts;
  const deps = { ledger, clock, random: random.fork('desk'), tokens, names: createNames(store), audit, openLease };
  return createDesk(deps, { mesh, issuer, isOpen: mesh.isOpen === true });
};
