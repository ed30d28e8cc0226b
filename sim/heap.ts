/** The queue of everything that will happen: by time, then by a draw of the seed, then by order of scheduling. */

import type { Lifeline } from './kernel.ts';

/** What an event is, for the trace and for the order in which a resumed process catches up. */
export type EventKind = 'timer' | 'io' | 'world';

/** One thing that will happen. */
export interface SimEvent {
  at: number;
  tie: number;
  readonly sequence: number;
  readonly owner: Lifeline;
  readonly kind: EventKind;
  readonly fire: () => void;
  /** `held` while its process is paused; `over` once it has happened or been cancelled. */
  state: 'queued' | 'held' | 'over';
}

const isBefore = (a: SimEvent, b: SimEvent): boolean =>
  a.at !== b.at ? a.at < b.at : a.tie !== b.tie ? a.tie < b.tie : a.sequence < b.sequence;

/** A binary heap; cancelled events stay until they come up, or until they are the most of it. */
export class EventHeap {
  #events: SimEvent[] = [];
  #cancelled = 0;

  get size(): number {
    return this.#events.length - this.#cancelled;
  }

  push(event: SimEvent): void {
    this.#events.push(event);
    this.#rise(this.#events.length - 1, event);
  }

  /** Takes back an event that is in the queue. */
  cancel(event: SimEvent): void {
    event.state = 'over';
    this.#cancelled += 1;
    if (this.#cancelled > 1_024 && this.#cancelled > this.#events.length / 2) this.#compact();
  }

  /** The next event, left in place. */
  peek(): SimEvent | undefined {
    for (let first = this.#events[0]; first !== undefined; first = this.#events[0]) {
      if (first.state === 'queued') return first;
      this.#removeFirst();
      this.#cancelled -= 1;
    }
    return undefined;
  }

  pop(): SimEvent | undefined {
    const first = this.peek();
    if (first !== undefined) this.#removeFirst();
    return first;
  }

  #removeFirst(): void {
    const last = this.#events.pop();
    if (last !== undefined && this.#events.length > 0) this.#sink(0, last);
  }

  #rise(from: number, event: SimEvent): void {
    const events = this.#events;
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = events[parent] as SimEvent;
      if (!isBefore(event, above)) break;
      events[at] = above;
      at = parent;
    }
    events[at] = event;
  }

  #sink(from: number, event: SimEvent): void {
    const events = this.#events;
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= events.length) break;
      const right = child + 1;
      if (right < events.length && isBefore(events[right] as SimEvent, events[child] as SimEvent)) child = right;
      const below = events[child] as SimEvent;
      if (!isBefore(below, event)) break;
      events[at] = below;
      at = child;
    }
    events[at] = event;
  }

  #compact(): void {
    this.#events = this.#events.filter((event) => event.state === 'queued');
    this.#cancelled = 0;
    for (let at = (this.#events.length >> 1) - 1; at >= 0; at -= 1) this.#sink(at, this.#events[at] as SimEvent);
  }
}
