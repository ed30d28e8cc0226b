/** Keeps one child process with a loaded model running: starts it again, ever more slowly, when it dies. */

import { toHelixFlowError } from '../../../protocol/errors.ts';
import type { Cancel, Clock, Log } from '../../../protocol/ports.ts';
import { ms } from '../../../protocol/units.ts';
import type { FromChild, Loaded, LoadRequest, ToChild } from './messages.ts';
import { engineFault, startProcess } from './process.ts';

const restartMinMs = 250;
const restartMaxMs = 30_000;
/** A child that served this long before it died was sound: the next one starts without delay. */
const soundMs = 60_000;

export interface SupervisorEvents {
  /** What to load; asked before each start. */
  request(): LoadRequest;
  message(message: FromChild): void;
  up(loaded: Loaded): void;
  /** The process is gone; nothing it had under way will end. */
  down(reason: string): void;
}

export interface Supervisor {
  send(message: ToChild): void;
  /** Ends a process that does not react; another one follows. */
  kill(): void;
  close(): Promise<void>;
}

/**
 * Starts the first process; later ones follow by themselves.
 * @throws what `startProcess` throws for the first one.
 */
export async function startSupervisor(
  deps: { readonly clock: Clock; readonly log: Log },
  events: SupervisorEvents,
): Promise<Supervisor> {
  const { clock, log } = deps;
  const closing = new AbortController();
  let child: Awaited<ReturnType<typeof startProcess>> | undefined;
  let cancelRestart: Cancel | undefined;
  let starting: Promise<void> | undefined;
  let failures = 0;

  function ended(reason: string, servedMs: number): void {
    child = undefined;
    if (!closing.signal.aborted) log.error('engine_process_ended', { reason });
    events.down(reason);
    failures = servedMs > soundMs ? 0 : failures + 1;
    restartLater();
  }

  async function start(): Promise<void> {
    const startedMs = clock.nowMs();
    child = await startProcess(
      clock,
      events.request(),
      { message: events.message, ended: (reason) => ended(reason, clock.nowMs() - startedMs) },
      closing.signal,
    );
    const { loaded } = child;
    const tookMs = Math.round(clock.nowMs() - startedMs);
    log.info('model_loaded', { build: loaded.build, slots: loaded.slots, tookMs });
    events.up(loaded);
  }

  function restartLater(): void {
    if (closing.signal.aborted) return;
    const delayMs = failures === 0 ? 0 : Math.min(restartMinMs * 2 ** (failures - 1), restartMaxMs);
    cancelRestart = clock.timer(ms(delayMs), () => {
      starting = start().catch((error: unknown) => {
        const failure = toHelixFlowError(error, (cause) => engineFault('the engine process did not start', cause));
        if (!closing.signal.aborted) log.error('engine_not_restarted', { code: failure.code }, failure);
        failures += 1;
        restartLater();
      });
    });
  }

  await start();
  return {
    send: (message) => child?.send(message),
    kill: () => void child?.kill(),
    async close() {
      closing.abort(engineFault('the engine was closed'));
      cancelRestart?.();
      await child?.kill();
      await starting;
    },
  };
}
