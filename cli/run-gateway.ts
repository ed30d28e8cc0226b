/** A gateway as a process runs it: peer, HTTP door and metrics over the real world. */

import { createKeyChecker } from '../gateway/access/keys.ts';
import { createGatewayApp } from '../gateway/http/app.ts';
import type { RequestObserver } from '../gateway/http/exchange.ts';
import { startListening } from '../gateway/http/listen.ts';
import { createGatewayMetrics, startMetricsServer } from '../gateway/http/metrics.ts';
import { logRequests } from '../gateway/http/request-log.ts';
import { createGatewayPeer, type GatewayPeer } from '../gateway/peer.ts';
import type { ListedModel } from '../gateway/service.ts';
import type { MeshId, PeerId } from '../protocol/ids.ts';
import { createRoots } from '../protocol/peer/create-roots.ts';
import type { Contact } from '../protocol/ports.ts';
import { type Ms, seconds } from '../protocol/units.ts';
import type { DataDir } from './data-dir.ts';
import { openPeer, type PeerOptions, type PeerRuntime, type World } from './peer-runtime.ts';
import { startPeer } from './start-peer.ts';
import type { GatewayStatus } from './status.ts';
import { version } from './version.ts';

export interface GatewayOptions extends Omit<PeerOptions, 'role'> {
  readonly host: string;
  readonly port: number;
  readonly metricsListen: { readonly host: string; readonly port: number } | undefined;
  readonly callsMax: number;
  /** Told of every request, besides the log. */
  readonly observers: readonly RequestObserver[];
}

/** A gateway that answers clients; it may still be on its way into the mesh. */
export interface RunningGateway {
  readonly peer: PeerId;
  readonly meshId: MeshId;
  readonly baseUrl: string;
  /** Where peers on this machine reach it. */
  readonly contact: Contact;
  /** Rejects when it can never become a member. */
  readonly failed: Promise<never>;
  models(): readonly ListedModel[];
  status(): GatewayStatus;
  /** Finishes the answers under way within `grace`, then closes everything. */
  drain(grace: Ms): Promise<void>;
  /** Closes everything at once. */
  close(): Promise<void>;
}

/** Where this machine itself reaches what listens on `host`: a wildcard is no address to dial, and any other host is the only one. */
export function localAddress(host: string, port: number): string {
  if (!host.includes(':')) return `/ip4/${host === '0.0.0.0' ? '127.0.0.1' : host}/tcp/${port}`;
  return `/ip6/${/^[0:]+$/.test(host) ? '::1' : host}/tcp/${port}`;
}

/** After the answers have ended, for the goodbyes. */
const leaveMs = seconds(1);

function createPeer(world: World, runtime: PeerRuntime, callsMax: number): GatewayPeer {
  const { network, store, entry, key } = runtime;
  const { meshId, rootPublicKey } = entry.mesh;
  const issuer = entry.issuer === undefined ? {} : { issuer: entry.issuer };
  const admission = { mesh: { meshId, rootPublicKey }, ...issuer };
  const roots = createRoots(world, entry.mesh);
  const credentials = () => runtime.credentials();
  const options = { meshId, key, bootstrap: entry.bootstrap, credentials, roots, ...issuer };
  return createGatewayPeer(
    { ...world, network, directory: network.directory, store },
    { ...options, callsMax, admission },
  );
}

/**
 * Starts a gateway. Resolves once clients and peers can reach it, before it has joined the mesh.
 * @throws HelixFlowError what `openPeer` throws; PORT_IN_USE
 */
export async function runGateway(world: World, dir: DataDir, options: GatewayOptions): Promise<RunningGateway> {
  const { clock, tokens, random, log } = world;
  await using opened = new AsyncDisposableStack();
  const runtime = await openPeer(world, dir, { ...options, role: 'gateway' });
  opened.defer(() => runtime.close());
  const { entry, network } = runtime;
  const { meshId } = entry.mesh;
  const peer = createPeer(world, runtime, options.callsMax);
  opened.defer(() => peer.close());
  const { host, port, metricsListen } = options;
  // Counting costs every request something, so only who listens pays for it.
  const metrics = metricsListen === undefined ? undefined : createGatewayMetrics(peer.gateway, version);
  const issuers = new Map(entry.issuers.map((issuer) => [issuer.issuer, issuer]));
  const app = createGatewayApp({
    service: peer.gateway,
    keys: createKeyChecker({ tokens, clock }, { meshId, issuers }),
    clock,
    random,
    log,
    observers: [logRequests(log), ...(metrics === undefined ? [] : [metrics.observer]), ...options.observers],
  });
  const door = opened.use(await startListening(app, clock, { host, port, option: '--port' }));
  if (metrics !== undefined && metricsListen !== undefined) {
    const server = await startMetricsServer(metrics.registry, { ...metricsListen, option: '--metrics-listen' });
    log.info('metrics.listening', { url: opened.use(server).url });
  }
  const leaving = new AbortController();
  opened.defer(() => leaving.abort());
  const { listening, failed } = startPeer(peer.start, () => runtime.join(leaving.signal));
  await listening;
  const parts = opened.move();
  const close = (): Promise<void> => parts.disposeAsync();
  return {
    peer: network.self,
    meshId,
    baseUrl: door.baseUrl,
    contact: { peer: network.self, addresses: [localAddress(options.p2pHost, runtime.p2pPort)] },
    failed,
    models: () => peer.gateway.models(),
    status: () => ({
      ...runtime.status(peer.member),
      ...peer.gateway.readiness(),
      baseUrl: door.baseUrl,
      models: peer.gateway.models(),
      nodes: peer.gateway.nodes(),
      calls: peer.gateway.calls(),
    }),
    drain: async (grace) => {
      leaving.abort();
      const left = peer.drain();
      await door.close(grace);
      await Promise.race([left, clock.sleep(leaveMs)]);
      await close();
    },
    close,
  };
}
