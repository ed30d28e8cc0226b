/** A whole gateway without its HTTP door: a member of the mesh with the service over its sessions. */

import { type AdmissionOptions, createAdmission } from '../protocol/peer/admit.ts';
import { createMember, type Member, type MemberOptions, type MemberPorts } from '../protocol/peer/member.ts';
import { createGateway, type Gateway } from './gateway.ts';

export interface GatewayPeerOptions extends Omit<MemberOptions, 'role' | 'models'> {
  /** Calls under way at a time; more are refused. */
  readonly callsMax: number;
  /** The mesh, and the issuer's key where this gateway holds it: lets others be admitted here. */
  readonly admission: AdmissionOptions;
}

export interface GatewayPeer {
  readonly member: Member;
  readonly gateway: Gateway;
  /** As `Member.start`. */
  start(join?: () => Promise<void>): Promise<void>;
  /** Finishes the calls under way, takes no new ones, says goodbye. */
  drain(): Promise<void>;
  /** Ends at once. */
  close(): Promise<void>;
}

/** Joins the service to the mesh; nothing is sent before `start`, and the service answers before it too. */
export function createGatewayPeer(ports: MemberPorts, options: GatewayPeerOptions): GatewayPeer {
  const gateway = createGateway(ports, {
    isDiscoveryComplete: () => member.discovery.isComplete(),
    callsMax: options.callsMax,
  });
  const member: Member = createMember(
    ports,
    { ...options, role: 'gateway', models: () => [] },
    {
      ready: (session) => gateway.ready(session, member.hello.infoOf(session.connection)?.membership.owner),
      gone: (session) => gateway.gone(session),
      changed: (session) => gateway.changed(session),
      opened: () => {},
      offered: () => {},
    },
  );
  createAdmission({ ...ports, hello: member.hello }, options.admission);
  return {
    member,
    gateway,
    start: (join) => member.start(join),
    drain: async () => {
      await gateway.drain();
      await member.leave('GATEWAY_DRAINING');
    },
    close: () => member.close(),
  };
}
