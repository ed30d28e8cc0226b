/** The `Network` on libp2p, and the `Directory` that shares its connections. */

import type { Connection as Libp2pConnection, PeerId as Libp2pPeerId, Peer, StreamHandler } from '@libp2p/interface';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { HelixFlowError } from '../errors.ts';
import type { NetworkKind } from '../grants.ts';
import type { MeshId, PeerId } from '../ids.ts';
import { assert } from '../invariant.ts';
import { limits } from '../limits.ts';
import { checkAddress, filterAddresses, isLoopback, isRelayed } from '../peer/address.ts';
import { peerIdFromSeed } from '../peer/identity.ts';
import type { Channel, Clock, Connection, Directory, HandlerOptions, Log, Network, Random } from '../ports.ts';
import { KademliaDirectory } from './directory-kademlia.ts';
import { createSeenAdverts } from './libp2p/adverts.ts';
import { type Connections, createConnections } from './libp2p/connections.ts';
import { gatedHandler } from './libp2p/gate.ts';
import { introduce } from './libp2p/introduce.ts';
import { createKadStore } from './libp2p/kad-store.ts';
import { createNode, type DialOnce, type Libp2pNode } from './libp2p/node.ts';
import { createRelayClient, type RelayClient, type RelayOptions } from './libp2p/relay.ts';
import { createTurnEnd } from './libp2p/turn-end.ts';

export interface Libp2pDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface Libp2pOptions {
  /** 32 bytes: the Ed25519 identity. */
  readonly seed: Uint8Array;
  /** Where to listen; port 0 takes any free one. Absent for a peer that only dials. */
  readonly listen?: { readonly host: string; readonly port: number } | undefined;
  /** Where others are told to dial, in place of the listening addresses. */
  readonly announce: readonly string[];
  readonly network: NetworkKind;
  readonly meshId: MeshId;
  /** Peers that this one passes connections of others on to, at most; 0, as when absent, for a peer that is no relay. */
  readonly relayReservationsMax?: number;
  /** What the connections that one peer dials through this relay may carry at once; `limits.relayBurstBytes` when absent. */
  readonly relayBurstBytes?: number;
  /** Open connections, at most. */
  readonly connectionsMax?: number;
  /** New connections per second from one IP address, at most. */
  readonly connectionsPerSecondMax?: number;
}

/** A network and the directory on it; closing the network closes both. */
export interface Libp2pNetwork extends Network {
  readonly directory: Directory;
}

interface Handler extends HandlerOptions {
  readonly accept: (channel: Channel) => void;
}

/** The open connections of a peer that nobody closes for being many. */
const connectionsMax = 1_024;
const connectionsPerSecondMax = 256;
/** Streams of one protocol that a peer may have open to us on one connection. */
const streamsMax = 32;

/** Why a listener failed, by the code of the system's error. */
function listenError(error: unknown, { host, port }: { readonly host: string; readonly port: number }): HelixFlowError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
  const options = { cause: error };
  if (code === 'EADDRINUSE') return new HelixFlowError('PORT_IN_USE', { host, port, option: '--p2p-port' }, options);
  return new HelixFlowError('CONFIG_INVALID', { reason: `cannot listen on ${host} port ${port}: ${code}` }, options);
}

interface Parts {
  readonly node: Libp2pNode;
  readonly connections: Connections;
  readonly handlers: Map<string, Handler>;
  readonly addresses: () => readonly string[];
  readonly directory: KademliaDirectory;
  readonly relays: RelayClient;
  readonly dialOnce: DialOnce;
  /** What a listener failed with, if one did. */
  readonly listenFailure: () => unknown;
}

class Adapter implements Libp2pNetwork {
  readonly self: PeerId;
  readonly directory: KademliaDirectory;
  readonly #log: Log;
  readonly #options: Libp2pOptions;
  readonly #parts: Parts;
  /** Targets of connections that are nobody's. */
  readonly #tries = new WeakSet<Multiaddr>();
  #listener: (connection: Connection) => void = () => {};
  #closing: Promise<void> | undefined;

