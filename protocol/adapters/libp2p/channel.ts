/** A framed channel over one libp2p stream: whole turns leave as one write, and what libp2p blurs about ends is told apart. */

import type { Stream, StreamCloseEvent, StreamMessageEvent } from '@libp2p/interface';
import { HelixFlowError, toHelixFlowError } from '../../errors.ts';
import { assert } from '../../invariant.ts';
import { limits } from '../../limits.ts';
import type { Channel, ChannelEvents, Connection } from '../../ports.ts';
import { encodeFrames, FrameDecoder } from '../../session/framing.ts';
import type { TurnEnd } from './turn-end.ts';

/** One write takes whole frames up to this many bytes, so that a long queue is not copied at once. */
const writeBytes = 262_144;

export interface ChannelOptions {
  readonly connection: Connection;
  readonly protocol: string;
  readonly frameMaxBytes: number;
  readonly turnEnd: TurnEnd;
  /** True while the connection under the stream stands; a stream that closes without it was cut. */
  readonly isConnected: () => boolean;
}

const gone = (reason: string, cause?: unknown): HelixFlowError<'CHANNEL_CLOSED'> =>
  new HelixFlowError('CHANNEL_CLOSED', { reason }, { cause });

/** Bytes of a `Buffer` as a plain array: a `Buffer`'s `slice` copies nothing, which its owner would find out too late. */
const plain = (bytes: Uint8Array): Uint8Array =>
  Buffer.isBuffer(bytes) ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length) : bytes;

export class StreamChannel implements Channel {
  readonly connection: Connection;
  readonly protocol: string;
  readonly #options: ChannelOptions;
  readonly #stream: Stream;
  readonly #decoder: FrameDecoder;
  readonly #emit: (frame: Uint8Array) => void;
  #events: ChannelEvents | undefined;
  /** Frames not yet handed to the stream; those before `#next` have been. */
  #queue: Uint8Array[] = [];
  #next = 0;
  #queuedBytes = 0;
  #isScheduled = false;
  #owesDrained = false;
  #writing: 'open' | 'ending' | 'ended' | 'closed' = 'open';
  #remoteEnded: boolean;
  #end: { readonly error: HelixFlowError | undefined } | undefined;
  /** Nothing is told to the owner any more, but that the channel is closed. */
  #isOver = false;

