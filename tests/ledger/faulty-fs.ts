/** The file system with faults: a crash at the n-th change, in the midst of it, or a disk that is full for a while. */

import type { FileHandle } from 'node:fs/promises';

type FileSystem = typeof import('node:fs/promises');

/** Every change asks here first. */
export const faults = {
  /** Changes since the last `heal`. */
  changes: 0,
  /** The change at which everything ends; later ones fail, too. */
  crashAt: Number.POSITIVE_INFINITY,
  isFull: false,
  /** Files that are there take more, new ones cannot be made. */
  isFullForNew: false,
  /** Bytes of the change at which it ends that still reach the file. */
  tornBytes: 0,
  opened: new Set<FileHandle>(),
};

/** As after a restart: whatever was open is closed, and the disk works. */
export async function heal(): Promise<void> {
  Object.assign(faults, {
    changes: 0,
    crashAt: Number.POSITIVE_INFINITY,
    isFull: false,
    isFullForNew: false,
    tornBytes: 0,
  });
  const handles = [...faults.opened];
  faults.opened.clear();
  await Promise.all(handles.map((handle) => handle.close()));
}

const failure = (code: string): Error => Object.assign(new Error(code), { code });

/** @returns true when this is the change in whose midst everything ends. */
function change(): boolean {
  faults.changes += 1;
  if (faults.changes > faults.crashAt) throw failure('EIO');
  return faults.changes === faults.crashAt;
}

function guarded(handle: FileHandle): FileHandle {
  faults.opened.add(handle);
  return new Proxy(handle, {
    get: (target, name) => {
      const { [name as keyof FileHandle]: value } = target;
      if (typeof value !== 'function') return value;
      const call = (value as (...given: unknown[]) => Promise<unknown>).bind(target);
      switch (name) {
        case 'write':
          return async (bytes: Buffer, from: number, length: number, position: number) => {
            const isLast = change();
            if (faults.isFull) throw failure('ENOSPC');
            if (!isLast) return await call(bytes, from, length, position);
            await call(bytes, from, Math.min(length, faults.tornBytes), position);
            throw failure('EIO');
          };
        case 'writeFile':
          return async (text: string) => {
            const isLast = change();
            if (faults.isFull) throw failure('ENOSPC');
            await call(isLast ? text.slice(0, faults.tornBytes) : text);
            if (isLast) throw failure('EIO');
          };
        case 'datasync':
        case 'sync':
          // What was written outlives a crash of this process without it, and real disks take their time.
          return async () => {
            if (change()) throw failure('EIO');
          };
        case 'truncate':
          return async (...given: unknown[]) => {
            if (change()) throw failure('EIO');
            return await call(...given);
          };
        case 'close':
          return async () => {
            faults.opened.delete(target);
            await call();
          };
        default:
          return call;
      }
    },
  });
}

/** To be put in the place of `node:fs/promises`. */
export function faultyFileSystem(real: FileSystem): FileSystem {
  const changing =
    <Given extends unknown[], Result>(call: (...given: Given) => Promise<Result>) =>
    async (...given: Given): Promise<Result> => {
      if (change()) throw failure('EIO');
      return await call(...given);
    };
  const open = async (...given: Parameters<FileSystem['open']>): Promise<FileHandle> => {
    if (given[1] !== 'r' && given[1] !== 'r+') {
      if (change()) throw failure('EIO');
      if (faults.isFull || faults.isFullForNew) throw failure('ENOSPC');
    }
    return guarded(await real.open(...given));
  };
  return {
    ...real,
    open,
    mkdir: changing(real.mkdir as never) as FileSystem['mkdir'],
    rename: changing(real.rename),
    rm: changing(real.rm),
  };
}
