/** Hashes, signatures and text forms of bytes, against published values. */

import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import {
  decryptBytes,
  encryptBytes,
  fromBase64Url,
  fromHex,
  hmacSha256,
  keyFromSeed,
  sha256,
  sha256Hex,
  signBytes,
  stretchPassphrase,
  toBase64Url,
  toHex,
  verifyBytes,
} from '../../protocol/crypto.ts';

const seeds = fc.uint8Array({ minLength: 32, maxLength: 32 });
const messages = fc.uint8Array({ maxLength: 200 });

describe('sha256', () => {
  test('is that of FIPS 180-4', ({ expect }) => {
    expect(sha256Hex('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    expect(sha256Hex()).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
    expect(sha256('abc')).toEqual(fromHex(sha256Hex('abc')));
  });

  test('takes its parts one behind the other', ({ expect }) => {
    expect(sha256Hex('a', new Uint8Array([0x62]), 'c')).toBe(sha256Hex('abc'));
  });
});

describe('HMAC-SHA256', () => {
  test.for([
    ['0b'.repeat(20), 'Hi There', 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7'],
    ['4a656665', 'what do ya want for nothing?', '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843'],
    [
      'aa'.repeat(131),
      'Test Using Larger Than Block-Size Key - Hash Key First',
      '60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54',
    ],
  ] as const)('is that of RFC 4231: key %s', ([key, text, mac], { expect }) => {
    expect(toHex(hmacSha256(fromHex(key), text))).toBe(mac);
  });

  test('is that of node:crypto, whatever the key and its parts', ({ expect }) => {
    const parts = fc.array(fc.oneof(messages, fc.string()), { maxLength: 4 });
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 130 }), parts, (key, some) => {
        const mac = createHmac('sha256', key);
        for (const part of some) mac.update(part);
        expect(toHex(hmacSha256(key, ...some))).toBe(mac.digest('hex'));
      }),
    );
  });
});

describe('Ed25519', () => {
  test('makes the public keys of RFC 8032', ({ expect }) => {
    const { publicKey } = keyFromSeed(fromHex('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60'));
    expect(toHex(publicKey)).toBe('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a');
  });

  test('verifies what it signed, and the signature is the same every time', ({ expect }) => {
    fc.assert(
      fc.property(seeds, messages, (seed, message) => {
        const key = keyFromSeed(seed);
        const signature = signBytes('test/1', message, key);
        expect(signature).toHaveLength(64);
        expect(signBytes('test/1', message, key)).toEqual(signature);
        expect(verifyBytes('test/1', message, signature, key.publicKey)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  test('refuses another domain, other bytes, another key and any changed signature', ({ expect }) => {
    const key = keyFromSeed(new Uint8Array(32).fill(1));
    const other = keyFromSeed(new Uint8Array(32).fill(2));
    const message = new Uint8Array([1, 2, 3]);
    const signature = signBytes('test/1', message, key);
    expect(verifyBytes('test/2', message, signature, key.publicKey)).toBe(false);
    expect(verifyBytes('test/1', new Uint8Array([1, 2]), signature, key.publicKey)).toBe(false);
    expect(verifyBytes('test/1', message, signature, other.publicKey)).toBe(false);
    for (let at = 0; at < signature.length; at += 1) {
      const changed = signature.slice();
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(verifyBytes('test/1', message, changed, key.publicKey)).toBe(false);
    }
  });

  test('a domain cannot run into the bytes behind it', ({ expect }) => {
    const key = keyFromSeed(new Uint8Array(32).fill(1));
    const signature = signBytes('test', new TextEncoder().encode('/1'), key);
    expect(verifyBytes('test/1', new Uint8Array(0), signature, key.publicKey)).toBe(false);
  });

  test('whatever a peer sends for a key or a signature is refused, not thrown', ({ expect }) => {
    const bytes = fc.oneof(fc.uint8Array({ maxLength: 80 }), seeds, fc.uint8Array({ minLength: 64, maxLength: 64 }));
    fc.assert(
      fc.property(messages, bytes, bytes, (message, signature, key) => {
        expect(verifyBytes('test/1', message, signature, key)).toBe(false);
      }),
    );
  });
});

describe('text forms of bytes', () => {
  test('hex is that of Node, of any length and of any part', ({ expect }) => {
    fc.assert(
      fc.property(messages, fc.nat(), fc.nat(), (bytes, from, to) => {
        const [start, end] = [from % (bytes.length + 1), to % (bytes.length + 1)].sort((x, y) => x - y);
        expect(toHex(bytes)).toBe(Buffer.from(bytes).toString('hex'));
        expect(toHex(bytes, start, end)).toBe(Buffer.from(bytes.slice(start, end)).toString('hex'));
      }),
    );
  });

  test('text is read as hex up to the first character that is none', ({ expect }) => {
    const digit = fc.constantFrom(...'0123456789abcdefABCDEF');
    const text = fc.array(
      fc.oneof({ weight: 20, arbitrary: digit }, fc.string({ unit: 'binary-ascii', maxLength: 1 })),
      {
        maxLength: 90,
      },
    );
    fc.assert(
      fc.property(
        text.map((parts) => parts.join('')),
        (hex) => {
          expect(fromHex(hex)).toEqual(new Uint8Array(Buffer.from(hex, 'hex')));
        },
      ),
      { numRuns: 500 },
    );
    // Not by the low byte of the character, which is that of a digit.
    expect(fromHex('00\u0130\u0131')).toEqual(new Uint8Array(1));
  });

  test('hex and base64url are read as they were written', ({ expect }) => {
    fc.assert(
      fc.property(messages, (bytes) => {
        expect(fromHex(toHex(bytes))).toEqual(bytes);
        expect(toHex(bytes)).toMatch(/^[0-9a-f]*$/);
        expect(fromBase64Url(toBase64Url(bytes))).toEqual(bytes);
        expect(toBase64Url(bytes)).toMatch(/^[A-Za-z0-9_-]*$/);
      }),
    );
  });

  test('a view of a larger buffer gives its own bytes only', ({ expect }) => {
    const view = new Uint8Array([0, 1, 2, 3]).subarray(1, 3);
    expect([toHex(view), toBase64Url(view)]).toEqual(['0102', 'AQI']);
  });
});

describe('secrets under a passphrase', () => {
  test('scrypt is that of RFC 7914', ({ expect }) => {
    const derived = stretchPassphrase('pleaseletmein', new TextEncoder().encode('SodiumChloride'), {
      logN: 14,
      r: 8,
      p: 1,
    });
    expect(toHex(derived)).toBe('7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2');
  });

  test('a sealed text opens with the same key, nonce and context only', ({ expect }) => {
    const bytes12 = fc.uint8Array({ minLength: 12, maxLength: 12 });
    fc.assert(
      fc.property(messages, bytes12, fc.string(), fc.nat(), (text, nonce, context, at) => {
        const key = sha256(nonce);
        const sealed = encryptBytes(text, { key, nonce, context });
        expect(decryptBytes(sealed, { key, nonce, context })).toEqual(text);
        expect(decryptBytes(sealed, { key, nonce, context: `${context}.` })).toBeUndefined();
        const flipped = sealed.slice();
        const bit = at % (8 * flipped.length);
        flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(decryptBytes(flipped, { key, nonce, context })).toBeUndefined();
        expect(decryptBytes(sealed.subarray(0, at % sealed.length), { key, nonce, context })).toBeUndefined();
      }),
    );
  });
});
