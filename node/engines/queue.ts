/** Those who wait for something that there is not enough of: first come, first served, and each may leave. */

export interface Queue<T> {
  /** Waits for the next thing that nobody before wants. @throws the signal's reason when that aborts first. */
  wait(signal: AbortSignal): Promise<T>;
  /** Gives `thing` to who has waited longest; false when nobody waits. Whoever gets it may have lost interest by now. */
  hand(thing: T): boolean;
}

export function createQueue<T>(): Queue<T> {
  const waiting = new Set<(thing: T) => void>();
  return {
    wait(signal) {
      return new Promise((resolve, reject) => {
        signal.throwIfAborted();
        const leave = (): void => {
          waiting.delete(take);
          reject(signal.reason);
        };
        const take = (thing: T): void => {
          waiting.delete(take);
          signal.removeEventListener('abort', leave);
          resolve(thing);
        };
        waiting.add(take);
        signal.addEventListener('abort', leave, { once: true });
      });
    },
    hand(thing) {
      const [next] = waiting;
      next?.(thing);
      return next !== undefined;
    },
  };
}
