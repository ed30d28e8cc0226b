/** Streams that are opened in the moment their connection ends. */

import { yamux } from '@chainsafe/libp2p-yamux';
import { multiaddrConnectionPair } from '@libp2p/utils';
import { describe, test } from 'vitest';
import { guardedYamux } from '../../../protocol/adapters/libp2p/muxer.ts';

type Factory = ReturnType<ReturnType<typeof yamux>>;

/** Opens a stream and ends the connection in the same turn. @returns what nobody caught. */
async function openAndEnd(factory: Factory): Promise<unknown[]> {
  const uncaught: unknown[] = [];
  const earlier = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', (error) => uncaught.push(error));
  try {
    const [connection] = multiaddrConnectionPair();
    const muxer = factory.createStreamMuxer(connection);
    const opening = muxer.createStream();
    void connection.close();
    await Promise.resolve(opening).catch(() => {});
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  } finally {
    process.removeAllListeners('uncaughtException');
    for (const listener of earlier) process.on('uncaughtException', listener);
  }
  return uncaught;
}

describe('a stream that is opened while its connection ends', () => {
  test('is aborted, and nothing is thrown that nobody catches', async ({ expect }) => {
    expect(await openAndEnd(guardedYamux({})())).toEqual([]);
  });

  test('would end the process without the guard', async ({ expect }) => {
    expect(await openAndEnd(yamux({})())).toMatchObject([{ name: 'StreamStateError' }]);
  });
});
