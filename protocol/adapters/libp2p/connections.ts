/** Every open connection of a libp2p node, as the port sees it. */

import type { Connection as Libp2pConnection } from '@libp2p/interface';
import type { ConnectionPath } from '../../ports.ts';
import { type ConnectionDeps, PeerConnection } from './connection.ts';

export interface Connections {
  /** Takes in a new connection. */
  open(connection: Libp2pConnection): PeerConnection;
  /** Takes out one that is gone; undefined when it was never taken in. */
  close(connection: Libp2pConnection): PeerConnection | undefined;
  of(connection: Libp2pConnection): PeerConnection | undefined;
  /** True once admitted; false for a connection that is gone or not admitted in time. */
  whenAdmitted(connection: Libp2pConnection): Promise<boolean>;
  /** True once admitted. */
  isAdmitted(connection: Libp2pConnection): boolean;
  /** True while an admitted connection is open: with `peer`, or with anybody. */
  isConnected(peer?: string): boolean;
  all(): readonly PeerConnection[];
}

export function createConnections(deps: ConnectionDeps): Connections {
  const open = new Map<Libp2pConnection, PeerConnection>();
  let opened = 0;
  /** Who is dialled directly by a peer that it reached only through a relay was asked to be. */
  const isAnswered = ({ remotePeer, direction }: Libp2pConnection): boolean =>
    [...open.values()].some(
      (other) =>
        other.path === 'relayed' &&
        other.isOpen &&
        other.peer === remotePeer.toString() &&
        other.direction !== direction,
    );
  const pathOf = (connection: Libp2pConnection): ConnectionPath => {
    if (!connection.direct) return 'relayed';
    return isAnswered(connection) ? 'reversed' : 'direct';
  };
  return {
    open: (connection) => {
      opened += 1;
      const wrapped = new PeerConnection({ id: opened, path: pathOf(connection) }, connection, deps);
      open.set(connection, wrapped);
      return wrapped;
    },
    close: (connection) => {
      const wrapped = open.get(connection);
      open.delete(connection);
      return wrapped;
    },
    of: (connection) => open.get(connection),
    whenAdmitted: (connection) => open.get(connection)?.whenAdmitted() ?? Promise.resolve(false),
    isAdmitted: (connection) => open.get(connection)?.isAdmitted === true,
    isConnected: (peer) => {
      for (const connection of open.values()) {
        if (connection.isAdmitted && connection.isOpen && (peer ?? connection.peer) === connection.peer) return true;
      }
      return false;
    },
    all: () => [...open.values()].filter((connection) => connection.isOpen),
  };
}
