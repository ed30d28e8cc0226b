/** When a node tells of its load: at once where it can, and never too often; while anything runs, often enough to be seen alive. */

import { limits } from '../protocol/limits.ts';
import type { Load } from '../protocol/messages/session.ts';
import type { Cancel, Clock } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';

const intervalMs = 1_000 / limits.loadPerSecondMax;
/** Longer than this nobody waits for the progress of a node that works. */
const aliveMs = 1_000;
const waitMinMs = 1;

interface LoadPort {
  load(): Load;
  send(load: Load): void;
}

export class LoadReport {
  readonly #clock: Clock;
  readonly #port: LoadPort;
  #sentText = '';
  #sentMs: number;
  #dueMs = Number.POSITIVE_INFINITY;
  #cancel: Cancel = () => {};

  constructor(clock: Clock, port: LoadPort) {
    this.#clock = clock;
    this.#port = port;
    this.#sentMs = clock.nowMs() - intervalMs;
  }

  /** Something changed: the first of several changes is told at once, the others together. */
  changed(): void {
    const dueMs = this.#sentMs + intervalMs;
    if (this.#clock.nowMs() >= dueMs) this.now();
    else this.#schedule(dueMs);
  }

  /** Tells it without waiting. */
  now(): void {
    const load = this.#port.load();
    const text = JSON.stringify(load);
    const isDue = load.active > 0 && this.#clock.nowMs() >= this.#sentMs + aliveMs;
    this.close();
    if (text !== this.#sentText || isDue) {
      this.#sentText = text;
      this.#sentMs = this.#clock.nowMs();
      this.#port.send(load);
    }
    if (load.active > 0) this.#schedule(this.#sentMs + aliveMs);
  }

  /** Tells nothing more by itself. */
  close(): void {
    this.#cancel();
    this.#dueMs = Number.POSITIVE_INFINITY;
  }

  #schedule(dueMs: number): void {
    if (dueMs >= this.#dueMs) return;
    this.#cancel();
    this.#dueMs = dueMs;
    // By the rounding of a sum the timer may ring a moment before it is due: without a least wait it would ring for ever.
    const waitMs = ms(Math.max(waitMinMs, dueMs - this.#clock.nowMs()));
    this.#cancel = this.#clock.timer(waitMs, () => this.now());
  }
}
