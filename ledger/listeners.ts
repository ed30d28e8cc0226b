/** Those who want to be told of something, in the order in which they came. */

import type { Cancel } from '../protocol/ports.ts';

export class Listeners<T> {
  readonly #all = new Set<(told: T) => void>();

  add(listener: (told: T) => void): Cancel {
    this.#all.add(listener);
    return () => void this.#all.delete(listener);
  }

  /** One that is added or taken away meanwhile is heard from the next time on. */
  tell(told: T): void {
    for (const listener of [...this.#all]) listener(told);
  }
}
