/** Reads the audit log from its files, whether or not somebody is writing them. */

import type { AuditLine } from '../audit.ts';
import { type Anchor, type AuditHead, parseLine } from '../audit-chain.ts';
import { createVerifier, type Finding } from '../audit-verify.ts';
import { type AuditFile, codeOf, keptFiles, listFiles, readHead, readLines, unusable } from './audit-disk.ts';

/** What a check of the whole log came to. */
export interface AuditVerdict {
  /** Lines that were read. */
  readonly lines: number;
  /** Number of the oldest line that is kept. */
  readonly first?: number;
  /** The newest line; written down elsewhere, it shows later whether anything before it was rewritten. */
  readonly last?: Anchor;
  /** After it stands a line that was never ended: it is being written now, or a crash cut it off. */
  readonly isTorn?: true;
  /** The first thing that is wrong. */
  readonly finding?: Finding;
}

/** A writer may remove the oldest file while it is being read. */
const triesMax = 5;

async function verifyFiles(
  head: AuditHead | undefined,
  files: readonly AuditFile[],
  noted: readonly Anchor[],
): Promise<AuditVerdict> {
  const verifier = createVerifier(head, noted);
  let lines = 0;
  let isTorn = false;
  let finding: Finding | undefined;
  const newest = files.at(-1);
  for (const file of files) {
    for await (const { text, line, isWhole } of readLines(file.path)) {
      isTorn = !isWhole && file === newest;
      if (isTorn) break;
      lines += 1;
      // A file that others follow has ended all of its lines.
      finding = verifier.take(isWhole ? text : `${text}\n`, { file: file.name, line });
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
    ...(isTorn ? { isTorn } : {}),
    ...(finding === undefined ? {} : { finding }),
  };
}

/**
 * Checks every line against the one before it, and against the head.
 * @param noted Lines that somebody wrote down elsewhere.
 * @returns undefined when there is no log in the directory.
 * @throws HelixFlowError FORMAT_TOO_NEW, DATA_DIR_UNUSABLE
 */
export async function verifyAudit(directory: string, noted: readonly Anchor[] = []): Promise<AuditVerdict | undefined> {
  for (let tries = 1; ; tries += 1) {
    try {
      const head = await readHead(directory);
      const files = await keptFiles(await listFiles(directory), head);
      if (head === undefined && files.length === 0) return undefined;
      const verdict = await verifyFiles(head, files, noted);
      if (verdict.finding === undefined || tries === triesMax) return verdict;
      const now = await readHead(directory);
      if (now?.first.number === head?.first.number) return verdict;
    } catch (error) {
      const unread = unusable(directory, error);
      if (unread === error || codeOf(error) !== 'ENOENT' || tries === triesMax) throw unread;
    }
  }
}

/** Lines that can be read; others are for `verifyAudit` to tell. */
async function linesOf(file: AuditFile): Promise<AuditLine[]> {
  const found: AuditLine[] = [];
  try {
    for await (const { text, isWhole } of readLines(file.path)) {
      const line = isWhole ? parseLine(text) : undefined;
      if (line !== undefined) found.push(line);
    }
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
  return found;
}

/**
 * The newest `count` lines, oldest first; undefined when there is no log in the directory.
 * @throws HelixFlowError FORMAT_TOO_NEW, DATA_DIR_UNUSABLE
 */
export async function readAuditTail(directory: string, count: number): Promise<readonly AuditLine[] | undefined> {
  try {
    const head = await readHead(directory);
    const files = await listFiles(directory);
    if (files.length === 0 && head === undefined) return undefined;
    let lines: AuditLine[] = [];
    for (const file of files.toReversed()) {
      if (lines.length >= count) break;
      lines = [...(await linesOf(file)), ...lines];
    }
    return count === 0 ? [] : lines.slice(-count);
  } catch (error) {
    throw unusable(directory, error);
  }
}
