/** The attempts of one call that are under way: one, or two that race for first content. */

import type { RunningAttempt } from './attempt.ts';

/** Of one call. */
export class Race {
  #current: RunningAttempt | undefined;
  #rival: RunningAttempt | undefined;
  /** A second one has been sent for this request, once, or could not be. */
  isHedged = false;

  /** The attempt whose content is in the answer, or the first of two that race for it. */
  get current(): RunningAttempt | undefined {
    return this.#current;
  }

  /** The second of two. */
  get rival(): RunningAttempt | undefined {
    return this.#rival;
  }

  /** The only one, while another may be sent to race with it. */
  get lone(): RunningAttempt | undefined {
    return this.isHedged ? undefined : this.#current;
  }

  has(running: RunningAttempt): boolean {
    return running === this.#current || running === this.#rival;
  }

  add(running: RunningAttempt): void {
    if (running.purpose === 'hedge') {
      this.isHedged = true;
      this.#rival = running;
    } else this.#current = running;
  }

  /** It is over for this one; the other one goes on alone. */
  remove(running: RunningAttempt): void {
    if (running === this.#current) this.#current = this.#rival;
    this.#rival = undefined;
  }

  /** The answer comes from this one. @returns the other one, which is in the race no more. */
  win(winner: RunningAttempt): RunningAttempt | undefined {
    const loser = winner === this.#rival ? this.#current : this.#rival;
    this.#current = winner;
    this.#rival = undefined;
    return loser;
  }

  /** Ends it for all. @returns the one that stood for the call, and the other one. */
  clear(): readonly [current: RunningAttempt | undefined, rival: RunningAttempt | undefined] {
    const all = [this.#current, this.#rival] as const;
    this.#current = undefined;
    this.#rival = undefined;
    return all;
  }
}
