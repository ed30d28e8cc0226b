/** All machines of a simulated world, and the connections between them. */

import { SimConnection } from './connection.ts';
import type { FaultCounts } from './effects.ts';
import type { Kernel } from './kernel.ts';
import type { HostId, Links } from './links.ts';
import type { SimNetwork } from './network.ts';
import { linksThrough, type Via } from './relay.ts';
import { Wire } from './wire.ts';

/** One machine; it outlives the processes that run on it. */
export interface Host {
  readonly id: HostId;
  /** Where it listens. */
  readonly address: string;
  /** False for one behind a NAT: it can only dial out. */
  isReachable: boolean;
  /** False while its power is off: then not even a refusal comes back. */
  isPowered: boolean;
  listening: SimNetwork | undefined;
}

/** How to get to a peer, and how long one trip takes. */
export interface Route {
  readonly listener: SimNetwork;
  readonly address: string;
  readonly via: Via | undefined;
  readonly tripMs: number;
}

/** Where dialling leads: to a peer, to a refusal that comes back, or to silence. */
export type Way = Route | { readonly refusedMs: number } | undefined;

/** All machines of a world and what connects them. */
export class Fabric {
  readonly kernel: Kernel;
  readonly links: Links;
  readonly counts: FaultCounts;
  readonly #hosts: Host[] = [];
  readonly #byAddress = new Map<string, Host>();
  readonly #open = new Set<SimConnection>();
  /** Connections through relays, by their dialler's end. */
  readonly #circuits = new Map<SimConnection, Via>();
  #connections = 0;

  constructor(kernel: Kernel, links: Links, counts: FaultCounts) {
    this.kernel = kernel;
    this.links = links;
    this.counts = counts;
    links.onHealed(() => {
      for (const connection of [...this.#open]) if (connection.wire?.isStalled) connection.wire.healed();
    });
  }

  /** Another machine, with an address of its own. */
  host(isReachable = true): Host {
    const id = this.#hosts.length + 1;
    const address = `/ip4/10.${(id >> 16) & 255}.${(id >> 8) & 255}.${id & 255}/tcp/4001`;
    const host: Host = { id, address, isReachable, isPowered: true, listening: undefined };
    this.#hosts.push(host);
    this.#byAddress.set(address, host);
    return host;
  }

  hostAt(address: string): Host | undefined {
    return this.#byAddress.get(address);
  }

  /** The process that was started on a machine and has not ended. */
  runsOn(id: HostId): SimNetwork | undefined {
    return this.#hosts[id - 1]?.listening;
  }

  /** Ends of connections that are open, or were when their process died. */
  ends(): readonly SimConnection[] {
    return [...this.#open];
  }

  /** Makes both ends; the dialler's is told to it one trip later. */
  connect(dialler: SimNetwork, { listener, address, via }: Omit<Route, 'tripMs'>): SimConnection {
    const { kernel } = this;
    const links = via === undefined ? this.links : linksThrough(this.links, via);
    const outbound = new SimConnection(kernel, dialler.owner, {
      id: this.#nextId(),
      peer: listener.self,
      direction: 'outbound',
      path: via === undefined ? dialler.pathTo(listener.self, 'outbound') : 'relayed',
      remoteAddress: address,
    });
    const inbound = new SimConnection(kernel, listener.owner, {
      id: this.#nextId(),
      peer: dialler.self,
      direction: 'inbound',
      path: via === undefined ? listener.pathTo(dialler.self, 'inbound') : 'relayed',
      remoteAddress: via === undefined ? dialler.host.address.replace('4001', String(20_000 + outbound.id)) : address,
    });
    const wireTo = (from: SimNetwork, to: SimNetwork, end: SimConnection, back: SimConnection): Wire =>
      new Wire(kernel, links, {
        from: from.host.id,
        to: to.host.id,
        receiver: to.lifeline,
        receive: (packet) => end.receive(packet),
        unanswered: () => this.#unanswered(back, from.host, to.host),
      });
    outbound.pair(inbound, wireTo(dialler, listener, inbound, outbound));
    inbound.pair(outbound, wireTo(listener, dialler, outbound, inbound));
    this.#open.add(outbound).add(inbound);
    if (via !== undefined) this.#circuits.set(outbound, via);
    return outbound;
  }

  #nextId(): number {
    this.#connections += 1;
    return this.#connections;
  }

  forget(connection: SimConnection): void {
    this.#open.delete(connection);
    this.#circuits.delete(connection);
    for (const [end, { legs }] of [...this.#circuits]) {
      if (!legs.some((leg) => leg === connection || leg.other === connection)) continue;
      this.#circuits.delete(end);
      for (const each of [end, end.other]) each?.cut('the relay is gone');
    }
  }

  /** Nobody answers for what `end` sent. A machine that is on says so, if it can be heard. */
  #unanswered(end: SimConnection, from: Host, to: Host): void {
    const isGivenUp = end.wire?.isStalled === true;
    if (!isGivenUp && (!to.isPowered || this.links.isBlocked(from.id, to.id) || this.links.isBlocked(to.id, from.id))) {
      return;
    }
    end.cut(isGivenUp ? 'nothing gets through' : 'nobody is there any more');
  }

  /** Breaks a connection under both its ends: what is under way is lost. */
  reset(connection: SimConnection): void {
    for (const end of [connection, connection.other]) {
      if (end === undefined) continue;
      end.wire?.end();
      end.cut('the connection was reset');
    }
    this.counts.add('reset', 1);
  }

  /** A process is gone. Unless the power went too, its machine resets its connections, as far as that can be heard. */
  died(network: SimNetwork): void {
    const { host } = network;
    if (host.listening === network) host.listening = undefined;
    for (const end of [...this.#open]) {
      if (end.lifeline !== network.lifeline) continue;
      this.#open.delete(end);
      end.wire?.end();
      const { other } = end;
      if (other === undefined || !host.isPowered) continue;
      if (this.links.stops(host.id, other.hostId)) continue;
      this.kernel.schedule(this.links.latencyMs(host.id, other.hostId), () => other.cut('the peer died'));
    }
  }
}
