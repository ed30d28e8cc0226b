/** Names beside the ledger: given, listed, and erased without a trace in the table. */

import { test } from 'vitest';
import { createNames } from '../../ledger/names.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { StoreOp } from '../../protocol/ports.ts';
import { failure } from '../protocol/mesh-fixture.ts';
import { MemoryStore } from '../support/memory-store.ts';

test('a name is given, changed and erased', async ({ expect }) => {
  const store = new MemoryStore();
  const names = createNames(store);
  expect(await names.of('key:00000000000000aa')).toBeUndefined();
  await names.give('key:00000000000000aa', 'Zoë’s laptop');
  expect(await names.of('key:00000000000000aa')).toBe('Zoë’s laptop');
  await names.give('key:00000000000000aa', 'another');
  expect(await names.of('key:00000000000000aa')).toBe('another');
  await names.erase('key:00000000000000aa');
  expect([await names.of('key:00000000000000aa'), store.size]).toEqual([undefined, 0]);
});

test('all names of one kind are listed at once, and nothing else of the store', async ({ expect }) => {
  const store = new MemoryStore();
  const names = createNames(store);
  await names.give('key:00000000000000aa', 'one');
  await names.give('key:ffffffffffffffff', 'two');
  await names.give('account:acct-1', 'team');
  const others = ['name/key', 'name/key;', 'name/kez', 'f/x', 'name0'].map(
    (row): StoreOp => ({ type: 'put', key: new TextEncoder().encode(row), value: new Uint8Array([1]) }),
  );
  await store.batch(others);
  expect([...(await names.all('key'))]).toEqual([
    ['00000000000000aa', 'one'],
    ['ffffffffffffffff', 'two'],
  ]);
  expect([...(await names.all('account'))]).toEqual([['acct-1', 'team']]);
});

test('a name that was given would survive a power cut, and so would its end', async ({ expect }) => {
  const store = new MemoryStore();
  const synced: boolean[] = [];
  const batch = (ops: readonly StoreOp[], { sync }: { readonly sync: boolean }): Promise<void> => {
    synced.push(sync);
    return store.batch(ops);
  };
  const names = createNames({ ...store, batch, get: store.get.bind(store), range: store.range.bind(store) } as never);
  await names.give('account:acct-1', 'team');
  await names.erase('account:acct-1');
  expect(synced).toEqual([true, true]);
});

test('a store that fails says so', async ({ expect }) => {
  const store = new MemoryStore();
  store.batch = () => Promise.reject(new HelixFlowError('STORE_FAILED', { reason: 'full' }));
  const names = createNames(store);
  const failed = { code: 'STORE_FAILED', reason: 'full' };
  expect(await failure(() => names.give('key:00000000000000aa', 'x'))).toEqual(failed);
  expect(await failure(() => names.erase('key:00000000000000aa'))).toEqual(failed);
});
