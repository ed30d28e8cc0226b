/** Every open connection of a libp2p node, as the port sees it. */

import type { Connection as Libp2pConnection } from '@libp2p/interface';
import { type ConnectionDeps, PeerConnection } from './connection.ts';

export interface Connections {
  /** Takes in a new connection. */
  open(connection: Libp2pConnection): PeerConnection;
  /** Takes out one that is gone; undefined when it was never taken in. */
  close(connection: Libp2pConnection): PeerConnection | undefined;
  of(connection: Libp2pConnection): PeerConnection | undefined;
  /** True once admitted; false for a connection that is gone or not admitted in time. */
  whenAdmitted(connection: Libp2pConnection): Promise<boolean>;
  /** True while an admitted connection is open: with `peer`, or with anybody. */
  isConnected(peer?: string): boolean;
  all(): readonly PeerConnection[];
}

export function createConnections(deps: ConnectionDeps): Connections {
  const open = new Map<Libp2pConnection, PeerConnection>();
  let opened = 0;
  return {
    open: (connection) => {
      opened += 1;
      const wrapped = new PeerConnection(opened, connection, deps);
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
    isConnected: (peer) => {
      for (const connection of open.values()) {
        if (connection.isAdmitted && connection.isOpen && (peer ?? connection.peer) === connection.peer) return true;
      }
      return false;
    },
    all: () => [...open.values()].filter((connection) => connection.isOpen),
  };
}
