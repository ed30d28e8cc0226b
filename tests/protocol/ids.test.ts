/** Names of things: which texts are one, and that nothing else passes for one. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import {
  isAccountId,
  isIssuerId,
  isKeyId,
  isMeshId,
  isModelDigest,
  isOwnerId,
  isPeerId,
  isProcessId,
  isRequestId,
} from '../../protocol/ids.ts';

const hexOf = (characters: number): string => 'a5'.repeat(characters / 2);

describe('names', () => {
  test.for([
    ['isPeerId', isPeerId, '12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp'],
    ['isMeshId', isMeshId, hexOf(64)],
    ['isModelDigest', isModelDigest, hexOf(64)],
    ['isRequestId', isRequestId, hexOf(32)],
    ['isProcessId', isProcessId, hexOf(32)],
    ['isIssuerId', isIssuerId, hexOf(32)],
    ['isKeyId', isKeyId, hexOf(16)],
    ['isOwnerId', isOwnerId, 'alice.home_1-x'],
    ['isAccountId', isAccountId, 'A'],
  ] as const)('%s takes its own form and nothing around it', ([, is, good], { expect }) => {
    expect(is(good)).toBe(true);
    for (const bad of [
      '',
      ` ${good}`,
      `${good}\n`,
      `${good}/`,
      `../${good}`,
      `${good}\0`,
      good.repeat(70),
      7,
      null,
      undefined,
      [good],
    ]) {
      expect(is(bad)).toBe(false);
    }
  });

  test('hex has one length and lower case only', ({ expect }) => {
    fc.assert(
      fc.property(fc.stringMatching(/^[0-9a-fA-F]{0,70}$/), (text) => {
        const isLower = text === text.toLowerCase();
        expect(isMeshId(text)).toBe(isLower && text.length === 64);
        expect(isRequestId(text)).toBe(isLower && text.length === 32);
        expect(isKeyId(text)).toBe(isLower && text.length === 16);
      }),
    );
  });

  test('a peer id has no character that base58 leaves out', ({ expect }) => {
    for (const bad of ['0', 'O', 'I', 'l', '+', '/']) expect(isPeerId(`12D3KooW${bad}aaaaaaa`)).toBe(false);
  });
});
