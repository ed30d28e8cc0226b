/** What a gateway's process grants with an issuer's key beside the admission: its own peers, and what its desk makes. */

import type { GatewayPeer } from '../gateway/peer.ts';
import type { Desk } from '../ledger/desk.ts';
import type { Credentials, Role } from '../protocol/grants.ts';
import type { PeerId } from '../protocol/ids.ts';
import { issuerOf } from '../protocol/mesh.ts';
import { unixMs } from '../protocol/units.ts';
import { ownOwner } from './membership.ts';
import { openDesk } from './open-desk.ts';
import type { PeerRuntime, World } from './peer-runtime.ts';

/** Admits a peer of the issuer's own directory, and writes that down first. */
export type AdmitOwn = (peer: PeerId, role: Role) => Promise<Credentials>;

/** Both are undefined where no issuer's key is. */
export interface Granting {
  readonly desk: Desk | undefined;
  readonly admitOwn: AdmitOwn | undefined;
}

export function openGranting(
  world: World,
  { entry, store }: Pick<PeerRuntime, 'entry' | 'store'>,
  { ledger, admitter, budgets }: Pick<GatewayPeer, 'ledger' | 'admitter' | 'budgets'>,
): Granting {
  const { mesh, issuer } = entry;
  if (issuer === undefined || admitter === undefined) return { desk: undefined, admitOwn: undefined };
  const own = { meshId: mesh.meshId, issuer: issuerOf(issuer).issuer, owner: ownOwner, expiresMs: unixMs(0) };
  return {
    desk: openDesk(world, { ledger, store, mesh, issuer, openLease: (lease) => budgets.openLease(lease) }),
    admitOwn: (peer, role) => admitter.renew({ ...own, peer, role }),
  };
}
