/** One libp2p connection as the port sees it, and the wait for its admission. */

import type { Connection as Libp2pConnection } from '@libp2p/interface';
import { HelixFlowError } from '../../errors.ts';
import type { PeerId } from '../../ids.ts';
import { limits } from '../../limits.ts';
import type { Cancel, Channel, Clock, Connection, ConnectionPath } from '../../ports.ts';
import { ms } from '../../units.ts';
import { StreamChannel } from './channel.ts';
import type { TurnEnd } from './turn-end.ts';

/** Streams that one connection may have waiting for its admission; more are refused at once. */
const waitingMax = 16;

export interface ConnectionDeps {
  readonly clock: Clock;
  readonly turnEnd: TurnEnd;
  /** The longest frame of a protocol, as its handler names it. */
  readonly frameMaxBytes: (protocol: string) => number;
  readonly admitted: (connection: PeerConnection) => void;
  /** The connection was aborted: nothing of this peer is to be kept. */
  readonly aborted: (connection: PeerConnection) => void;
}

/** A multiaddr's text without the peer id at its end. */
export const withoutPeer = (address: { toString(): string }): string => address.toString().replace(/\/p2p\/[^/]*$/, '');

export class PeerConnection implements Connection {
  readonly id: number;
  readonly peer: PeerId;
  readonly direction: 'inbound' | 'outbound';
  readonly path: ConnectionPath;
  readonly remoteAddress: string;
  /** For the adapter only. */
  readonly libp2p: Libp2pConnection;
  readonly #deps: ConnectionDeps;
  readonly #channels = new Set<StreamChannel>();
  readonly #waiting = new Set<(isAdmitted: boolean) => void>();
  readonly #listeners: (() => void)[] = [];
  readonly #closed = Promise.withResolvers<void>();
  #isAdmitted = false;
  #isClosed = false;

  constructor(
    facts: { readonly id: number; readonly path: ConnectionPath },
    connection: Libp2pConnection,
    deps: ConnectionDeps,
  ) {
    this.id = facts.id;
    this.path = facts.path;
    this.libp2p = connection;
    this.peer = connection.remotePeer.toString() as PeerId;
    this.direction = connection.direction;
    this.remoteAddress = withoutPeer(connection.remoteAddr);
    this.#deps = deps;
  }

  get isOpen(): boolean {
    return !this.#isClosed && this.libp2p.status === 'open';
  }

  get isAdmitted(): boolean {
    return this.#isAdmitted;
  }

  admit(): void {
    if (this.#isAdmitted || !this.isOpen) return;
    this.#isAdmitted = true;
    this.#settle(true);
    this.#deps.admitted(this);
  }

  /** Resolves to true once admitted; to false when that does not come in time, or never can. */
  whenAdmitted(): Promise<boolean> {
    if (!this.isOpen) return Promise.resolve(false);
    if (this.#isAdmitted || this.#waiting.size >= waitingMax) return Promise.resolve(this.#isAdmitted);
    return new Promise((resolve) => {
      const settle = (isAdmitted: boolean): void => {
        cancel();
        this.#waiting.delete(settle);
        resolve(isAdmitted);
      };
      const cancel: Cancel = this.#deps.clock.timer(ms(limits.helloTimeoutMs), () => settle(false));
      this.#waiting.add(settle);
    });
  }

  async open(protocol: string, signal: AbortSignal): Promise<Channel> {
    try {
      signal.throwIfAborted();
      const stream = await this.libp2p.newStream(protocol, { signal, runOnLimitedConnection: true });
      return this.channel(stream, protocol);
    } catch (cause) {
      throw new HelixFlowError('CHANNEL_CLOSED', { reason: `no stream for ${protocol}` }, { cause });
    }
  }

  /** Wraps a stream of this connection. */
  channel(stream: Awaited<ReturnType<Libp2pConnection['newStream']>>, protocol: string): StreamChannel {
    const { turnEnd, frameMaxBytes } = this.#deps;
    const channel = new StreamChannel(stream, {
      connection: this,
      protocol,
      frameMaxBytes: frameMaxBytes(protocol),
      turnEnd,
      isConnected: () => this.libp2p.status === 'open',
    });
    if (channel.isOpen) {
      this.#channels.add(channel);
      stream.addEventListener('close', () => this.#channels.delete(channel));
    }
    return channel;
  }

  onClose(listener: () => void): void {
    if (this.#isClosed) queueMicrotask(listener);
    else this.#listeners.push(listener);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    for (const channel of [...this.#channels]) channel.leave();
    const closing = this.libp2p.close().catch((error: Error) => {
      // Some stream did not drain within libp2p's own time limit; the connection goes all the same.
      this.libp2p.abort(error);
    });
    // libp2p may wait on a socket that has been reset meanwhile.
    await Promise.race([closing, this.#closed.promise]);
    this.gone();
  }

  abort(): void {
    if (this.#isClosed) return;
    this.libp2p.abort(new HelixFlowError('CHANNEL_CLOSED', { reason: 'the connection was aborted' }));
    this.gone();
    this.#deps.aborted(this);
  }

  /** libp2p says that the connection is gone. */
  gone(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closed.resolve();
    this.#settle(false);
    for (const listener of this.#listeners.splice(0)) listener();
  }

  #settle(isAdmitted: boolean): void {
    for (const settle of [...this.#waiting]) settle(isAdmitted);
  }
}
