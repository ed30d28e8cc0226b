/** Noise made lean: byte for byte what the usual one writes and takes. */

import { defaultCrypto } from '@chainsafe/libp2p-noise/crypto';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { decrypt, encrypt, MessageCutter } from '../../../protocol/adapters/libp2p/lean-noise.ts';

const key = Uint8Array.from({ length: 32 }, (_, at) => at);
const nothing = new Uint8Array(0);
/** Bytes as libp2p hands them over when they lie in several pieces. */
const list = (bytes: Uint8Array): Parameters<typeof encrypt>[0] =>
  ({ byteLength: bytes.length, subarray: () => bytes }) as unknown as Parameters<typeof encrypt>[0];
const bytesOf = (bytes: { subarray(): Uint8Array }): number[] => [...bytes.subarray()];
/** Around where another implementation takes over, and where it ends. */
const plain = fc
  .oneof(fc.nat(80), fc.integer({ min: 560, max: 640 }), fc.constantFrom(1_199, 1_200, 4_096, 65_519))
  .chain((length) => fc.uint8Array({ minLength: length, maxLength: length }));
const nonce = fc.uint8Array({ minLength: 12, maxLength: 12 });

describe('what is sealed', () => {
  test('is what the usual implementation seals, also of text in pieces', ({ expect }) => {
    fc.assert(
      fc.property(plain, nonce, (text, at) => {
        const usual = bytesOf(defaultCrypto.chaCha20Poly1305Encrypt(text, at, nothing, key));
        expect(bytesOf(encrypt(text, at, nothing, key))).toEqual(usual);
        expect(bytesOf(encrypt(list(text), at, nothing, key))).toEqual(usual);
      }),
    );
  });

  test('is opened, and not when a bit of it has changed', ({ expect }) => {
    fc.assert(
      fc.property(plain, nonce, fc.nat(), (text, at, bit) => {
        const sealed = Uint8Array.from(bytesOf(encrypt(text, at, nothing, key)));
        expect(bytesOf(decrypt(sealed.slice(), at, nothing, key))).toEqual([...text]);
        const place = bit % sealed.length;
        sealed[place] = (sealed[place] ?? 0) ^ (1 << (bit % 8));
        expect(() => decrypt(sealed, at, nothing, key)).toThrow();
      }),
    );
  });
});

describe('messages', () => {
  test('come out whole and in order, however their bytes are cut, and without the empty ones', ({ expect }) => {
    const lengths = fc.array(fc.oneof(fc.nat(3), fc.nat(300), fc.constant(65_535)), { maxLength: 8 });
    fc.assert(
      fc.property(lengths, fc.array(fc.integer({ min: 1, max: 5_000 }), { minLength: 1 }), (sizes, cuts) => {
        const sent = sizes.map((length, at) => new Uint8Array(length).fill(at + 1));
        const stream = sent.flatMap((message) => [message.length >> 8, message.length & 255, ...message]);
        const cutter = new MessageCutter();
        const came: Uint8Array[] = [];
        for (let at = 0, turn = 0; at < stream.length; turn += 1) {
          const next = at + (cuts[turn % cuts.length] ?? 1);
          const piece = Uint8Array.from(stream.slice(at, next));
          came.push(...cutter.decode(turn % 2 === 0 ? piece : list(piece)));
          at = next;
        }
        expect(came.map((message) => message.length)).toEqual(sizes.filter((length) => length > 0));
        expect(came.map((message) => message[0])).toEqual(sizes.flatMap((length, at) => (length > 0 ? [at + 1] : [])));
        expect(came.every((message) => message.every((byte) => byte === message[0]))).toBe(true);
      }),
      { numRuns: 60 },
    );
  });
});
