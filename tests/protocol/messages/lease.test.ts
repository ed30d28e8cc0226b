/** Frames of leases: every type there and back, whatever else a peer sends, and the committed vectors. */

import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { decodeValue, encodeValue, type Value } from '../../../protocol/codec.ts';
import { fromHex, toHex } from '../../../protocol/crypto.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import {
  encodeLeaseFrame,
  type LeaseFrame,
  leaseFrameMaxBytes,
  parseLeaseFrame,
} from '../../../protocol/messages/lease.ts';
import { garbageOf, values } from '../../support/frames.ts';
import { largestLeaseFrames, leaseFrames, leaseFramesByType } from '../../support/lease-frames.ts';
import '../../support/seed.ts';

/** What becomes of bytes: the frame, `unknown`, or the code of the error; anything else is thrown. */
function outcome(bytes: Uint8Array): unknown {
  try {
    return parseLeaseFrame(bytes) ?? 'unknown';
  } catch (error) {
    if (error instanceof HelixFlowError) return error.code;
    throw error;
  }
}

describe('frames', () => {
  test.for(Object.keys(leaseFramesByType) as LeaseFrame['type'][])(
    '%s is read as it was written',
    (type, { expect }) => {
      fc.assert(
        fc.property(leaseFramesByType[type] as fc.Arbitrary<LeaseFrame>, (frame) => {
          expect(parseLeaseFrame(encodeLeaseFrame(frame))).toEqual(frame);
        }),
        { numRuns: 60 },
      );
    },
  );

  test.for(largestLeaseFrames)('the largest $type fits the wire, and is read', (frame, { expect }) => {
    const bytes = encodeLeaseFrame(frame);
    expect(bytes.length).toBeLessThanOrEqual(leaseFrameMaxBytes);
    expect(parseLeaseFrame(bytes)).toEqual(frame);
  });

  test('what is read shares no memory with the frame it came in', ({ expect }) => {
    fc.assert(
      fc.property(leaseFrames, (frame) => {
        const bytes = encodeLeaseFrame(frame).slice();
        const read = parseLeaseFrame(bytes);
        bytes.fill(0xdb);
        expect(read).toEqual(frame);
      }),
    );
  });

  test('positions that a later version appends are ignored, and its numbers told apart from garbage', ({ expect }) => {
    expect(outcome(encodeValue([4, new Uint8Array(16), 'news']))).toEqual({ type: 'recall', lease: '00'.repeat(16) });
    expect([outcome(encodeValue([10])), outcome(encodeValue([255, 1])), outcome(encodeValue([256]))]).toEqual([
      'unknown',
      'unknown',
      'FRAME_MALFORMED',
    ]);
  });
});

describe('garbage', () => {
  test('ends in FRAME_MALFORMED and in nothing else', ({ expect }) => {
    fc.assert(
      fc.property(garbageOf(leaseFrames.map(encodeLeaseFrame)), (bytes) => {
        const result = outcome(bytes);
        if (typeof result === 'string') expect(['FRAME_MALFORMED', 'unknown']).toContain(result);
        else expect(parseLeaseFrame(encodeLeaseFrame(result as LeaseFrame))).toEqual(result);
      }),
      { numRuns: 1_000 },
    );
  });

  test('of the right form but with wrong values ends in FRAME_MALFORMED and in nothing else', ({ expect }) => {
    fc.assert(
      fc.property(fc.nat(9), fc.array(values, { maxLength: 12 }), (type, fields) => {
        const result = outcome(encodeValue([type, ...fields]));
        if (typeof result === 'string') expect(result).toBe('FRAME_MALFORMED');
        else expect(result).toHaveProperty('type');
      }),
      { numRuns: 1_000 },
    );
  });

  test('one wrong position is enough', ({ expect }) => {
    fc.assert(
      fc.property(leaseFrames, fc.nat(), (frame, at) => {
        const fields = [...(decodeValue(encodeLeaseFrame(frame)) as readonly Value[])];
        const index = 1 + (at % (fields.length - 1));
        // No name of an account has a space, and nothing else is text.
        fields[index] = 'wrong one';
        expect(outcome(encodeValue(fields))).toBe('FRAME_MALFORMED');
      }),
    );
  });
});

interface Vectors {
  readonly valid: readonly { readonly name: string; readonly hex: string; readonly frame: unknown }[];
  readonly unknown: readonly { readonly name: string; readonly hex: string }[];
  readonly invalid: readonly { readonly name: string; readonly hex: string }[];
}

describe('vectors', () => {
  const vectors = JSON.parse(readFileSync('protocol/vectors/lease.json', 'utf8')) as Vectors;
  /** As JSON shows it: bytes in hex. */
  const shown = (frame: unknown): unknown =>
    JSON.parse(JSON.stringify(frame, (_, value: unknown) => (value instanceof Uint8Array ? toHex(value) : value)));

  test('cover every type', ({ expect }) => {
    const types = vectors.valid.map(({ frame }) => (frame as LeaseFrame).type);
    expect(new Set(types)).toEqual(new Set(Object.keys(leaseFramesByType)));
    expect(vectors.invalid.length).toBeGreaterThan(12);
  });

  test.for(vectors.valid)('valid: $name', ({ hex, frame }, { expect }) => {
    const parsed = parseLeaseFrame(fromHex(hex));
    expect(shown(parsed)).toEqual(frame);
    expect(parsed === undefined ? '' : toHex(encodeLeaseFrame(parsed))).toBe(hex);
  });

  test.for(vectors.unknown)('of a later version: $name', ({ hex }, { expect }) => {
    expect(outcome(fromHex(hex))).toBe('unknown');
  });

  test.for(vectors.invalid)('invalid: $name', ({ hex }, { expect }) => {
    expect(outcome(fromHex(hex))).toBe('FRAME_MALFORMED');
  });
});
