/** How fast the requests of one model find a place while others wait: measured only then, since an idle model lets nobody go. */

import { type Ms, ms } from '../../protocol/units.ts';

/** What is older than this hardly counts. */
const memoryMs = 10_000;
const unknownMs = 1_000;
const leastMs = 250;
const mostMs = 60_000;

/** A rate that forgets; time without anybody waiting does not pass for it. */
export class Departures {
  #count = 0;
  #busyMs = 0;
  #sinceMs: number | undefined;

  /** From now on so many wait. */
  waiting(size: number, nowMs: Ms): void {
    this.#advance(nowMs);
    this.#sinceMs = size > 0 ? nowMs : undefined;
  }

  /** An attempt has ended, and left room for another. */
  left(nowMs: Ms): void {
    if (this.#sinceMs === undefined) return;
    this.#advance(nowMs);
    this.#count += 1;
  }

  /** Until whoever has so many before it should find a place: 250 ms to a minute; a second where nobody has ever waited. */
  untilMs(ahead: number, nowMs: Ms): Ms {
    this.#advance(nowMs);
    if (this.#busyMs === 0) return ms(unknownMs);
    // Where none has left yet, one may leave next.
    const perDepartureMs = this.#busyMs / Math.max(1, this.#count);
    return ms(Math.ceil(Math.min(mostMs, Math.max(leastMs, (ahead + 1) * perDepartureMs))));
  }

  #advance(nowMs: Ms): void {
    if (this.#sinceMs === undefined) return;
    const share = Math.exp(-(nowMs - this.#sinceMs) / memoryMs);
    this.#count *= share;
    this.#busyMs = this.#busyMs * share + memoryMs * (1 - share);
    this.#sinceMs = nowMs;
  }
}
