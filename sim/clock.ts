/** Virtual clocks, and the one real turn of the event loop that lets promises come to rest. */

import type { Cancel, Clock, Deadline } from '../protocol/ports.ts';
import { deadlineBy, sleepBy } from '../protocol/timers.ts';
import { type Ms, ms, type UnixMs, unixMs } from '../protocol/units.ts';
import type { Kernel, Lifeline } from './kernel.ts';

const hostImmediate = setImmediate;

/** Turns queued at a time; the host drains every promise chain between two of them. */
const turnsAtOnce = 64;

/** Calls `step` once per turn of the event loop until it is `done`; an `idle` one waits for a whole turn of the loop. */
export function runTurns(step: () => 'more' | 'idle' | 'done'): Promise<void> {
  return new Promise((resolve) => {
    let state: 'more' | 'idle' | 'done' = 'more';
    const one = (): void => {
      if (state !== 'more') return;
      state = step();
      if (state === 'done') resolve();
    };
    const several = (): void => {
      if (state === 'idle') state = 'more';
      one();
      if (state === 'done') return;
      for (let count = 1; count < turnsAtOnce; count += 1) hostImmediate(one);
      hostImmediate(several);
    };
    hostImmediate(several);
  });
}

/** When a virtual world begins: no reason but that it is easy to recognise in logs. */
export const epochMs = 1_700_000_000_000;

/** How a process's clock differs from true time. */
export interface ClockError {
  /** Wall clock minus true time, in milliseconds. */
  skewMs: number;
  /** Seconds it counts per true second. */
  rate: number;
}

/** The clock of one run of one virtual process; its timers end with that process. */
export class SimClock implements Clock {
  readonly #kernel: Kernel;
  readonly #lifeline: Lifeline;
  readonly #error: ClockError;
  readonly #originMs: number;

  constructor(kernel: Kernel, lifeline: Lifeline, error: ClockError = { skewMs: 0, rate: 1 }) {
    this.#kernel = kernel;
    this.#lifeline = lifeline;
    this.#error = error;
    this.#originMs = kernel.nowMs;
  }

  nowMs(): Ms {
    this.#lifeline.check();
    return ms((this.#kernel.nowMs - this.#originMs) * this.#error.rate);
  }

  wallMs(): UnixMs {
    this.#lifeline.check();
    return unixMs(Math.floor(epochMs + this.#kernel.nowMs * this.#error.rate + this.#error.skewMs));
  }

  timer(delay: Ms, fire: () => void): Cancel {
    this.#lifeline.check();
    const lifeline = this.#lifeline;
    lifeline.timersPending += 1;
    const ring = (): void => {
      lifeline.timersPending -= 1;
      fire();
    };
    const event = this.#kernel.schedule(delay / this.#error.rate, ring, lifeline, 'timer');
    return () => {
      if (this.#kernel.cancel(event)) lifeline.timersPending -= 1;
    };
  }

  sleep(delay: Ms, signal?: AbortSignal): Promise<void> {
    return sleepBy((after, fire) => this.timer(after, fire), delay, signal);
  }

  deadline(delay: Ms, parent?: AbortSignal): Deadline {
    return deadlineBy((after, fire) => this.timer(after, fire), delay, parent);
  }

  /** A turn takes a little time, in which everything that is due now is delivered. */
  turn(): Promise<void> {
    this.#lifeline.check();
    return new Promise((resolve) => {
      this.#kernel.scheduleLast(0.05, resolve, this.#lifeline, 'io');
    });
  }
}
