/** A whole node without its edges: a member of the mesh that serves what its engines offer. */

import { createLedger } from '../ledger/create-ledger.ts';
import { createIssuers } from '../ledger/issuers.ts';
import type { Ledger } from '../ledger/ledger.ts';
import { createNodeTabs } from '../ledger/node-tabs.ts';
import { createPrices } from '../ledger/prices.ts';
import type { NodeTabs } from '../ledger/work.ts';
import { limits } from '../protocol/limits.ts';
import { modelKey } from '../protocol/peer/discovery.ts';
import { createMember, type Member, type MemberOptions, type MemberPorts } from '../protocol/peer/member.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import type { Engine } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';
import { createNodeServer, type Drained, type NodeServer } from './serve.ts';

export interface NodeOptions extends Omit<MemberOptions, 'role' | 'models' | 'roots' | 'isMember'> {
  readonly roots: Roots;
  readonly engines: readonly Engine[];
  /** Attempts that wait for a slot, per engine. */
  readonly queueMax: number;
  readonly owner: string;
  /** For people; at most 256 characters. */
  readonly hardware: string;
  /** As in `Offer`. */
  readonly region?: string;
}

export interface MeshNode {
  readonly member: Member;
  readonly server: NodeServer;
  readonly ledger: Ledger;
  readonly tabs: NodeTabs;
  /** Opens the ledger, then as `Member.start`. @throws HelixFlowError STORE_FAILED */
  start(join?: () => Promise<void>): Promise<void>;
  /** Takes nothing new, finishes what is under way, hands over what is left once `hurry` aborts, says goodbye. */
  drain(hurry?: AbortSignal): Promise<Drained>;
  /** Ends at once; engines stay with their owner. */
  close(): Promise<void>;
}

/** For the statements of the last answers: each gateway makes one at least every `statementEveryMs`. */
const coverMaxMs = 3 * limits.statementEveryMs;
const coverLookMs = ms(50);

/** Joins engines to the mesh; nothing is sent before `start`. */
export function createNode(ports: MemberPorts, options: NodeOptions): MeshNode {
  const { engines, queueMax, owner, hardware, region, ...rest } = options;
  const ledger = createLedger(ports, { ...rest, role: 'node' });
  const issuers = createIssuers(options.roots);
  const prices = createPrices((author) => issuers.counts(author));
  const tabs = createNodeTabs(
    { ...ports, ledger, prices },
    { meshId: options.meshId, self: ports.network.self, key: options.key },
  );
  const server = createNodeServer(
    { ...ports, tabs },
    { engines, queueMax, owner, hardware, ...(region === undefined ? {} : { region }) },
  );
  const member = createMember(
    ports,
    {
      ...rest,
      role: 'node',
      models: () => server.models(),
      isMember: (membership) => ledger.isMember(membership),
    },
    {
      ready: (session) => {
        tabs.ready(session);
        server.ready(session);
      },
      gone: (session) => {
        tabs.gone(session);
        server.gone(session);
      },
      changed: () => {},
      opened: (session, attempt) => server.opened(session, attempt),
      offered: (session, revision) => server.offered(session, revision),
      tab: (session, frame) => {
        if (frame.type === 'statement') tabs.received(session, frame);
      },
      admitted: (connection, info) => ledger.admitted(connection, info),
    },
  );
  ledger.onEntry((held) => prices.apply(held));
  ledger.onChange((change) => {
    if (change.kind === 'ban') member.review(change.peer);
    else if (change.kind === 'roots') {
      issuers.changed();
      member.review();
    }
  });
  let advertised = '';
  const advertise = (): void => {
    const keys = server.models().map(({ digest }) => modelKey(digest));
    const summary = keys.join();
    if (summary === advertised) return;
    advertised = summary;
    member.discovery.provide(keys);
  };
  const isUncovered = (): boolean =>
    tabs.hasUnsent() ||
    tabs.status().some(({ gateway, uncovered }) => uncovered > 0 && member.sessions.get(gateway) !== undefined);
  const cancelModels = server.onModels(advertise);
  return {
    member,
    server,
    ledger,
    tabs,
    start: async (join) => {
      await ledger.open();
      await tabs.open();
      await member.start(join);
      advertise();
    },
    drain: async (hurry) => {
      const drained = await server.drain(hurry);
      // What gateways state of the last answers is countersigned now, or by nobody.
      const untilMs = ports.clock.nowMs() + coverMaxMs;
      while (isUncovered() && ports.clock.nowMs() < untilMs) await ports.clock.sleep(coverLookMs);
      await member.leave('NODE_DRAINING');
      return drained;
    },
    close: async () => {
      cancelModels();
      server.close();
      await tabs.close();
      await ledger.close();
      await member.close();
    },
  };
}
