/** A gateway as a process runs it: peer, HTTP door and metrics over the real world. */

import { keyLedgerOf } from '../gateway/access/key-ledger.ts';
import { createKeyChecker } from '../gateway/access/keys.ts';
import type { AdminContext } from '../gateway/admin/operation.ts';
import { runOperation } from '../gateway/admin/operations.ts';
import { createRecords } from '../gateway/admin/records.ts';
import { startAdminServer } from '../gateway/http/admin.ts';
import { createGatewayApp } from '../gateway/http/app.ts';
import type { RequestObserver } from '../gateway/http/exchange.ts';
import { addLedgerMetrics } from '../gateway/http/ledger-metrics.ts';
import { isLoopback, startListening } from '../gateway/http/listen.ts';
import { createGatewayMetrics, startMetricsServer } from '../gateway/http/metrics.ts';
import { logRequests } from '../gateway/http/request-log.ts';
import { addRouteMetrics } from '../gateway/http/route-metrics.ts';
import { openTls, type Tls } from '../gateway/http/tls.ts';
import { createGatewayPeer, type GatewayPeer } from '../gateway/peer.ts';
import type { ListedModel } from '../gateway/service.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { MeshId, PeerId } from '../protocol/ids.ts';
import { assert } from '../protocol/invariant.ts';
import type { Contact } from '../protocol/ports.ts';
import { type Ms, seconds } from '../protocol/units.ts';
import { connectedGateways, createAdminContext, inviteContacts } from './admin-context.ts';
import { booksView } from './books-text.ts';
import type { Controlled } from './daemon-control.ts';
import type { DataDir } from './data-dir.ts';
import { type DoorChoices, doorOptions } from './door-options.ts';
import { type Drained, graceMaxMs } from './ending.ts';
import { type AdmitOwn, type Granting, openGranting } from './granting.ts';
import type { LocalKeyDeps } from './local-key.ts';
import { joinNote } from './open-mesh.ts';
import { openPeer, type PeerOptions, type PeerRuntime, type World } from './peer-runtime.ts';
import { type RouteChoices, routeOptionsOf } from './route-options.ts';
import { startPeer } from './start-peer.ts';
import type { GatewayStatus } from './status.ts';
import { createRootTaker } from './take-roots.ts';
import { version } from './version.ts';

export interface GatewayOptions extends Omit<PeerOptions, 'role'>, DoorChoices, RouteChoices {
  /** False for an archive: nothing listens for clients. */
  readonly http: boolean;
  readonly host: string;
  readonly port: number;
  readonly metricsListen: { readonly host: string; readonly port: number } | undefined;
  readonly callsMax: number;
  /** As `RetentionOptions`. */
  readonly retainDays?: number | undefined;
  /** Micro-credits; undefined: as `BudgetOptions`. */
  readonly grace?: number | undefined;
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  readonly tlsMinVersion: '1.2' | '1.3';
  readonly adminListen: { readonly host: string; readonly port: number } | undefined;
  readonly maxStale: Ms;
  readonly staleGrace: Ms;
  /** Told of every request, besides the log. */
  readonly observers: readonly RequestObserver[];
}

