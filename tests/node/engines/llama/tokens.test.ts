/** Token ids become whole UTF-8; slots and seeds are chosen by rules. */

import '../../../support/seed.ts';
import fc from 'fast-check';
import type { Token } from 'node-llama-cpp';
import { describe, test } from 'vitest';
import { mixSeed } from '../../../../node/engines/llama/seeds.ts';
import { pickSlot } from '../../../../node/engines/llama/slots.ts';
import { createDetokenizer } from '../../../../node/engines/llama/tokens.ts';
import { byteModel, cutBytes } from './byte-model.ts';

describe('a detokenizer', () => {
  test('never shows part of a character, loses nothing, and keeps ids with their text', ({ expect }) => {
    const text = fc.string({ unit: fc.constantFrom('a', ' ', 'é', '漢', '😀', '👩‍🚀') });
    const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(text, sizes, (whole, lengths) => {
        const tokens = cutBytes(Buffer.from(whole), lengths);
        const detokenizer = createDetokenizer(byteModel(tokens), []);
        const pieces = tokens.flatMap((_, id) => detokenizer.push(id as Token) ?? []);
        expect(pieces.map((piece) => piece.text).join('')).toBe(whole);
        expect(pieces.every((piece) => !piece.text.includes('\uFFFD'))).toBe(true);
        expect(pieces.flatMap((piece) => piece.tokenIds)).toEqual(tokens.map((_, id) => id));
        expect(detokenizer.rest()).toEqual([]);
      }),
    );
  });

  test('gives up on bytes that never become a character', ({ expect }) => {
    const tokens = Array.from({ length: 8 }, () => Uint8Array.of(0xf0));
    const detokenizer = createDetokenizer(byteModel(tokens), []);
    const pieces = tokens.flatMap((_, id) => detokenizer.push(id as Token) ?? []);
    expect(pieces.flatMap((piece) => piece.tokenIds).length).toBe(8);
  });

  test('tells which ids were left without text', ({ expect }) => {
    const detokenizer = createDetokenizer(byteModel([Uint8Array.of(0xf0), Uint8Array.of(0x9f)]), []);
    expect(detokenizer.push(0 as Token)).toBeUndefined();
    expect(detokenizer.push(1 as Token)).toBeUndefined();
    expect(detokenizer.rest()).toEqual([0, 1]);
  });
});

describe('a detokenizer that goes on', () => {
  test('is where one was that had decoded all of it, and tells no id again', ({ expect }) => {
    const tokens = cutBytes(Buffer.from('né 漢😀!'), [2, 3, 1]);
    for (let cut = 0; cut <= tokens.length; cut += 1) {
      const whole = createDetokenizer(byteModel(tokens), []);
      const pieces = tokens.map((_, id) => whole.push(id as Token));
      const other = createDetokenizer(byteModel(tokens), []);
      const before = other.replay(tokens.slice(0, cut).map((_, id) => id as Token));
      expect(other.rest()).toEqual([]);
      expect(before).toBe(pieces.slice(0, cut).reduce((text, piece) => text + (piece?.text ?? ''), ''));
      const after = tokens.slice(cut).map((_, index) => other.push((cut + index) as Token));
      expect(after.map((piece) => piece?.text)).toEqual(pieces.slice(cut).map((piece) => piece?.text));
      expect(after.flatMap((piece) => piece?.tokenIds ?? [])).toEqual(tokens.map((_, id) => id).slice(cut));
    }
  });
});

describe('a slot', () => {
  test('is the one that remembers most, else the one unused for longest', ({ expect }) => {
    expect(pickSlot([{ common: 0, lastUse: 1 }])).toBe(0);
    expect(
      pickSlot([
        { common: 2, lastUse: 1 },
        { common: 9, lastUse: 9 },
        { common: 3, lastUse: 0 },
      ]),
    ).toBe(1);
    expect(
      pickSlot([
        { common: 2, lastUse: 3 },
        { common: 2, lastUse: 1 },
        { common: 2, lastUse: 2 },
      ]),
    ).toBe(1);
  });
});

describe('a seed for a position', () => {
  test('is a function of both, within llama.cpp’s range, and not its word for any', ({ expect }) => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.nat(1_000_000), (seed, position) => {
        const mixed = mixSeed(seed, position);
        expect(Number.isInteger(mixed) && mixed >= 0 && mixed < 0xffff_ffff).toBe(true);
        expect(mixSeed(seed, position)).toBe(mixed);
      }),
    );
  });

  test('differs from position to position and from seed to seed, large and negative ones too', ({ expect }) => {
    const seeds = [0, 1, -1, 2 ** 32, 2 ** 32 + 1, -(2 ** 40), Number.MAX_SAFE_INTEGER];
    const mixed = seeds.flatMap((seed) => Array.from({ length: 100 }, (_, position) => mixSeed(seed, position)));
    expect(new Set(mixed).size).toBe(mixed.length);
  });
});
