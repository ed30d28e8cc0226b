/** A gateway peer with what it takes to grant: the admission of others and, with an issuer's key, a desk. */

import type { GatewayPeer } from '../gateway/peer.ts';
import { createAdmitter } from '../ledger/admitter.ts';
import type { Desk } from '../ledger/desk.ts';
import type { Credentials, Role } from '../protocol/grants.ts';
import type { PeerId } from '../protocol/ids.ts';
import { issuerOf } from '../protocol/mesh.ts';
import type { AdmissionOptions, Admitter } from '../protocol/peer/admit.ts';
import { unixMs } from '../protocol/units.ts';
import { ownOwner } from './membership.ts';
import { openDesk } from './open-desk.ts';
import type { PeerRuntime, World } from './peer-runtime.ts';

/** Admits a peer of the issuer's own directory, and writes that down first. */
export type AdmitOwn = (peer: PeerId, role: Role) => Promise<Credentials>;

export interface GrantingPeer {
  readonly peer: GatewayPeer;
  /** Undefined where no issuer's key is. */
  readonly desk: Desk | undefined;
  readonly admitOwn: AdmitOwn | undefined;
}

/** @param create Makes the peer; its ledger is what the admission and the desk write to. */
export function createGrantingPeer(
  world: World,
  { entry, store }: Pick<PeerRuntime, 'entry' | 'store'>,
  create: (admission: AdmissionOptions) => GatewayPeer,
): GrantingPeer {
  const { mesh, issuer } = entry;
  if (issuer === undefined) {
    const peer: GatewayPeer = create({ mesh, isMember: (member) => peer.ledger.isMember(member) });
    return { peer, desk: undefined, admitOwn: undefined };
  }
  // The admission is made with the peer, the admitter over the peer's ledger: it is asked only later.
  const asked: Admitter = {
    handles: (by) => admitter.handles(by),
    admit: (invite, joiner) => admitter.admit(invite, joiner),
    renew: (current) => admitter.renew(current),
  };
  const peer: GatewayPeer = create({ mesh, admitter: asked, isMember: (member) => peer.ledger.isMember(member) });
  const { ledger } = peer;
  const admitter: Admitter = createAdmitter({ ...world, ledger }, { mesh, issuer });
  const own = { meshId: mesh.meshId, issuer: issuerOf(issuer).issuer, owner: ownOwner, expiresMs: unixMs(0) };
  return {
    peer,
    desk: openDesk(world, { ledger, store, mesh, issuer }),
    admitOwn: (member, role) => admitter.renew({ ...own, peer: member, role }),
  };
}
