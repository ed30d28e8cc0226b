/** The simulated network as one process sees it: what it dials, and who comes in. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { NetworkKind } from '../protocol/grants.ts';
import type { PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import {
  checkAddress,
  filterAddresses,
  isRelayed,
  parseRelayed,
  type RelayedAddress,
} from '../protocol/peer/address.ts';
import type { Channel, Connection, ConnectionPath, HandlerOptions, Network } from '../protocol/ports.ts';
import { type ConnectionOwner, SimConnection } from './connection.ts';
import type { Fabric, Host, Route, Way } from './fabric.ts';
import type { Lifeline } from './kernel.ts';
import { linksThrough, RELAY_PROTOCOL, RelayDesk } from './relay.ts';

/** Dialling one address takes no longer. */
const dialTimeoutMs = 3_000;
/** One-way trips until a connection is encrypted, multiplexed and known to the accepting side. */
const dialTrips = 5;

interface Handler {
  readonly options: HandlerOptions;
  readonly accept: (channel: Channel) => void;
}

export interface SimNetworkOptions {
  readonly self: PeerId;
  /** Which addresses may be dialled. */
  readonly kind: NetworkKind;
  /** Where others are told to dial, right or wrong, in place of its machine's address. */
  readonly announce?: readonly string[];
  /** Peers that this one passes connections on to, at most. */
  readonly relayReservationsMax?: number;
}

/** The network as one run of one process sees it. */
export class SimNetwork implements Network {
  readonly self: PeerId;
  readonly host: Host;
  readonly lifeline: Lifeline;
  readonly owner: ConnectionOwner;
  readonly #fabric: Fabric;
  readonly #kind: NetworkKind;
  readonly #announce: readonly string[] | undefined;
  readonly #handlers = new Map<string, Handler>();
  readonly #connections = new Map<number, SimConnection>();
  readonly #dials = new Map<PeerId, Promise<SimConnection>>();
  readonly #onAdmitted: ((connection: SimConnection) => void)[] = [];
  readonly #onMoved: (() => void)[] = [];
  readonly #relays: RelayDesk;
  #listener: (connection: Connection) => void = () => {};
  #isClosed = false;