/** A gateway that answers clients; it may still be on its way into the mesh. */
export interface RunningGateway {
  readonly peer: PeerId;
  readonly meshId: MeshId;
  /** Undefined without HTTP. */
  readonly baseUrl: string | undefined;
  /** Where peers on this machine reach it. */
  readonly contact: Contact;
  /** What whoever lets it join should know of the mesh. */
  readonly joinNote: string | undefined;
  /** Rejects when it can never become a member. */
  readonly failed: Promise<never>;
  /** What commands talk to. */
  readonly controlled: Controlled;
  /** Where operators reach the admin API; undefined without `--admin-listen`. */
  readonly adminUrl: string | undefined;
  /** Undefined without `--metrics-listen`. */
  readonly metricsUrl: string | undefined;
  /** For the key that `helixflow up` keeps. */
  readonly localKeys: LocalKeyDeps;
  /** Admits other peers of this directory; undefined where its issuer's key is elsewhere. */
  readonly admitOwn: AdmitOwn | undefined;
  models(): readonly ListedModel[];
  status(): GatewayStatus;
  /** As `Part.drain`. */
  drain(hurry: AbortSignal): Promise<Drained>;
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

/** @throws HelixFlowError CONFIG_INVALID when one of the two files is missing, or they hold no pair. */
async function openDoorTls(world: World, options: GatewayOptions): Promise<Tls | undefined> {
  const { tlsCert: certFile, tlsKey: keyFile, tlsMinVersion } = options;
  if (certFile === undefined && keyFile === undefined) return undefined;
  if (certFile === undefined || keyFile === undefined) {
    throw new HelixFlowError('CONFIG_INVALID', { reason: '--tls-cert and --tls-key go together' });
  }
  return openTls(world, { certFile, keyFile, minVersion: `TLSv${tlsMinVersion}` });
}

function createPeer(
  world: World,
  runtime: PeerRuntime,
  options: Pick<GatewayOptions, 'callsMax' | 'retainDays' | 'grace' | keyof RouteChoices>,
): GatewayPeer {
  const { network, store, entry, key, roots } = runtime;
  const { callsMax, retainDays, grace } = options;
  const { meshId } = entry.mesh;
  // An issuer whom others know asks them first: its store may be new, as after a restore.
  const issuer = entry.issuer === undefined ? {} : { issuer: entry.issuer, recovers: runtime.knowsOthers };
  const peer: GatewayPeer = createGatewayPeer(
    { ...world, network, directory: network.directory, store },
    {
      meshId,
      key,
      bootstrap: entry.bootstrap,
      credentials: () => runtime.credentials(),
      roots,
      audit: world.audit,
      callsMax,
      routing: routeOptionsOf(options),
      ...(grace === undefined ? {} : { budgets: { graceMicro: grace } }),
      ...(retainDays === undefined ? {} : { retainDays }),
      admission: { mesh: entry.mesh, isMember: (member) => peer.ledger.isMember(member) },
      ...issuer,
    },
  );
  return peer;
}

/** The doors for clients, operators and scrapers; each is closed with `opened`. */
async function openDoors(
  world: World,
  { runtime, peer, context }: { runtime: PeerRuntime; peer: GatewayPeer; context: AdminContext },
  options: GatewayOptions,
  opened: AsyncDisposableStack,
) {
  const { tokens, clock, log } = world;
  const { host, port, metricsListen, adminListen, maxStale, staleGrace } = options;
  // Counting costs every request something, so only who listens pays for it.
  const metrics = metricsListen === undefined ? undefined : createGatewayMetrics(peer.gateway, version);
  if (metrics !== undefined) {
    addLedgerMetrics(metrics.registry, peer);
    addRouteMetrics(metrics.registry, peer.gateway);
  }
  const tls = await openDoorTls(world, options);
  if (tls !== undefined) opened.use(tls);
  const keys = createKeyChecker(
    { tokens, clock, ledger: keyLedgerOf(peer.ledger) },
    {
      meshId: runtime.entry.mesh.meshId,
      self: runtime.network.self,
      issuers: runtime.roots.issuers,
      maxStaleMs: maxStale,
      staleGraceMs: staleGrace,
    },
  );
  const shared = { ...world, keys, ...(tls === undefined ? {} : { tls }) };
  const observers = [logRequests(log), ...(metrics === undefined ? [] : [metrics.observer]), ...options.observers];
  const { gateway: service, idempotency } = peer;
  const records = context.records === undefined ? {} : { records: context.records };
  const listen = async () => {
    const app = createGatewayApp({ ...shared, service, idempotency, ...records, observers }, doorOptions(options));
    return opened.use(await startListening(app, clock, { host, port, option: '--port' }));
  };
  const door = options.http ? await listen() : undefined;
  // A proxy in front of it may speak TLS, so it is no fault; without one keys and prompts can be read on the way.
  if (door !== undefined && tls === undefined && !isLoopback(host)) log.warn('door.plain', { host, url: door.baseUrl });
  let metricsUrl: string | undefined;
  if (metrics !== undefined && metricsListen !== undefined) {
    const server = await startMetricsServer(metrics.registry, { ...metricsListen, option: '--metrics-listen' });
    metricsUrl = opened.use(server).url;
    log.info('metrics.listening', { url: metricsUrl });
  }
  const admin =
    adminListen &&
    opened.use(await startAdminServer({ ...shared, context }, { ...adminListen, option: '--admin-listen' }));
  if (admin !== undefined) log.info('admin.listening', { url: admin.url });
  return { door, keys, tls, metricsUrl, adminUrl: admin?.url };
}

/**
 * Starts a gateway. Resolves once clients and peers can reach it, before it has joined the mesh.
 * @throws HelixFlowError what `openPeer` throws; PORT_IN_USE; CONFIG_INVALID; STORE_FAILED
 */
export async function runGateway(world: World, dir: DataDir, options: GatewayOptions): Promise<RunningGateway> {
  const { clock } = world;
  await using opened = new AsyncDisposableStack();
  const admitOwn: AdmitOwn = (self, role) => {
    assert(granting.admitOwn !== undefined, 'a directory with the issuer’s key can admit');
    return granting.admitOwn(self, role);
  };
  const runtime = await openPeer(world, dir, { ...options, role: 'gateway', admitOwn });
  opened.defer(() => runtime.close());
  const { entry, network, roots } = runtime;
  const { meshId } = entry.mesh;
  const peer = createPeer(world, runtime, options);
  const granting: Granting = openGranting(world, runtime, peer);
  opened.defer(() => peer.close());
  // What a key may do is judged by the ledger, so nothing is answered before it is read.
  await peer.open();
  const taker = opened.use(createRootTaker(roots, world.audit));
  const contacts = (): readonly Contact[] => [
    { peer: network.self, addresses: network.addresses() },
    ...connectedGateways(peer.member),
  ];
  const context = createAdminContext({
    self: network.self,
    meshId,
    network: entry.mesh.network,
    clock,
    ledger: peer.ledger,
    feeds: runtime.store,
    member: peer.member,
    desk: granting.desk,
    audit: world.audit,
    traces: peer.gateway.traces,
    records: createRecords({
      self: network.self,
      clock,
      standing: peer.ledger.standing,
      ...{ usage: peer.usage, prices: peer.prices, tags: peer.tags },
      sheet: (account) => peer.budgets.sheet(account),
    }),
    status: () => status(),
    contacts: () => inviteContacts(contacts(), entry.mesh.network),
  });
  const { door, keys, tls, metricsUrl, adminUrl } = await openDoors(world, { runtime, peer, context }, options, opened);
  const status = (): GatewayStatus => ({
    ...runtime.status(peer, options.maxStale),
    ...peer.gateway.readiness(),
    ...(door === undefined ? {} : { baseUrl: door.baseUrl }),
    models: peer.gateway.models(),
    nodes: peer.gateway.nodes(),
    calls: peer.gateway.calls(),
    books: booksView(peer),
    ...(tls === undefined ? {} : { tls: tls.status() }),
    ...(adminUrl === undefined ? {} : { adminUrl }),
  });
  const leaving = new AbortController();
  opened.defer(() => leaving.abort());
  const { listening, failed } = startPeer(peer.start, () => runtime.join(peer, leaving.signal));
  await listening;
  const parts = opened.move();
  const close = (): Promise<void> => parts.disposeAsync();
  return {
    ...{ peer: network.self, meshId, joinNote: joinNote(entry) },
    baseUrl: door?.baseUrl,
    contact: { peer: network.self, addresses: [localAddress(options.p2pHost, runtime.p2pPort)] },
    failed,
    controlled: { admin: context, roots: taker, contacts },
    adminUrl,
    metricsUrl,
    localKeys: {
      check: (text) => keys.check(text),
      create: (name) => runOperation('keys.create', context, { name }, 'local'),
    },
    admitOwn: granting.admitOwn,
    models: () => peer.gateway.models(),
    status,
    drain: async (hurry) => {
      leaving.abort();
      const under = peer.gateway.calls();
      const left = peer.drain();
      let cut = hurry.aborted ? under : 0;
      hurry.addEventListener('abort', () => {
        cut = peer.gateway.calls();
      });
      await door?.close(graceMaxMs, hurry);
      await Promise.race([left, clock.sleep(leaveMs)]);
      await close();
      return { finished: under - cut, handedOver: 0, cut };
    },
    close,
  };
}
