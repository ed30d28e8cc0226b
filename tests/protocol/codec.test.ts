/** The codec: what it writes is canonical CBOR, what it reads is nothing else, whatever a peer sends. */

import { decode, encode } from 'cborg';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { decodeValue, encodeValue, type Value } from '../../protocol/codec.ts';
import { fromHex, toHex } from '../../protocol/crypto.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import { InvariantError } from '../../protocol/invariant.ts';
import { limits } from '../../protocol/limits.ts';
import { Reader } from '../../protocol/reader.ts';
import { garbageOf, values } from '../support/frames.ts';

const codeOf = (run: () => unknown): string => {
  try {
    run();
    return 'none';
  } catch (error) {
    if (isHelixFlowError(error)) return error.code;
    throw error;
  }
};

const nested = (depth: number): Uint8Array => {
  const bytes = new Uint8Array(depth + 1).fill(0x81);
  bytes[depth] = 0x80;
  return bytes;
};

describe('encodeValue', () => {
  test('what was written is read back', ({ expect }) => {
    fc.assert(
      fc.property(values, (value) => {
        expect(decodeValue(encodeValue(value))).toEqual(value);
      }),
      { numRuns: 500 },
    );
  });

  test('writes the same bytes as another implementation', ({ expect }) => {
    fc.assert(
      fc.property(values, (value) => {
        expect(toHex(encodeValue(value))).toBe(toHex(encode(value, { float64: false })));
      }),
      { numRuns: 500 },
    );
  });

  test('short text is written alike on both sides of the edge of ASCII', ({ expect }) => {
    for (const text of [
      '\u007f',
      '\u0080',
      'a\u0080',
      `${'x'.repeat(31)}\u007f`,
      `${'x'.repeat(31)}\u0080`,
      '\ud800',
    ]) {
      expect(toHex(encodeValue(text))).toBe(toHex(encode(text.toWellFormed())));
    }
  });

  test('values written earlier stay as they are', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(values, { maxLength: 40 }), (list) => {
        const written = list.map(encodeValue);
        expect(written.map(decodeValue)).toEqual(list);
      }),
    );
  });

  test('a value larger than any buffer before it is written whole', ({ expect }) => {
    const value = [new Uint8Array(300_000).fill(7), 'é'.repeat(100_000), 'x'.repeat(70_000)];
    expect(decodeValue(encodeValue(value))).toEqual(value);
  });

  test.for<[string, unknown]>([
    ['a fraction', 1.5],
    ['no number', Number.NaN],
    ['infinity', Number.POSITIVE_INFINITY],
    ['an integer beyond 2^53 − 1', 2 ** 53],
    ['undefined', undefined],
    ['an object', { a: 1 }],
    ['a bigint', 1n],
    ['something of these in a list', [1, [undefined]]],
  ])('%s is a mistake of ours, not a message', ([, value], { expect }) => {
    expect(() => encodeValue(value as Value)).toThrow(InvariantError);
    expect(decodeValue(encodeValue([1, 2]))).toEqual([1, 2]);
  });

  test('a lone surrogate becomes the replacement character', ({ expect }) => {
    expect(decodeValue(encodeValue('a\ud800b'))).toBe('a\ufffdb');
  });
});

