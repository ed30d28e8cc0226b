/** Frames of the ledger's exchange: every type there and back, whatever else a peer sends, and the committed vectors. */

import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { decodeValue, encodeValue, type Value } from '../../../protocol/codec.ts';
import { fromHex, toHex } from '../../../protocol/crypto.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import {
  encodeHeartbeat,
  encodeLedgerFrame,
  type LedgerFrame,
  parseHeartbeat,
  parseLedgerFrame,
  wantMinBytes,
} from '../../../protocol/messages/ledger.ts';
import { garbageOf, values } from '../../support/frames.ts';
import { heartbeats, largestLedgerFrames, ledgerFrames, ledgerFramesByType } from '../../support/ledger-frames.ts';

/** What becomes of bytes: what was read, `unknown`, or the code of the error; anything else is thrown. */
function outcomeOf(read: () => unknown): unknown {
  try {
    return read() ?? 'unknown';
  } catch (error) {
    if (error instanceof HelixFlowError) return error.code;
    throw error;
  }
}
const outcome = (bytes: Uint8Array): unknown => outcomeOf(() => parseLedgerFrame(bytes));
const fieldsOf = (frame: LedgerFrame): Value[] => [...(decodeValue(encodeLedgerFrame(frame)) as readonly Value[])];

describe('frames', () => {
  test.for(Object.keys(ledgerFramesByType) as LedgerFrame['type'][])(
    '%s is read as it was written',
    (type, { expect }) => {
      fc.assert(
        fc.property(ledgerFramesByType[type] as fc.Arbitrary<LedgerFrame>, (frame) => {
          expect(parseLedgerFrame(encodeLedgerFrame(frame))).toEqual(frame);
        }),
        { numRuns: 60 },
      );
    },
  );

  test('what is read shares no memory with the frame it came in', ({ expect }) => {
    fc.assert(
      fc.property(ledgerFrames, (frame) => {
        const bytes = encodeLedgerFrame(frame).slice();
        const read = parseLedgerFrame(bytes);
        bytes.fill(0xdb);
        expect(read).toEqual(frame);
      }),
    );
  });

  test.for(largestLedgerFrames)('the largest $type fits the wire, and is read', (frame, { expect }) => {
    const bytes = encodeLedgerFrame(frame);
    expect(bytes.length).toBeLessThanOrEqual(limits.frameMaxBytes);
    expect(parseLedgerFrame(bytes)).toEqual(frame);
  });

  test('positions that a later version appends are ignored', ({ expect }) => {
    expect(outcome(encodeValue([8, 7, 9, 'news', [1]]))).toEqual({ type: 'tally', epochs: 7, blocks: 9 });
  });

  test('numbers that a later version gives out are told apart from garbage', ({ expect }) => {
    expect(outcome(encodeValue([10]))).toBe('unknown');
    expect(outcome(encodeValue([255, 'anything']))).toBe('unknown');
    expect(outcome(encodeValue([256]))).toBe('FRAME_MALFORMED');
  });

  test('a want asks for no less and no more than it may', ({ expect }) => {
    const want = (from: number, maxBytes: number): unknown =>
      outcome(encodeValue([2, new Uint8Array(32), new Uint8Array(16), from, maxBytes]));
    expect(want(0, wantMinBytes)).toMatchObject({ type: 'want' });
    expect(want(0, limits.ledgerWindowBytes)).toMatchObject({ type: 'want' });
    expect(want(0, wantMinBytes - 1)).toBe('FRAME_MALFORMED');
    expect(want(0, limits.ledgerWindowBytes + 1)).toBe('FRAME_MALFORMED');
    expect(want(-1, wantMinBytes)).toBe('FRAME_MALFORMED');
  });

  test('an entry, a header and a list may each be only so long', ({ expect }) => {
    const block = (header: number, entry: number, entries: number): unknown =>
      outcome(
        encodeValue([
          5,
          new Uint8Array(header),
          new Uint8Array(64),
          Array.from({ length: entries }, () => new Uint8Array(entry)),
        ]),
      );
    expect(block(256, limits.entryMaxBytes, 1)).toMatchObject({ type: 'push' });
    expect(block(257, 1, 1)).toBe('FRAME_MALFORMED');
    expect(block(256, limits.entryMaxBytes + 1, 1)).toBe('FRAME_MALFORMED');
    expect(block(256, 1, limits.blockEntriesMax)).toMatchObject({ type: 'push' });
    expect(block(256, 1, limits.blockEntriesMax + 1)).toBe('FRAME_MALFORMED');
  });
});

