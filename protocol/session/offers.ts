/** What a node offers, taken at a bounded rate: each offer costs its taker something. */

import { HelixFlowError } from '../errors.ts';
import type { Offer } from '../messages/session.ts';
import type { Cancel, Clock } from '../ports.ts';
import { ms } from '../units.ts';

const intervalMs = 100;
/** Between two that are taken; beyond it nobody means them. */
const waitingMax = 64;

/** The newest offer of a tenth of a second counts. */
export class OfferIntake {
  readonly #clock: Clock;
  readonly #taken: (offer: Offer) => void;
  #current: Offer | undefined;
  #newest: Offer | undefined;
  #waiting = 0;
  #takenMs = Number.NEGATIVE_INFINITY;
  #cancel: Cancel = () => {};

  constructor(clock: Clock, taken: (offer: Offer) => void) {
    this.#clock = clock;
    this.#taken = taken;
  }

  /** The one that counts now. */
  get current(): Offer | undefined {
    return this.#current;
  }

  /** @throws HelixFlowError PROTOCOL_VIOLATION for a flood. */
  push(offer: Offer): void {
    this.#newest = offer;
    this.#waiting += 1;
    if (this.#waiting > waitingMax) throw new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a flood of offers' });
    if (this.#waiting > 1) return;
    const waitMs = this.#takenMs + intervalMs - this.#clock.nowMs();
    if (waitMs <= 0) this.#take();
    else this.#cancel = this.#clock.timer(ms(waitMs), () => this.#take());
  }

  close(): void {
    this.#cancel();
  }

  #take(): void {
    if (this.#newest === undefined) return;
    this.#waiting = 0;
    this.#takenMs = this.#clock.nowMs();
    this.#current = this.#newest;
    this.#taken(this.#current);
  }
}
