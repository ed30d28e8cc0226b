/** One end of a simulated channel: frames in order, back-pressure, and exactly one end. */

import { HelixFlowError, toHelixFlowError } from '../protocol/errors.ts';
import { assert } from '../protocol/invariant.ts';
import { limits } from '../protocol/limits.ts';
import type { Channel, ChannelEvents } from '../protocol/ports.ts';
import type { SimConnection } from './connection.ts';

type Incoming = { readonly frame: Uint8Array } | { readonly closed: HelixFlowError | undefined };

/** What a frame becomes once its time is over: whoever kept it without copying will notice. */
const scribble = 0xdb;

export const channelGone = (reason: string): HelixFlowError => new HelixFlowError('CHANNEL_CLOSED', { reason });

export class SimChannel implements Channel {
  readonly connection: SimConnection;
  readonly protocol: string;
  readonly number: number;
  readonly #frameMaxBytes: number;
  #events: ChannelEvents | undefined;
  /** What came before its receiver, or before an earlier call returned. */
  #inbox: Incoming[] = [];
  #isHandingOver = false;
  #isCalling = false;
  /** Bytes that were sent and that the peer's owner has not been given. */
  #waitingBytes = 0;
  #isFull = false;
  #hasEnded = false;
  #peerHasEnded = false;
  #isOver = false;

  constructor(connection: SimConnection, protocol: string, number: number, frameMaxBytes: number) {
    this.connection = connection;
    this.protocol = protocol;
    this.number = number;
    this.#frameMaxBytes = frameMaxBytes;
  }

  send(frame: Uint8Array): boolean {
    this.connection.check();
    if (this.#isOver || this.#hasEnded) return true;
    this.#waitingBytes += frame.length;
    if (this.#waitingBytes > limits.channelQueueMaxBytes) {
      this.abort(new HelixFlowError('CHANNEL_OVERFLOW', { bytes: this.#waitingBytes }));
      return false;
    }
    this.connection.push({ kind: 'frame', channel: this.number, bytes: frame });
    if (this.#waitingBytes <= limits.channelHighWaterBytes) return true;
    this.#isFull = true;
    return false;
  }

  receive(events: ChannelEvents): void {
    this.connection.check();
    assert(this.#events === undefined, 'a channel has one owner');
    this.#events = events;
    if (this.#inbox.length > 0) this.#handOverSoon();
  }

  end(): void {
    this.connection.check();
    if (this.#isOver || this.#hasEnded) return;
    this.#hasEnded = true;
    this.connection.push({ kind: 'end', channel: this.number });
    if (this.#peerHasEnded) this.#finish(undefined);
  }

  abort(error: HelixFlowError): void {
    this.connection.check();
    if (this.#isOver) return;
    this.connection.dropQueued(this.number);
    this.connection.push({ kind: 'reset', channel: this.number });
    this.#inbox = [];
    this.#finish(error);
  }

  /** A frame from the peer. */
  take(frame: Uint8Array): void {
    if (this.#isOver) return;
    if (frame.length > this.#frameMaxBytes) {
      this.#inboxFirst(new HelixFlowError('FRAME_TOO_LARGE', { bytes: frame.length, maxBytes: this.#frameMaxBytes }));
      return;
    }
    this.#inbox.push({ frame });
    this.#handOver();
  }

  /** What came before is still handed over; then the channel is aborted. */
  #inboxFirst(error: HelixFlowError): void {
    const kept = this.#inbox;
    this.abort(error);
    this.#inbox.unshift(...kept);
  }

  peerEnded(): void {
    this.#peerHasEnded = true;
    if (this.#hasEnded) this.#finish(undefined);
  }

  /** The peer, or the connection, is gone. */
  cut(reason: string): void {
    this.#finish(channelGone(reason));
  }

  #finish(error: HelixFlowError | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.connection.forget(this.number);
    this.#inbox.push({ closed: error });
    this.#handOverSoon();
  }

  #handOverSoon(): void {
    if (this.#isHandingOver) return;
    this.#isHandingOver = true;
    this.connection.later(() => {
      this.#isHandingOver = false;
      this.#handOver();
    });
  }

  #handOver(): void {
    const events = this.#events;
    if (events === undefined || this.#isHandingOver || this.#isCalling) return;
    this.#isCalling = true;
    for (let next = this.#inbox.shift(); next !== undefined; next = this.#inbox.shift()) this.#give(events, next);
    this.#isCalling = false;
  }

  #give(events: ChannelEvents, incoming: Incoming): void {
    if ('closed' in incoming) {
      events.closed(incoming.closed);
      return;
    }
    const { frame } = incoming;
    this.connection.taken(this.number, frame.length);
    try {
      events.frame(frame);
    } catch (error) {
      this.abort(
        toHelixFlowError(error, (cause) => {
          throw cause;
        }),
      );
    }
    frame.fill(scribble);
  }

  /** The peer's owner has been given this much of what we sent. */
  delivered(bytes: number): void {
    this.#waitingBytes -= bytes;
    if (!this.#isFull || this.#waitingBytes > limits.channelHighWaterBytes) return;
    this.#isFull = false;
    this.connection.later(() => {
      if (!this.#isOver) this.#events?.drained();
    });
  }
}
