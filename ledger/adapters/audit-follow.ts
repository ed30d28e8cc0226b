/** The audit log's lines as they are written, by whoever writes them. */

import { stat } from 'node:fs/promises';
import type { Clock } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';
import type { AuditLine } from '../audit.ts';
import { parseLine } from '../audit-chain.ts';
import { type AuditFile, codeOf, listFiles, readLines, unusable } from './audit-disk.ts';

const pollMs = ms(250);

/** Grows with every line; undefined for a file that is gone. */
async function sizeOf({ path }: AuditFile): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Files that may hold the line `next` or later ones. */
const filesWith = (files: readonly AuditFile[], next: number): readonly AuditFile[] =>
  files.slice(
    Math.max(
      0,
      files.findLastIndex(({ first }) => first <= next),
    ),
  );

async function pause(clock: Clock, signal: AbortSignal): Promise<void> {
  using deadline = clock.deadline(pollMs, signal);
  if (deadline.signal.aborted) return;
  await new Promise<void>((resolve) => deadline.signal.addEventListener('abort', () => resolve(), { once: true }));
}

/**
 * Lines from the number `from` on, in order, until `signal` aborts; those that cannot be read are for `verifyAudit` to tell.
 * @throws HelixFlowError DATA_DIR_UNUSABLE
 */
export async function* followAudit(
  directory: string,
  from: number,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): AsyncGenerator<AuditLine> {
  let next = from;
  let seen = '';
  while (!signal.aborted) {
    try {
      const files = await listFiles(directory);
      const newest = files.at(-1);
      const state = newest === undefined ? '' : `${newest.name} ${await sizeOf(newest)}`;
      for (const { path } of state === seen ? [] : filesWith(files, next)) {
        for await (const { text, isWhole } of readLines(path)) {
          const line = isWhole ? parseLine(text) : undefined;
          if (line === undefined || line.number < next) continue;
          next = line.number + 1;
          yield line;
        }
      }
      seen = state;
    } catch (error) {
      const unread = unusable(directory, error);
      // A writer has removed the oldest file meanwhile.
      if (unread === error || codeOf(error) !== 'ENOENT') throw unread;
    }
    await pause(clock, signal);
  }
}
