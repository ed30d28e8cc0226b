/** The gate before admission: every service of libp2p gets a registrar and a connection manager that wait for it. */

import type { Connection, PeerId, Stream, StreamHandler, Topology } from '@libp2p/interface';
import type { KadDHTComponents } from '@libp2p/kad-dht';
import { multiaddr } from '@multiformats/multiaddr';
import { HelixFlowError } from '../../errors.ts';
import { isRelayed } from '../../peer/address.ts';
import { overlay } from './overlay.ts';

type Registrar = KadDHTComponents['registrar'];
type AddressManager = KadDHTComponents['addressManager'];
type ConnectionManager = KadDHTComponents['connectionManager'];
type PeerStore = KadDHTComponents['peerStore'];

/** What the gate needs to know of the connections it guards. */
interface Admission {
  /** True once the connection is admitted; false when it will not be. */
  readonly whenAdmitted: (connection: Connection) => Promise<boolean>;
}

export interface GateDeps extends Admission {
  /** Where this peer can be reached now; services tell others so. */
  readonly addresses: () => readonly string[];
}

interface Gated {
  readonly registrar: Registrar;
  readonly connectionManager: ConnectionManager;
  readonly addressManager: AddressManager;
  readonly peerStore: PeerStore;
}

const refusal = (reason = 'the connection is not admitted'): HelixFlowError =>
  new HelixFlowError('CHANNEL_CLOSED', { reason });

/**
 * Runs `handler` once the stream's connection is admitted. Until then the stream is paused, which keeps what
 * a stranger can make us hold to one window; a refused stream is reset.
 */
export function gatedHandler(deps: Admission, handler: StreamHandler): StreamHandler {
  return async (stream: Stream, connection: Connection) => {
    stream.pause();
    if (!(await deps.whenAdmitted(connection))) {
      stream.abort(refusal());
      return;
    }
    if (stream.readStatus === 'paused') stream.resume();
    await handler(stream, connection);
  };
}

function gatedTopology(deps: Admission, topology: Topology): Topology {
  return {
    ...topology,
    onConnect: async (peer, connection) => {
      if (await deps.whenAdmitted(connection)) await topology.onConnect?.(peer, connection);
    },
  };
}

function gateRegistrar(deps: Admission, registrar: Registrar): Registrar {
  return overlay(registrar, {
    handle: (protocol, handler, options) => registrar.handle(protocol, gatedHandler(deps, handler), options),
    register: (protocol, topology) => registrar.register(protocol, gatedTopology(deps, topology)),
  });
}

/** True for a peer of which nothing but ways through relays is known. */
async function isBehindRelays(store: PeerStore, peer: PeerId): Promise<boolean> {
  if (!(await store.has(peer))) return false;
  const { addresses } = await store.get(peer);
  return addresses.length > 0 && addresses.every((address) => isRelayed(address.multiaddr.toString()));
}

/**
 * Services also reach out by themselves: to peers that others named, for instance. Nothing is said to those before their
 * hello, and none is dialled through a relay: what that carries is for sessions.
 */
function gateConnections(deps: Admission, { connectionManager: manager, peerStore }: Gated): ConnectionManager {
  const openConnection: ConnectionManager['openConnection'] = async (peer, options) => {
    const isNew = 'toMultihash' in peer && manager.getConnections(peer).length === 0;
    if (isNew && (await isBehindRelays(peerStore, peer))) throw refusal('it is behind relays');
    const connection = await manager.openConnection(peer, options);
    if (await deps.whenAdmitted(connection)) return connection;
    throw refusal();
  };
  return overlay(manager, {
    openConnection,
    openStream: async (peer, protocol, options) => (await openConnection(peer, options)).newStream(protocol, options),
  });
}

/** `components` for a service that must not meet strangers. */
export const gateComponents = <T extends Gated>(components: T, deps: GateDeps, more: Partial<T> = {}): T =>
  // Components are a proxy without properties of its own: there is nothing to spread.
  overlay(components, {
    registrar: gateRegistrar(deps, components.registrar),
    connectionManager: gateConnections(deps, components),
    // libp2p's own list leaves out public addresses that nobody has verified.
    addressManager: overlay(components.addressManager, {
      getAddresses: () => deps.addresses().map((address) => multiaddr(address)),
    }),
    ...more,
  });
