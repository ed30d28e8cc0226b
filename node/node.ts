/** A whole node without its edges: a member of the mesh that serves what its engines offer. */

import { createLedger } from '../ledger/create-ledger.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { modelKey } from '../protocol/peer/discovery.ts';
import { createMember, type Member, type MemberOptions, type MemberPorts } from '../protocol/peer/member.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import type { Engine } from '../protocol/ports.ts';
import { createNodeServer, type NodeServer } from './serve.ts';

export interface NodeOptions extends Omit<MemberOptions, 'role' | 'models' | 'roots' | 'isMember'> {
  readonly roots: Roots;
  readonly engines: readonly Engine[];
  /** Attempts that wait for a slot, per engine. */
  readonly queueMax: number;
  readonly owner: string;
  /** For people; at most 256 characters. */
  readonly hardware: string;
}

export interface MeshNode {
  readonly member: Member;
  readonly server: NodeServer;
  readonly ledger: Ledger;
  /** Opens the ledger, then as `Member.start`. @throws HelixFlowError STORE_FAILED */
  start(join?: () => Promise<void>): Promise<void>;
  /** Finishes what is under way, takes nothing new, says goodbye. Resolves when all of it has ended. */
  drain(): Promise<void>;
  /** Ends at once; engines stay with their owner. */
  close(): Promise<void>;
}

/** Joins engines to the mesh; nothing is sent before `start`. */
export function createNode(ports: MemberPorts, options: NodeOptions): MeshNode {
  const { engines, queueMax, owner, hardware, ...rest } = options;
  const server = createNodeServer(ports, { engines, queueMax, owner, hardware });
  const ledger = createLedger(ports, { ...rest, role: 'node' });
  const member = createMember(
    ports,
    {
      ...rest,
      role: 'node',
      models: () => server.models(),
      isMember: (membership) => ledger.isMember(membership),
    },
    {
      ready: (session) => server.ready(session),
      gone: (session) => server.gone(session),
      changed: () => {},
      opened: (session, attempt) => server.opened(session, attempt),
      offered: (session, revision) => server.offered(session, revision),
      tab: () => {},
      admitted: (connection, info) => ledger.admitted(connection, info),
    },
  );
  ledger.onChange((change) => {
    if (change.kind === 'ban') member.review(change.peer);
    else if (change.kind === 'roots') member.review();
  });
  let advertised = '';
  const advertise = (): void => {
    const keys = server.models().map(({ digest }) => modelKey(digest));
    const summary = keys.join();
    if (summary === advertised) return;
    advertised = summary;
    member.discovery.provide(keys);
  };
  const cancelModels = server.onModels(advertise);
  return {
    member,
    server,
    ledger,
    start: async (join) => {
      await ledger.open();
      await member.start(join);
      advertise();
    },
    drain: async () => {
      await server.drain();
      await member.leave('NODE_DRAINING');
    },
    close: async () => {
      cancelModels();
      server.close();
      await ledger.close();
      await member.close();
    },
  };
}
