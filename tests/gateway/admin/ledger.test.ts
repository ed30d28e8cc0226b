/** The rows of feeds over the admin API: page by page, forwards and backwards, and nothing else of the store. */

import { test } from 'vitest';
import { runOperation } from '../../../gateway/admin/operations.ts';
import { feedKeys } from '../../../ledger/feed-rows.ts';
import { fromHex, toHex } from '../../../protocol/crypto.ts';
import { failure } from '../../protocol/mesh-fixture.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { stage } from './fakes.ts';

const keyAt = (number: number): Uint8Array => Uint8Array.of(...feedKeys.gte, 0x62, number >> 8, number & 0xff);

/** Rows of feeds, and others around them. */
async function furnished(count: number, bytes = 10) {
  const feeds = new MemoryStore();
  for (const key of [Uint8Array.of(0x65, 0xff), Uint8Array.of(0x66, 0x30), Uint8Array.of(0x6c, 0x2f, 1)]) {
    await feeds.batch([{ type: 'put', key, value: Uint8Array.of(1) }]);
  }
  for (let at = 0; at < count; at += 1) {
    await feeds.batch([{ type: 'put', key: keyAt(at), value: new Uint8Array(bytes).fill(at & 0xff) }]);
  }
  return stage({ feeds }).context;
}

async function readAll(context: Awaited<ReturnType<typeof furnished>>, limit: number, reverse: boolean) {
  const keys: string[] = [];
  let pages = 0;
  let [gte, lt] = ['00', 'ff'];
  for (let hasMore = true; hasMore; pages += 1) {
    const page = await runOperation('ledger.rows', context, { gte, lt, limit, reverse }, 'local');
    keys.push(...page.rows.map(([key]) => key));
    const last = page.rows.at(-1)?.[0];
    hasMore = page.hasMore && last !== undefined;
    if (last === undefined) break;
    if (reverse) lt = last;
    else gte = `${last}00`;
  }
  return { keys, pages };
}

test('rows come whole, in either direction, whatever a page holds', async ({ expect }) => {
  const context = await furnished(300);
  const all = Array.from({ length: 300 }, (_, at) => toHex(keyAt(at)));
  for (const limit of [1, 7, 300, 10_000]) {
    expect((await readAll(context, limit, false)).keys).toEqual(all);
    expect((await readAll(context, limit, true)).keys).toEqual(all.toReversed());
  }
});

test('a page ends before it is too large, but holds a row', async ({ expect }) => {
  const context = await furnished(40, 50_000);
  const { keys, pages } = await readAll(context, 10_000, false);
  expect([keys.length, pages]).toEqual([40, 4]);
  const large = await furnished(2, 600_000);
  expect((await readAll(large, 10_000, false)).keys).toHaveLength(2);
});

test('nothing beside feeds is shown, whatever is asked for', async ({ expect }) => {
  const context = await furnished(3);
  for (const [gte, lt] of [
    ['00', 'ff'],
    ['6c', '6d'],
    ['65', '66'],
    ['6630', 'ff'],
  ] as const) {
    const { rows } = await runOperation('ledger.rows', context, { gte, lt }, 'local');
    expect(rows.every(([key]) => key.startsWith(toHex(feedKeys.gte)))).toBe(true);
    expect(rows.length === 0 || fromHex(rows[0]?.[0] ?? '').length === 5).toBe(true);
  }
  expect(await failure(() => runOperation('ledger.rows', context, { gte: 'x' }, 'local'))).toMatchObject({
    code: 'REQUEST_MALFORMED',
  });
});
