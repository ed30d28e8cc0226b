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
  readonly #isNeeded: boolean;
  readonly #answers: () => Answers;
  readonly #done: Promise<void>;
  #finish: () => void = () => {};
  #state: 'waiting' | 'ready' | 'closed' = 'waiting';
  /** Somebody has answered, and others have had their time to. */
  #isSettled = false;
  #hasAnswer = false;
  #isBounded = false;

  /**
   * @param isNeeded False where nothing was written before, as far as is known: then it waits only for what those who are
   *   connected have to tell, since a key may have come back without its feed.
   */
  constructor(clock: Clock, isNeeded: boolean, answers: () => Answers) {
    this.#clock = clock;
    this.#isNeeded = isNeeded;
    this.#answers = answers;
    this.#done = new Promise((resolve) => {
      this.#finish = resolve;
    });
    if (isNeeded) this.#bound();
  }

  get isReady(): boolean {
    return this.#state === 'ready' || (this.#state === 'waiting' && this.#mayEnd());
  }

  /** Others have told what this process may have lost, or had their time to; or it never wrote anything. */
  get isOver(): boolean {
    return this.#state === 'ready' || (this.#state === 'waiting' && !this.#isNeeded);
  }

  #bound(): void {
    if (this.#isBounded) return;
    this.#isBounded = true;
    this.#clock.timer(ms(limits.recoveryWaitMs), () => this.#end());
  }

  #mayEnd(): boolean {
    const { awaited, isBehind } = this.#answers();
    if (awaited > 0 || isBehind) return false;
    return this.#isSettled || !this.#isNeeded;
  }

  /** Somebody has told or given something. */
  progressed(): void {
    if (this.#state !== 'waiting') return;
    if (!this.#hasAnswer && this.#answers().whole > 0) {
      this.#hasAnswer = true;
      this.#clock.timer(ms(settleMs), () => {
        this.#isSettled = true;
        this.progressed();
      });
    }
    if (this.#isBounded && this.#mayEnd()) this.#end();
  }

  #end(): void {
    if (this.#state === 'waiting') this.#state = 'ready';
    this.#finish();
  }

  /** Resolves when this process may sign. @throws HelixFlowError LEDGER_UNREADY when it is closing. */
  async wait(): Promise<void> {
    if (!this.isReady) {
      this.#bound();
      await this.#done;
    }
    if (this.#state === 'closed') throw new HelixFlowError('LEDGER_UNREADY', { reason: 'it is closing' });
  }

  /** This process signs its first block: whatever is heard from now on changes nothing. */
  begun(): void {
    this.#end();
  }

  close(): void {
    this.#state = 'closed';
    this.#finish();
  }
}
