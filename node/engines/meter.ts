/** How much an engine does, and how fast. */

import type { Clock } from '../../protocol/ports.ts';

/** Busy time after which older work counts half. */
const memoryMs = 10_000;

export interface Meter {
  /** Answers under way. */
  readonly active: number;
  /** As `EngineStats.progress`. */
  readonly progress: number;
  /** An answer began; call the result once, when it ended. */
  begin(): () => void;
  /** So many tokens were handed over; for the speed. */
  tokens(count: number): void;
  /** So many tokens were computed or generated; for the progress. */
  worked(count: number): void;
  /** Tokens per second of time with at least one answer under way; 0 before the first token. */
  perSecond(): number;
}

export function createMeter(clock: Pick<Clock, 'nowMs'>): Meter {
  let active = 0;
  let busyMs = 0;
  let tokens = 0;
  let progress = 0;
  let sinceMs = 0;

  function settle(): void {
    const nowMs = clock.nowMs();
    if (active > 0) busyMs += nowMs - sinceMs;
    sinceMs = nowMs;
    if (busyMs <= memoryMs) return;
    busyMs /= 2;
    tokens /= 2;
  }

  return {
    get active() {
      return active;
    },
    get progress() {
      return progress;
    },
    begin() {
      settle();
      active += 1;
      return () => {
        settle();
        active -= 1;
        progress += 1;
      };
    },
    tokens(count) {
      tokens += count;
    },
    worked(count) {
      progress += count;
    },
    perSecond() {
      settle();
      return tokens === 0 ? 0 : Math.round((tokens * 10_000) / Math.max(1, busyMs)) / 10;
    },
  };
}