describe('garbage', () => {
  test('ends in FRAME_MALFORMED and in nothing else', ({ expect }) => {
    fc.assert(
      fc.property(garbageOf(ledgerFrames.map(encodeLedgerFrame)), (bytes) => {
        const result = outcome(bytes);
        if (typeof result === 'string') expect(['FRAME_MALFORMED', 'unknown']).toContain(result);
        else expect(result).toHaveProperty('type');
      }),
      { numRuns: 1_000 },
    );
  });

  test('of the right form but with wrong values ends in FRAME_MALFORMED and in nothing else', ({ expect }) => {
    fc.assert(
      fc.property(fc.nat(9), fc.array(values, { maxLength: 8 }), (type, fields) => {
        const result = outcome(encodeValue([type, ...fields]));
        if (typeof result === 'string') expect(result).toBe('FRAME_MALFORMED');
        else expect(result).toHaveProperty('type');
      }),
      { numRuns: 1_000 },
    );
  });

  test('one wrong position is enough', ({ expect }) => {
    const wrong: Value = 'wrong';
    fc.assert(
      fc.property(ledgerFrames, fc.nat(), (frame, at) => {
        const fields = fieldsOf(frame);
        const index = 1 + (at % Math.max(1, fields.length - 1));
        if (index >= fields.length) return;
        fields[index] = wrong;
        expect(outcome(encodeValue(fields))).toBe('FRAME_MALFORMED');
      }),
    );
  });
});

describe('heartbeats', () => {
  const read = (bytes: Uint8Array): unknown => outcomeOf(() => parseHeartbeat(bytes));

  test('are read as they were written', ({ expect }) => {
    fc.assert(
      fc.property(heartbeats, (heartbeat) => {
        expect(parseHeartbeat(encodeHeartbeat(heartbeat))).toEqual(heartbeat);
      }),
      { numRuns: 60 },
    );
  });

  test('have one encoding: whatever else is signed is none', ({ expect }) => {
    fc.assert(
      fc.property(garbageOf(heartbeats.map(encodeHeartbeat)), (bytes) => {
        const result = read(bytes);
        if (typeof result === 'string') expect(result).toBe('FRAME_MALFORMED');
        else expect(encodeHeartbeat(result as never)).toEqual(bytes);
      }),
      { numRuns: 500 },
    );
  });

  test('carry nothing after what this version knows', ({ expect }) => {
    const [heartbeat] = fc.sample(heartbeats, 1);
    const fields = decodeValue(encodeHeartbeat(heartbeat as never)) as readonly Value[];
    expect(read(encodeValue([...fields, 1]))).toBe('FRAME_MALFORMED');
    expect(read(encodeValue([2, ...fields.slice(1)]))).toBe('FRAME_MALFORMED');
  });
});

interface Vectors {
  readonly valid: readonly { readonly name: string; readonly hex: string; readonly frame: unknown }[];
  readonly unknown: readonly { readonly name: string; readonly hex: string }[];
  readonly invalid: readonly { readonly name: string; readonly hex: string }[];
  readonly heartbeats: readonly { readonly name: string; readonly hex: string; readonly heartbeat: unknown }[];
}

describe('vectors', () => {
  const vectors = JSON.parse(readFileSync('protocol/vectors/ledger.json', 'utf8')) as Vectors;
  /** As JSON shows it: bytes in hex. */
  const shown = (frame: unknown): unknown =>
    JSON.parse(JSON.stringify(frame, (_, value: unknown) => (value instanceof Uint8Array ? toHex(value) : value)));

  test('cover every type', ({ expect }) => {
    const types = vectors.valid.map(({ frame }) => (frame as LedgerFrame).type);
    expect(new Set(types)).toEqual(new Set(Object.keys(ledgerFramesByType)));
    expect(vectors.invalid.length).toBeGreaterThan(15);
  });

  test.for(vectors.valid)('valid: $name', ({ hex, frame }, { expect }) => {
    const parsed = parseLedgerFrame(fromHex(hex));
    expect(shown(parsed)).toEqual(frame);
    expect(parsed === undefined ? '' : toHex(encodeLedgerFrame(parsed))).toBe(hex);
  });

  test.for(vectors.unknown)('of a later version: $name', ({ hex }, { expect }) => {
    expect(outcome(fromHex(hex))).toBe('unknown');
  });

  test.for(vectors.invalid)('invalid: $name', ({ hex }, { expect }) => {
    expect(outcome(fromHex(hex))).toBe('FRAME_MALFORMED');
  });

  test.for(vectors.heartbeats)('heartbeat: $name', ({ hex, heartbeat }, { expect }) => {
    const parsed = parseHeartbeat(fromHex(hex));
    expect(shown(parsed)).toEqual(heartbeat);
    expect(toHex(encodeHeartbeat(parsed))).toBe(hex);
  });
});
