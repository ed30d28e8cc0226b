/** The life of a daemon: takes its data directory, starts its parts, tells that it is ready, and ends when asked to. */

import { openAuditLog } from '../ledger/adapters/audit-files.ts';
import { systemClock } from '../protocol/adapters/clock.ts';
import { createLog, type LogLevel } from '../protocol/adapters/log.ts';
import { systemRandom } from '../protocol/adapters/random.ts';
import { createJoseTokens } from '../protocol/adapters/tokens-jose.ts';
import type { MeshRecord } from '../protocol/mesh.ts';
import type { Ms } from '../protocol/units.ts';
import { noteTold } from './audit-note.ts';
import type { CommandContext } from './command.ts';
import { type Controlled, controlRoutes, readGrace } from './daemon-control.ts';
import { type DataDir, openDataDir } from './data-dir.ts';
import { addDrained, createEnding, type Drained, nothingDrained } from './ending.ts';
import { holdDataDir } from './holder.ts';
import { readMesh } from './mesh-files.ts';
import type { World } from './peer-runtime.ts';
import { watchSignals } from './signals.ts';
import type { DaemonStatus, GatewayStatus, WorkerStatus } from './status.ts';
import { version } from './version.ts';

/** A started part of a daemon: a gateway, a node. */
export interface Part {
  /** Rejects when it cannot go on. */
  readonly failed: Promise<never>;
  /** Takes nothing new and finishes what is under way; once `hurry` aborts, ends the rest. Closes everything then. */
  drain(hurry: AbortSignal): Promise<Drained>;
  close(): Promise<void>;
}

export interface StartContext {
  readonly world: World;
  readonly dir: DataDir;
  /** Aborts when the daemon is asked to stop. */
  readonly signal: AbortSignal;
  /** Adds what has started; parts are drained in this order. */
  add(part: Part): void;
}

/** What the daemon's command makes of it. */
export interface Started {
  /** The line that says that it is ready. */
  readonly ready: unknown;
  readonly text: string;
}

interface DaemonOptions {
  readonly command: string;
  readonly logLevel: LogLevel;
  /** How long answers under way may go on after a signal. */
  readonly drain: Ms;
  readonly status: () => { readonly gateway?: GatewayStatus; readonly node?: WorkerStatus };
  /** What commands talk to, once it has started. */
  readonly controlled: () => Controlled | undefined;
  readonly start: (context: StartContext) => Promise<Started>;
}

async function describeDaemon(
  dir: DataDir,
  since: string,
  startedMs: number,
  options: Pick<DaemonOptions, 'command' | 'status'>,
): Promise<DaemonStatus> {
  const known = await readMesh(dir);
  const shown = ({ meshId, name, network }: MeshRecord) => ({
    ...{ meshId, network },
    ...(name === undefined ? {} : { name }),
  });
  const status: DaemonStatus = {
    schemaVersion: 1,
    version,
    nodeVersion: process.versions.node,
    command: options.command,
    pid: process.pid,
    since,
    uptimeSeconds: Math.round(performance.now() - startedMs) / 1_000,
    dataDir: dir.path,
    ...(known === undefined ? {} : { mesh: shown(known.mesh) }),
    ...options.status(),
  };
  return status;
}

/**
 * Runs a daemon to its end. The result is the exit code: 0 after a signal, and after it was drained.
 * @throws HelixFlowError DATA_DIR_HELD, DATA_DIR_UNUSABLE; what `start` throws; what a part fails with.
 */
export async function runDaemon({ common, output }: CommandContext, options: DaemonOptions): Promise<number> {
  const stop = watchSignals();
  const dir = await openDataDir(common.dataDir, 'write');
  await using hold = await holdDataDir(dir, options.command);
  const log = createLog({ level: options.logLevel, destination: 'stderr' });
  const clock = systemClock();
  const ending = createEnding(clock);
  void stop.requested.then(() => ending.begin(options.drain));
  await using audit = await openAuditLog(dir.audit, { clock, log });
  const world: World = { clock, random: systemRandom(), tokens: createJoseTokens(), log, audit };
  const since = new Date().toISOString();
  const startedMs = performance.now();
  const parts: Part[] = [];
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  const run = async (): Promise<void> => {
    const add = (part: Part): void => {
      parts.push(part);
      part.failed.catch(fail);
    };
    const started = await options.start({ world, dir, signal: ending.signal, add });
    if (!ending.signal.aborted) output.data(started.ready, started.text);
    await ending.begun;
  };
  const status = (): Promise<DaemonStatus> => describeDaemon(dir, since, startedMs, options);
  const drain = async (body: unknown): Promise<Drained> => {
    ending.begin(readGrace(body) ?? options.drain);
    return ending.ended;
  };
  const note = (body: unknown): { readonly noted: true } => noteTold(audit, body);
  hold.serve({
    'GET /status': status,
    'POST /drain': drain,
    'POST /notes': note,
    ...controlRoutes(options.controlled),
  });
  try {
    await Promise.race([run(), failed, ending.begun]);
  } catch (error) {
    await Promise.allSettled(parts.map((part) => part.close()));
    throw error;
  }
  log.info('daemon.stopping');
  if (parts.length > 0) output.note('Stopping; answers under way are finished. Ctrl-C again stops at once.');
  let drained = nothingDrained;
  for (const part of parts) drained = addDrained(drained, await part.drain(ending.hurry));
  const { finished, handedOver, cut } = drained;
  log.info('daemon.drained', { finished, handedOver, cut });
  ending.over(drained);
  // Whoever asked for it has the answer before the socket goes.
  await clock.turn();
  return 0;
}
