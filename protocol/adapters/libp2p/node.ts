/** libp2p as the mesh runs it: TCP, noise, yamux; identify, ping and Kademlia behind the gate; own heartbeats instead of its monitor. */

import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { type Identify, identify } from '@libp2p/identify';
import type { Connection, ConnectionGater } from '@libp2p/interface';
import { type Ping, ping } from '@libp2p/ping';
import { type TCPOptions, tcp } from '@libp2p/tcp';
import type { Multiaddr } from '@multiformats/multiaddr';
import { createLibp2p, type Libp2p } from 'libp2p';
import type { NetworkKind } from '../../grants.ts';
import { limits } from '../../limits.ts';
import { checkAddress } from '../../peer/address.ts';
import { withoutPeer } from './connection.ts';
import { gateComponents } from './gate.ts';
import { type Kad, type KadOptions, kadService } from './kad-service.ts';
import { leanNoise } from './lean-noise.ts';
import { guardedYamux } from './muxer.ts';
import { oneWrite } from './one-write.ts';
import { boundPending } from './pending.ts';
import { type RelayClient, type RelayOptions, type RelayServer, relayService } from './relay.ts';

const hourMs = 3_600_000;
/** A connection without a byte for this long is gone; yamux pings well within it. */
const silentMs = 120_000;
const pingMs = 50_000;
/** Unsent bytes on one yamux stream before libp2p resets it; a channel waits long before that. */
const writeBufferBytes = 4_194_304;
/** Connections that have not finished their handshake; one address alone never comes near the first. */
const pendingMax = 1_024;
/** A whole mesh may sit behind one address. */
const pendingPerAddressMax = 64;

/** Dials one address; the connection is made known like any other. */
export type DialOnce = (address: Multiaddr, signal: AbortSignal) => Promise<Connection>;

export interface NodeOptions {
  readonly seed: Uint8Array;
  /** Where to listen; absent for a peer that only dials. */
  readonly listen: { readonly host: string; readonly port: number } | undefined;
  readonly network: NetworkKind;
  readonly connectionsMax: number;
  /** From one IP address; several peers may share one behind a NAT. */
  readonly connectionsPerSecondMax: number;
  readonly kad: KadOptions;
  readonly relayClient: RelayClient;
  /** Absent for a peer that passes nothing on. */
  readonly relay: RelayOptions | undefined;
  /** Called with what tells where the listeners are. */
  readonly listening: (addresses: () => readonly string[]) => void;
  /** Called with what makes a connection that is no other's, whoever is connected already. */
  readonly dialling: (dial: DialOnce) => void;
  /** Called with what a listener failed with, before the start fails. */
  readonly listenFailed: (error: unknown) => void;
}

type Services = {
  readonly ping: Ping;
  readonly identify: Identify;
  readonly kad: Kad;
  readonly relay?: RelayServer;
};
export type Libp2pNode = Libp2p<Services>;

/** Dials and remembers only what the mesh's policy allows, whoever named it. */
function addressGater(network: NetworkKind): ConnectionGater {
  const isAllowed = (address: Multiaddr): boolean => checkAddress(withoutPeer(address), network).ok;
  return {
    denyDialMultiaddr: (address) => !isAllowed(address),
    filterMultiaddrForPeer: (_, address) => isAllowed(address),
  };
}

const listenAddress = ({ host, port }: { host: string; port: number }): string =>
  `/${host.includes(':') ? 'ip6' : 'ip4'}/${host}/tcp/${port}`;

/** TCP that tells why it could not listen (libp2p puts the reason into its error's text only) and bounds what is unfinished. */
function tellingTcp(options: TCPOptions, failed: (error: unknown) => void): ReturnType<typeof tcp> {
  return (components) => {
    const transport = tcp(options)(components);
    const createListener = transport.createListener.bind(transport);
    return Object.assign(transport, {
      createListener: (init: Parameters<typeof createListener>[0]) => {
        const listener = createListener({ ...init, upgrader: boundPending(init.upgrader, pendingPerAddressMax) });
        const listen = listener.listen.bind(listener);
        return Object.assign(listener, {
          listen: (address: Multiaddr) =>
            listen(address).catch((error: unknown) => {
              failed(error);
              throw error;
            }),
        });
      },
    });
  };
}

/** A node that is not started. */
export async function createNode(options: NodeOptions): Promise<Libp2pNode> {
  const { network, kad, listen, connectionsMax, relay, relayClient } = options;
  const kademlia = kadService(kad);
  return await createLibp2p<Services>({
    start: false,
    privateKey: await generateKeyPairFromSeed('Ed25519', options.seed),
    nodeInfo: { name: 'helixflow', version: '1' },
    addresses: { listen: listen === undefined ? [] : [listenAddress(listen)] },
    transports: [
      tellingTcp(
        {
          // The connection manager counts those that have finished.
          maxConnections: connectionsMax + pendingMax,
          inboundSocketInactivityTimeout: silentMs,
          outboundSocketInactivityTimeout: silentMs,
        },
        options.listenFailed,
      ),
      relayClient.transport,
    ],
    connectionEncrypters: [oneWrite(leanNoise())],
    streamMuxers: [
      guardedYamux({
        maxInboundStreams: 256,
        keepAliveInterval: pingMs,
        streamOptions: { maxWriteBufferLength: writeBufferBytes },
      }),
    ],
    connectionGater: addressGater(network),
    connectionMonitor: { enabled: false },
    peerStore: { maxAddressAge: 48 * hourMs, maxPeerAge: 48 * hourMs },
    connectionManager: {
      maxConnections: connectionsMax,
      maxIncomingPendingConnections: pendingMax,
      inboundConnectionThreshold: options.connectionsPerSecondMax,
      maxPeerAddrsToDial: limits.peerAddressesMax,
      dialTimeout: 5_000,
      addressDialTimeout: 3_000,
      inboundUpgradeTimeout: limits.helloTimeoutMs,
      reconnectRetries: 0,
    },
    services: {
      ping: (components) => ping()(gateComponents(components, kad)),
      identify: (components) => {
        const { transportManager } = components;
        options.dialling((address, signal) => transportManager.dial(address, { signal }));
        options.listening(() => transportManager.getAddrs().map(withoutPeer));
        return identify({ runOnConnectionOpen: false })(gateComponents(components, kad));
      },
      kad: kademlia,
      ...(relay === undefined ? {} : { relay: relayService(relay) }),
    },
  });
}
