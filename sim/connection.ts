/** One end of a simulated connection: its channels, its admission, its end. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { Channel, Connection, ConnectionPath, HandlerOptions } from '../protocol/ports.ts';
import { channelGone, SimChannel } from './channel.ts';
import type { SimEvent } from './heap.ts';
import type { Kernel, Lifeline } from './kernel.ts';
import type { HostId } from './links.ts';
import type { Packet, Wire } from './wire.ts';

/** The network that a connection belongs to, as far as it must know it. */
export interface ConnectionOwner {
  readonly self: PeerId;
  readonly lifeline: Lifeline;
  readonly hostId: HostId;
  addresses(): readonly string[];
  handler(
    protocol: string,
  ): { readonly options: HandlerOptions; readonly accept: (channel: Channel) => void } | undefined;
  forget(connection: SimConnection): void;
  admitted(connection: SimConnection): void;
}

interface Opening {
  readonly protocol: string;
  resolve(channel: Channel): void;
  reject(error: HelixFlowError): void;
}

export interface ConnectionFacts {
  readonly id: number;
  readonly peer: PeerId;
  readonly direction: 'inbound' | 'outbound';
  readonly path: ConnectionPath;
  readonly remoteAddress: string;
}

export class SimConnection implements Connection {
  readonly id: number;
  readonly peer: PeerId;
  readonly direction: 'inbound' | 'outbound';
  readonly path: ConnectionPath;
  readonly remoteAddress: string;
  readonly #kernel: Kernel;
  readonly #owner: ConnectionOwner;
  /** From here to there; set when the pair is made. */
  #wire: Wire | undefined;
  #other: SimConnection | undefined;
  readonly #channels = new Map<number, SimChannel>();
  readonly #opening = new Map<number, Opening>();
  /** Opens of the peer that wait for its admission. */
  readonly #waiting = new Map<number, { readonly protocol: string; readonly timeout: SimEvent }>();
  #listeners: (() => void)[] = [];
  #nextChannel: number;
  #isOpen = true;
  #isAdmitted = false;

  constructor(kernel: Kernel, owner: ConnectionOwner, facts: ConnectionFacts) {
    this.#kernel = kernel;
    this.#owner = owner;
    this.id = facts.id;
    this.peer = facts.peer;
    this.direction = facts.direction;
    this.path = facts.path;
    this.remoteAddress = facts.remoteAddress;
    this.#nextChannel = facts.direction === 'outbound' ? 0 : 1;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  get isAdmitted(): boolean {
    return this.#isAdmitted;
  }

  get lifeline(): Lifeline {
    return this.#owner.lifeline;
  }

  get hostId(): HostId {
    return this.#owner.hostId;
  }

  /** Where the peer says it can be dialled: what libp2p's identify tells. */
  get remoteListens(): readonly string[] {
    return this.#other === undefined ? [] : this.#other.#owner.addresses();
  }

  /** The other end. */
  get other(): SimConnection | undefined {
    return this.#other;
  }

  /** The wire that carries what this end sends. */
  get wire(): Wire | undefined {
    return this.#wire;
  }

  pair(other: SimConnection, wire: Wire): void {
    this.#other = other;
    this.#wire = wire;
  }

  check(): void {
    this.#owner.lifeline.check();
  }

