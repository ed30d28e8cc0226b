/** A whole gateway without its HTTP door: a member of the mesh with the service over its sessions, and its ledger. */

import { createAdmitter } from '../ledger/admitter.ts';
import { type Audit, noAudit } from '../ledger/audit.ts';
import { createLedger } from '../ledger/create-ledger.ts';
import type { Ledger } from '../ledger/ledger.ts';
import type { ErrorCode } from '../protocol/errors.ts';
import type { PeerId } from '../protocol/ids.ts';
import type { IssuerRecord } from '../protocol/mesh.ts';
import { type AdmissionOptions, type Admitter, createAdmission } from '../protocol/peer/admit.ts';
import { createMember, type Member, type MemberOptions, type MemberPorts } from '../protocol/peer/member.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import { followCuts } from './access/cut.ts';
import { createGateway, type Gateway } from './gateway.ts';

export interface GatewayPeerOptions extends Omit<MemberOptions, 'role' | 'models' | 'roots' | 'isMember'> {
  /** Calls under way at a time; more are refused. */
  readonly callsMax: number;
  readonly roots: Roots;
  /** The issuer's key, where this gateway holds it. */
  readonly issuer?: IssuerRecord;
  readonly audit?: Audit;
  /** As `LedgerOptions.recovers`. */
  readonly recovers?: boolean;
  /** Lets others be admitted here. */
  readonly admission: AdmissionOptions;
}

export interface GatewayPeer {
  readonly member: Member;
  readonly gateway: Gateway;
  readonly ledger: Ledger;
  /** Admits and renews, where this gateway holds an issuer's key. */
  readonly admitter: Admitter | undefined;
  /** Opens the ledger, then as `Member.start`. @throws HelixFlowError STORE_FAILED */
  start(join?: () => Promise<void>): Promise<void>;
  /** Finishes the calls under way, takes no new ones, says goodbye. */
  drain(): Promise<void>;
  /** Ends at once. */
  close(): Promise<void>;
}

/** Joins the service to the mesh; nothing is sent before `start`, and the service answers before it too. */
export function createGatewayPeer(ports: MemberPorts, options: GatewayPeerOptions): GatewayPeer {
  const { issuer, admission, audit = noAudit } = options;
  const noteRefused = (peer: PeerId, reason: ErrorCode): void =>
    audit.note({ action: 'peer.refuse', actor: `peer:${peer}`, object: 'none', outcome: 'refused', reason });
  const ledger = createLedger(ports, { ...options, role: 'gateway' });
  const gateway = createGateway(ports, {
    isDiscoveryComplete: () => member.discovery.isComplete(),
    callsMax: options.callsMax,
  });
  const member: Member = createMember(
    ports,
    {
      ...options,
      role: 'gateway',
      models: () => [],
      isMember: (membership) => ledger.isMember(membership),
    },
    {
      ready: (session) => gateway.ready(session, member.hello.infoOf(session.connection)?.membership.owner),
      gone: (session) => gateway.gone(session),
      changed: (session) => gateway.changed(session),
      opened: () => {},
      offered: () => {},
      tab: () => {},
      admitted: (connection, info) => ledger.admitted(connection, info),
      refused: ({ peer }, { code }) => {
        if (code === 'MEMBERSHIP_INVALID') noteRefused(peer, code);
      },
    },
  );
  const admitter = issuer && createAdmitter({ ...ports, ledger, audit }, { mesh: admission.mesh, issuer });
  createAdmission(
    { ...ports, hello: member.hello, reach: (contact, signal) => member.discovery.reach(contact, signal) },
    {
      holderOf: (of) => ledger.holderOf(of),
      isMember: (peer) => ledger.isMember(peer),
      ...(admitter === undefined ? {} : { admitter }),
      ...admission,
    },
    { refused: noteRefused },
  );
  ledger.onChange((change) => {
    if (change.kind === 'ban') member.review(change.peer);
    else if (change.kind === 'roots') member.review();
  });
  const unfollow = followCuts({ clock: ports.clock, ledger, cut: (key, of) => gateway.cut(key, of) });
  return {
    member,
    gateway,
    ledger,
    admitter,
    start: async (join) => {
      await ledger.open();
      await member.start(join);
    },
    drain: async () => {
      await gateway.drain();
      await member.leave('GATEWAY_DRAINING');
    },
    close: async () => {
      unfollow();
      await ledger.close();
      await member.close();
    },
  };
}
