/** The audit log's directory: its files by number, their lines, and the head beside them. */

import { chmod, type FileHandle, mkdir, open, readdir, readFile, rename, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { AuditLine } from '../audit.ts';
import { type AuditHead, auditFormat, lineMaxChars, parseHead, parseLine, printHead } from '../audit-chain.ts';

/** One file of lines. */
export interface AuditFile {
  readonly path: string;
  /** `audit-<number>.jsonl`. */
  readonly name: string;
  /** Number of its first line. */
  readonly first: number;
}

/** A line as it stands in its file. */
export interface RawLine {
  readonly text: string;
  /** From 1. */
  readonly line: number;
  /** False for what a writer has not ended, or never will. */
  readonly isWhole: boolean;
}

const headName = 'head.json';
const privateFile = 0o600;
const chunkBytes = 65_536;

/** The code of a system error. @throws `error` itself when it is none. */
export function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  throw error;
}

/** What a fault of the system comes to for whoever opens or reads the log. @throws `error` itself when it is none. */
export function unusable(directory: string, error: unknown): HelixFlowError {
  if (error instanceof HelixFlowError) return error;
  return new HelixFlowError('DATA_DIR_UNUSABLE', { path: directory, reason: codeOf(error) }, { cause: error });
}

export const fileAt = (directory: string, first: number): AuditFile => {
  const name = `audit-${first}.jsonl`;
  return { path: join(directory, name), name, first };
};

/**
 * Makes the directory, the owner's alone. What is above it is there: a recursive `mkdir` never ends below `/proc`.
 * @returns whether it was missing.
 */
export async function makeDirectory(directory: string): Promise<boolean> {
  try {
    await mkdir(directory, { mode: 0o700 });
    return true;
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    await chmod(directory, 0o700);
    return false;
  }
}

/** Removes a head that no line follows, and the directory if it was made for it. @returns why they stay, where they do. */
export async function removeEmpty(directory: string, isOwn: boolean): Promise<string | undefined> {
  try {
    await rm(join(directory, headName), { force: true });
    if (isOwn) await rmdir(directory);
    return undefined;
  } catch (error) {
    return codeOf(error);
  }
}

/** The files, oldest first; none where there is no directory. */
export async function listFiles(directory: string): Promise<AuditFile[]> {
  try {
    const names = await readdir(directory);
    return names
      .flatMap((name) => /^audit-(0|[1-9]\d{0,14})\.jsonl$/.exec(name)?.[1] ?? [])
      .map((first) => fileAt(directory, Number(first)))
      .sort((a, b) => a.first - b.first);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}

/** The head; undefined when there is none that can be read. @throws HelixFlowError FORMAT_TOO_NEW */
export async function readHead(directory: string): Promise<AuditHead | undefined> {
  const path = join(directory, headName);
  try {
    const head = parseHead(await readFile(path, 'latin1'));
    if (typeof head !== 'number') return head;
    throw new HelixFlowError('FORMAT_TOO_NEW', { path, found: head, known: auditFormat });
  } catch (error) {
    if (error instanceof HelixFlowError) throw error;
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Whole or as it was before. Its name may reach the disk later: a head that lags behind its lines is expected. */
export async function writeHead(directory: string, head: AuditHead): Promise<void> {
  const draft = join(directory, `${headName}.new`);
  const file = await open(draft, 'w', privateFile);
  try {
    await file.writeFile(printHead(head));
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(draft, join(directory, headName));
}

/** Makes the names of files durable; where directories cannot be synced, nothing better is to be had. */
export async function syncNames(directory: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes all of `bytes`, however many calls the system wants for it. */
export async function writeAt(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  let written = 0;
  while (written < bytes.length) {
    const { bytesWritten } = await file.write(bytes, written, bytes.length - written, position + written);
    written += bytesWritten;
  }
}

/** The lines of a file in order, one byte a character; one that no writer could have written is cut to a length that shows it. */
export async function* readLines(path: string): AsyncGenerator<RawLine> {
  const handle = await open(path, 'r');
  try {
    const chunk = Buffer.allocUnsafe(chunkBytes);
    let rest = '';
    let line = 1;
    for (;;) {
      const { bytesRead } = await handle.read(chunk, 0, chunkBytes);
      if (bytesRead === 0) break;
      const pieces = (rest + chunk.toString('latin1', 0, bytesRead)).split('\n');
      rest = (pieces.pop() ?? '').slice(0, lineMaxChars + 1);
      for (const text of pieces) {
        yield { text, line, isWhole: true };
        line += 1;
      }
    }
    if (rest !== '') yield { text: rest, line, isWhole: false };
  } finally {
    await handle.close();
  }
}

/** The first line of a file; undefined when it has none that can be read, or somebody has removed it. */
export async function firstLine({ path }: AuditFile): Promise<AuditLine | undefined> {
  try {
    for await (const { text, isWhole } of readLines(path)) return isWhole ? parseLine(text) : undefined;
    return undefined;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Those without the files that a writer had decided to remove and did not get to. A head that does not fit decides nothing. */
export async function keptFiles(all: readonly AuditFile[], head: AuditHead | undefined): Promise<readonly AuditFile[]> {
  const index = all.findIndex(({ first }) => first === head?.first.number);
  const oldest = all[index];
  if (oldest === undefined || index === 0) return all;
  const line = await firstLine(oldest);
  return line !== undefined && line.previous === head?.first.previous ? all.slice(index) : all;
}