  admit(): void {
    this.check();
    if (!this.#isOpen || this.#isAdmitted) return;
    this.#isAdmitted = true;
    this.#owner.admitted(this);
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    this.later(() => {
      for (const [channel, { protocol, timeout }] of waiting) {
        this.#kernel.cancel(timeout);
        if (this.#isOpen) this.#accept(channel, protocol);
      }
    });
  }

  open(protocol: string, signal: AbortSignal): Promise<Channel> {
    this.check();
    return new Promise((resolve, reject) => {
      if (!this.#isOpen || signal.aborted) {
        reject(channelGone(this.#isOpen ? 'given up' : 'the connection is closed'));
        return;
      }
      const channel = this.#nextChannel;
      this.#nextChannel += 2;
      const giveUp = (): void => {
        this.#opening.delete(channel);
        this.push({ kind: 'reset', channel });
        reject(channelGone('given up'));
      };
      const settle = (): void => signal.removeEventListener('abort', giveUp);
      this.#opening.set(channel, {
        protocol,
        resolve: (opened) => {
          settle();
          resolve(opened);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      });
      signal.addEventListener('abort', giveUp, { once: true });
      this.push({ kind: 'open', channel, protocol });
    });
  }

  onClose(listener: () => void): void {
    this.check();
    if (this.#isOpen) this.#listeners.push(listener);
    else this.later(listener);
  }

  async close(): Promise<void> {
    this.check();
    if (!this.#isOpen) return;
    this.push({ kind: 'close' });
    this.#end('the connection was closed here');
  }

  /** Something that the host does to this process, in a later turn. */
  later(run: () => void): void {
    this.#kernel.schedule(0, run, this.#owner.lifeline, 'io');
  }

  push(packet: Packet): void {
    this.#wire?.push(packet);
  }

  dropQueued(channel: number): void {
    this.#wire?.drop(channel);
  }

  forget(channel: number): void {
    this.#channels.delete(channel);
  }

  /** Tells the sender of a frame that its receiver has it. */
  taken(channel: number, bytes: number): void {
    this.#other?.delivered(channel, bytes);
  }

  delivered(channel: number, bytes: number): void {
    if (this.#owner.lifeline.isAlive) this.#channels.get(channel)?.delivered(bytes);
  }

  /** The connection is gone, and nobody said so: noticed in the process's next turn. */
  cut(reason: string): void {
    if (this.#isOpen && this.#owner.lifeline.isAlive) this.later(() => this.#end(reason));
  }

  /** A packet of the other end. */
  receive(packet: Packet): void {
    if (!this.#isOpen) return;
    switch (packet.kind) {
      case 'frame':
        this.#channels.get(packet.channel)?.take(packet.bytes);
        break;
      case 'open':
        this.#opened(packet.channel, packet.protocol);
        break;
      case 'accept':
        this.#accepted(packet.channel);
        break;
      case 'end':
        this.#channels.get(packet.channel)?.peerEnded();
        break;
      case 'reset':
        this.#reset(packet.channel);
        break;
      case 'close':
        this.#end('the peer closed the connection');
        break;
    }
  }

  #opened(channel: number, protocol: string): void {
    const handler = this.#owner.handler(protocol);
    if (handler === undefined) this.push({ kind: 'reset', channel });
    else if (handler.options.beforeAdmission || this.#isAdmitted) this.#accept(channel, protocol);
    else {
      const refuse = (): void => {
        if (this.#waiting.delete(channel)) this.push({ kind: 'reset', channel });
      };
      const timeout = this.#kernel.schedule(limits.helloTimeoutMs, refuse, this.#owner.lifeline, 'io');
      this.#waiting.set(channel, { protocol, timeout });
    }
  }

  #accept(number: number, protocol: string): void {
    const handler = this.#owner.handler(protocol);
    if (handler === undefined) return;
    const channel = new SimChannel(this, protocol, number, handler.options.frameMaxBytes);
    this.#channels.set(number, channel);
    this.push({ kind: 'accept', channel: number });
    handler.accept(channel);
  }

  #accepted(number: number): void {
    const opening = this.#opening.get(number);
    if (opening === undefined) return;
    this.#opening.delete(number);
    const frameMaxBytes = this.#owner.handler(opening.protocol)?.options.frameMaxBytes ?? limits.frameMaxBytes;
    const channel = new SimChannel(this, opening.protocol, number, frameMaxBytes);
    this.#channels.set(number, channel);
    opening.resolve(channel);
  }

  #reset(number: number): void {
    const waiting = this.#waiting.get(number);
    if (waiting !== undefined) this.#kernel.cancel(waiting.timeout);
    this.#waiting.delete(number);
    const opening = this.#opening.get(number);
    this.#opening.delete(number);
    opening?.reject(channelGone('the peer refused it'));
    this.#channels.get(number)?.cut('the peer reset it');
  }

  #end(reason: string): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#owner.forget(this);
    for (const { timeout } of this.#waiting.values()) this.#kernel.cancel(timeout);
    this.#waiting.clear();
    for (const opening of this.#opening.values()) opening.reject(channelGone(reason));
    this.#opening.clear();
    for (const channel of [...this.#channels.values()]) channel.cut(reason);
    const listeners = this.#listeners;
    this.#listeners = [];
    this.later(() => {
      for (const listener of listeners) listener();
    });
  }

  /** For checks of leaks: channels that are open. */
  get channelsOpen(): number {
    return this.#channels.size;
  }

  /** What a connection that could not be made fails with. */
  static refused(peer: PeerId): HelixFlowError {
    return new HelixFlowError('CONNECT_FAILED', { peer });
  }
}
