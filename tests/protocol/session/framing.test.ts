/** Frames on a byte stream: any split gives the same frames, and any garbage a typed error in bounded memory. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import { encodeFrames, FrameDecoder } from '../../../protocol/session/framing.ts';

const frameMaxBytes = 20_000;

interface Decoded {
  readonly frames: readonly Uint8Array[];
  readonly isBetweenFrames: boolean;
  /** The code it ended with; a sentence for an error without one. */
  readonly error: string | undefined;
}

function decode(chunks: readonly Uint8Array[], limit = frameMaxBytes): Decoded {
  const decoder = new FrameDecoder(limit);
  const frames: Uint8Array[] = [];
  try {
    for (const chunk of chunks) decoder.push(chunk, (frame) => void frames.push(frame.slice()));
  } catch (error) {
    return { frames, isBetweenFrames: false, error: isHelixFlowError(error) ? error.code : `not typed: ${error}` };
  }
  return { frames, isBetweenFrames: decoder.isBetweenFrames, error: undefined };
}

/** `bytes` in pieces that end at `cuts`. */
function split(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  let start = 0;
  return ends.map((end) => {
    const piece = bytes.slice(start, end);
    start = end;
    return piece;
  });
}

const frame = fc.oneof(
  { weight: 4, arbitrary: fc.uint8Array({ maxLength: 40 }) },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(0, 1, 127, 128, 129, 16_383, 16_384, frameMaxBytes)
      .map((length) => new Uint8Array(length).fill(7)),
  },
);
const frames = fc.array(frame, { maxLength: 12 });

describe('frames on a byte stream', () => {
  test('any split of the bytes gives the same frames', ({ expect }) => {
    fc.assert(
      fc.property(frames, fc.array(fc.nat(), { maxLength: 30 }), (list, cuts) => {
        expect(decode(split(encodeFrames(list), cuts))).toEqual({
          frames: list,
          isBetweenFrames: true,
          error: undefined,
        });
      }),
    );
  });

  test('one byte at a time gives the same frames', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 }), (list) => {
        const bytes = encodeFrames(list);
        expect(decode([...bytes].map((byte) => Uint8Array.of(byte))).frames).toEqual(list);
      }),
    );
  });

  test('several calls encode to the same bytes as one', ({ expect }) => {
    fc.assert(
      fc.property(frames, (list) => {
        const apart = list.flatMap((one) => [...encodeFrames([one])]);
        expect([...encodeFrames(list)]).toEqual(apart);
      }),
    );
  });

  test('a cut at any byte is noticed unless it falls between two frames', ({ expect }) => {
    fc.assert(
      fc.property(frames, fc.nat(), (list, at) => {
        const bytes = encodeFrames(list);
        const cut = at % (bytes.length + 1);
        const whole = list.map((_, index) => encodeFrames(list.slice(0, index + 1)).length);
        const decoded = decode([bytes.slice(0, cut)]);
        expect(decoded.isBetweenFrames).toBe(cut === 0 || whole.includes(cut));
        expect(decoded.frames).toEqual(list.slice(0, whole.filter((end) => end <= cut).length));
      }),
    );
  });

  test('any garbage gives frames within the limit or a typed error', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 10 }), (chunks) => {
        const decoded = decode(chunks, 50);
        expect(decoded.frames.every(({ length }) => length <= 50)).toBe(true);
        expect([undefined, 'FRAME_TOO_LARGE', 'FRAME_MALFORMED']).toContain(decoded.error);
      }),
      { numRuns: 500 },
    );
  });

  test('a length over the limit is refused before a byte of it is kept', ({ expect }) => {
    expect(decode([Uint8Array.of(51)], 50).error).toBe('FRAME_TOO_LARGE');
    expect(decode([Uint8Array.of(50)], 50).error).toBeUndefined();
    expect(decode([Uint8Array.of(0xff, 0xff, 0xff, 0x7f)]).error).toBe('FRAME_TOO_LARGE');
    expect(decode([Uint8Array.of(0xff), Uint8Array.of(0xff), Uint8Array.of(0xff, 0xff)]).error).toBe('FRAME_TOO_LARGE');
  });

  test('a length that is not in its shortest form is refused', ({ expect }) => {
    for (const bytes of [
      [0x80, 0x00],
      [0x85, 0x80, 0x00],
      [0x80, 0x80, 0x80, 0x00],
    ]) {
      expect(decode([Uint8Array.from(bytes)]).error).toBe('FRAME_MALFORMED');
      expect(decode(bytes.map((byte) => Uint8Array.of(byte))).error).toBe('FRAME_MALFORMED');
    }
  });

  test('the frames before a fault are handed over', ({ expect }) => {
    const good = encodeFrames([Uint8Array.of(1, 2), Uint8Array.of(3)]);
    expect(decode([Uint8Array.of(...good, 0x80, 0x00)])).toMatchObject({
      frames: [Uint8Array.of(1, 2), Uint8Array.of(3)],
      error: 'FRAME_MALFORMED',
    });
  });
});
