/** The real clock: the host's timers, none of which keeps the process alive by itself. */

import type { Cancel, Clock } from '../ports.ts';
import { deadlineBy, sleepBy } from '../timers.ts';
import { type Ms, ms, unixMs } from '../units.ts';

/** Node fires a timer with a longer delay at once. */
const timerMaxMs = 2 ** 31 - 1;

function timer(delay: Ms, fire: () => void): Cancel {
  let handle: NodeJS.Timeout;
  const set = (leftMs: number): void => {
    handle = setTimeout(leftMs <= timerMaxMs ? fire : () => set(leftMs - timerMaxMs), Math.min(leftMs, timerMaxMs));
    handle.unref();
  };
  set(Math.max(0, delay));
  return () => clearTimeout(handle);
}

/** One turn may end inside a poll that began before the call; a second one holds a whole poll. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

/** The clock of this machine. */
export const systemClock = (): Clock => ({
  nowMs: () => ms(performance.now()),
  wallMs: () => unixMs(Date.now()),
  sleep: (delay, signal) => sleepBy(timer, delay, signal),
  timer,
  deadline: (delay, parent) => deadlineBy(timer, delay, parent),
  turn,
});
