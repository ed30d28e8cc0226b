/** A whole gateway without its HTTP door: a member of the mesh with the service over its sessions, and its ledger. */

import { createAdmitter } from '../ledger/admitter.ts';
import { type Audit, noAudit } from '../ledger/audit.ts';
import { createLedger } from '../ledger/create-ledger.ts';
import type { BudgetOptions } from '../ledger/lease-holder.ts';
import type { Ledger } from '../ledger/ledger.ts';
import type { ErrorCode } from '../protocol/errors.ts';
import type { PeerId } from '../protocol/ids.ts';
import type { IssuerRecord } from '../protocol/mesh.ts';
import { type AdmissionOptions, type Admitter, createAdmission } from '../protocol/peer/admit.ts';
import { createMember, type Member, type MemberOptions, type MemberPorts } from '../protocol/peer/member.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import { followCuts } from './access/cut.ts';
import { type Bookkeeping, createBookkeeping } from './bookkeeping.ts';
import { createGateway, type Gateway, type GatewayOptions } from './gateway.ts';
import { createIdempotency, type Idempotency } from './idempotency.ts';

export interface GatewayPeerOptions extends Omit<MemberOptions, 'role' | 'models' | 'roots' | 'isMember'> {
  /** Calls under way at a time; more are refused. */
  readonly callsMax: number;
  /** How nodes are chosen. */
  readonly routing?: Pick<GatewayOptions, 'policy' | 'sharesPrefixes' | 'waitingMax'>;
  readonly roots: Roots;
  /** The issuer's key, where this gateway holds it. */
  readonly issuer?: IssuerRecord;
  readonly audit?: Audit;
  /** As `LedgerOptions.recovers`. */
  readonly recovers?: boolean;
  /** Lets others be admitted here. */
  readonly admission: AdmissionOptions;
  readonly budgets?: Omit<BudgetOptions, 'issuer'>;
  /** As `RetentionOptions`: what was settled longer ago leaves the disk; undefined: nothing does. */
  readonly retainDays?: number;
}

export interface GatewayPeer extends Pick<Bookkeeping, 'tabs' | 'tags' | 'prices' | 'usage' | 'budgets'> {
  readonly member: Member;
  readonly gateway: Gateway;
  readonly ledger: Ledger;
  readonly idempotency: Idempotency;
  /** Admits and renews, where this gateway holds an issuer's key. */
  readonly admitter: Admitter | undefined;
  /** Reads what is on disk: usage as it was written down, then the ledger. A second call does nothing. @throws HelixFlowError STORE_FAILED */
  open(): Promise<void>;
  /** As `open`, then as `Member.start`. @throws HelixFlowError STORE_FAILED */
  start(join?: () => Promise<void>): Promise<void>;
  /** Finishes the calls under way, takes no new ones, states what was done, says goodbye. */
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
  const idempotency = createIdempotency(ports);
  const member: Member = createMember(
    ports,
    {
      ...options,
      role: 'gateway',
      models: () => [],
      isMember: (membership) => ledger.isMember(membership),
    },
    {
      ready: (session) => {
        tabs.ready(session);
        gateway.ready(session, member.hello.infoOf(session.connection)?.membership.owner);
      },
      gone: (session) => {
        tabs.gone(session);
        gateway.gone(session);
      },
      changed: (session) => gateway.changed(session),
      opened: () => {},
      offered: () => {},
      tab: (session, frame) => {
        if (frame.type !== 'statement') tabs.received(session.peer, frame);
      },
      admitted: (connection, info) => {
        ledger.admitted(connection, info);
        budgets.admitted(connection, info);
      },
      refused: ({ peer }, { code }) => {
        if (code === 'MEMBERSHIP_INVALID') noteRefused(peer, code);
      },
    },
  );
  const books = createBookkeeping({ ...ports, ledger }, { ...options.budgets, ...options, run: member.process });
  const { tabs, tags, prices, usage, budgets, accounting } = books;
  const gateway = createGateway(
    { ...ports, accounting },
    {
      ...options.routing,
      isDiscoveryComplete: () => member.discovery.isComplete(),
      callsMax: options.callsMax,
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
  let opening: Promise<void> | undefined;
  const open = (): Promise<void> => {
    opening ??= books.load().then(() => ledger.open().then(() => {}));
    return opening;
  };
  const unfollow = followCuts({ clock: ports.clock, ledger, cut: (key, of) => gateway.cut(key, of) });
  return {
    member,
    gateway,
    ledger,
    tabs,
    tags,
    prices,
    usage,
    budgets,
    idempotency,
    admitter,
    open,
    start: async (join) => {
      await open();
      await books.open();
      idempotency.open();
      await member.start(join);
    },
    drain: async () => {
      idempotency.drain();
      await gateway.drain();
      await books.leave();
      await member.leave('GATEWAY_DRAINING');
    },
    close: async () => {
      unfollow();
      await idempotency.close();
      await books.close();
      await ledger.close();
      await member.close();
    },
  };
}
