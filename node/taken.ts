/** Waiting for a consumer that may never take what it was given. */

/** Resolves with `taken`. @throws the signal's reason when that aborts first, and what `taken` rejects with. */
export function untilTaken(taken: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const stop = (): void => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    taken.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
