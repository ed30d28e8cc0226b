/** The real clock under the contract, and what only a real one can show: sockets, and a process that may end. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { describe, test } from 'vitest';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { ms } from '../../protocol/units.ts';
import { clockContract } from './clock.ts';

clockContract('the system clock', () => ({ clock: systemClock(), [Symbol.dispose]: () => {} }));

interface Pair extends AsyncDisposable {
  readonly near: Socket;
  readonly far: Socket;
}

async function socketPair(): Promise<Pair> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const near = connect((address as { port: number }).port, '127.0.0.1');
  const [far] = (await once(server, 'connection')) as [Socket];
  near.setNoDelay(true);
  return {
    near,
    far,
    [Symbol.asyncDispose]: async () => {
      near.destroy();
      far.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** Each way to be in another phase of the event loop when the turn begins. */
const phases: readonly (readonly [name: string, enter: (run: () => void) => void])[] = [
  ['a timer', (run) => void setTimeout(run, 1)],
  ['a microtask', queueMicrotask],
  ['an immediate', (run) => void setImmediate(run)],
];

describe('a turn of the system clock', () => {
  test.for(phases)('reads what waits on sockets, begun in %s', async ([, enter], { expect }) => {
    await using pair = await socketPair();
    const clock = systemClock();
    let heard = 0;
    pair.far.on('data', (bytes) => {
      heard += bytes.length;
    });
    for (let round = 0; round < 50; round += 1) {
      heard = 0;
      await new Promise<void>((resolve) => enter(resolve));
      pair.near.write(new Uint8Array(100));
      await clock.turn();
      expect(heard).toBe(100);
    }
  });

  test('reads what came in while the process was stalled, begun among other reads', async ({ expect }) => {
    await using first = await socketPair();
    await using second = await socketPair();
    const clock = systemClock();
    let heard = 0;
    second.far.on('data', (bytes) => {
      heard += bytes.length;
    });
    for (let round = 0; round < 50; round += 1) {
      heard = 0;
      const read = once(first.far, 'data');
      first.near.write('x');
      await read;
      second.near.write(new Uint8Array(100));
      await clock.turn();
      expect(heard).toBe(100);
    }
  });
});

describe('the system clock', () => {
  test('keeps no process alive', async ({ expect }) => {
    const source = `
      import { systemClock } from '${new URL('../../protocol/adapters/clock.ts', import.meta.url)}';
      const clock = systemClock();
      clock.timer(3600000, () => {});
      clock.deadline(3600000);
      void clock.sleep(90 * 86400000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', source]);
    const [code] = await once(child, 'exit');
    expect(code).toBe(0);
  });

  test('makes deadlines cheaply', ({ expect }) => {
    const clock = systemClock();
    const count = 20_000;
    const startMs = performance.now();
    for (let made = 0; made < count; made += 1) clock.deadline(ms(30_000))[Symbol.dispose]();
    expect(((performance.now() - startMs) * 1_000) / count).toBeLessThan(50);
  });
});
