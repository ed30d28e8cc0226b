/** Finds where an audit log goes on: what a crash left half-written is cut off, what does not fit is told. */

import { type FileHandle, open, readFile, rm, stat } from 'node:fs/promises';
import type { AuditRecord } from '../audit.ts';
import { type Anchor, type AuditHead, emptyHead, headFrom, type NewestFile, resumeAfter } from '../audit-chain.ts';
import { type AuditFile, firstLine, keptFiles, listFiles, readHead, writeHead } from './audit-disk.ts';

export interface OpenFile extends AuditFile {
  bytes: number;
}

/** What the log says of itself. */
export type SelfRecord = Omit<AuditRecord, 'actor' | 'object'>;

/** What was found on opening. */
export interface Found {
  readonly head: AuditHead;
  readonly last: Anchor;
  readonly files: OpenFile[];
  /** Of the newest file, when there is one. */
  readonly handle: FileHandle | undefined;
  readonly told: readonly SelfRecord[];
  /** There was no log; now there is a head. */
  readonly isNew: boolean;
}

/** Removes what an earlier run had meant to remove, and measures the rest. */
async function openFiles(directory: string, head: AuditHead | undefined): Promise<OpenFile[]> {
  const all = await listFiles(directory);
  const kept = await keptFiles(all, head);
  for (const { path } of all.slice(0, all.length - kept.length)) await rm(path, { force: true });
  return await Promise.all(kept.map(async (file) => ({ ...file, bytes: (await stat(file.path)).size })));
}

const repair = (outcome: 'done' | 'failed', reason: string, count = 1): SelfRecord => ({
  ...({ action: 'audit.repair', outcome, reason } as const),
  ...(count > 1 ? { count } : {}),
});

/** Opens a file for writing after its first `keep` bytes, and cuts off what follows them. */
async function openAt({ path, bytes }: OpenFile, keep: number): Promise<FileHandle> {
  const handle = await open(path, 'r+');
  try {
    if (keep < bytes) {
      await handle.truncate(keep);
      await handle.datasync();
    }
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** @throws HelixFlowError FORMAT_TOO_NEW; a system's error. */
export async function resume(directory: string): Promise<Found> {
  const known = await readHead(directory);
  const files = await openFiles(directory, known);
  const [oldest] = files;
  const newest = files.at(-1);
  if (newest === undefined) {
    const head = known ?? emptyHead;
    if (known === undefined) await writeHead(directory, head);
    const told = head.last.number >= 0 ? [repair('failed', 'missing')] : [];
    return { head, last: head.last, files, handle: undefined, told, isNew: known === undefined };
  }
  const content: NewestFile = { first: newest.first, text: await readFile(newest.path, 'latin1') };
  const head = known ?? headFrom(oldest && (await firstLine(oldest)), content);
  const { keep, last, torn, isBroken } = resumeAfter(content, head);
  const handle = await openAt(newest, keep);
  newest.bytes = keep;
  const told = [
    ...(torn > 0 ? [repair('done', 'torn', torn)] : []),
    ...(known === undefined ? [repair('failed', 'headless')] : []),
    ...(isBroken ? [repair('failed', 'broken')] : []),
  ];
  return { head, last, files, handle, told, isNew: false };
}
