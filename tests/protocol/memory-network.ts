/** A network in memory, for tests that play one side by hand: no latency, no loss, every call in a later microtask. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { PeerId } from '../../protocol/ids.ts';
import type { Channel, ChannelEvents, Connection, HandlerOptions, Network } from '../../protocol/ports.ts';

const gone = (reason: string): HelixFlowError => new HelixFlowError('CHANNEL_CLOSED', { reason });

/** Resolves once `holds`; fails after two seconds. */
export async function until(holds: () => boolean): Promise<void> {
  const endMs = performance.now() + 2_000;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`never came true: ${holds}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

class MemoryChannel implements Channel {
  readonly connection: MemoryConnection;
  readonly protocol: string;
  other!: MemoryChannel;
  #events: ChannelEvents | undefined;
  readonly #early: (() => void)[] = [];
  #closed = false;
  #ended = false;

  constructor(connection: MemoryConnection, protocol: string) {
    this.connection = connection;
    this.protocol = protocol;
    connection.channels.add(this);
  }
  #deliver(call: (events: ChannelEvents) => void): void {
    const events = this.#events;
    if (events === undefined) this.#early.push(() => this.#deliver(call));
    else queueMicrotask(() => call(events));
  }
  send(frame: Uint8Array): boolean {
    if (this.#closed || this.#ended) return true;
    const { other } = this;
    other.#deliver((events) => {
      if (!other.#closed) events.frame(frame);
    });
    return true;
  }
  receive(events: ChannelEvents): void {
    this.#events = events;
    for (const call of this.#early.splice(0)) call();
  }
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.other.#ended) {
      this.finish(undefined);
      this.other.finish(undefined);
    }
  }
  abort(error: HelixFlowError): void {
    this.finish(error);
    this.other.finish(gone('the peer aborted'));
  }
  finish(error: HelixFlowError | undefined): void {
    if (this.#closed) return;
    this.connection.channels.delete(this);
    this.#deliver((events) => {
      if (this.#closed) return;
      this.#closed = true;
      events.closed(error);
    });
  }
}

let connections = 0;

export class MemoryConnection implements Connection {
  readonly id = ++connections;
  readonly network: MemoryNetwork;
  readonly direction: 'inbound' | 'outbound';
  readonly path = 'direct';
  readonly remoteAddress = '/memory';
  readonly channels = new Set<MemoryChannel>();
  other!: MemoryConnection;
  isOpen = true;
  isAdmitted = false;
  readonly #listeners: (() => void)[] = [];
  readonly #waiting: (() => void)[] = [];

  constructor(network: MemoryNetwork, direction: 'inbound' | 'outbound') {
    this.network = network;
    this.direction = direction;
  }
  get peer(): PeerId {
    return this.other.network.self;
  }
  admit(): void {
    this.isAdmitted = true;
    for (const open of this.#waiting.splice(0)) open();
  }
  async open(protocol: string, signal: AbortSignal): Promise<Channel> {
    const { other } = this;
    const handler = other.network.handlers.get(protocol);
    if (handler === undefined) throw gone('no such protocol');
    if (!handler.options.beforeAdmission && !other.isAdmitted) {
      await new Promise<void>((resolve, reject) => {
        other.#waiting.push(resolve);
        signal.addEventListener('abort', () => reject(signal.reason));
      });
    }
    if (!this.isOpen) throw gone('the connection closed');
    const [ours, theirs] = [new MemoryChannel(this, protocol), new MemoryChannel(other, protocol)];
    ours.other = theirs;
    theirs.other = ours;
    queueMicrotask(() => handler.accept(theirs));
    return ours;
  }
  onClose(listener: () => void): void {
    if (this.isOpen) this.#listeners.push(listener);
    else listener();
  }
  async close(): Promise<void> {
    for (const side of [this, this.other]) {
      if (!side.isOpen) continue;
      side.isOpen = false;
      side.network.open.delete(side);
      for (const channel of side.channels) channel.finish(gone('the connection closed'));
      queueMicrotask(() => {
        for (const listener of side.#listeners.splice(0)) listener();
      });
    }
  }
}

/** Peers of one test. */
export class Hub {
  readonly peers = new Map<PeerId, MemoryNetwork>();
  join(self: PeerId): MemoryNetwork {
    const network = new MemoryNetwork(self, this);
    this.peers.set(self, network);
    return network;
  }
}

export class MemoryNetwork implements Network {
  readonly self: PeerId;
  readonly #hub: Hub;
  readonly handlers = new Map<string, { options: HandlerOptions; accept: (channel: Channel) => void }>();
  readonly open = new Set<MemoryConnection>();
  #listener: (connection: Connection) => void = () => {};

  constructor(self: PeerId, hub: Hub) {
    this.self = self;
    this.#hub = hub;
  }
  addresses(): readonly string[] {
    return [`/memory/${this.self}`];
  }
  connections(): readonly MemoryConnection[] {
    return [...this.open];
  }
  onConnection(listener: (connection: Connection) => void): void {
    this.#listener = listener;
  }
  async connect(peer: PeerId, _addresses: readonly string[], signal: AbortSignal): Promise<MemoryConnection> {
    const target = this.#hub.peers.get(peer);
    signal.throwIfAborted();
    if (target === undefined) throw new HelixFlowError('CONNECT_FAILED', { peer });
    const [ours, theirs] = [new MemoryConnection(this, 'outbound'), new MemoryConnection(target, 'inbound')];
    ours.other = theirs;
    theirs.other = ours;
    for (const side of [theirs, ours]) side.network.open.add(side);
    for (const side of [theirs, ours]) side.network.#listener(side);
    return ours;
  }
  canDial(): Promise<boolean> {
    return Promise.resolve(false);
  }
  reserve({ peer }: Connection): Promise<void> {
    return Promise.reject(new HelixFlowError('RELAY_REFUSED', { peer, reason: 'nobody relays here' }));
  }
  handle(protocol: string, options: HandlerOptions, accept: (channel: Channel) => void): void {
    this.handlers.set(protocol, { options, accept });
  }
  async start(): Promise<void> {}
  async close(): Promise<void> {
    for (const connection of this.open) await connection.close();
  }
}