describe('decodeValue', () => {
  test.for([
    ['a float that is an integer', 'f93c00'],
    ['a half float', 'f93e00'],
    ['a single float', 'fa3f800000'],
    ['a double float', 'fb3ff0000000000000'],
    ['minus zero', 'f98000'],
    ['not a number', 'f97e00'],
    ['infinity', 'f97c00'],
    ['undefined', 'f7'],
    ['an unassigned simple value', 'e0'],
    ['a simple value in two bytes', 'f8f5'],
    ['an empty map', 'a0'],
    ['a map', 'a1616101'],
    ['a tag', 'c001'],
    ['a bignum', 'c2420100'],
    ['a number in one byte too many', '1817'],
    ['a number in two bytes too many', '1900ff'],
    ['a number in four bytes too many', '1a0000ffff'],
    ['a number in eight bytes too many', '1b00000000ffffffff'],
    ['an integer of 2^53', '1b0020000000000000'],
    ['an integer of −2^53', '3b001fffffffffffff'],
    ['the largest integer of CBOR', '1bffffffffffffffff'],
    ['a byte length in one byte too many', '580101'],
    ['a text length in one byte too many', '780161'],
    ['a list length in one byte too many', '980101'],
    ['a list without length', '9f01ff'],
    ['bytes without length', '5f4101ff'],
    ['text without length', '7f6161ff'],
    ['a lone break', 'ff'],
    ['a reserved length', '1c'],
    ['a reserved length of bytes', '5d'],
    ['text that is not UTF-8', '61ff'],
    ['text with an overlong form', '62c080'],
    ['text with a surrogate', '63eda080'],
    ['long text that is not UTF-8', `7828${'61'.repeat(39)}ff`],
    ['nothing', ''],
    ['two values', '0101'],
    ['a list that lacks an item', '8201'],
    ['text that is cut', '626100'.slice(0, 4)],
    ['a number that is cut', '19ff'],
  ])('refuses %s', ([, hex], { expect }) => {
    expect(codeOf(() => decodeValue(fromHex(hex ?? '')))).toBe('FRAME_MALFORMED');
  });

  test('refuses what does not mean the same after writing it again', ({ expect }) => {
    fc.assert(
      fc.property(garbageOf(values.map(encodeValue)), (bytes) => {
        try {
          expect(toHex(encodeValue(decodeValue(bytes)))).toBe(toHex(bytes));
        } catch (error) {
          expect(error).toMatchObject({ code: 'FRAME_MALFORMED' });
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test('reads nothing that another implementation refuses', ({ expect }) => {
    fc.assert(
      fc.property(garbageOf(values.map(encodeValue)), (bytes) => {
        if (codeOf(() => decodeValue(bytes)) === 'none') expect(decode(bytes)).toEqual(decodeValue(bytes));
      }),
    );
  });

  test('keeps a byte order mark', ({ expect }) => {
    expect(decodeValue(fromHex('63efbbbf'))).toBe('\ufeff');
  });

  test('what it returns does not change with the bytes that it read', ({ expect }) => {
    const buffer = Buffer.from(encodeValue([new Uint8Array([1, 2, 3]), 'text']));
    const value = decodeValue(buffer);
    buffer.fill(0);
    expect(value).toEqual([new Uint8Array([1, 2, 3]), 'text']);
  });

  test.for([
    ['a list', '9affffffff'],
    ['bytes', '5affffffff'],
    ['text', '7affffffff'],
    ['a list of lists', '9a0000ffff9a0000ffff9a0000ffff'],
  ])('a huge length of %s costs neither memory nor time', ([, hex], { expect }) => {
    const bytes = fromHex(hex ?? '');
    const before = process.memoryUsage().arrayBuffers;
    for (let round = 0; round < 1_000; round += 1) expect(codeOf(() => decodeValue(bytes))).toBe('FRAME_MALFORMED');
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(16_000_000);
  });

  test('nesting ends at eight lists, however long the frame', ({ expect }) => {
    expect(codeOf(() => decodeValue(nested(7)))).toBe('none');
    expect(codeOf(() => decodeValue(nested(8)))).toBe('FRAME_MALFORMED');
    expect(codeOf(() => decodeValue(nested(limits.frameMaxBytes)))).toBe('FRAME_MALFORMED');
  });
});

describe('Reader', () => {
  const reader = (...items: Value[]): Reader => new Reader(items, 'message');

  test('reads positions in order, each once', ({ expect }) => {
    const message = reader(7, 'text', new Uint8Array([1]), true, null, [1, 2], ['a']);
    expect([message.int(), message.text(4), message.bytes(1), message.bool()]).toEqual([
      7,
      'text',
      new Uint8Array([1]),
      true,
    ]);
    expect(message.optional((r) => r.int())).toBeUndefined();
    expect(message.hasMore).toBe(true);
    expect(message.ints(2)).toEqual([1, 2]);
    expect(message.list(1, (value) => value)).toEqual(['a']);
    expect(message.hasMore).toBe(false);
    expect(codeOf(() => message.int())).toBe('FRAME_MALFORMED');
  });

  test.for<[string, Value, (reader: Reader) => unknown]>([
    ['text for a number', 'x', (r) => r.int()],
    ['a number below its least', 1, (r) => r.int(9, 2)],
    ['a number above its most', 10, (r) => r.int(9)],
    ['a negative number by default', -1, (r) => r.int()],
    ['text beyond its length', 'xyz', (r) => r.text(2)],
    ['a number for text', 1, (r) => r.text(2)],
    ['bytes beyond their length', new Uint8Array(3), (r) => r.bytes(2)],
    ['bytes of another length', new Uint8Array(3), (r) => r.bytes(4, 4)],
    ['text for bytes', 'abc', (r) => r.bytes(4)],
    ['a number for a boolean', 1, (r) => r.bool()],
    ['null for a boolean', null, (r) => r.bool()],
    ['a list beyond its length', [1, 2], (r) => r.list(1, (value) => value)],
    ['bytes for a list', new Uint8Array(1), (r) => r.list(1, (value) => value)],
    ['too many integers', [1, 2], (r) => r.ints(1)],
    ['a negative number among integers', [-1], (r) => r.ints(1)],
    ['text among integers', ['1'], (r) => r.ints(1)],
    ['a wrong value where one is optional', 'x', (r) => r.optional((inner) => inner.int())],
  ])('refuses %s', ([, value, read], { expect }) => {
    expect(codeOf(() => read(reader(value)))).toBe('FRAME_MALFORMED');
  });

  test.for<[string, Value | undefined]>([
    ['nothing', undefined],
    ['a number', 1],
    ['bytes', new Uint8Array(2)],
    ['text', 'ab'],
  ])('refuses %s in place of a message', ([, value], { expect }) => {
    expect(codeOf(() => new Reader(value, 'message'))).toBe('FRAME_MALFORMED');
  });
});
