/** One direction of a simulated connection: what was sent arrives in order, late, or while the way is blocked not at all. */

import type { Kernel, Lifeline } from './kernel.ts';
import type { HostId } from './links.ts';
import type { WireLinks } from './relay.ts';

/** What travels on a connection; `channel` names one of its channels by the number its opener gave it. */
export type Packet =
  | { readonly kind: 'open'; readonly channel: number; readonly protocol: string }
  | { readonly kind: 'accept'; readonly channel: number }
  | { readonly kind: 'frame'; readonly channel: number; readonly bytes: Uint8Array }
  | { readonly kind: 'end'; readonly channel: number }
  | { readonly kind: 'reset'; readonly channel: number }
  | { readonly kind: 'close' };

/** Where a wire leads, and how its sender hears that it leads nowhere. */
export interface WireEnds {
  readonly from: HostId;
  readonly to: HostId;
  readonly receiver: Lifeline;
  /** Called in the receiver's process. */
  receive(packet: Packet): void;
  /** Nobody there answers for this connection: the receiver is dead, or what was sent never got through. */
  unanswered(): void;
}

const headerBytes = 12;
/** A piece of a large write, so that it drains bit by bit. */
const segmentBytes = 65_536;
/** Sending in vain for this long ends the connection at its sender. */
const givesUpMs = 60_000;

const sizeOf = (packet: Packet): number => headerBytes + (packet.kind === 'frame' ? packet.bytes.length : 0);

export class Wire {
  readonly #kernel: Kernel;
  readonly #links: WireLinks;
  readonly #ends: WireEnds;
  /** Of this turn of the event loop. */
  #outbox: Packet[] = [];
  #isFlushDue = false;
  /** Under way, in order. */
  readonly #flying: Packet[][] = [];
  /** Sent in vain, and to be sent again when the way is open. */
  #stalled: Packet[] = [];
  #stalledMs = 0;
  #isResuming = false;
  #busyMs = 0;
  #lastArrivalMs: number;
  #isOver = false;

  constructor(kernel: Kernel, links: WireLinks, ends: WireEnds) {
    this.#kernel = kernel;
    this.#links = links;
    this.#ends = ends;
    this.#lastArrivalMs = kernel.nowMs;
  }

  /** Nothing arrives before this moment of true time. */
  holdUntil(atMs: number): void {
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, atMs);
  }

  /** Sends with everything else of this turn. */
  push(packet: Packet): void {
    if (this.#isOver) return;
    this.#outbox.push(packet);
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    this.#kernel.afterTurn(() => this.#flush());
  }

  /** Takes back what a channel wanted to send and has not. */
  drop(channel: number): void {
    this.#outbox = this.#outbox.filter((packet) => packet.kind === 'close' || packet.channel !== channel);
  }

  /** Nothing more is sent or arrives. */
  end(): void {
    this.#isOver = true;
    this.#outbox = [];
    this.#stalled = [];
    this.#flying.length = 0;
  }

  #flush(): void {
    const packets = this.#outbox;
    this.#outbox = [];
    this.#isFlushDue = false;
    if (this.#isOver || packets.length === 0) return;
    const { from, to, receiver } = this.#ends;
    for (const packet of packets) {
      this.#kernel.trace.add(packet.kind.length);
      if (packet.kind === 'frame') this.#kernel.trace.addBytes(packet.bytes);
    }
    if (!receiver.isAlive) {
      const roundTripMs = this.#links.latencyMs(from, to) + this.#links.latencyMs(to, from);
      this.#kernel.schedule(roundTripMs, () => this.#ends.unanswered());
      return;
    }
    for (const segment of this.#cut(packets)) this.#depart(segment);
  }

  /** TCP keeps no message boundaries: a write may arrive in two reads, and a long one in many. */
  #cut(packets: Packet[]): Packet[][] {
    const segments: Packet[][] = [];
    let segment: Packet[] = [];
    let bytes = 0;
    for (const packet of packets) {
      const isTorn = segment.length > 0 && this.#links.random.int(16) === 0;
      if (isTorn || bytes >= segmentBytes) {
        segments.push(segment);
        segment = [];
        bytes = 0;
      }
      segment.push(packet);
      bytes += sizeOf(packet);
    }
    segments.push(segment);
    return segments;
  }

  #depart(segment: Packet[]): void {
    const { from, to } = this.#ends;
    const bytes = segment.reduce((sum, packet) => sum + sizeOf(packet), 0);
    this.#busyMs = Math.max(this.#busyMs, this.#kernel.nowMs) + this.#links.sendingMs(bytes, from, to);
    const arrivalMs = Math.max(this.#busyMs + this.#links.latencyMs(from, to), this.#lastArrivalMs + 1e-6);
    this.#lastArrivalMs = arrivalMs;
    this.#flying.push(segment);
    this.#kernel.scheduleAt(arrivalMs, () => this.#arrive(), this.#ends.receiver, 'io');
  }

  /** The next one arrives, whichever event it is: order is the wire's promise. */
  #arrive(): void {
    const segment = this.#flying.shift();
    if (segment === undefined || this.#isOver) return;
    const { from, to } = this.#ends;
    if (this.#stalled.length > 0 || this.#links.stops(from, to)) {
      this.#stall(segment);
      return;
    }
    for (const packet of segment) {
      if (this.#isOver) return;
      this.#ends.receive(packet);
    }
  }

  get #isBlocked(): boolean {
    return this.#links.isBlocked(this.#ends.from, this.#ends.to);
  }

  get isStalled(): boolean {
    return this.#stalled.length > 0;
  }

  #stall(segment: readonly Packet[]): void {
    if (this.#stalled.length === 0) {
      this.#stalledMs = this.#kernel.nowMs;
      const started = this.#stalledMs;
      this.#kernel.schedule(givesUpMs, () => {
        if (this.isStalled && this.#stalledMs === started && this.#isBlocked) this.#ends.unanswered();
      });
    }
    this.#stalled.push(...segment);
  }

  /** The way may be open again: what was lost is sent again, after a pause that grew with the time of trying. */
  healed(): void {
    if (this.#stalled.length === 0 || this.#isResuming || this.#isBlocked) return;
    this.#isResuming = true;
    const pauseMs = this.#links.random.float() * (200 + this.#kernel.nowMs - this.#stalledMs);
    this.#kernel.schedule(pauseMs, () => this.#resume(), this.#ends.receiver, 'io');
  }

  #resume(): void {
    this.#isResuming = false;
    if (this.#isOver || this.#isBlocked) return;
    const packets = this.#stalled;
    this.#stalled = [];
    for (const packet of packets) {
      if (this.#isOver) return;
      this.#ends.receive(packet);
    }
  }
}
