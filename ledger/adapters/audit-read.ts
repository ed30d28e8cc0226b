/** Reads the audit log from its files, whether or not somebody is writing them. */

import { stat } from 'node:fs/promises';
import type { Clock } from '../../protocol/ports.ts';
import { ms } from '../../protocol/units.ts';
import type { AuditLine } from '../audit.ts';
import { type Anchor, type AuditHead, parseLine } from '../audit-chain.ts';
import { createVerifier, type Finding } from '../audit-verify.ts';
import { type AuditFile, codeOf, listFiles, readHead, readLines } from './audit-disk.ts';

/** What a check of the whole log came to. */
export interface AuditVerdict {
  /** Lines that were read. */
  readonly lines: number;
  /** Number of the oldest line that is kept. */
  readonly first?: number;
  /** The newest line; written down elsewhere, it shows later whether anything before it was rewritten. */
  readonly last?: Anchor;
  /** The first thing that is wrong. */
  readonly finding?: Finding;
}

/** A writer may remove the oldest file while it is being read. */
const triesMax = 5;
const followMs = ms(250);

async function verifyFiles(
  head: AuditHead | undefined,
  files: readonly AuditFile[],
  noted: readonly Anchor[],
): Promise<AuditVerdict> {
  const verifier = createVerifier(head, noted);
  let lines = 0;
  let finding: Finding | undefined;
  const newest = files.at(-1);
  for (const file of files) {
    for await (const { text, line, isWhole } of readLines(file.path)) {
      if (!isWhole && file === newest) break;
      lines += 1;
      finding = verifier.take(text, { file: file.name, line });
      if (finding !== undefined) break;
    }
    if (finding !== undefined) break;
  }
  finding ??= verifier.end();
  const { first, last } = verifier;
  return {
    lines,
    ...(first === undefined ? {} : { first }),
    ...(last === undefined ? {} : { last }),
    ...(finding === undefined ? {} : { finding }),
  };
}

/**
 * Checks every line against the one before it, and against the head.
 * @param noted Lines that somebody wrote down elsewhere.
 * @returns undefined when there is no log in the directory.
 * @throws HelixFlowError FORMAT_TOO_NEW; a system's error when a file cannot be read.
 */
export async function verifyAudit(directory: string, noted: readonly Anchor[] = []): Promise<AuditVerdict | undefined> {
  for (let tries = 1; ; tries += 1) {
    const head = await readHead(directory);
    const files = await listFiles(directory);
    if (head === undefined && files.length === 0) return undefined;
    try {
      const verdict = await verifyFiles(head, files, noted);
      if (verdict.finding === undefined || tries === triesMax) return verdict;
      const now = await readHead(directory);
      if (now?.first.number === head?.first.number) return verdict;
    } catch (error) {
      if (codeOf(error) !== 'ENOENT' || tries === triesMax) throw error;
    }
  }
}

/** Lines from the number `from` on that can be read; others are for `verifyAudit` to tell. */
async function linesFrom(file: AuditFile, from: number): Promise<AuditLine[]> {
  const found: AuditLine[] = [];
  try {
    for await (const { text, isWhole } of readLines(file.path)) {
      const line = isWhole ? parseLine(text) : undefined;
      if (line !== undefined && line.number >= from) found.push(line);
    }
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
  return found;
}

/** The newest `count` lines, oldest first; undefined when there is no log in the directory. */
export async function readAuditTail(directory: string, count: number): Promise<readonly AuditLine[] | undefined> {
  const files = await listFiles(directory);
  if (files.length === 0 && (await readHead(directory)) === undefined) return undefined;
  let lines: AuditLine[] = [];
  for (const file of files.toReversed()) {
    if (lines.length >= count) break;
    lines = [...(await linesFrom(file, 0)), ...lines];
  }
  return count === 0 ? [] : lines.slice(-count);
}

/** Lines from the number `from` on as they are written, until `signal` aborts. */
export async function* followAudit(
  directory: string,
  from: number,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): AsyncGenerator<AuditLine> {
  let next = from;
  let seen = '';
  while (!signal.aborted) {
    const files = await listFiles(directory);
    const newest = files.at(-1);
    const state = newest === undefined ? '' : `${newest.name} ${await sizeOf(newest.path)}`;
    if (state !== seen) {
      seen = state;
      const start = files.findLastIndex(({ first }) => first <= next);
      for (const file of files.slice(Math.max(0, start))) {
        for (const line of await linesFrom(file, next)) {
          yield line;
          next = line.number + 1;
        }
      }
    }
    using pause = clock.deadline(followMs, signal);
    await new Promise<void>((resolve) => pause.signal.addEventListener('abort', () => resolve(), { once: true }));
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return 0;
    throw error;
  }
}
