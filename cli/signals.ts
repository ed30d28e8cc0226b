/** How people and supervisors stop a daemon: once to let it finish, twice to end it. */

/** What asks a daemon to stop. */
export interface Stop {
  /** Resolves at the first signal. */
  readonly requested: Promise<void>;
  /** Aborts at the first signal. */
  readonly signal: AbortSignal;
}

/** Not SIGHUP: a handler would undo what `nohup` has set. */
const numbers = { SIGINT: 2, SIGTERM: 15 } as const;
/** A terminal's Ctrl-C reaches the whole process group, and npm and the launcher pass it on once more. */
const echoMs = 100;

/** Watches for signals from now on. A second one ends the process at once: 130 after Ctrl-C, 143 after SIGTERM. */
export function watchSignals(): Stop {
  const controller = new AbortController();
  const { promise, resolve } = Promise.withResolvers<void>();
  let firstMs: number | undefined;
  for (const [name, number] of Object.entries(numbers)) {
    process.on(name, () => {
      if (firstMs === undefined) {
        firstMs = performance.now();
        controller.abort();
        resolve();
      } else if (performance.now() - firstMs > echoMs) process.exit(128 + number);
    });
  }
  return { requested: promise, signal: controller.signal };
}
