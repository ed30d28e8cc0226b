/** When this process may sign: once it knows what it had written before, as far as anyone can tell it (design §6). */

import { HelixFlowError } from '../protocol/errors.ts';
import { limits } from '../protocol/limits.ts';
import type { Clock } from '../protocol/ports.ts';
import { ms } from '../protocol/units.ts';

/** What others have told so far. */
export interface Answers {
  /** Peers that have named all they hold, and those whose answer is still awaited. */
  readonly whole: number;
  readonly awaited: number;
  /** Somebody holds more of what this process wrote than is held here. */
  readonly isBehind: boolean;
}

/** After the first answer others have this long to come. */
const settleMs = 1_000;

export class Recovery {
  readonly #clock: Clock;
  readonly #answers: () => Answers;
  readonly #done: Promise<void>;
  #finish: () => void = () => {};
  #state: 'waiting' | 'ready' | 'closed' = 'waiting';
  #firstAnswerMs: number | undefined;

  /** @param isNeeded False when there is nothing to recover: this process has written nothing before. */
  constructor(clock: Clock, isNeeded: boolean, answers: () => Answers) {
    this.#clock = clock;
    this.#answers = answers;
    this.#done = new Promise((resolve) => {
      this.#finish = resolve;
    });
    if (isNeeded) clock.timer(ms(limits.recoveryWaitMs), () => this.#end('ready'));
    else this.#end('ready');
  }

  get isReady(): boolean {
    return this.#state === 'ready';
  }

  /** Somebody has told or given something. */
  progressed(): void {
    if (this.#state !== 'waiting') return;
    const { whole, awaited, isBehind } = this.#answers();
    const nowMs = this.#clock.nowMs();
    if (whole === 0) return;
    if (this.#firstAnswerMs === undefined) {
      this.#firstAnswerMs = nowMs;
      this.#clock.timer(ms(settleMs), () => this.progressed());
    }
    if (awaited === 0 && !isBehind && nowMs - this.#firstAnswerMs >= settleMs) this.#end('ready');
  }

  #end(state: 'ready' | 'closed'): void {
    if (this.#state === 'waiting') this.#state = state;
    this.#finish();
  }

  /** Resolves when this process may sign. @throws HelixFlowError LEDGER_UNREADY when it is closing. */
  async wait(): Promise<void> {
    await this.#done;
    if (this.#state === 'closed') throw new HelixFlowError('LEDGER_UNREADY', { reason: 'it is closing' });
  }

  close(): void {
    this.#state = 'closed';
    this.#finish();
  }
}
