/** Ways around the ports: each raises the alarm while the simulator runs, and works again afterwards. */

import { spawnSync } from 'node:child_process';
import { describe, test } from 'vitest';
import { InvariantError } from '../../protocol/invariant.ts';
import { Kernel } from '../../sim/kernel.ts';
import { guardHost } from '../../sim/tripwires.ts';

const escapes: readonly (readonly [name: string, escape: () => unknown])[] = [
  ['Date.now', () => Date.now()],
  ['new Date', () => new Date()],
  ['Date as a function', () => Date()],
  ['Math.random', () => Math.random()],
  ['performance.now', () => performance.now()],
  ['setTimeout', () => setTimeout(() => {}, 0)],
  ['setInterval', () => setInterval(() => {}, 1_000)],
  ['setImmediate', () => setImmediate(() => {})],
  ['fetch', () => fetch('http://127.0.0.1:1/')],
  ['AbortSignal.timeout', () => AbortSignal.timeout(10)],
  ['crypto.randomUUID', () => crypto.randomUUID()],
  ['crypto.getRandomValues', () => crypto.getRandomValues(new Uint8Array(1))],
  ['crypto.subtle', () => crypto.subtle.digest('SHA-256', new Uint8Array(1))],
  ['process.hrtime', () => process.hrtime()],
];

describe('the simulator’s alarm', () => {
  test.for(escapes)('goes off at %s', async ([, flee], { expect }) => {
    const alarms: unknown[] = [];
    const kernel = new Kernel(1);
    // From within an event: with frames of the simulator below it, as production code has there.
    kernel.schedule(1, () => void flee());
    using _guard = guardHost((error) => alarms.push(error));
    await kernel.run(10);
    expect(alarms).toHaveLength(1);
    expect(alarms[0]).toBeInstanceOf(InvariantError);
    expect(kernel.failure?.error).toBe(alarms[0]);
  });

  test('leaves alone what reads no clock, and everybody else', async ({ expect }) => {
    const alarms: unknown[] = [];
    const kernel = new Kernel(1);
    let year = 0;
    kernel.schedule(1, () => {
      year = new Date(0).getUTCFullYear();
    });
    using _guard = guardHost((error) => alarms.push(error));
    await kernel.run(10);
    await new Promise((resolve) => setTimeout(resolve, 1));
    expect([year, alarms, Date.now() > 0, new Date() instanceof Date]).toEqual([1970, [], true, true]);
  });

  test('is off again afterwards', ({ expect }) => {
    const before = [Date, Date.now, Math.random, setTimeout, performance.now, fetch, AbortSignal.timeout];
    guardHost(() => {})[Symbol.dispose]();
    expect([Date, Date.now, Math.random, setTimeout, performance.now, fetch, AbortSignal.timeout]).toEqual(before);
  });

  test('hears of rejections that nobody handles', ({ expect }) => {
    const url = (path: string): string => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
    const source = `
      import { Kernel } from ${url('sim/kernel.ts')};
      import { guardHost } from ${url('sim/tripwires.ts')};
      const kernel = new Kernel(1);
      const alarms = [];
      using guard = guardHost((error) => { alarms.push(error); kernel.fail(error); });
      kernel.schedule(1, () => void Promise.reject(new Error('nobody')));
      kernel.schedule(5, () => alarms.push('went on'));
      await kernel.run(10);
      console.log(JSON.stringify(alarms.map(String)));`;
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' });
    expect([child.stdout.trim(), child.stderr]).toEqual(['["Error: nobody"]', '']);
  });
});