  constructor(deps: Libp2pDeps, options: Libp2pOptions, parts: Parts) {
    this.self = parts.node.peerId.toString() as PeerId;
    this.directory = parts.directory;
    this.#log = deps.log;
    this.#options = options;
    this.#parts = parts;
    const { node, connections } = parts;
    node.addEventListener('connection:open', ({ detail }) => {
      if (!this.#tries.has(detail.remoteAddr)) this.#listener(connections.open(detail));
    });
    node.addEventListener('connection:close', ({ detail }) => this.#gone(detail));
  }

  addresses(): readonly string[] {
    return this.#parts.addresses();
  }

  connections(): readonly Connection[] {
    return this.#parts.connections.all();
  }

  onConnection(listener: (connection: Connection) => void): void {
    this.#listener = listener;
  }

  async connect(peer: PeerId, addresses: readonly string[], signal: AbortSignal): Promise<Connection> {
    const { network } = this.#options;
    const allowed = filterAddresses(addresses, network);
    if (allowed.length === 0) {
      const address = addresses[0] ?? '';
      const verdict = checkAddress(address, network);
      throw new HelixFlowError('ADDRESS_REFUSED', { address, reason: verdict.ok ? '' : verdict.reason });
    }
    // An address through a relay would only make a second connection of the kind there is.
    const direct = allowed.filter((address) => !isRelayed(address));
    const hasRelayed = this.connections().some((other) => other.peer === peer && other.path === 'relayed');
    try {
      signal.throwIfAborted();
      const targets = (hasRelayed && direct.length > 0 ? direct : allowed).map((address) =>
        multiaddr(`${address}/p2p/${peer}`),
      );
      const connection = this.#parts.connections.of(await this.#parts.node.dial(targets, { signal }));
      if (connection?.isOpen === true) return connection;
    } catch (cause) {
      throw new HelixFlowError('CONNECT_FAILED', { peer }, { cause });
    }
    throw new HelixFlowError('CONNECT_FAILED', { peer });
  }

  async canDial(at: { readonly peer: PeerId; readonly address: string }, signal: AbortSignal): Promise<boolean> {
    if (isRelayed(at.address) || !checkAddress(at.address, this.#options.network).ok) return false;
    const target = multiaddr(`${at.address}/p2p/${at.peer}`);
    this.#tries.add(target);
    try {
      const connection = await this.#parts.dialOnce(target, signal);
      connection.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'it was made to see whether it could be' }));
      return true;
    } catch (error) {
      this.#log.debug('network.not-dialled', { peer: at.peer, reason: error instanceof Error ? error.name : '' });
      return false;
    }
  }

  async reserve(connection: Connection, lost: () => void, signal: AbortSignal): Promise<void> {
    const { connections, relays } = this.#parts;
    const known = connections.all().find((other) => other === connection);
    const { peer } = connection;
    if (known?.isAdmitted !== true || known.path === 'relayed' || signal.aborted) {
      throw new HelixFlowError('RELAY_REFUSED', { peer, reason: 'there is no direct connection to it' });
    }
    await relays.reserve(known.libp2p.remotePeer, () => {
      if (this.#closing !== undefined) return;
      this.directory.moved();
      lost();
    });
    this.directory.moved();
  }

  handle(protocol: string, options: HandlerOptions, accept: (channel: Channel) => void): void {
    const { node, handlers } = this.#parts;
    assert(node.status === 'stopped' && this.#closing === undefined, 'handlers are set before the start');
    handlers.set(protocol, { ...options, accept });
  }

  async start(): Promise<void> {
    const { node, handlers } = this.#parts;
    for (const [protocol, handler] of handlers) await this.#serve(protocol, handler);
    try {
      await node.start();
    } catch (error) {
      const failure = this.#parts.listenFailure();
      if (failure === undefined || this.#options.listen === undefined) throw error;
      throw listenError(failure, this.#options.listen);
    }
    this.#log.info('network.started', { peer: this.self, addresses: this.addresses().join(' ') });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #serve(protocol: string, { beforeAdmission, accept }: Handler): Promise<void> {
    const { node, connections } = this.#parts;
    const serve: StreamHandler = (stream, connection) => {
      const channel = connections.of(connection)?.channel(stream, protocol);
      if (channel?.isOpen === true) accept(channel);
      else stream.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'the connection is gone' }));
    };
    await node.handle(protocol, beforeAdmission ? serve : gatedHandler(connections, serve), {
      runOnLimitedConnection: true,
      maxInboundStreams: streamsMax,
      maxOutboundStreams: streamsMax,
    });
  }

  async #close(): Promise<void> {
    const { node, connections } = this.#parts;
    await this.directory.close();
    await Promise.all(connections.all().map((connection) => connection.close()));
    await node.stop();
    for (const connection of connections.all()) connection.gone();
  }

  #gone(connection: Libp2pConnection): void {
    const { connections, node } = this.#parts;
    const gone = connections.close(connection);
    if (gone === undefined) return;
    gone.gone();
    if (connections.all().some(({ peer }) => peer === gone.peer)) return;
    node.services.relay?.gone(connection.remotePeer);
    if (gone.isAdmitted) this.directory.gone(gone.peer);
    else if (node.status === 'started') void forgetPeer(node, connection.remotePeer, this.#log, isUnknown);
  }
}

/** Strangers may come by the million: libp2p keeps what it heard of them, unless others named them. */
const isUnknown = ({ addresses, tags }: Peer): boolean => addresses.length === 0 && tags.size === 0;

/** Takes a peer out of libp2p's store, if `is` holds for what is there. */
async function forgetPeer(
  { peerStore }: Libp2pNode,
  id: Libp2pPeerId,
  log: Log,
  is: (peer: Peer) => boolean = () => true,
): Promise<void> {
  try {
    if ((await peerStore.has(id)) && is(await peerStore.get(id))) await peerStore.delete(id);
  } catch (error) {
    const reason = error instanceof Error ? error.name : '';
    log.debug('network.not-forgotten', { peer: id.toString(), reason });
  }
}

/**
 * A network that is not started, and its directory.
 * @throws HelixFlowError ADDRESS_REFUSED for an announced address that nobody in such a mesh may dial.
 */
export async function createLibp2pNetwork(deps: Libp2pDeps, options: Libp2pOptions): Promise<Libp2pNetwork> {
  const { announce, network, meshId } = options;
  for (const address of announce) {
    const verdict = checkAddress(address, network);
    if (!verdict.ok) throw new HelixFlowError('ADDRESS_REFUSED', { address, reason: verdict.reason });
    if (isRelayed(address)) throw new HelixFlowError('ADDRESS_REFUSED', { address, reason: 'of a relay' });
  }
  const self = peerIdFromSeed(options.seed);
  const handlers = new Map<string, Handler>();
  let listenFailure: unknown;
  let dialOnce: DialOnce | undefined;
  let listening: () => readonly string[] = () => [];
  const addresses = (): readonly string[] => {
    const own = announce.length > 0 ? announce : listening();
    const direct = [...own.filter((text) => !isLoopback(text)), ...own.filter(isLoopback)];
    const through = relays.addresses();
    const room = limits.peerAddressesMax - through.length;
    return [...filterAddresses(direct, network).slice(0, room), ...through];
  };
  const connections = createConnections({
    clock: deps.clock,
    turnEnd: createTurnEnd(),
    frameMaxBytes: (protocol) => handlers.get(protocol)?.frameMaxBytes ?? limits.frameMaxBytes,
    admitted: (connection) => void introduce(deps, node.services.identify, connection),
    aborted: ({ peer }) => directory.forget(peer),
  });
  const store = createKadStore({
    self,
    keysPerPeerMax: 2 * limits.offerModelsMax,
    providersMax: 32_768,
    recordsMax: limits.peersRememberedMax,
  });
  const adverts = createSeenAdverts(deps.clock, { meshId, peersMax: limits.peersRememberedMax });
  const { whenAdmitted, isAdmitted } = connections;
  const reservationsMax = options.relayReservationsMax ?? 0;
  const relay: RelayOptions = {
    clock: deps.clock,
    network,
    addresses,
    whenAdmitted,
    isAdmitted,
    reservationsMax,
    burstBytes: options.relayBurstBytes ?? limits.relayBurstBytes,
  };
  const relays = createRelayClient(relay);
  const node: Libp2pNode = await createNode({
    seed: options.seed,
    listen: options.listen,
    network,
    connectionsMax: options.connectionsMax ?? connectionsMax,
    connectionsPerSecondMax: options.connectionsPerSecondMax ?? connectionsPerSecondMax,
    relayClient: relays,
    relay: reservationsMax > 0 ? relay : undefined,
    kad: { clock: deps.clock, meshId, network, self, addresses, adverts, store, whenAdmitted },
    listening: (read) => {
      listening = read;
    },
    dialling: (dial) => {
      dialOnce = dial;
    },
    listenFailed: (error) => {
      listenFailure = error;
    },
  });
  const { isConnected } = connections;
  const forget = (peer: Libp2pPeerId): void => {
    store.forget(peer.toString());
    void forgetPeer(node, peer, deps.log);
  };
  const { kad } = node.services;
  const directory = new KademliaDirectory({ ...deps, kad, adverts, isConnected, forget }, { self, network });
  return new Adapter(deps, options, {
    node,
    connections,
    handlers,
    addresses,
    directory,
    relays,
    dialOnce: (address, signal) => {
      assert(dialOnce !== undefined, 'the services of a node are made with it');
      return dialOnce(address, signal);
    },
    listenFailure: () => listenFailure,
  });
}
