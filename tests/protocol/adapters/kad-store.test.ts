/** What Kademlia keeps for others has bounds, and its owner none. */

import { describe, test } from 'vitest';
import { createKadStore, type KadStore } from '../../../protocol/adapters/libp2p/kad-store.ts';
import { createMeter } from '../../../protocol/adapters/libp2p/meter.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import { ManualClock } from '../../support/manual-clock.ts';

type KadKey = Parameters<KadStore['put']>[0];

const value = Uint8Array.of(1);
/** What the store reads of a key. */
const keyOf = (text: string): KadKey => ({ toString: () => text }) as KadKey;
const provider = (content: string, peer: string): KadKey => keyOf(`/dht/provider/${content}/${peer}`);
const record = (name: string): KadKey => keyOf(`/dht/record/${name}`);
const small = { self: 'me', keysPerPeerMax: 3, providersMax: 5, recordsMax: 2 };

async function peersUnder(store: KadStore, prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { key } of store.query({ prefix })) found.push(key.toString());
  return found.sort();
}

const outcome = async (work: unknown): Promise<string> => {
  try {
    await work;
    return 'done';
  } catch (error) {
    return isHelixFlowError(error) ? error.code : error instanceof Error ? error.name : 'thrown';
  }
};

describe('the store of Kademlia', () => {
  test('finds the providers of one key and no other', async ({ expect }) => {
    const store = createKadStore({ ...small, providersMax: 100 });
    for (const key of [provider('a', 'x'), provider('a', 'y'), provider('ab', 'x'), record('a')])
      await store.put(key, value);
    expect(await peersUnder(store, '/dht/provider/a')).toEqual(['/dht/provider/a/x', '/dht/provider/a/y']);
    expect(await peersUnder(store, '/dht/provider')).toHaveLength(3);
    expect(await peersUnder(store, '/dht/provider/none')).toEqual([]);
    await store.delete(provider('a', 'x'));
    await store.delete(provider('a', 'x'));
    expect(await peersUnder(store, '/dht/provider/a')).toEqual(['/dht/provider/a/y']);
    expect(store.size).toBe(3);
  });

  test('forgets all that one peer provides, and takes from it anew', async ({ expect }) => {
    const store = createKadStore({ ...small, providersMax: 100 });
    for (const content of ['a', 'b', 'c'])
      for (const peer of ['x', 'y']) await store.put(provider(content, peer), value);
    store.forget('x');
    store.forget('nobody');
    expect(await peersUnder(store, '/dht/provider')).toEqual(['a', 'b', 'c'].map((name) => `/dht/provider/${name}/y`));
    expect(store.size).toBe(3);
    for (const content of ['a', 'b', 'd']) await store.put(provider(content, 'x'), value);
    expect([store.size, await outcome(store.put(provider('e', 'x'), value))]).toEqual([6, 'DIRECTORY_UNAVAILABLE']);
  });

  test('takes a quota of keys from each peer, and a renewed one always', async ({ expect }) => {
    const store = createKadStore({ ...small, providersMax: 100 });
    for (const content of ['a', 'b', 'c']) await store.put(provider(content, 'x'), value);
    expect(await outcome(store.put(provider('d', 'x'), value))).toBe('DIRECTORY_UNAVAILABLE');
    expect(await outcome(store.put(provider('a', 'x'), value))).toBe('done');
    expect(await outcome(store.put(provider('d', 'y'), value))).toBe('done');
    await store.delete(provider('a', 'x'));
    expect(await outcome(store.put(provider('d', 'x'), value))).toBe('done');
  });

  test('takes so many records in all, and its owner’s always', async ({ expect }) => {
    const store = createKadStore(small);
    for (let at = 0; at < small.providersMax; at += 1) await store.put(provider('a', `peer-${at}`), value);
    expect(await outcome(store.put(provider('a', 'one-more'), value))).toBe('DIRECTORY_UNAVAILABLE');
    for (let at = 0; at < 10; at += 1)
      expect(await outcome(store.put(provider(`own-${at}`, 'me'), value))).toBe('done');
  });

  test('forgets the record put longest ago', async ({ expect }) => {
    const store = createKadStore(small);
    for (const name of ['a', 'b', 'a', 'c']) await store.put(record(name), value);
    expect(await outcome(store.get(record('b')))).toBe('NotFoundError');
    expect([await outcome(store.get(record('a'))), await outcome(store.get(record('c')))]).toEqual(['done', 'done']);
    await store.delete(record('a'));
    expect(await outcome(store.get(record('a')))).toBe('NotFoundError');
  });
});

describe('the meter', () => {
  const options = { burstBytes: 100, bytesPerSecond: 10, peersMax: 2 };

  test('gives a burst, then as much as time brings', async ({ expect }) => {
    const clock = new ManualClock();
    const meter = createMeter(clock, options);
    expect([meter.take('a', 60), meter.take('a', 60), meter.take('a', 40), meter.take('a', 1)]).toEqual([
      true,
      false,
      true,
      false,
    ]);
    await clock.advance(2_000);
    expect([meter.take('a', 21), meter.take('a', 20), meter.take('b', 100)]).toEqual([false, true, true]);
    await clock.advance(3_600_000);
    expect([meter.take('a', 101), meter.take('a', 100)]).toEqual([false, true]);
  });

  test('remembers a bounded number of peers', ({ expect }) => {
    const meter = createMeter(new ManualClock(), options);
    for (const peer of ['a', 'b', 'c']) meter.take(peer, 100);
    expect([meter.take('b', 1), meter.take('c', 1), meter.take('a', 1)]).toEqual([false, false, true]);
  });
});
