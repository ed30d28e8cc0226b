/** Circuit relay v2 as the mesh runs it: for members only, bounded by the mesh's own limits, reserved with when asked to. */

import {
  type CircuitRelayServerComponents,
  type CircuitRelayService,
  type CircuitRelayTransportComponents,
  circuitRelayServer,
  circuitRelayTransport,
  RELAY_V2_HOP_CODEC,
  RELAY_V2_STOP_CODEC,
} from '@libp2p/circuit-relay-v2';
import type { Connection, PeerId as Libp2pPeerId, Stream, StreamMessageEvent, Transport } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { HelixFlowError } from '../../errors.ts';
import type { NetworkKind } from '../../grants.ts';
import type { PeerId } from '../../ids.ts';
import { limits } from '../../limits.ts';
import { filterAddresses, isRelayed, relayedAddress } from '../../peer/address.ts';
import type { Clock } from '../../ports.ts';
import { withoutPeer } from './connection.ts';
import { type GateDeps, gateComponents } from './gate.ts';
import { createMeter } from './meter.ts';
import { overlay } from './overlay.ts';

/** A request to a relay is answered at once, or not. */
const hopTimeoutMs = 3_000;
/** Requests of one peer that are answered beside the circuits it has open. */
const requestsMax = 4;
/** Addresses of one relay that others are told. */
const addressesPerRelayMax = 2;

export interface RelayOptions extends GateDeps {
  readonly clock: Clock;
  readonly network: NetworkKind;
  readonly isAdmitted: (connection: Connection) => boolean;
  /** Peers that this one passes connections on to, at most. */
  readonly reservationsMax: number;
  /** What the circuits that one peer dialled may carry at once. */
  readonly burstBytes: number;
}

/** What this peer asks of relays. */
export interface RelayClient {
  /**
   * Reserves with the relay at the other end of a direct connection.
   * @throws HelixFlowError RELAY_REFUSED
   */
  reserve(relay: Libp2pPeerId, lost: () => void): Promise<void>;
  /** Where this peer is reached through the relays that it has reserved with. */
  addresses(): readonly string[];
  /** For libp2p's `transports`. */
  transport(components: CircuitRelayTransportComponents): Transport;
}

/** The transport's members that its public type leaves out. */
interface Reservations {
  hasReservation(relay: Libp2pPeerId): boolean;
  addRelay(
    relay: Libp2pPeerId,
    type: 'configured',
  ): Promise<{ readonly details: { readonly reservation: { readonly addrs: readonly Uint8Array[] } } }>;
  addEventListener(type: 'relay:removed', listener: (event: CustomEvent<{ relay: Libp2pPeerId }>) => void): void;
}

/** Components for either side of a relay: no strangers, nothing relayed twice, nobody kept alive by libp2p. */
const memberComponents = <T extends CircuitRelayServerComponents | CircuitRelayTransportComponents>(
  components: T,
  options: RelayOptions,
  gater: T['connectionGater'],
): T => {
  const gated = gateComponents(components, options);
  const { connectionManager, peerStore } = gated;
  const more: Partial<CircuitRelayServerComponents & CircuitRelayTransportComponents> = {
    connectionGater: gater,
    connectionManager: overlay(connectionManager, {
      getConnections: (peer) =>
        connectionManager.getConnections(peer).filter((each) => each.direct && options.isAdmitted(each)),
    }),
    peerStore: overlay(peerStore, {
      merge: (id, { tags: _, ...data }, more) => peerStore.merge(id, data, more),
    }),
  };
  return overlay(gated, more as Partial<T>);
};

