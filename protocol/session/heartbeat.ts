/** Notices a silent peer: pings when nothing is heard, and judges only after having listened. */

import { limits } from '../limits.ts';
import type { Cancel, Clock } from '../ports.ts';
import { type Ms, ms } from '../units.ts';

/** An idle peer that has not answered by then is asked again and again. */
const answerMs = ms(2 * limits.heartbeatActiveMs);

/** How often a gateway asks each node that has nothing to do, by how many sessions it has. */
export const watchIntervalMs = (sessions: number): Ms => {
  const crowdedMs = (1_000 * sessions) / limits.heartbeatWatchesPerSecondMax;
  return ms(Math.min(Math.max(limits.heartbeatWatchMs, crowdedMs), limits.heartbeatIdleMs));
};

interface HeartbeatEvents {
  ping(): void;
  /** The peer owes a sign of life for this long, while it is watched closely; called once until it is heard again. */
  suspect(silentMs: Ms): void;
  /** The peer owes a sign of life for `limits.sessionSilentMs`. */
  dead(silentMs: Ms): void;
}

/**
 * The silence of one peer. Two clocks run: since we asked and got no answer of any kind, and since the oldest ping without
 * its pong. Only answers count: on a link that carries one way only, the peer's own pings still arrive (found in the
 * simulator). The second clock is slower, since on a slow link a pong waits behind the answers before it.
 */
export class Heartbeat {
  readonly #clock: Clock;
  readonly #events: HeartbeatEvents;
  readonly #idleMs: () => Ms;
  #unansweredSinceMs: Ms | undefined;
  #unpongedSinceMs: Ms | undefined;
  #lastHeardMs: Ms;
  #isActive = false;
  /** The peer was asked out of turn, or is late: until it answers, it is watched as closely as while attempts run. */
  #isProbing = false;
  #isSuspect = false;
  #cancelTimer: Cancel = () => {};
  #dueMs: Ms = ms(0);
  #isStopped = false;

  /** @param idleMs How often the peer is asked while nothing runs. */
  constructor(clock: Clock, events: HeartbeatEvents, idleMs: () => Ms) {
    this.#idleMs = idleMs;
    this.#clock = clock;
    this.#events = events;
    this.#lastHeardMs = clock.nowMs();
    this.#schedule(idleMs());
  }

  /** How long the peer has owed a sign of life. */
  get silentMs(): Ms {
    return this.#since(this.#unansweredSinceMs);
  }

  /** Silent, or out of our reach, for so long that any new session is better. */
  get isStale(): boolean {
    return Math.max(this.silentMs, this.#since(this.#unpongedSinceMs)) >= limits.sessionStaleMs;
  }

  /** When an answer last came. */
  get lastHeardMs(): Ms {
    return this.#lastHeardMs;
  }

  get isSuspect(): boolean {
    return this.#isSuspect;
  }

  /** A frame came that answers something we sent. */
  answered(): void {
    this.#lastHeardMs = this.#clock.nowMs();
    this.#unansweredSinceMs = undefined;
    this.#isProbing = false;
    if (this.#unpongedSinceMs === undefined || !this.isStale) this.#isSuspect = false;
  }

  /** The pong of our newest ping came, or of one before it. */
  ponged(isNewest: boolean): void {
    this.#unpongedSinceMs = isNewest ? undefined : this.#clock.nowMs();
    this.answered();
  }

  /** Asks now, because others have fallen silent. */
  probe(): void {
    if (this.#isProbing || this.#isStopped) return;
    this.#isProbing = true;
    this.#ping();
    this.#schedule();
  }

  /** Something went out that a living peer answers. */
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

  #since(momentMs: Ms | undefined): Ms {
    return ms(momentMs === undefined ? 0 : this.#clock.nowMs() - momentMs);
  }

  #ping(): void {
    this.asked();
    this.#unpongedSinceMs ??= this.#clock.nowMs();
    this.#events.ping();
  }

  /** Watched closely. */
  get #isClose(): boolean {
    return this.#isActive || this.#isProbing;
  }

  /** @param delayMs From now to the next look at the peer. */
  #schedule(delayMs: Ms = ms(limits.heartbeatActiveMs)): void {
    if (this.#isStopped) return;
    this.#cancelTimer();
    this.#dueMs = ms(this.#clock.nowMs() + delayMs);
    this.#cancelTimer = this.#clock.timer(delayMs, () => this.#tick());
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
    const owedMs = ms(Math.max(this.silentMs, this.#since(this.#unpongedSinceMs)));
    if (owedMs >= limits.sessionSilentMs) {
      this.#events.dead(owedMs);
      return;
    }
    // An idle peer has let a ping lie.
    if (this.silentMs > 0) this.#isProbing = true;
    const isSilent = this.silentMs >= limits.heartbeatActiveMs * limits.heartbeatMissesMax;
    if (this.#isClose && !this.#isSuspect && (isSilent || this.isStale)) {
      this.#isSuspect = true;
      this.#events.suspect(owedMs);
      if (this.#isStopped) return;
    }
    const restMs = this.#isClose ? 0 : this.#lastHeardMs + this.#idleMs() - this.#clock.nowMs();
    // Less than this may be no time at all to a clock that counts in fractions.
    if (restMs >= 1) {
      this.#schedule(ms(restMs));
      return;
    }
    this.#ping();
    this.#schedule(this.#isClose ? undefined : answerMs);
  }
}
