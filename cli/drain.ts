/** Ending a daemon from outside: it takes nothing new, finishes what is under way, hands over the rest, and exits. */

import { setTimeout as sleep } from 'node:timers/promises';
import { HelixFlowError } from '../protocol/errors.ts';
import { seconds } from '../protocol/units.ts';
import type { CommandContext } from './command.ts';
import type { drainOptions } from './config/node-tables.ts';
import type { ConfigOf } from './config/option.ts';
import { callDaemon } from './control-client.ts';
import { openDataDir } from './data-dir.ts';
import { type Drained, graceMaxMs } from './ending.ts';
import { systemCode } from './files.ts';

/** For goodbyes, and for what is written at the end. */
const closeMaxMs = seconds(60);
/** A process that nobody has waited for stays in the system's list although it has ended. */
const goneWithinMs = seconds(10);
const lookEveryMs = 20;

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) === 'EPERM';
  }
}

async function untilGone(pid: number): Promise<void> {
  const untilMs = performance.now() + goneWithinMs;
  while (isRunning(pid) && performance.now() < untilMs) await sleep(lookEveryMs);
}

const count = (amount: number, what: string): string => `${amount} answer${amount === 1 ? '' : 's'} ${what}`;

/** For people: `helixflow node has ended: 3 answers finished, 1 answer handed over`. */
export function drainedText(command: string, { finished, handedOver, cut }: Drained): string {
  const parts = [
    count(finished, 'finished'),
    ...(handedOver === 0 ? [] : [count(handedOver, 'handed over')]),
    ...(cut === 0 ? [] : [count(cut, 'ended with an error')]),
  ];
  return `helixflow ${command} has ended: ${parts.join(', ')}`;
}

/**
 * Drains the daemon on the data directory and waits until it has exited.
 * @throws HelixFlowError DAEMON_UNREACHABLE; CONFIG_INVALID where another kind of daemon holds the directory.
 */
export async function drainDaemon(
  role: 'node' | 'gateway',
  { grace, now }: ConfigOf<typeof drainOptions>,
  { common, output }: CommandContext,
): Promise<number> {
  const dir = await openDataDir(common.dataDir, 'read');
  const holder = callDaemon(dir.socket, 'GET /holder').catch((cause: unknown) => {
    throw new HelixFlowError('DAEMON_UNREACHABLE', { path: dir.path }, { cause });
  });
  const { command, pid } = await holder;
  if (command !== role && command !== 'up') {
    const reason = `${dir.path} is held by helixflow ${command}, which is no ${role}`;
    throw new HelixFlowError('CONFIG_INVALID', { reason });
  }
  output.note('Waiting for the answers under way …');
  const graceMs = now ? 0 : grace;
  const drained = await callDaemon(dir.socket, 'POST /drain', {
    body: graceMs === undefined ? {} : { graceMs },
    timeoutMs: (graceMs ?? graceMaxMs) + closeMaxMs,
  });
  await untilGone(pid);
  const { finished, handedOver, cut } = drained;
  output.data({ event: 'drained', command, pid, finished, handedOver, cut }, drainedText(command, drained));
  return 0;
}
