/** Kademlia as the mesh runs it: members only, bounded, on lan and public networks alike. */

import {
  KEEP_ALIVE,
  type PeerId as Libp2pPeerId,
  type Peer,
  type PeerInfo,
  type Stream,
  type StreamMessageEvent,
} from '@libp2p/interface';
import { type KadDHT, type KadDHTComponents, kadDHT } from '@libp2p/kad-dht';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { HelixFlowError } from '../../errors.ts';
import type { NetworkKind } from '../../grants.ts';
import type { MeshId } from '../../ids.ts';
import { limits } from '../../limits.ts';
import { checkAddress } from '../../peer/address.ts';
import type { Clock } from '../../ports.ts';
import { ADVERT_NAMESPACE, type SeenAdverts } from './adverts.ts';
import { withoutPeer } from './connection.ts';
import { type GateDeps, gateComponents } from './gate.ts';
import type { KadStore } from './kad-store.ts';
import { createMeter, type Meter } from './meter.ts';
import { overlay } from './overlay.ts';

/** How long others keep a provider record that is not renewed. */
export const providerValidityMs = limits.advertTtlMs;
/** How often expired ones are swept: until then lookups still give them. */
const sweepMs = 60_000;
/** What a stream costs its peer beside the bytes on it. */
const streamCostBytes = 256;

export interface KadOptions extends GateDeps {
  readonly clock: Clock;
  readonly meshId: MeshId;
  readonly network: NetworkKind;
  readonly self: string;
  readonly adverts: SeenAdverts;
  readonly store: KadStore;
}

/** The routing table's members that its public type leaves out. */
export interface KadTable {
  readonly size: number;
  remove(peer: Libp2pPeerId): Promise<void>;
  addEventListener(type: 'peer:add', listener: (event: CustomEvent<Libp2pPeerId>) => void): void;
}

/** A started or stopped Kademlia with its table. */
export type Kad = KadDHT & { readonly routingTable: KadTable };

/** Charges every byte on `stream` to its peer; the stream of one that sends too much is reset. */
function chargeStream(meter: Meter, stream: Stream, peer: string): boolean {
  const charge = (bytes: number): boolean => {
    if (meter.take(peer, bytes)) return true;
    stream.abort(new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'too many directory messages' }));
    return false;
  };
  stream.addEventListener('message', (event: StreamMessageEvent) => {
    if (stream.status === 'open') charge(event.data.byteLength);
  });
  return charge(streamCostBytes);
}

/** Around the gate, not under it: a listener on a stream that still waits would swallow what comes first. */
function chargeRegistrar(clock: Clock, registrar: KadDHTComponents['registrar']): KadDHTComponents['registrar'] {
  const meter = createMeter(clock, {
    burstBytes: 131_072,
    bytesPerSecond: 16_384,
    peersMax: limits.peersRememberedMax,
  });
  return overlay(registrar, {
    handle: (protocol, handler, options) =>
      registrar.handle(
        protocol,
        async (stream, connection) => {
          if (chargeStream(meter, stream, connection.remotePeer.toString())) await handler(stream, connection);
        },
        options,
      ),
  });
}

const emptyPeer = (id: Libp2pPeerId): Peer => ({
  id,
  addresses: [],
  protocols: [],
  metadata: new Map(),
  tags: new Map(),
});

const isNotFound = (error: unknown): boolean => error instanceof Error && error.name === 'NotFoundError';

/**
 * The peer store as Kademlia sees it. A peer that it knows nothing of has no addresses: a throw would fail the whole
 * answer to a lookup for one evicted provider. This peer has those it announces. Nobody is tagged to be kept alive:
 * reconnecting is not libp2p's business here.
 */
function kadPeerStore(store: KadDHTComponents['peerStore'], options: KadOptions): KadDHTComponents['peerStore'] {
  const ownAddresses = (): { multiaddr: Multiaddr; isCertified: boolean }[] =>
    options.addresses().map((text) => ({ multiaddr: multiaddr(text), isCertified: true }));
  const get: typeof store.get = async (id, more) => {
    if (id.toString() === options.self) return { ...emptyPeer(id), addresses: ownAddresses() };
    try {
      return await store.get(id, more);
    } catch (error) {
      if (isNotFound(error)) return emptyPeer(id);
      throw error;
    }
  };
  return overlay(store, {
    get,
    getInfo: async (id, more): Promise<PeerInfo> => {
      const { addresses } = await get(id, more);
      return { id, multiaddrs: addresses.map((address) => address.multiaddr) };
    },
    merge: (id, data, more) => {
      // A provider tells all its addresses each time: ways through relays that it left are not kept beside the new ones.
      if (data.multiaddrs !== undefined) return store.patch(id, data, more);
      const tags = Object.entries(data.tags ?? {}).filter(([name]) => !name.startsWith(KEEP_ALIVE));
      return store.merge(id, data.tags === undefined ? data : { ...data, tags: Object.fromEntries(tags) }, more);
    },
  });
}

/** Keeps of a peer's addresses what may be dialled, and no more than a peer may have. */
function filterInfo(info: PeerInfo, network: NetworkKind): PeerInfo {
  const allowed = info.multiaddrs.filter((address) => checkAddress(withoutPeer(address), network).ok);
  return { ...info, multiaddrs: allowed.slice(0, limits.peerAddressesMax) };
}

/** The protocol of a mesh's own Kademlia. */
export const kadProtocol = (meshId: MeshId): string => `/helixflow/${meshId.slice(0, 8)}/kad/1`;

/** The service for libp2p's `services`. */
export const kadService =
  (options: KadOptions) =>
  (components: KadDHTComponents): Kad => {
    const { clock, meshId, network, adverts, store } = options;
    const gated = gateComponents(components, options, {
      datastore: store as unknown as KadDHTComponents['datastore'],
      peerStore: kadPeerStore(components.peerStore, options),
    });
    const charged = overlay(gated, {
      registrar: chargeRegistrar(clock, gated.registrar),
    });
    return kadDHT({
      protocol: kadProtocol(meshId),
      clientMode: false,
      peerInfoMapper: (info) => filterInfo(info, network),
      validators: { [ADVERT_NAMESPACE]: (key, value) => adverts.validate(key, value) },
      selectors: { [ADVERT_NAMESPACE]: (_, records) => adverts.select(records) },
      initialQuerySelfInterval: 1,
      // The loop of the directory provides again long before the threshold of this one.
      reprovide: { validity: providerValidityMs, interval: sweepMs, threshold: 0 },
    })(charged) as Kad;
  };

/** True for what a query throws when its signal has aborted. */
export const isAbort = (error: unknown): boolean => error instanceof Error && error.name === 'AbortError';
