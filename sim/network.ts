/** The simulated network: machines with addresses, connections between them, and the port that a process sees. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { NetworkKind } from '../protocol/grants.ts';
import type { PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { checkAddress, filterAddresses } from '../protocol/peer/address.ts';
import type { Channel, Connection, HandlerOptions, Network } from '../protocol/ports.ts';
import { type ConnectionOwner, SimConnection } from './connection.ts';
import type { FaultCounts } from './effects.ts';
import type { Kernel, Lifeline } from './kernel.ts';
import type { HostId, Links } from './links.ts';
import { Wire } from './wire.ts';

/** One machine; it outlives the processes that run on it. */
export interface Host {
  readonly id: HostId;
  /** Where it listens. */
  readonly address: string;
  /** False for one behind a NAT: it can only dial out. */
  readonly isReachable: boolean;
  /** False while its power is off: then not even a refusal comes back. */
  isPowered: boolean;
  listening: SimNetwork | undefined;
}

/** Dialling one address takes no longer. */
const dialTimeoutMs = 3_000;
/** One-way trips until a connection is encrypted, multiplexed and known to the accepting side. */
const dialTrips = 5;

/** All machines of a world and what connects them. */
export class Fabric {
  readonly kernel: Kernel;
  readonly links: Links;
  readonly counts: FaultCounts;
  readonly #hosts: Host[] = [];
  readonly #byAddress = new Map<string, Host>();
  readonly #open = new Set<SimConnection>();
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

