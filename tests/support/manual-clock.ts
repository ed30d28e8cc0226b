/** A clock that moves only when a test says so. */

import { HelixFlowError } from '../../protocol/errors.ts';
import type { Cancel, Clock, Deadline } from '../../protocol/ports.ts';
import { type Ms, ms, type UnixMs, unixMs } from '../../protocol/units.ts';

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly fire: () => void;
}

export class ManualClock implements Clock {
  #nowMs = 1_000;
  #order = 0;
  #timers: Timer[] = [];

  nowMs(): Ms {
    return ms(this.#nowMs);
  }

  wallMs(): UnixMs {
    return unixMs(1_700_000_000_000 + this.#nowMs);
  }

  get timers(): number {
    return this.#timers.length;
  }

  timer(delay: Ms, fire: () => void): Cancel {
    const timer = { atMs: this.#nowMs + delay, order: this.#order, fire };
    this.#order += 1;
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  sleep(delay: Ms, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const cancel = this.timer(delay, resolve);
      signal?.addEventListener('abort', () => {
        cancel();
        reject(signal.reason);
      });
    });
  }

  deadline(delay: Ms, parent?: AbortSignal): Deadline {
    const abort = new AbortController();
    const cancel = this.timer(delay, () => abort.abort(new HelixFlowError('DEADLINE_EXCEEDED', { deadlineMs: delay })));
    parent?.addEventListener('abort', () => abort.abort(parent.reason));
    return { signal: abort.signal, [Symbol.dispose]: cancel };
  }

  async turn(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** Moves on by `delayMs`, firing what falls due, in order; lets promises settle after each. */
  async advance(delayMs: number): Promise<void> {
    const untilMs = this.#nowMs + delayMs;
    for (;;) {
      const due = this.#timers
        .filter(({ atMs }) => atMs <= untilMs)
        .sort((a, b) => a.atMs - b.atMs || a.order - b.order)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((other) => other !== due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.fire();
      await this.turn();
    }
    this.#nowMs = untilMs;
    await this.turn();
  }
}
