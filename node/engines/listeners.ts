/** Who wants to hear of changes. */

import type { Cancel } from '../../protocol/ports.ts';

export interface Listeners {
  /** Adds a listener; the same function may be added twice. */
  add(listener: () => void): Cancel;
  tell(): void;
}

export function createListeners(): Listeners {
  const entries = new Set<{ readonly listener: () => void }>();
  return {
    add(listener) {
      const entry = { listener };
      entries.add(entry);
      return () => entries.delete(entry);
    },
    tell() {
      for (const { listener } of [...entries]) listener();
    },
  };
}
