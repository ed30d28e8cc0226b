/** A network that remembers when each of its connections was opened. */

import type { Libp2pNetwork } from '../protocol/adapters/network-libp2p.ts';
import type { Clock, Connection } from '../protocol/ports.ts';
import type { UnixMs } from '../protocol/units.ts';

export interface DatedNetwork extends Libp2pNetwork {
  /** By the wall clock. */
  openedMs(connection: Connection): UnixMs;
}

/** Passes everything on to `network`. */
export function datedNetwork(network: Libp2pNetwork, clock: Clock): DatedNetwork {
  const opened = new WeakMap<Connection, UnixMs>();
  const openedMs = (connection: Connection): UnixMs => opened.get(connection) ?? clock.wallMs();
  return {
    self: network.self,
    directory: network.directory,
    addresses: () => network.addresses(),
    connections: () => network.connections(),
    onConnection: (listener) =>
      network.onConnection((connection) => {
        opened.set(connection, clock.wallMs());
        listener(connection);
      }),
    connect: (peer, addresses, signal) => network.connect(peer, addresses, signal),
    canDial: (at, signal) => network.canDial(at, signal),
    reserve: (connection, lost, signal) => network.reserve(connection, lost, signal),
    handle: (protocol, options, accept) => network.handle(protocol, options, accept),
    start: () => network.start(),
    close: () => network.close(),
    openedMs,
  };
}
