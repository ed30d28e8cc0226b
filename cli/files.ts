/** Files that are whole or absent, readable by their owner alone, and the system's faults in words. */

import { randomBytes } from 'node:crypto';
import { chmod, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HelixFlowError } from '../protocol/errors.ts';

/** The code of a system error; undefined for anything else. */
export const systemCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;

const reasons: Readonly<Record<string, string>> = {
  EACCES: 'this user may not use it',
  EPERM: 'this user may not use it',
  EROFS: 'the file system is read-only',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EEXIST: 'a file is in the place of a directory',
  ENOTDIR: 'a file is in the place of a directory',
  EISDIR: 'a directory is in the place of a file',
  ENOENT: 'it does not exist',
  ENAMETOOLONG: 'its path is too long',
  ELOOP: 'its links form a circle',
  EMFILE: 'this process has too many files open',
  EIO: 'the disk reports an error',
  EADDRNOTAVAIL: 'this machine has no such address',
};

/** Why a system call failed, for people. @throws `error` itself when it is no system error. */
export function systemReason(error: unknown): string {
  const code = systemCode(error);
  if (code === undefined) throw error;
  return reasons[code] ?? code;
}

const unusable = (path: string, cause: unknown): HelixFlowError =>
  new HelixFlowError('DATA_DIR_UNUSABLE', { path, reason: systemReason(cause) }, { cause });

const privateDirectory = 0o700;
const privateFile = 0o600;

/** `mkdir` with `recursive` never ends below `/proc`, so the way up is walked here. */
async function makePath(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: privateDirectory });
  } catch (error) {
    const code = systemCode(error);
    if (code === 'EEXIST' && (await stat(path)).isDirectory()) return;
    if (code !== 'ENOENT' || dirname(path) === path) throw error;
    await makePath(dirname(path));
    await mkdir(path, { mode: privateDirectory });
  }
}

/**
 * Makes `path` and what is missing above it; what it makes is the owner's alone.
 * @param own True closes an existing directory to others, too.
 * @throws HelixFlowError DATA_DIR_UNUSABLE
 */
export async function makeDirectory(path: string, own = false): Promise<void> {
  try {
    await makePath(path);
    if (own) await chmod(path, privateDirectory);
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw unusable(path, cause);
    throw new HelixFlowError('DATA_DIR_UNUSABLE', { path, reason: 'no directory can be made there' }, { cause });
  }
}

/** Makes the entry of a renamed file durable; where directories cannot be synced, the rename alone has to do. */
export async function syncDirectory(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/**
 * Writes a file of mode 0600 that after a crash is either the old one or the new one.
 * @throws HelixFlowError DATA_DIR_UNUSABLE
 */
export async function writeFileAtomic(path: string, text: string): Promise<void> {
  const draft = `${path}.${randomBytes(4).toString('hex')}.new`;
  try {
    const file = await open(draft, 'wx', privateFile);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
    await syncDirectory(dirname(path));
  } catch (cause) {
    await rm(draft, { force: true });
    throw unusable(path, cause);
  }
}

/**
 * Writes a file of mode 0600 that must not exist yet, where somebody asked for it.
 * @param option The flag that named it, for the error.
 * @throws HelixFlowError CONFIG_INVALID
 */
export async function writeNewFile(path: string, text: string, option: string): Promise<void> {
  try {
    const file = await open(path, 'wx', privateFile);
    try {
      await file.writeFile(text);
      await file.sync();
    } catch (error) {
      // Half a file would be taken for a whole one, and be in the way of the next try.
      await rm(path, { force: true });
      throw error;
    } finally {
      await file.close();
    }
    await syncDirectory(dirname(path));
  } catch (cause) {
    const reason = systemCode(cause) === 'EEXIST' ? 'there is such a file already' : systemReason(cause);
    throw new HelixFlowError(
      'CONFIG_INVALID',
      { reason: `${option} ${path}: cannot be written: ${reason}` },
      { cause },
    );
  }
}

/** Removes a file, if it is there. @throws HelixFlowError DATA_DIR_UNUSABLE */
export async function removeFile(path: string): Promise<void> {
  try {
    await rm(path);
    await syncDirectory(dirname(path));
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return;
    throw unusable(path, cause);
  }
}

/** @throws HelixFlowError DATA_DIR_UNUSABLE when that cannot be found out. */
export async function fileExists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return false;
    throw unusable(path, cause);
  }
}

/** The text of a file; undefined when there is none. @throws HelixFlowError DATA_DIR_UNUSABLE */
export async function readFileIfAny(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return undefined;
    throw unusable(path, cause);
  }
}
