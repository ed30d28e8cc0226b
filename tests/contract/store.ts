/** What every `Store` keeps to. */

import fc from 'fast-check';
import { describe, type ExpectStatic, test } from 'vitest';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { Store, StoreOp, StoreRange } from '../../protocol/ports.ts';
import '../support/seed.ts';

/** One directory, or what stands for it. */
export interface StoreWorld extends AsyncDisposable {
  /** Opens the store on it; also again, after a close or a crash. */
  open(): Promise<Store>;
  /** Makes the next writes of the open store fail, as a full or broken disk does. */
  breakDisk(): Promise<void>;
}

type Entry = readonly [string, string];
type Suite = (sentence: string, body: (world: StoreWorld, expect: ExpectStatic) => Promise<void>) => void;

const key = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes);
const put = (at: Uint8Array, value: Uint8Array): StoreOp => ({ type: 'put', key: at, value });
const del = (at: Uint8Array): StoreOp => ({ type: 'del', key: at });
const lazily = { sync: false };
const safely = { sync: true };
const everything: StoreRange = { gte: key(), lt: new Uint8Array(20).fill(255) };
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

async function list(store: Store, range: StoreRange = everything): Promise<Entry[]> {
  const entries: Entry[] = [];
  for await (const [at, value] of store.range(range)) entries.push([hex(at), hex(value)]);
  return entries;
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'did not fail';
  } catch (error) {
    return isHelixFlowError(error) ? error.code : `not typed: ${error}`;
  }
}

/** Runs the suite. @param open Makes a world of its own for each test. */
export function storeContract(name: string, open: () => Promise<StoreWorld>): void {
  const check: Suite = (sentence, body) => {
    test(sentence, async ({ expect }) => {
      await using world = await open();
      await body(world, expect);
    });
  };
  describe(`${name} keeps the contract of Store: values`, () => valueTests(check));
  describe(`${name} keeps the contract of Store: ranges`, () => rangeTests(check));
  describe(`${name} keeps the contract of Store: life`, () => lifeTests(check));
}

function valueTests(check: Suite): void {
  check('gives back what was put, and nothing else', async (world, expect) => {
    const store = await world.open();
    await store.batch([put(key(1), key(9, 8)), put(key(2), key())], lazily);
    expect(await store.get(key(1))).toEqual(key(9, 8));
    expect(await store.get(key(2))).toEqual(key());
    expect(await store.get(key(3))).toBeUndefined();
    expect((await store.get(key(1)))?.constructor === Buffer).toBe(false);
  });

  check('the last operation on a key counts', async (world, expect) => {
    const store = await world.open();
    await store.batch(
      [put(key(1), key(1)), put(key(1), key(2)), put(key(2), key(1)), del(key(2)), del(key(3))],
      safely,
    );
    expect(await list(store)).toEqual([['01', '02']]);
    await store.batch([del(key(1)), put(key(2), key(7))], lazily);
    expect(await list(store)).toEqual([['02', '07']]);
    await store.batch([], safely);
    expect(await list(store)).toEqual([['02', '07']]);
  });

  check('keeps its own copy of what it took and of what it gives', async (world, expect) => {
    const store = await world.open();
    const [at, value] = [key(1), key(5)];
    await store.batch([put(at, value)], lazily);
    at.fill(7);
    value.fill(7);
    (await store.get(key(1)))?.fill(9);
    for await (const [, given] of store.range(everything)) given.fill(9);
    expect(await list(store)).toEqual([['01', '05']]);
  });

  check('holds large values and many keys', async (world, expect) => {
    const store = await world.open();
    const large = new Uint8Array(1_000_000).fill(3);
    const many = Array.from({ length: 2_000 }, (_, index) => put(key(2, index >> 8, index & 255), key(index & 255)));
    await store.batch([put(key(1), large), ...many], safely);
    expect(Buffer.compare((await store.get(key(1))) ?? key(), large)).toBe(0);
    expect(await list(store, { gte: key(2), lt: key(3) })).toHaveLength(2_000);
  });

  check('is an ordered map, whatever happens to it', async (world, expect) => {
    const store = await world.open();
    const bytes = fc.uint8Array({ maxLength: 3 });
    const op = fc.oneof(
      fc.tuple(bytes, bytes).map(([at, value]) => put(at, value)),
      bytes.map((at) => del(at)),
    );
    const range = fc.record(
      { gte: bytes, lt: bytes, limit: fc.nat(5), reverse: fc.boolean() },
      { requiredKeys: ['gte', 'lt'] },
    );
    const model = new Map<string, string>();
    await fc.assert(
      fc.asyncProperty(fc.array(op, { maxLength: 8 }), range, async (ops, asked) => {
        for (const made of ops) {
          if (made.type === 'put') model.set(hex(made.key), hex(made.value));
          else model.delete(hex(made.key));
        }
        await store.batch(ops, lazily);
        const inside = [...model].filter(([at]) => at >= hex(asked.gte) && at < hex(asked.lt)).sort();
        if (asked.reverse === true) inside.reverse();
        expect(await list(store, asked)).toEqual(inside.slice(0, asked.limit ?? inside.length));
      }),
      { numRuns: 150 },
    );
  });
}