  constructor(stream: Stream, options: ChannelOptions) {
    this.connection = options.connection;
    this.protocol = options.protocol;
    this.#options = options;
    this.#stream = stream;
    this.#decoder = new FrameDecoder(options.frameMaxBytes);
    this.#emit = (frame) => {
      if (!this.#isOver) this.#events?.frame(frame);
    };
    this.#remoteEnded = stream.remoteWriteStatus === 'closed';
    stream.addEventListener('drain', this.#onDrain);
    stream.addEventListener('remoteCloseWrite', () => {
      this.#remoteEnded = true;
    });
    stream.addEventListener('end', this.#onEnd);
    stream.addEventListener('close', this.#onClose);
    if (stream.status !== 'open') this.#finish(gone('the stream closed early'));
  }

  get isOpen(): boolean {
    return this.#writing !== 'closed';
  }

  send(frame: Uint8Array): boolean {
    if (this.#writing !== 'open') return true;
    assert(frame.length <= this.#options.frameMaxBytes, 'no frame is sent that is longer than its protocol allows');
    this.#queue.push(frame);
    this.#queuedBytes += frame.length;
    const waitingBytes = this.#waitingBytes();
    if (waitingBytes > limits.channelQueueMaxBytes) {
      this.abort(new HelixFlowError('CHANNEL_OVERFLOW', { bytes: waitingBytes }));
      return true;
    }
    this.#schedule();
    if (waitingBytes <= limits.channelHighWaterBytes) return true;
    this.#owesDrained = true;
    return false;
  }

  receive(events: ChannelEvents): void {
    assert(this.#events === undefined, 'a channel has one receiver');
    this.#events = events;
    if (this.#isOver) {
      queueMicrotask(() => this.#tellClosed());
      return;
    }
    // libp2p hands over what came earlier in a microtask of its own, queued here.
    this.#stream.addEventListener('message', this.#onMessage);
    queueMicrotask(() => {
      if (this.#end === undefined) this.#onEnd();
      else this.#tellClosed();
    });
  }

  end(): void {
    if (this.#writing !== 'open') return;
    this.#writing = 'ending';
    this.#schedule();
  }

  abort(error: HelixFlowError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#finish(error);
    this.#stream.abort(error);
  }

  /** Hands to the stream what it takes; called at the end of a turn, and when the stream can take more. */
  flush(): void {
    this.#isScheduled = false;
    while (this.#next < this.#queue.length && !this.#stream.writableNeedsDrain && this.#isWritable()) this.#write();
    if (this.#next === this.#queue.length) {
      this.#queue = [];
      this.#next = 0;
      if (this.#writing === 'ending') this.#closeWriting();
    }
    if (this.#owesDrained && this.isOpen && this.#waitingBytes() <= limits.channelHighWaterBytes) {
      this.#owesDrained = false;
      this.#tell(() => this.#events?.drained());
    }
  }

  /** The connection goes: what is queued leaves, and a side that was not ended is no clean end. */
  leave(): void {
    this.flush();
    if (this.#writing !== 'ended') this.abort(gone('the connection was closed here'));
  }

  #waitingBytes(): number {
    return this.#queuedBytes + this.#stream.writeBufferLength;
  }

  #isWritable(): boolean {
    return this.#stream.writeStatus === 'writable';
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#options.turnEnd.add(this);
  }

  #write(): void {
    const start = this.#next;
    let bytes = 0;
    while (this.#next < this.#queue.length && bytes < writeBytes) {
      bytes += this.#queue[this.#next]?.length ?? 0;
      this.#next += 1;
    }
    this.#queuedBytes -= bytes;
    const isAll = start === 0 && this.#next === this.#queue.length;
    const frames = isAll ? this.#queue : this.#queue.slice(start, this.#next);
    try {
      this.#stream.send(encodeFrames(frames));
    } catch (error) {
      this.#fail(error, 'the stream takes no more');
    }
  }

  #closeWriting(): void {
    this.#writing = 'ended';
    this.#stream.close().catch((error: unknown) => this.#fail(error, 'the stream could not be ended'));
  }

  /** Runs the owner's code; what it throws ends the channel, unless it is a broken promise of ours. */
  #tell(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#fail(error, 'its owner failed');
    }
  }

  #fail(error: unknown, reason: string): void {
    this.abort(toHelixFlowError(error, (cause) => gone(reason, cause)));
  }

  #onMessage = (event: StreamMessageEvent): void => {
    const { data } = event;
    try {
      if (data instanceof Uint8Array) this.#decoder.push(plain(data), this.#emit);
      else for (const chunk of data) this.#decoder.push(plain(chunk), this.#emit);
    } catch (error) {
      this.#fail(error, 'its owner failed');
    }
  };

  #onDrain = (): void => {
    // libp2p writes what it still holds in a microtask queued before this one.
    queueMicrotask(() => {
      if (this.isOpen) this.flush();
    });
  };

  #onEnd = (): void => {
    if (this.#remoteEnded && !this.#decoder.isBetweenFrames) this.abort(gone('the stream ended inside a frame'));
  };

  #onClose = (event: StreamCloseEvent): void => {
    if (event.error !== undefined) {
      this.#finish(gone(event.local === true ? 'the stream was aborted here' : 'reset by the peer', event.error));
      return;
    }
    const isClean = this.#writing === 'ended' && this.#remoteEnded && this.#options.isConnected();
    this.#finish(isClean && this.#decoder.isBetweenFrames ? undefined : gone('the connection is gone'));
  };

  #finish(error: HelixFlowError | undefined): void {
    if (this.#end !== undefined) return;
    this.#end = { error };
    this.#writing = 'closed';
    this.#queue = [];
    this.#next = 0;
    this.#queuedBytes = 0;
    // Not from within the owner's own call, and after frames that libp2p still holds for a late receiver.
    if (this.#events !== undefined) queueMicrotask(() => this.#tellClosed());
  }

  #tellClosed(): void {
    const events = this.#events;
    this.#isOver = true;
    if (events === undefined || this.#end === undefined) return;
    const { error } = this.#end;
    this.#events = undefined;
    events.closed(error);
  }
}
