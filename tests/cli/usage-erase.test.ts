/** Erasure on a real disk: every byte of a directory is looked through for what was to be forgotten. */

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import { createNames } from '../../ledger/names.ts';
import { runHere } from './in-process.ts';
import { tempDir } from './temp-dir.ts';

/** Files below `path` that hold this text, in any of the forms in which something may have written it. */
async function filesWith(path: string, text: string): Promise<string[]> {
  const plain = Buffer.from(text);
  const forms = [
    plain,
    Buffer.from(text, 'utf16le'),
    Buffer.from(JSON.stringify(text).slice(1, -1)),
    Buffer.from(plain.toString('hex')),
    Buffer.from(plain.toString('base64').replace(/=+$/, '').slice(0, -1)),
  ];
  const found: string[] = [];
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const bytes = await readFile(join(entry.parentPath, entry.name));
    if (forms.some((form) => bytes.includes(form))) found.push(entry.name);
  }
  return found;
}

describe('an account that is erased', () => {
  test('leaves neither its name nor those of its keys in any byte of the directory', async ({ expect }) => {
    await using temp = await tempDir();
    const run = (...args: string[]) => runHere([...args, '--data-dir', temp.path]);
    const names = ['Zoe Mustermann-Uniquename', 'Laptop of Zoe Mustermann', 'Second laptop of Zoe'];
    expect((await run('mesh', 'create', '--name', 'm')).code).toBe(0);
    const account = String((await run('accounts', 'create', '--name', names[0] as string)).value['id']);
    for (const name of names.slice(1)) await run('keys', 'create', '--account', account, '--name', name);
    await run('keys', 'create', '--name', 'Somebody else entirely');
    for (const name of names) expect(await filesWith(temp.path, name)).not.toEqual([]);

    expect((await run('accounts', 'erase', account)).error).toBe('CONFIG_INVALID');
    for (const name of names) expect(await filesWith(temp.path, name)).not.toEqual([]);
    const erased = await run('accounts', 'erase', account, '--yes');
    expect(erased.value).toMatchObject({ account, erased: true, keys: [expect.any(String), expect.any(String)] });

    for (const name of [...names, 'Mustermann', 'Zoe']) expect(await filesWith(temp.path, name)).toEqual([]);
    expect(await filesWith(temp.path, 'Somebody else entirely')).not.toEqual([]);
    const { value } = await run('accounts', 'ls');
    const accounts = value['accounts'] as { id: string; state: string; name?: string }[];
    expect(accounts.map(({ id, state, name }) => [id === account, state, name]).sort()).toEqual([
      [false, 'open', 'Somebody else entirely'],
      [true, 'erased', undefined],
    ]);
  });

  test('and a name that is forgotten leaves none either', async ({ expect }) => {
    await using temp = await tempDir();
    const run = (...args: string[]) => runHere([...args, '--data-dir', temp.path]);
    await run('mesh', 'create', '--name', 'm');
    const account = String((await run('accounts', 'create', '--name', 'Zoe Mustermann')).value['id']);
    await run('accounts', 'set', account, '--name', 'Mustermann renamed');
    await run('accounts', 'set', account, '--forget-name');
    expect(await filesWith(temp.path, 'Mustermann')).toEqual([]);
  });

  test('in a store of many files, what was forgotten is in none of them, and the rest is as it was', async ({
    expect,
  }) => {
    await using temp = await tempDir();
    const path = join(temp.path, 'store');
    const store = await openLevelStore(path);
    const names = createNames(store);
    const row = (at: number): Uint8Array => new TextEncoder().encode(`f/${String(at).padStart(6, '0')}`);
    const value = (at: number): Uint8Array => new Uint8Array(4_096).fill(at % 251);
    for (let at = 0; at < 3_000; at += 100) {
      await names.give(`account:acct-${at}`, `Mustermann ${at}`);
      const rows = Array.from({ length: 100 }, (_, index) => at + index);
      await store.batch(
        rows.map((each) => ({ type: 'put', key: row(each), value: value(each) })),
        { sync: false },
      );
    }
    expect((await filesWith(path, 'Mustermann')).length).toBeGreaterThan(1);
    await names.eraseAll(Array.from({ length: 30 }, (_, at) => `account:acct-${at * 100}` as const));
    expect(await filesWith(path, 'Mustermann')).toEqual([]);
    for (const at of [0, 1_234, 2_999]) expect(await store.get(row(at))).toEqual(value(at));
    await store.close();
  });
});
