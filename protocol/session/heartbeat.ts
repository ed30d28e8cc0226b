/** Notices a silent peer: pings when nothing is heard, and judges only after having listened. */

import { limits } from '../limits.ts';
import type { Cancel, Clock } from '../ports.ts';
import { type Ms, ms } from '../units.ts';

interface HeartbeatEvents {
  ping(): void;
  /** The peer owes a sign of life for this long, while attempts run or it is probed; called once until it is heard again. */
  suspect(silentMs: Ms): void;
  /** The peer owes a sign of life for `limits.sessionSilentMs`. */
  dead(silentMs: Ms): void;
}

/** The silence of one peer, measured from the oldest thing we sent that it has not followed with anything. */
export class Heartbeat {
  readonly #clock: Clock;
  readonly #events: HeartbeatEvents;
  #unansweredSinceMs: Ms | undefined;
  #lastHeardMs: Ms;
  #isActive = false;
  /** The peer was asked out of turn: until it is heard, it is watched as closely as while attempts run. */
  #isProbing = false;
  #isSuspect = false;
  #cancelTimer: Cancel = () => {};
  #dueMs: Ms = ms(0);
  #isStopped = false;

  constructor(clock: Clock, events: HeartbeatEvents) {
    this.#clock = clock;
    this.#events = events;
    this.#lastHeardMs = clock.nowMs();
    this.#schedule();
  }

  /** How long the peer has owed a sign of life. */
  get silentMs(): Ms {
    return ms(this.#unansweredSinceMs === undefined ? 0 : this.#clock.nowMs() - this.#unansweredSinceMs);
  }

  /** When anything last came. */
  get lastHeardMs(): Ms {
    return this.#lastHeardMs;
  }

  get isSuspect(): boolean {
    return this.#isSuspect;
  }

  /** Any frame came. */
  heard(): void {
    this.#lastHeardMs = this.#clock.nowMs();
    this.#unansweredSinceMs = undefined;
    this.#isSuspect = false;
    this.#isProbing = false;
  }

  /** Asks now, because others have fallen silent. */
  probe(): void {
    if (this.#isProbing || this.#isStopped) return;
    this.#isProbing = true;
    this.asked();
    this.#events.ping();
    this.#schedule();
  }

  /** Something went out that a living peer follows with a frame. */
  asked(): void {
    this.#unansweredSinceMs ??= this.#clock.nowMs();
  }

  /** Attempts run (short interval), or none do. */
  setActive(isActive: boolean): void {
    if (isActive === this.#isActive) return;
    this.#isActive = isActive;
    if (isActive) this.#schedule();
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelTimer();
  }

  /** Watched closely. */
  get #isClose(): boolean {
    return this.#isActive || this.#isProbing;
  }

  get #intervalMs(): Ms {
    return ms(this.#isClose ? limits.heartbeatActiveMs : limits.heartbeatIdleMs);
  }

  #schedule(): void {
    if (this.#isStopped) return;
    this.#cancelTimer();
    const interval = this.#intervalMs;
    this.#dueMs = ms(this.#clock.nowMs() + interval);
    this.#cancelTimer = this.#clock.timer(interval, () => this.#tick());
  }

  #tick(): void {
    const lateMs = this.#clock.nowMs() - this.#dueMs;
    if (lateMs < limits.heartbeatActiveMs / 2) {
      this.#judge();
      return;
    }
    // A process that was late itself has frames waiting: read one full turn before blaming the peer.
    void this.#clock.turn().then(() => this.#judge());
  }

  #judge(): void {
    if (this.#isStopped) return;
    const silent = this.silentMs;
    if (silent >= limits.sessionSilentMs) {
      this.#events.dead(silent);
      return;
    }
    const interval = this.#intervalMs;
    if (this.#isClose && !this.#isSuspect && silent >= limits.heartbeatActiveMs * limits.heartbeatMissesMax) {
      this.#isSuspect = true;
      this.#events.suspect(silent);
      if (this.#isStopped) return;
    }
    if (silent > 0 || this.#clock.nowMs() - this.#lastHeardMs >= interval / 2) {
      this.asked();
      this.#events.ping();
    }
    this.#schedule();
  }
}
