/** What is remembered of peers across restarts. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { createPeerBook } from '../../../protocol/peer/book.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { quietLog } from '../../support/pair-of-sessions.ts';

const address = '/ip4/127.0.0.1/tcp/1';
const book = (store: MemoryStore, clock = new ManualClock()) => createPeerBook({ store, clock, log: quietLog });

describe('the book of peers', () => {
  test('recalls contacts after a restart, the most recent first', async ({ expect }) => {
    const store = new MemoryStore();
    const clock = new ManualClock();
    const first = book(store, clock);
    await first.remember({ peer: 'peeraaaa' as PeerId, addresses: [address] }, 'gateway');
    await clock.advance(1_000);
    await first.remember({ peer: 'peerbbbb' as PeerId, addresses: [address] }, 'node');
    expect((await book(store, clock).recall()).map(({ peer, role, addresses }) => [peer, role, addresses])).toEqual([
      ['peerbbbb', 'node', [address]],
      ['peeraaaa', 'gateway', [address]],
    ]);
  });

  test('forgets a peer, and remembers it again when it comes back', async ({ expect }) => {
    const store = new MemoryStore();
    const kept = book(store);
    const contact = { peer: 'peeraaaa' as PeerId, addresses: [address] };
    await kept.remember(contact, 'node');
    await kept.forget(contact.peer);
    expect(await kept.recall()).toEqual([]);
    await kept.remember(contact, 'node');
    expect(await kept.recall()).toHaveLength(1);
  });

  test('keeps nothing of a peer without addresses', async ({ expect }) => {
    const store = new MemoryStore();
    await book(store).remember({ peer: 'peeraaaa' as PeerId, addresses: [] }, 'node');
    expect(store.size).toBe(0);
  });

  test('drops what is damaged and goes on with the rest', async ({ expect }) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 10 }), async (value, tail) => {
        const store = new MemoryStore();
        await book(store).remember({ peer: 'peeraaaa' as PeerId, addresses: [address] }, 'gateway');
        const key = Buffer.concat([Buffer.from('peer/zzzzzzzz'), tail]);
        await store.batch([{ type: 'put', key, value }]);
        const recalled = await book(store).recall();
        expect(recalled.some(({ peer }) => peer === 'peeraaaa')).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  test('holds no more than its bound: the oldest give way', async ({ expect }) => {
    const store = new MemoryStore();
    const clock = new ManualClock();
    const full = book(store, clock);
    for (let index = 0; index < limits.peersRememberedMax + 10; index += 1) {
      // Peer ids are base58: no zeros.
      const peer = `peer${String(index).padStart(6, '0').replaceAll('0', 'z')}` as PeerId;
      await full.remember({ peer, addresses: [address] }, 'node');
      if (index < 20) await clock.advance(1);
    }
    expect(await full.recall()).toHaveLength(limits.peersRememberedMax);
    expect(store.size).toBe(limits.peersRememberedMax);
  });
});
