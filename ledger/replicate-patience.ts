/** How long a peer may take over an answer before others are asked for what it was to give. */

import { wantMinBytes } from '../protocol/messages/ledger.ts';
import type { Cancel, Clock } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';

/** Without an answer for this long another peer is asked. */
const stallMs = ms(15_000);
/** Who takes longer than this for less than a small answer lets others be asked first. */
const slowMs = 5_000;

interface PatienceEvents {
  /** Something is asked for and not yet given. */
  isWaiting(): boolean;
  /** It is over: others may be asked. */
  lost(): void;
  /** The peer may be asked again. */
  regained(): void;
}

export class Patience {
  readonly #clock: Clock;
  readonly #events: PatienceEvents;
  #cancel: Cancel = () => {};
  #oldestMs = 0;
  /** Of the oldest answer, since the peer was last watched. */
  #cameBytes = 0;
  #isLost = false;
  #isOver = false;

  constructor(clock: Clock, events: PatienceEvents) {
    this.#clock = clock;
    this.#events = events;
  }

  /** The peer is not to be asked now. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** From now on the oldest want waits. */
  next(): void {
    this.#oldestMs = this.#clock.nowMs();
    this.#watch();
  }

  #watch(): void {
    this.#cancel();
    this.#cameBytes = 0;
    this.#cancel = this.#clock.timer(stallMs, () => {
      if (this.#events.isWaiting()) this.#lose();
    });
  }

  #lose(): void {
    if (this.#isOver) return;
    this.#isLost = true;
    this.#events.lost();
  }

  /**
   * A part of the oldest answer came. A little now and then is none: whoever gives no more would hold back what others have.
   * @param gotBytes Of the whole answer so far.
   */
  answered(isLast: boolean, bytes: number, gotBytes: number): void {
    this.#cameBytes += bytes;
    if (!isLast && this.#cameBytes < wantMinBytes) return;
    const isSlow = isLast && gotBytes < wantMinBytes && this.#clock.nowMs() - this.#oldestMs > slowMs;
    this.#isLost = false;
    if (isLast) this.next();
    else this.#watch();
    if (!isSlow) return;
    this.#lose();
    this.#clock.timer(stallMs, () => {
      this.#isLost = false;
      if (!this.#isOver) this.#events.regained();
    });
  }

  close(): void {
    this.#isOver = true;
    this.#cancel();
  }
}
