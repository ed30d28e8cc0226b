/** A node as a process runs it: engines and peer over the real world. */

import { startMetricsServer } from '../gateway/http/metrics.ts';
import { describeHardware } from '../node/hardware.ts';
import { createNode } from '../node/node.ts';
import type { PeerId } from '../protocol/ids.ts';
import type { Contact, Engine, EngineModel } from '../protocol/ports.ts';
import { seconds } from '../protocol/units.ts';
import { connectedGateways, createAdminContext, inviteContacts } from './admin-context.ts';
import type { Controlled } from './daemon-control.ts';
import type { DataDir } from './data-dir.ts';
import type { Drained } from './ending.ts';
import { createNodeMetrics } from './node-metrics.ts';
import { joinNote } from './open-mesh.ts';
import { openPeer, type PeerOptions, type World } from './peer-runtime.ts';
import { startPeer } from './start-peer.ts';
import type { WorkerStatus } from './status.ts';
import { createRootTaker } from './take-roots.ts';
import { version } from './version.ts';

export interface NodeOptions extends Omit<PeerOptions, 'role'> {
  readonly metricsListen: { readonly host: string; readonly port: number } | undefined;
  readonly queueMax: number;
  /** As `Offer`. */
  readonly region?: string | undefined;
  /** Opens what is served; asked once, when the peer's own files are known to be good. */
  readonly engines: (owner: string) => Promise<readonly Engine[]>;
  /** Gateways to dial first, besides those that the invite named. */
  readonly bootstrap: readonly Contact[];
}

/** A node that listens; it may still be on its way into the mesh. */
export interface RunningNode {
  readonly peer: PeerId;
  /** What whoever lets it join should know of the mesh. */
  readonly joinNote: string | undefined;
  /** Rejects when it can never become a member. */
  readonly failed: Promise<never>;
  /** What commands talk to. */
  readonly controlled: Controlled;
  /** Undefined without `--metrics-listen`. */
  readonly metricsUrl: string | undefined;
  models(): readonly EngineModel[];
  /** Resolves once a gateway holds an offer with at least one model. */
  whenOffered(signal: AbortSignal): Promise<void>;
  status(): WorkerStatus;
  /** As `Part.drain`. */
  drain(hurry: AbortSignal): Promise<Drained>;
  /** Closes everything at once. */
  close(): Promise<void>;
}

/** A node judges no keys; an issuer that was silent for this long is shown as stale. */
const shownStaleMs = seconds(600);

/**
 * Starts a node: loads its models, then listens, then enters the mesh.
 * @throws HelixFlowError what `openPeer` and `options.engines` throw; PORT_IN_USE
 */
export async function runNode(world: World, dir: DataDir, options: NodeOptions): Promise<RunningNode> {
  await using opened = new AsyncDisposableStack();
  const runtime = await openPeer(world, dir, { ...options, role: 'node' });
  opened.defer(() => runtime.close());
  const { entry, network, store, key } = runtime;
  const { owner } = entry;
  const [engines, hardware] = await Promise.all([options.engines(owner), describeHardware()]);
  opened.defer(async () => {
    await Promise.all(engines.map((engine) => engine.close()));
  });
  const node = createNode(
    { ...world, network, directory: network.directory, store },
    {
      meshId: entry.mesh.meshId,
      key,
      roots: runtime.roots,
      credentials: () => runtime.credentials(),
      bootstrap: [...options.bootstrap, ...entry.bootstrap],
      engines,
      queueMax: options.queueMax,
      owner,
      hardware,
      ...(options.region === undefined ? {} : { region: options.region }),
    },
  );
  opened.defer(() => node.close());
  const { metricsListen } = options;
  let metricsUrl: string | undefined;
  if (metricsListen !== undefined) {
    const registry = createNodeMetrics(node, version);
    const server = await startMetricsServer(registry, { ...metricsListen, option: '--metrics-listen' });
    metricsUrl = opened.use(server).url;
    world.log.info('metrics.listening', { url: metricsUrl });
  }
  const leaving = new AbortController();
  opened.defer(() => leaving.abort());
  const { listening, failed } = startPeer(node.start, () => runtime.join(node, leaving.signal));
  await listening;
  // What its store held is known by now.
  const taker = opened.use(createRootTaker(runtime.roots, world.audit));
  const parts = opened.move();
  const close = (): Promise<void> => parts.disposeAsync();
  const status = (): WorkerStatus => ({
    ...runtime.status(node, shownStaleMs),
    ...node.server.status(),
    tabs: node.tabs.status(),
  });
  const { meshId, network: kind } = entry.mesh;
  const contacts = (): readonly Contact[] => connectedGateways(node.member);
  const admin = createAdminContext({
    self: network.self,
    meshId,
    network: kind,
    clock: world.clock,
    ledger: node.ledger,
    feeds: runtime.store,
    member: node.member,
    desk: undefined,
    audit: world.audit,
    status,
    contacts: () => inviteContacts(contacts(), kind),
  });
  return {
    peer: network.self,
    joinNote: joinNote(entry),
    failed,
    controlled: { admin, roots: taker, contacts },
    metricsUrl,
    models: () => node.server.models(),
    whenOffered: (signal) => node.server.whenOffered(signal),
    status,
    drain: async (hurry) => {
      leaving.abort();
      const drained = await node.drain(hurry);
      await close();
      return { ...drained, cut: 0 };
    },
    close,
  };
}