/** Lets this peer reserve with relays, be dialled through those, and dial through any. */
export function createRelayClient(options: RelayOptions): RelayClient {
  const held = new Map<string, { readonly addresses: readonly string[]; readonly lost: () => void }>();
  let reservations: Reservations | undefined;
  const drop = (relay: string): void => {
    const reservation = held.get(relay);
    held.delete(relay);
    reservation?.lost();
  };
  return {
    reserve: async (relay, lost) => {
      try {
        const added = await reservations?.addRelay(relay, 'configured');
        const told = (added?.details.reservation.addrs ?? []).map((bytes) => withoutPeer(multiaddr(bytes)));
        const direct = filterAddresses(
          told.filter((address) => !isRelayed(address)),
          options.network,
        );
        const through = direct.map((address) => relayedAddress({ relay: relay.toString() as PeerId, address }));
        if (reservations?.hasReservation(relay) !== true) throw new Error('it was lost at once');
        held.set(relay.toString(), { addresses: through.slice(0, addressesPerRelayMax), lost });
      } catch (cause) {
        const reason = 'it has no room, or is no relay';
        throw new HelixFlowError('RELAY_REFUSED', { peer: relay.toString(), reason }, { cause });
      }
    },
    addresses: () => [...held.values()].flatMap(({ addresses }) => addresses),
    transport: (components) => {
      const gated = memberComponents(components, options, {
        denyInboundRelayedConnection: (relay) => reservations?.hasReservation(relay) !== true,
      });
      const transport = circuitRelayTransport({
        // Relays are chosen by discovery, not by libp2p.
        discoveryFilter: { has: () => true, add: () => {}, remove: () => {} },
        maxInboundStopStreams: limits.relayCircuitsPerPeerMax + requestsMax,
      })(gated) as Transport & { readonly reservationStore: Reservations };
      reservations = transport.reservationStore;
      reservations.addEventListener('relay:removed', ({ detail }) => drop(detail.relay.toString()));
      return transport;
    },
  };
}

/** Passes connections on between members. */
export interface RelayServer extends CircuitRelayService {
  /** The peer has no connection any more, and so no reservation. */
  gone(peer: Libp2pPeerId): void;
}

const streamsOf = (connections: readonly Connection[], protocol: string): number =>
  connections.reduce((sum, { streams }) => sum + streams.filter((stream) => stream.protocol === protocol).length, 0);

/** Counts what passes on a circuit, either way, against who dialled it; one that passes too much is cut. */
function chargeCircuit(stream: Stream, take: (bytes: number) => boolean): void {
  const charge = (bytes: number): void => {
    if (stream.status !== 'open' || take(bytes)) return;
    stream.abort(new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'too much for one relay' }));
  };
  const send = stream.send.bind(stream);
  stream.send = (data) => {
    charge(data.byteLength);
    return send(data);
  };
  stream.addEventListener('message', ({ data }: StreamMessageEvent) => charge(data.byteLength));
}

/** The registrar for the service: what its handler leaves open is a circuit. */
function chargeRegistrar(
  { clock, burstBytes }: RelayOptions,
  registrar: CircuitRelayServerComponents['registrar'],
): CircuitRelayServerComponents['registrar'] {
  const meter = createMeter(clock, {
    burstBytes,
    bytesPerSecond: limits.relayBytesPerSecondMax,
    peersMax: limits.peersRememberedMax,
  });
  return overlay(registrar, {
    handle: (protocol, handler, options) =>
      registrar.handle(
        protocol,
        async (stream, connection) => {
          await handler(stream, connection);
          chargeCircuit(stream, (bytes) => meter.take(connection.remotePeer.toString(), bytes));
        },
        options,
      ),
  });
}

/** The service for libp2p's `services`. */
export const relayService =
  (options: RelayOptions) =>
  (components: CircuitRelayServerComponents): RelayServer => {
    const drop = (peer: Libp2pPeerId): void => {
      service.reservations.get(peer)?.signal.clear();
      service.reservations.delete(peer);
    };
    const gated = memberComponents(components, options, {
      denyInboundRelayReservation: (peer) => {
        // A renewal is a new reservation: the timer of an old one cannot be set anew twice.
        drop(peer);
        return options.addresses().every(isRelayed);
      },
      denyOutboundRelayedConnection: (from, to) => {
        const open = (protocol: string, peer?: Libp2pPeerId): number =>
          streamsOf(gated.connectionManager.getConnections(peer), protocol);
        return (
          open(RELAY_V2_HOP_CODEC, from) > limits.relayCircuitsPerPeerMax ||
          open(RELAY_V2_STOP_CODEC, to) >= limits.relayCircuitsPerPeerMax ||
          open(RELAY_V2_STOP_CODEC) >= limits.relayCircuitsMax
        );
      },
    });
    const service = circuitRelayServer({
      hopTimeout: hopTimeoutMs,
      maxInboundHopStreams: limits.relayCircuitsPerPeerMax + requestsMax,
      maxOutboundStopStreams: limits.relayCircuitsPerPeerMax + requestsMax,
      reservations: {
        // Those of libp2p would cut every answer after two minutes or 128 KiB.
        applyDefaultLimit: false,
        maxReservations: options.reservationsMax,
        reservationTtl: limits.relayReservationMs,
      },
    })(overlay(gated, { registrar: chargeRegistrar(options, gated.registrar) }));
    return Object.assign(service, { gone: drop });
  };
