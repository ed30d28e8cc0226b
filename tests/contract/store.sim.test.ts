/** Simulated disks under the contract, and what a crash does to them. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { Store, StoreOp } from '../../protocol/ports.ts';
import { FaultCounts } from '../../sim/effects.ts';
import { Kernel } from '../../sim/kernel.ts';
import { SimRandom } from '../../sim/random.ts';
import { openSimStore, SimDisk } from '../../sim/store.ts';
import { storeContract } from './store.ts';

storeContract('the simulated store', async () => {
  const kernel = new Kernel(1);
  const running = kernel.pump();
  const counts = new FaultCounts();
  const disk = new SimDisk(kernel.random.fork('disk'), counts);
  return {
    open: async () => openSimStore(kernel, kernel.lifeline('test'), disk, counts),
    breakDisk: async () => {
      disk.faults.isFull = true;
    },
    [Symbol.asyncDispose]: async () => running[Symbol.dispose](),
  };
});

const put = (at: number): StoreOp => ({ type: 'put', key: Uint8Array.of(at), value: Uint8Array.of(at) });

class Machine implements Disposable {
  readonly kernel = new Kernel(1);
  readonly counts = new FaultCounts();
  readonly disk: SimDisk;
  readonly #running = this.kernel.pump();
  #lifeline = this.kernel.lifeline('machine');

  constructor(seed: number) {
    this.disk = new SimDisk(new SimRandom(String(seed)), this.counts);
  }

  open(): Store {
    return openSimStore(this.kernel, this.#lifeline, this.disk, this.counts);
  }

  /** Cuts the power and starts again. */
  crash(): Store {
    this.#lifeline.end();
    this.disk.crash();
    this.#lifeline = this.kernel.lifeline('machine');
    return this.open();
  }

  [Symbol.dispose](): void {
    this.#running[Symbol.dispose]();
  }
}

async function keysOf(store: Store): Promise<number[]> {
  const keys: number[] = [];
  for await (const [key] of store.range({ gte: new Uint8Array(), lt: Uint8Array.of(255, 255) }))
    keys.push(key[0] ?? -1);
  return keys;
}

describe('a crash of a simulated disk', () => {
  test('keeps all that was synced and, of the rest, what came first', async ({ expect }) => {
    let losses = 0;
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.array(fc.boolean(), { maxLength: 40 }), async (seed, syncs) => {
        using machine = new Machine(seed);
        const store = machine.open();
        for (const [at, sync] of syncs.entries()) await store.batch([put(at)], { sync });
        const keys = await keysOf(machine.crash());
        expect(keys).toEqual(keys.map((_, at) => at));
        expect(keys.length).toBeGreaterThan(syncs.lastIndexOf(true));
        losses += machine.counts.of('diskLostSuffix');
      }),
      { numRuns: 100 },
    );
    expect(losses).toBeGreaterThan(0);
  });

  test('never keeps a part of a batch', async ({ expect }) => {
    for (let seed = 0; seed < 30; seed += 1) {
      using machine = new Machine(seed);
      const store = machine.open();
      await store.batch([put(1), put(2)], { sync: false });
      await store.batch([put(3), put(4)], { sync: false });
      expect([[], [1, 2], [1, 2, 3, 4]]).toContainEqual(await keysOf(machine.crash()));
    }
  });

  test('during a sync keeps the batch or loses it', async ({ expect }) => {
    const outcomes = new Set<number>();
    for (let seed = 0; seed < 30; seed += 1) {
      const kernel = new Kernel(seed);
      const counts = new FaultCounts();
      const disk = new SimDisk(new SimRandom(String(seed)), counts);
      const first = kernel.lifeline('first');
      void openSimStore(kernel, first, disk, counts).batch([put(1)], { sync: true });
      await kernel.run(0.5);
      expect(disk.logged).toEqual({ records: 1, synced: 0 });
      first.end();
      disk.crash();
      using _running = kernel.pump();
      outcomes.add((await keysOf(openSimStore(kernel, kernel.lifeline('second'), disk, counts))).length);
    }
    expect([...outcomes].sort()).toEqual([0, 1]);
  });

  test('may tear a hole into what was synced, when told to', async ({ expect }) => {
    let holes = 0;
    for (let seed = 0; seed < 30; seed += 1) {
      using machine = new Machine(seed);
      machine.disk.faults.holeChance = 0.5;
      const store = machine.open();
      for (let at = 0; at < 20; at += 1) await store.batch([put(at)], { sync: true });
      const keys = await keysOf(machine.crash());
      if (machine.counts.of('diskHoles') > 0) {
        holes += 1;
        expect(keys.length).toBeLessThan(20);
        expect(keys.at(-1)).toBe(19);
      } else expect(keys).toHaveLength(20);
    }
    expect(holes).toBeGreaterThan(5);
  });

  test('after a failed sync keeps the store closed to the process that saw it', async ({ expect }) => {
    using machine = new Machine(1);
    const store = machine.open();
    await store.batch([put(1)], { sync: true });
    machine.disk.faults.failNext = 'sync';
    await expect(store.batch([put(2)], { sync: true })).rejects.toMatchObject({ code: 'STORE_FAILED' });
    await expect(store.get(Uint8Array.of(1))).rejects.toMatchObject({ code: 'STORE_FAILED' });
    expect(machine.counts.of('diskSyncError')).toBe(1);
    expect((await keysOf(machine.crash()))[0]).toBe(1);
  });
});