function rangeTests(check: Suite): void {
  const keys = [key(0), key(0, 0), key(1), key(1, 255), key(127), key(128), key(255), key(255, 0)];
  const filled = async (world: StoreWorld): Promise<Store> => {
    const store = await world.open();
    await store.batch(
      keys.toReversed().map((at) => put(at, key(1))),
      lazily,
    );
    return store;
  };
  const found = async (store: Store, range: StoreRange): Promise<string[]> =>
    (await list(store, range)).map(([at]) => at);

  check('keys come byte by byte in order, the first bound included and the second not', async (world, expect) => {
    const store = await filled(world);
    expect(await found(store, everything)).toEqual(keys.map(hex));
    expect(await found(store, { gte: key(1), lt: key(128) })).toEqual(['01', '01ff', '7f']);
    expect(await found(store, { gte: key(0, 1), lt: key(0, 1) })).toEqual([]);
    expect(await found(store, { gte: key(9), lt: key(2) })).toEqual([]);
  });

  check('a limit takes the first ones of the direction asked for', async (world, expect) => {
    const store = await filled(world);
    expect(await found(store, { ...everything, limit: 2 })).toEqual(['00', '0000']);
    expect(await found(store, { ...everything, limit: 2, reverse: true })).toEqual(['ff00', 'ff']);
    expect(await found(store, { gte: key(1), lt: key(255), reverse: true })).toEqual(['80', '7f', '01ff', '01']);
    expect(await found(store, { ...everything, limit: 0 })).toEqual([]);
  });

  check('a range under way does not see later writes', async (world, expect) => {
    const store = await filled(world);
    const seen: string[] = [];
    for await (const [at] of store.range(everything)) {
      seen.push(hex(at));
      await store.batch([del(key(255)), put(key(200), key(1))], lazily);
    }
    expect(seen).toEqual(keys.map(hex));
    expect(await found(store, { gte: key(128), lt: key(255) })).toEqual(['80', 'c8']);
  });

  check('a range may be left early', async (world, expect) => {
    const store = await filled(world);
    for (let round = 0; round < 20; round += 1) {
      for await (const [at] of store.range(everything)) {
        expect(hex(at)).toBe('00');
        break;
      }
    }
    await store.close();
  });
}

function lifeTests(check: Suite): void {
  check('keeps everything that is there when a range is purged', async (world, expect) => {
    const store = await world.open();
    await store.batch([put(key(1), key(9)), put(key(2), key(8)), put(key(3), key(7))], safely);
    await store.batch([del(key(2)), put(key(3), key(6))], safely);
    await store.purge?.({ gte: key(1), lt: key(3) });
    await store.purge?.(everything);
    const left = [
      ['01', '09'],
      ['03', '06'],
    ];
    expect(await list(store)).toEqual(left);
    await store.close();
    if (store.purge !== undefined) expect(await codeOf(store.purge(everything))).toBe('STORE_FAILED');
    expect(await list(await world.open())).toEqual(left);
  });

  check('what was written is there when it is opened again', async (world, expect) => {
    const store = await world.open();
    await store.batch([put(key(1), key(1))], lazily);
    await store.batch([put(key(2), key(2))], safely);
    await store.close();
    expect(await list(await world.open())).toEqual([
      ['01', '01'],
      ['02', '02'],
    ]);
  });

  check('one process holds it at a time', async (world, expect) => {
    const store = await world.open();
    expect(await codeOf(world.open())).toBe('DATA_DIR_HELD');
    await store.batch([put(key(1), key(1))], safely);
    await store.close();
    expect(await list(await world.open())).toEqual([['01', '01']]);
  });

  check('a closed store refuses everything, and may be closed again', async (world, expect) => {
    const store = await world.open();
    await store.close();
    const codes = [
      await codeOf(store.get(key(1))),
      await codeOf(store.batch([put(key(1), key(1))], lazily)),
      await codeOf(list(store)),
    ];
    expect(codes).toEqual(['STORE_FAILED', 'STORE_FAILED', 'STORE_FAILED']);
    await store.close();
  });

  check('after a failed write it refuses everything, until it is opened again', async (world, expect) => {
    const store = await world.open();
    await store.batch([put(key(1), key(1))], safely);
    await world.breakDisk();
    const large = new Uint8Array(1_000_000);
    let code = 'did not fail';
    for (let round = 0; round < 20 && code === 'did not fail'; round += 1) {
      code = await codeOf(store.batch([put(key(9, round), large)], safely));
    }
    const codes = [
      code,
      await codeOf(store.get(key(1))),
      await codeOf(store.batch([put(key(2), key(1))], lazily)),
      await codeOf(list(store)),
    ];
    expect(codes).toEqual(['STORE_FAILED', 'STORE_FAILED', 'STORE_FAILED', 'STORE_FAILED']);
    await store.close();
  });
}
