/** Keeps provider records alive: provides each key soon, again before it expires, and more often while that fails. */

import { HelixFlowError } from '../../errors.ts';
import type { Cancel, Clock, Log, Random } from '../../ports.ts';
import { ms } from '../../units.ts';

export interface ProvisionDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Tells others that we provide `key`. @returns how many took it; rejects only with a HelixFlowError. */
  readonly announce: (key: string, signal: AbortSignal) => Promise<number>;
  /** Forgets that we provide `key`. */
  readonly forget: (key: string) => void;
}

export interface ProvisionOptions {
  /** From one success to the next announcement. */
  readonly renewMs: number;
  /** After the first failure; doubled with each further one. */
  readonly retryMs: number;
  readonly retryMaxMs: number;
  /** After a change of the table, and at least this long after the last announcement. */
  readonly settleMs: number;
}

export interface Provision {
  provide(key: string): Cancel;
  /** There are new peers that could hold our records. */
  changed(): void;
  /** What others were told of us is wrong now: they are told at once. */
  moved(): void;
  close(): void;
}

class Provided {
  readonly #key: string;
  readonly #deps: ProvisionDeps;
  readonly #options: ProvisionOptions;
  readonly #stop = new AbortController();
  #timer: Cancel = () => {};
  #failures = 0;
  #isRunning = false;
  #isStale = false;
  #isMoved = false;
  #lastMs = Number.NEGATIVE_INFINITY;

  constructor(key: string, deps: ProvisionDeps, options: ProvisionOptions) {
    this.#key = key;
    this.#deps = deps;
    this.#options = options;
    this.#schedule(0);
  }

  changed(): void {
    this.#isStale = true;
    if (!this.#isRunning) this.#settle();
  }

  moved(): void {
    this.#isMoved = true;
    this.#lastMs = Number.NEGATIVE_INFINITY;
    this.changed();
  }

  stop(): void {
    this.#timer();
    this.#stop.abort();
    this.#deps.forget(this.#key);
  }

  #settle(): void {
    const sinceMs = this.#deps.clock.nowMs() - this.#lastMs;
    const { settleMs } = this.#options;
    this.#schedule(this.#failures > 0 || sinceMs >= settleMs ? 0 : settleMs - sinceMs);
  }

  #schedule(delayMs: number): void {
    this.#timer();
    if (this.#stop.signal.aborted) return;
    this.#timer = this.#deps.clock.timer(ms(delayMs), () => void this.#run());
  }

  async #run(): Promise<void> {
    const { clock, log, announce } = this.#deps;
    this.#isRunning = true;
    this.#isStale = false;
    this.#isMoved = false;
    try {
      const holders = await announce(this.#key, this.#stop.signal);
      if (holders === 0) throw new HelixFlowError('DIRECTORY_UNAVAILABLE', { reason: 'no peer took the record' });
      if (this.#failures > 0 || this.#lastMs < 0) log.debug('directory.provided', { key: this.#key, holders });
      this.#failures = 0;
    } catch (error) {
      if (!(error instanceof HelixFlowError)) throw error;
      this.#failures += 1;
      if (this.#failures === 1) log.debug('directory.not-provided', { key: this.#key, code: error.code });
    } finally {
      this.#isRunning = false;
      if (!this.#isMoved) this.#lastMs = clock.nowMs();
    }
    if (this.#isStale) this.#settle();
    else this.#schedule(this.#delayMs());
  }

  #delayMs(): number {
    const { renewMs, retryMs, retryMaxMs } = this.#options;
    const spread = 0.75 + this.#deps.random.float() / 4;
    if (this.#failures === 0) return renewMs * spread;
    return Math.min(retryMaxMs, retryMs * 2 ** Math.min(this.#failures - 1, 16)) * spread;
  }
}

export function createProvision(deps: ProvisionDeps, options: ProvisionOptions): Provision {
  const keys = new Map<string, Provided>();
  let users = new Map<string, number>();
  return {
    provide: (key) => {
      users.set(key, (users.get(key) ?? 0) + 1);
      if (!keys.has(key)) keys.set(key, new Provided(key, deps, options));
      let isWithdrawn = false;
      return () => {
        if (isWithdrawn) return;
        isWithdrawn = true;
        const left = (users.get(key) ?? 1) - 1;
        users.set(key, left);
        if (left > 0) return;
        users.delete(key);
        keys.get(key)?.stop();
        keys.delete(key);
      };
    },
    changed: () => {
      for (const provided of keys.values()) provided.changed();
    },
    moved: () => {
      for (const provided of keys.values()) provided.moved();
    },
    close: () => {
      for (const provided of keys.values()) provided.stop();
      keys.clear();
      users = new Map();
    },
  };
}
