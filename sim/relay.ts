/** Relays of the simulated network: who reserved with whom, and what lies between two machines that talk through a third. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { PeerId } from '../protocol/ids.ts';
import { isRelayed, relayedAddress } from '../protocol/peer/address.ts';
import type { Channel } from '../protocol/ports.ts';
import type { SimConnection } from './connection.ts';
import type { Lifeline } from './kernel.ts';
import type { HostId, Links } from './links.ts';

/** Asks for a reservation; members only, as any protocol after admission. */
export const RELAY_PROTOCOL = '/helixflow-sim/relay/1';
const granted = 1;
const refused = 0;

/** A relay with its connections to both ends of a circuit. */
export interface Via {
  readonly host: HostId;
  readonly lifeline: Lifeline;
  readonly legs: readonly SimConnection[];
}

/** What a wire asks of the links. */
export type WireLinks = Pick<Links, 'random' | 'latencyMs' | 'sendingMs' | 'stops' | 'isBlocked'>;

/** The links between two machines by way of a third: both ways' time, and either way's faults. */
export function linksThrough(links: Links, { host, lifeline }: Via): WireLinks {
  return {
    random: links.random,
    latencyMs: (from, to) => links.latencyMs(from, host) + links.latencyMs(host, to),
    sendingMs: (bytes, from, to) => Math.max(links.sendingMs(bytes, from, host), links.sendingMs(bytes, host, to)),
    stops: (from, to) => !lifeline.isAlive || links.stops(from, host) || links.stops(host, to),
    isBlocked: (from, to) => !lifeline.isAlive || links.isBlocked(from, host) || links.isBlocked(host, to),
  };
}

export interface RelayDeskOptions {
  /** Where the relay itself listens; empty for a peer that is none. */
  readonly addresses: () => readonly string[];
  readonly reservationsMax: number;
}

const refusal = (peer: PeerId, reason: string): HelixFlowError => new HelixFlowError('RELAY_REFUSED', { peer, reason });

/** The reservations of one process, on both sides. */
export class RelayDesk {
  readonly #options: RelayDeskOptions;
  /** Who reserved here, and the connection that it is reached over. */
  readonly #clients = new Map<PeerId, SimConnection>();
  /** Where this process is reached through its relays. */
  readonly #held = new Map<PeerId, string>();

  constructor(options: RelayDeskOptions) {
    this.#options = options;
  }

  addresses(): readonly string[] {
    return [...this.#held.values()];
  }

  /** The connection to a peer that reserved here. */
  client(peer: PeerId): SimConnection | undefined {
    return this.#clients.get(peer);
  }

  serve(channel: Channel): void {
    const connection = channel.connection as SimConnection;
    const { peer, path } = connection;
    channel.receive({
      frame: () => {
        const { addresses, reservationsMax } = this.#options;
        const hasRoom = this.#clients.has(peer) || this.#clients.size < reservationsMax;
        const isGranted = hasRoom && path !== 'relayed' && addresses().length > 0;
        if (isGranted) this.#take(connection);
        channel.send(Uint8Array.of(isGranted ? granted : refused));
        channel.end();
      },
      closed: () => {},
      drained: () => {},
    });
  }

  #take(connection: SimConnection): void {
    const { peer } = connection;
    this.#clients.set(peer, connection);
    connection.onClose(() => {
      if (this.#clients.get(peer) === connection) this.#clients.delete(peer);
    });
  }

  async reserve(connection: SimConnection, lost: () => void, signal: AbortSignal): Promise<void> {
    const { peer, path } = connection;
    if (path === 'relayed' || !connection.isAdmitted) throw refusal(peer, 'there is no direct connection to it');
    if (!(await ask(connection, signal))) throw refusal(peer, 'it has no room, or is no relay');
    const address = connection.remoteListens.find((text) => !isRelayed(text));
    if (address === undefined || !connection.isOpen) throw refusal(peer, 'it is gone');
    this.#held.set(peer, relayedAddress({ relay: peer, address }));
    connection.onClose(() => {
      this.#held.delete(peer);
      lost();
    });
  }
}

/** One question, and whether the answer was yes. */
async function ask(connection: SimConnection, signal: AbortSignal): Promise<boolean> {
  try {
    const channel = await connection.open(RELAY_PROTOCOL, signal);
    return await new Promise((resolve) => {
      channel.receive({
        frame: ([answer]) => resolve(answer === granted),
        closed: () => resolve(false),
        drained: () => {},
      });
      channel.send(Uint8Array.of(granted));
      channel.end();
    });
  } catch (error) {
    if (isHelixFlowError(error, 'CHANNEL_CLOSED')) return false;
    throw error;
  }
}
