/** Peer ids computed without libp2p are libp2p's. */

import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import fc from 'fast-check';
import { test } from 'vitest';
import { isPeerId } from '../../../protocol/ids.ts';
import { peerIdFromSeed } from '../../../protocol/peer/identity.ts';

test('a peer id from a seed is the one that libp2p makes of it', async ({ expect }) => {
  const seed = fc.uint8Array({ minLength: 32, maxLength: 32 });
  await fc.assert(
    fc.asyncProperty(seed, async (bytes) => {
      const theirs = peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', bytes)).toString();
      expect(peerIdFromSeed(bytes)).toBe(theirs);
      expect(isPeerId(theirs)).toBe(true);
    }),
    { numRuns: 20 },
  );
});