  constructor(fabric: Fabric, lifeline: Lifeline, host: Host, options: SimNetworkOptions) {
    this.self = options.self;
    this.host = host;
    this.lifeline = lifeline;
    this.#fabric = fabric;
    this.#kind = options.kind;
    this.#announce = options.announce;
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
    this.#relays = new RelayDesk({
      addresses: () => this.#ownAddresses(),
      reservationsMax: options.relayReservationsMax ?? limits.relayReservationsMax,
    });
    const handler = { beforeAdmission: false, frameMaxBytes: limits.frameMaxBytes };
    this.handle(RELAY_PROTOCOL, handler, (channel) => this.#relays.serve(channel));
  }

  #ownAddresses(): readonly string[] {
    if (this.#isClosed) return [];
    return this.#announce ?? (this.host.isReachable ? [this.host.address] : []);
  }

  addresses(): readonly string[] {
    return [...this.#ownAddresses(), ...this.#relays.addresses()];
  }

  /** How a direct connection with `peer` comes about that begins now. */
  pathTo(peer: PeerId, direction: Connection['direction']): ConnectionPath {
    const asked = this.connections().some(
      (other) => other.peer === peer && other.path === 'relayed' && other.direction !== direction,
    );
    return asked ? 'reversed' : 'direct';
  }

  async canDial(at: { readonly peer: PeerId; readonly address: string }, signal: AbortSignal): Promise<boolean> {
    this.lifeline.check();
    if (signal.aborted || isRelayed(at.address) || !checkAddress(at.address, this.#kind).ok) return false;
    const { kernel } = this.#fabric;
    const met = await this.#dial<true>(at.peer, at.address, ({ tripMs }, answered) => {
      kernel.schedule(tripMs, () => answered(true), this.lifeline, 'io');
    });
    return met === true;
  }

  reserve(connection: Connection, lost: () => void, signal: AbortSignal): Promise<void> {
    this.lifeline.check();
    const moved = (): void => {
      for (const listener of this.#onMoved) listener();
    };
    const isOver = (): void => {
      moved();
      lost();
    };
    return this.#relays.reserve(connection as SimConnection, isOver, signal).then(moved);
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

  /** For the directory: this process is reached elsewhere now. */
  onMoved(listener: () => void): void {
    this.#onMoved.push(listener);
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
    const allowed = filterAddresses(addresses, this.#kind).slice(0, limits.peerAddressesMax);
    const direct = allowed.filter((address) => !isRelayed(address));
    const all = this.connections().filter((connection) => connection.peer === peer);
    const known = all.find(({ path }) => path !== 'relayed') ?? (direct.length > 0 ? undefined : all[0]);
    if (known !== undefined) return known;
    if (signal.aborted || this.#isClosed) throw SimConnection.refused(peer);
    const dialable = all.length > 0 ? direct : [...direct, ...allowed.filter(isRelayed)];
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
      const connection = await this.#dial<SimConnection>(peer, address, (route, met) => this.#meet(route, met));
      if (connection !== undefined) return connection;
    }
    throw SimConnection.refused(peer);
  }

  /** Resolves with nothing when there is no answer in time, a refusal, or the wrong peer. */
  #dial<Met extends SimConnection | true>(
    peer: PeerId,
    address: string,
    meet: (route: Route, met: (what: Met) => void) => void,
  ): Promise<Met | undefined> {
    const { kernel } = this.#fabric;
    return new Promise((resolve) => {
      let isDone = false;
      const finish = (met: Met | undefined): void => {
        isDone = true;
        kernel.cancel(timeout);
        resolve(met);
      };
      const timeout = kernel.schedule(dialTimeoutMs, () => finish(undefined), this.lifeline, 'io');
      const follow = (way: Way): void => {
        if (way === undefined || isDone) return;
        if ('refusedMs' in way) {
          kernel.schedule(way.refusedMs, () => finish(undefined), this.lifeline, 'io');
          return;
        }
        const { listener } = way;
        const arrive = (): void => {
          if (isDone || listener.#isClosed || !this.lifeline.isAlive) return;
          if (listener.self !== peer || way.via?.legs.some((leg) => !leg.isOpen) === true) {
            kernel.schedule(way.tripMs, () => finish(undefined), this.lifeline, 'io');
            return;
          }
          meet(way, (met) => {
            if (!isDone) finish(met);
            else if (met !== true) void met.close();
          });
        };
        kernel.schedule(way.tripMs * dialTrips, arrive, listener.lifeline, 'io');
      };
      const relayed = parseRelayed(address);
      if (relayed === undefined) follow(this.#wayTo(address));
      else this.#wayThrough(peer, address, relayed).then(follow, (error: unknown) => kernel.fail(error));
    });
  }

  #wayTo(address: string): Way {
    const { links } = this.#fabric;
    const target = this.#fabric.hostAt(address);
    const isDeaf = target === undefined || !target.isReachable || !target.isPowered;
    if (isDeaf || links.stops(this.host.id, target.id) || links.stops(target.id, this.host.id)) return undefined;
    const tripMs = links.latencyMs(this.host.id, target.id);
    const { listening } = target;
    return listening === undefined
      ? { refusedMs: 2 * tripMs }
      : { listener: listening, address, via: undefined, tripMs };
  }

  /** By way of a relay, which must have admitted this peer, and be reserved with by the other. */
  async #wayThrough(peer: PeerId, address: string, { relay, address: at }: RelayedAddress): Promise<Way> {
    const { links } = this.#fabric;
    const ours = await this.#relayAt(relay, at);
    const passing = this.#fabric.hostAt(at)?.listening;
    if (ours === undefined || passing?.self !== relay) return { refusedMs: 0 };
    const theirs = passing.#relays.client(peer);
    const listener = theirs?.other === undefined ? undefined : this.#fabric.runsOn(theirs.other.hostId);
    const backMs = 2 * links.latencyMs(this.host.id, passing.host.id);
    if (theirs === undefined || listener === undefined) return { refusedMs: backMs };
    const via = { host: passing.host.id, lifeline: passing.lifeline, legs: [ours, theirs] };
    const through = linksThrough(links, via);
    if (through.stops(this.host.id, listener.host.id) || through.stops(listener.host.id, this.host.id))
      return undefined;
    return { listener, address, via, tripMs: through.latencyMs(this.host.id, listener.host.id) };
  }

  /** A direct connection to a relay that has admitted this peer, dialled if there is none. */
  async #relayAt(relay: PeerId, address: string): Promise<SimConnection | undefined> {
    const { kernel } = this.#fabric;
    const isDirect = ({ peer, path }: SimConnection): boolean => peer === relay && path !== 'relayed';
    const connection =
      this.connections().find(isDirect) ??
      (await this.#dial<SimConnection>(relay, address, (route, met) => this.#meet(route, met)));
    const endMs = kernel.nowMs + dialTimeoutMs;
    while (connection?.isOpen === true && connection.other?.isAdmitted !== true && kernel.nowMs < endMs) {
      await new Promise<void>((resolve) => kernel.schedule(20, resolve, this.lifeline, 'io'));
    }
    return connection?.isOpen === true && connection.other?.isAdmitted === true ? connection : undefined;
  }

  /** In the listener's process: both ends come about, ours a trip later. */
  #meet(route: Route, met: (connection: SimConnection) => void): void {
    const { kernel } = this.#fabric;
    const { listener, via } = route;
    const outbound = this.#fabric.connect(this, route);
    const inbound = outbound.other as SimConnection;
    const links = via === undefined ? this.#fabric.links : linksThrough(this.#fabric.links, via);
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
