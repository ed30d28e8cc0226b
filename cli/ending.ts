/** How a daemon comes to its end: asked by a signal or by a command, its parts have some time to finish what is under way. */

import type { Clock } from '../protocol/ports.ts';
import { type Ms, ms } from '../protocol/units.ts';

/** The most that answers under way are waited for. */
export const graceMaxMs = ms(86_400_000);

/** What became of the answers that were under way. */
export interface Drained {
  /** They ended by themselves. */
  readonly finished: number;
  /** A node's: their gateways go on with them at other nodes. */
  readonly handedOver: number;
  /** A gateway's: their clients were told with an error. */
  readonly cut: number;
}

export const nothingDrained: Drained = { finished: 0, handedOver: 0, cut: 0 };

export const addDrained = (a: Drained, b: Drained): Drained => ({
  finished: a.finished + b.finished,
  handedOver: a.handedOver + b.handedOver,
  cut: a.cut + b.cut,
});

export interface Ending {
  /** Aborts when the daemon is asked to end. */
  readonly signal: AbortSignal;
  /** Resolves then. */
  readonly begun: Promise<void>;
  /** Aborts when nothing more is waited for. */
  readonly hurry: AbortSignal;
  /** Asks it to end. Asked again it has the shorter of both times. */
  begin(grace: Ms): void;
  /** Resolves with what `over` is told. */
  readonly ended: Promise<Drained>;
  /** Everything has ended. */
  over(drained: Drained): void;
}

export function createEnding(clock: Clock): Ending {
  const beginning = new AbortController();
  const hurry = new AbortController();
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
  const { promise: ended, resolve: over } = Promise.withResolvers<Drained>();
  let dueMs = Number.POSITIVE_INFINITY;
  return {
    signal: beginning.signal,
    begun,
    hurry: hurry.signal,
    begin: (grace) => {
      beginning.abort();
      begin();
      const atMs = clock.nowMs() + grace;
      if (atMs >= dueMs) return;
      dueMs = atMs;
      if (grace <= 0) hurry.abort();
      else clock.timer(ms(grace), () => hurry.abort());
    },
    ended,
    over,
  };
}
