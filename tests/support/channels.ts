/** Two ends of a channel in memory, delivered by hand: tests decide when, how much, and when it breaks. */

import type { HelixFlowError } from '../../protocol/errors.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { Channel, ChannelEvents, Connection } from '../../protocol/ports.ts';
import { encodeFrames, FrameDecoder } from '../../protocol/session/framing.ts';

let connections = 0;

class End implements Channel {
  readonly protocol = 'test';
  readonly connection: Connection;
  readonly queue: Uint8Array[] = [];
  other!: End;
  events: ChannelEvents | undefined;
  isClosed = false;
  isEnded = false;
  closedWith: HelixFlowError | undefined;
  /** So many more bytes get through before the connection breaks, in the middle of a frame if it has to be. */
  bytesLeft = Number.POSITIVE_INFINITY;
  /** Bytes that have got through. */
  bytesPassed = 0;
  readonly #decoder = new FrameDecoder(limits.frameMaxBytes);
  #isBackedUp = false;

  constructor(connection: Connection) {
    this.connection = connection;
  }

  send(frame: Uint8Array): boolean {
    if (this.isClosed || this.isEnded) return true;
    this.queue.push(frame);
    const waiting = this.queue.reduce((sum, { length }) => sum + length, 0);
    this.#isBackedUp = waiting > limits.channelHighWaterBytes;
    return !this.#isBackedUp;
  }

  receive(events: ChannelEvents): void {
    this.events = events;
  }

  end(): void {
    this.isEnded = true;
    if (this.queue.length === 0 && this.other.isEnded && this.other.queue.length === 0) {
      this.close(undefined);
      this.other.close(undefined);
    }
  }

  abort(error: HelixFlowError): void {
    this.queue.length = 0;
    this.close(error);
  }

  close(error: HelixFlowError | undefined): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.closedWith = error;
    this.events?.closed(error);
  }

  /** Delivers up to `count` frames to the other end. @returns how many. */
  deliver(count = Number.POSITIVE_INFINITY): number {
    let delivered = 0;
    while (delivered < count) {
      const frame = this.queue.shift();
      if (frame === undefined) break;
      delivered += 1;
      this.#pass(encodeFrames([frame]));
    }
    if (this.#isBackedUp && this.queue.length === 0) {
      this.#isBackedUp = false;
      this.events?.drained();
    }
    if (this.isEnded && this.queue.length === 0 && this.other.isEnded && this.other.queue.length === 0) {
      this.close(undefined);
      this.other.close(undefined);
    }
    return delivered;
  }

  /** The connection breaks: what is on its way is lost. */
  cut(): void {
    for (const end of [this, this.other]) end.queue.length = 0;
    for (const end of [this, this.other]) end.close(undefined);
  }

  #pass(bytes: Uint8Array): void {
    const part = bytes.subarray(0, this.bytesLeft);
    this.bytesLeft -= part.length;
    this.bytesPassed += part.length;
    this.#decoder.push(part, (frame) => {
      if (!this.other.isClosed) this.other.events?.frame(frame);
    });
    if (this.bytesLeft === 0) this.cut();
  }
}

export type ChannelEnd = End;

const connection = (peer: PeerId, direction: 'inbound' | 'outbound'): Connection => {
  connections += 1;
  return {
    id: connections,
    peer,
    direction,
    path: 'direct',
    remoteAddress: '/ip4/127.0.0.1/tcp/1',
    isOpen: true,
    isAdmitted: true,
    admit: () => {},
    open: () => Promise.reject(new Error('not used')),
    onClose: () => {},
    close: () => Promise.resolve(),
  };
};

/** A channel that `a` dialled to `b`. */
export function channelPair(a: PeerId, b: PeerId): { a: End; b: End; settle: () => void; cut: () => void } {
  const endA = new End(connection(b, 'outbound'));
  const endB = new End(connection(a, 'inbound'));
  endA.other = endB;
  endB.other = endA;
  return {
    a: endA,
    b: endB,
    /** Delivers until nothing moves. */
    settle: () => {
      while (endA.deliver() + endB.deliver() > 0);
    },
    cut: () => endA.cut(),
  };
}