  /** Ends of connections that are open, or were when their process died. */
  ends(): readonly SimConnection[] {
    return [...this.#open];
  }

  /** Makes both ends; the dialler's is told to it one trip later. */
  connect(dialler: SimNetwork, listener: SimNetwork, address: string): SimConnection {
    const { kernel, links } = this;
    const outbound = new SimConnection(kernel, dialler.owner, {
      id: this.#nextId(),
      peer: listener.self,
      direction: 'outbound',
      remoteAddress: address,
    });
    const inbound = new SimConnection(kernel, listener.owner, {
      id: this.#nextId(),
      peer: dialler.self,
      direction: 'inbound',
      remoteAddress: dialler.host.address.replace('4001', String(20_000 + outbound.id)),
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
    return outbound;
  }

  #nextId(): number {
    this.#connections += 1;
    return this.#connections;
  }

  forget(connection: SimConnection): void {
    this.#open.delete(connection);
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

interface Handler {
  readonly options: HandlerOptions;
  readonly accept: (channel: Channel) => void;
}

export interface SimNetworkOptions {
  readonly self: PeerId;
  /** Which addresses may be dialled. */
  readonly kind: NetworkKind;
}

/** The network as one run of one process sees it. */
export class SimNetwork implements Network {
  readonly self: PeerId;
  readonly host: Host;
  readonly lifeline: Lifeline;
  readonly owner: ConnectionOwner;
  readonly #fabric: Fabric;
  readonly #kind: NetworkKind;
  readonly #handlers = new Map<string, Handler>();
  readonly #connections = new Map<number, SimConnection>();
  readonly #dials = new Map<PeerId, Promise<SimConnection>>();
  readonly #onAdmitted: ((connection: SimConnection) => void)[] = [];
  #listener: (connection: Connection) => void = () => {};
  #isClosed = false;

  constructor(fabric: Fabric, lifeline: Lifeline, host: Host, options: SimNetworkOptions) {
    this.self = options.self;
    this.host = host;
    this.lifeline = lifeline;
    this.#fabric = fabric;
    this.#kind = options.kind;
    this.owner = {
      self: options.self,
      lifeline,
      hostId: host.id,
      addresses: () => this.addresses(),
      handler: (protocol) => this.#handlers.get(protocol),
      forget: (connection) => {
        this.#connections.delete(connection.id);
        fabric.forget(connection);
      },
      admitted: (connection) => {
        for (const listener of this.#onAdmitted) listener(connection);
      },
    };
  }

  addresses(): readonly string[] {
    return this.host.isReachable && !this.#isClosed ? [this.host.address] : [];
  }

  connections(): readonly SimConnection[] {
    return [...this.#connections.values()];
  }

  onConnection(listener: (connection: Connection) => void): void {
    this.#listener = listener;
  }

  /** For the directory: peers enter it by their admission. */
  onAdmitted(listener: (connection: SimConnection) => void): void {
    this.#onAdmitted.push(listener);
  }

  handle(protocol: string, options: HandlerOptions, accept: (channel: Channel) => void): void {
    this.lifeline.check();
    this.#handlers.set(protocol, { options, accept });
  }

  async start(): Promise<void> {
    this.lifeline.check();
    const { host } = this;
    if (host.listening !== undefined) {
      throw new HelixFlowError('PORT_IN_USE', { host: host.address, port: 4_001, option: '--p2p-port' });
    }
    host.listening = this;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.host.listening === this) this.host.listening = undefined;
    for (const connection of this.connections()) await connection.close();
  }

  async connect(peer: PeerId, addresses: readonly string[], signal: AbortSignal): Promise<Connection> {
    this.lifeline.check();
    const known = this.connections().find((connection) => connection.peer === peer);
    if (known !== undefined) return known;
    if (signal.aborted || this.#isClosed) throw SimConnection.refused(peer);
    const dialable = filterAddresses(addresses, this.#kind).slice(0, limits.peerAddressesMax);
    if (dialable.length === 0) throw this.#refusal(addresses);
    let dial = this.#dials.get(peer);
    if (dial === undefined) {
      dial = this.#dialEach(peer, dialable).finally(() => this.#dials.delete(peer));
      // Everybody who waits for it may have given up by the time it fails.
      dial.catch((error: unknown) => {
        if (!isHelixFlowError(error)) this.#fabric.kernel.fail(error);
      });
      this.#dials.set(peer, dial);
    }
    return await this.#orGiveUp(dial, peer, signal);
  }

  #refusal(addresses: readonly string[]): HelixFlowError {
    const address = addresses[0] ?? '';
    const verdict = checkAddress(address, this.#kind);
    const reason = address === '' ? 'there is none' : verdict.ok ? 'refused' : verdict.reason;
    return new HelixFlowError('ADDRESS_REFUSED', { address, reason });
  }

  #orGiveUp(dial: Promise<SimConnection>, peer: PeerId, signal: AbortSignal): Promise<SimConnection> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => reject(SimConnection.refused(peer));
      signal.addEventListener('abort', giveUp, { once: true });
      const settle = (): void => signal.removeEventListener('abort', giveUp);
      dial.then(resolve, reject).finally(settle);
    });
  }

  async #dialEach(peer: PeerId, addresses: readonly string[]): Promise<SimConnection> {
    for (const address of addresses) {
      const connection = await this.#dial(peer, address);
      if (connection !== undefined) return connection;
    }
    throw SimConnection.refused(peer);
  }

  /** Resolves with nothing when there is no answer in time, a refusal, or the wrong peer. */
  #dial(peer: PeerId, address: string): Promise<SimConnection | undefined> {
    const { kernel, links } = this.#fabric;
    const target = this.#fabric.hostAt(address);
    return new Promise((resolve) => {
      let isDone = false;
      const finish = (connection: SimConnection | undefined): void => {
        isDone = true;
        kernel.cancel(timeout);
        resolve(connection);
      };
      const timeout = kernel.schedule(dialTimeoutMs, () => finish(undefined), this.lifeline, 'io');
      const isDeaf = target === undefined || !target.isReachable || !target.isPowered;
      if (isDeaf || links.stops(this.host.id, target.id) || links.stops(target.id, this.host.id)) return;
      const tripMs = links.latencyMs(this.host.id, target.id);
      const listener = target.listening;
      if (listener === undefined) {
        kernel.schedule(2 * tripMs, () => finish(undefined), this.lifeline, 'io');
        return;
      }
      const arrive = (): void => {
        if (isDone || listener.#isClosed || !this.lifeline.isAlive) return;
        if (listener.self !== peer) {
          kernel.schedule(tripMs, () => finish(undefined), this.lifeline, 'io');
          return;
        }
        this.#meet(listener, address, (connection) => (isDone ? void connection.close() : finish(connection)));
      };
      kernel.schedule(tripMs * dialTrips, arrive, listener.lifeline, 'io');
    });
  }

  /** In the listener's process: both ends come about, ours a trip later. */
  #meet(listener: SimNetwork, address: string, met: (connection: SimConnection) => void): void {
    const { kernel, links } = this.#fabric;
    const outbound = this.#fabric.connect(this, listener, address);
    const inbound = outbound.other as SimConnection;
    const tripMs = links.latencyMs(listener.host.id, this.host.id);
    inbound.wire?.holdUntil(kernel.nowMs + tripMs);
    kernel.schedule(
      tripMs,
      () => {
        if (!outbound.isOpen) return;
        this.#add(outbound);
        met(outbound);
      },
      this.lifeline,
      'io',
    );
    listener.#add(inbound);
  }

  #add(connection: SimConnection): void {
    if (this.#isClosed) {
      void connection.close();
      return;
    }
    this.#connections.set(connection.id, connection);
    this.#listener(connection);
  }
}
