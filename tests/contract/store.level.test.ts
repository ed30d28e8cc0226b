/** LevelDB under the contract, and what only a real directory can do to it. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { Store } from '../../protocol/ports.ts';
import { storeContract } from './store.ts';

interface Directory extends AsyncDisposable {
  readonly path: string;
}

async function directory(): Promise<Directory> {
  const path = await mkdtemp(join(tmpdir(), 'helixflow-store-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

storeContract('the store on LevelDB', async () => {
  const { path, [Symbol.asyncDispose]: remove } = await directory();
  const opened: Store[] = [];
  return {
    open: async () => {
      const store = await openLevelStore(join(path, 'store'));
      opened.push(store);
      return store;
    },
    // LevelDB begins a new file every four megabytes; now it has nowhere to put that.
    breakDisk: () => rm(join(path, 'store'), { recursive: true }),
    [Symbol.asyncDispose]: async () => {
      for (const store of opened) await store.close();
      await remove();
    },
  };
});

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
    return 'did not fail';
  } catch (error) {
    return isHelixFlowError(error) ? { code: error.code, details: error.details } : `not typed: ${error}`;
  }
}

describe('opening a store', () => {
  test('makes the directory and what is above it', async ({ expect }) => {
    await using at = await directory();
    const path = join(at.path, 'a', 'b', 'c');
    const store = await openLevelStore(path);
    await store.close();
    expect(await readFile(join(path, 'helixflow-format'), 'utf8')).toBe('1\n');
  });

  test('refuses a newer format before it touches anything', async ({ expect }) => {
    await using at = await directory();
    await writeFile(join(at.path, 'helixflow-format'), '2\n');
    expect(await failureOf(openLevelStore(at.path))).toEqual({
      code: 'FORMAT_TOO_NEW',
      details: { path: at.path, found: 2, known: 1 },
    });
  });

  test('refuses a format that is no number', async ({ expect }) => {
    await using at = await directory();
    await writeFile(join(at.path, 'helixflow-format'), 'new\n');
    expect(await failureOf(openLevelStore(at.path))).toMatchObject({ code: 'DATA_DIR_UNUSABLE' });
  });

  test('refuses a damaged store, and says so', async ({ expect }) => {
    await using at = await directory();
    await (await openLevelStore(at.path)).close();
    await writeFile(join(at.path, 'CURRENT'), 'garbage');
    const reason = 'its store is corrupt (LEVEL_CORRUPTION)';
    expect(await failureOf(openLevelStore(at.path))).toEqual({
      code: 'DATA_DIR_UNUSABLE',
      details: { path: at.path, reason },
    });
  });

  test.for([
    ['a file in the way', 'ENOTDIR', async (path: string) => writeFile(path, 'x')],
    ['a place where nothing can be made', 'ENOENT', undefined],
  ] as const)('refuses %s', async ([, reason, prepare], { expect }) => {
    await using at = await directory();
    const inTheWay = prepare === undefined ? '/proc/nowhere/store' : join(at.path, 'file');
    await prepare?.(inTheWay);
    expect(await failureOf(openLevelStore(inTheWay))).toEqual({
      code: 'DATA_DIR_UNUSABLE',
      details: { path: inTheWay, reason },
    });
  });
});
