/** Frames of the session: every type there and back, whatever else a peer sends, and the committed vectors. */

import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { decodeValue, encodeValue, type Value } from '../../../protocol/codec.ts';
import { fromHex, toHex } from '../../../protocol/crypto.ts';
import { type ErrorDetails, errorCodes, HelixFlowError } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import { nodeCodes } from '../../../protocol/messages/error.ts';
import { encodeSessionFrame, parseSessionFrame, type SessionFrame } from '../../../protocol/messages/session.ts';
import { frames, framesByType, garbageOf, values } from '../../support/frames.ts';

/** A frame as plain data: an error by its code and details. */
const plain = (frame: SessionFrame | undefined): unknown =>
  frame?.type === 'fail' ? { ...frame, error: { code: frame.error.code, details: frame.error.details } } : frame;

/** What becomes of bytes: the frame, `unknown`, or the code of the error; anything else is thrown. */
function outcome(bytes: Uint8Array): unknown {
  try {
    const frame = parseSessionFrame(bytes);
    return frame === undefined ? 'unknown' : plain(frame);
  } catch (error) {
    if (error instanceof HelixFlowError) return error.code;
    throw error;
  }
}

const decodeFields = (frame: SessionFrame): Value[] => [
  ...(decodeValue(encodeSessionFrame(frame)) as readonly Value[]),
];

const fail = (code: string, details: string): unknown => outcome(encodeValue([8, 1, code, details]));
const longText = 'x'.repeat(5_000);

describe('frames', () => {
  test.for(Object.keys(framesByType) as SessionFrame['type'][])('%s is read as it was written', (type, { expect }) => {
    fc.assert(
      fc.property(framesByType[type] as fc.Arbitrary<SessionFrame>, (frame) => {
        expect(plain(parseSessionFrame(encodeSessionFrame(frame)))).toEqual(plain(frame));
      }),
      { numRuns: 60 },
    );
  });

  test('every frame of ours fits the wire', ({ expect }) => {
    fc.assert(
      fc.property(frames, (frame) => {
        expect(encodeSessionFrame(frame).length).toBeLessThanOrEqual(limits.frameMaxBytes);
      }),
    );
  });

  test('counts and times that cannot be are sent as the nearest that can', ({ expect }) => {
    const done = { type: 'done', attempt: 1, finish: 'stop' } as const;
    const odd = { promptTokens: 2 ** 32, cachedTokens: -1, completionTokens: 1.6 };
    const times = { queueMs: -0.2, prefillMs: Number.NaN, decodeMs: Number.POSITIVE_INFINITY };
    expect(outcome(encodeSessionFrame({ ...done, ...odd, ...times }))).toEqual({
      ...done,
      ...{ promptTokens: 0xffff_ffff, cachedTokens: 0, completionTokens: 2 },
      ...{ queueMs: 0, prefillMs: 0, decodeMs: Number.MAX_SAFE_INTEGER },
    });
    const measured = fc.double();
    fc.assert(
      fc.property(measured, measured, measured, (a, b, c) => {
        const counts = { promptTokens: a, cachedTokens: b, completionTokens: c };
        const frame = { ...done, ...counts, queueMs: c, prefillMs: a, decodeMs: b } as const;
        expect(outcome(encodeSessionFrame(frame))).toMatchObject({ type: 'done' });
        const load = { type: 'load', active: 0, queued: 0, freeSlots: 0, tokensPerSecond: 0, draining: false } as const;
        expect(outcome(encodeSessionFrame({ ...load, progress: a }))).toMatchObject(load);
        const cancelled = { type: 'cancelled', attempt: 1, completionTokens: a, promptTokens: b } as const;
        expect(outcome(encodeSessionFrame(cancelled))).toMatchObject({ type: 'cancelled' });
      }),
    );
  });

  test('the largest offer fits the wire', ({ expect }) => {
    const model = {
      name: 'n'.repeat(limits.modelNameMaxChars),
      digest: 'ff'.repeat(32),
      digestKind: 'declared',
      contextTokens: 100_000_000,
      continuation: 'tokens',
      build: 'b'.repeat(256),
    };
    const offer = { type: 'offer', revision: 1, slots: 1, hardware: 'h'.repeat(256), owner: 'o'.repeat(64) };
    const frame = {
      ...offer,
      region: 'r'.repeat(32),
      models: Array.from({ length: limits.offerModelsMax }, () => model),
    } as unknown as SessionFrame;
    expect(encodeSessionFrame(frame).length).toBeLessThan(limits.frameMaxBytes);
  });

  test('positions that a later version appends are ignored', ({ expect }) => {
    const appended = encodeValue([12, 7, 'news', [1, 2, 3]]);
    expect(outcome(appended)).toEqual({ type: 'ping', nonce: 7 });
  });

  test('numbers that a later version gives out are told apart from garbage', ({ expect }) => {
    expect(outcome(encodeValue([20]))).toBe('unknown');
    expect(outcome(encodeValue([255, 'anything']))).toBe('unknown');
    expect(outcome(encodeValue([256]))).toBe('FRAME_MALFORMED');
    expect(outcome(encodeValue([-1]))).toBe('FRAME_MALFORMED');
    expect(outcome(encodeValue([]))).toBe('FRAME_MALFORMED');
  });

  test('text for people that is too long is cut before it is sent', ({ expect }) => {
    const offer = {
      type: 'offer',
      revision: 1,
      models: [],
      slots: 1,
      hardware: longText,
      owner: 'o',
      region: '',
    } as const;
    expect(outcome(encodeSessionFrame(offer))).toEqual({ ...offer, hardware: longText.slice(0, 256) });
  });
});

describe('garbage', () => {
  test('ends in FRAME_MALFORMED and in nothing else', ({ expect }) => {
    fc.assert(
      fc.property(garbageOf(frames.map(encodeSessionFrame)), (bytes) => {
        const result = outcome(bytes);
        if (typeof result === 'string') expect(['FRAME_MALFORMED', 'unknown']).toContain(result);
        else expect(result).toHaveProperty('type');
      }),
      { numRuns: 1_000 },
    );
  });

  test('of the right form but with wrong values ends in FRAME_MALFORMED and in nothing else', ({ expect }) => {
    const number = fc.integer({ min: 0, max: 18 });
    fc.assert(
      fc.property(number, fc.array(values, { maxLength: 10 }), (type, fields) => {
        const result = outcome(encodeValue([type, ...fields]));
        if (typeof result === 'string') expect(result).toBe('FRAME_MALFORMED');
        else expect(result).toHaveProperty('type');
      }),
      { numRuns: 1_000 },
    );
  });

  test('one wrong position is enough', ({ expect }) => {
    const wrong: Value = new Uint8Array([1]);
    fc.assert(
      fc.property(frames, fc.nat(), (frame, at) => {
        const fields = decodeFields(frame);
        const index = 1 + (at % Math.max(1, fields.length - 1));
        if (index >= fields.length || fields[index] instanceof Uint8Array) return;
        fields[index] = wrong;
        expect(outcome(encodeValue(fields))).toBe('FRAME_MALFORMED');
      }),
    );
  });
});

describe('errors on the wire', () => {
  test('a code that this version does not know counts as a failure of the engine', ({ expect }) => {
    expect(fail('NODE_ON_FIRE', '{}')).toMatchObject({ error: { code: 'ENGINE_FAILED' } });
  });

  test('a code that is not a node’s to say counts as a failure of the engine', ({ expect }) => {
    const foreign = errorCodes.filter((code) => !(nodeCodes as readonly string[]).includes(code));
    expect(foreign).toContain('KEY_INVALID');
    expect(foreign).toContain('REQUEST_CANCELLED');
    for (const code of foreign)
      expect(fail(code, '{"reason":"x"}')).toMatchObject({ error: { code: 'ENGINE_FAILED' } });
  });

  test('the codes that a node may say are those of the document', ({ expect }) => {
    const document = readFileSync('protocol/README.md', 'utf8');
    const list = /In `fail` only these codes may appear:([^;]*);/.exec(document)?.[1] ?? '';
    expect([...list.matchAll(/`(\w+)`/g)].map(([, code]) => code)).toEqual(nodeCodes);
    expect(fail('TAB_UNCOVERED', '{"ageMs":12000}')).toMatchObject({ error: { code: 'TAB_UNCOVERED' } });
  });

  test('only flat text and numbers of the details pass, bounded', ({ expect }) => {
    const sent = { text: longText.slice(0, 1_500), number: 1.5, yes: true, none: null, list: [1], object: { a: 1 } };
    expect(fail('NODE_OVERLOADED', JSON.stringify(sent))).toMatchObject({
      error: { details: { text: longText.slice(0, 256), number: 1.5 } },
    });
    const many = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`name${index}`, index]));
    expect(fail('NODE_OVERLOADED', JSON.stringify(many))).toMatchObject({
      error: { details: Object.fromEntries(Object.entries(many).slice(0, 8)) },
    });
  });

  test('names of details cannot reach a prototype', ({ expect }) => {
    fail('NODE_OVERLOADED', '{"__proto__":"x","constructor":"y"}');
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
    expect(Object.getPrototypeOf({})).toBe(Object.prototype);
  });

  test.for(['', '{', 'null', '1', '"x"', '[]', '{"a":'])(
    'details that are no JSON object are garbage: %s',
    (details, { expect }) => {
      expect(fail('NODE_OVERLOADED', details)).toBe('FRAME_MALFORMED');
    },
  );

  test('details beyond their limit are garbage', ({ expect }) => {
    expect(fail('NODE_OVERLOADED', JSON.stringify({ text: longText }))).toBe('FRAME_MALFORMED');
  });

  test('details of ours that are too long are cut before they are sent', ({ expect }) => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.string({ unit: 'binary', maxLength: 2_000 })), (details) => {
        const error = new HelixFlowError('REQUEST_MALFORMED', details as unknown as ErrorDetails['REQUEST_MALFORMED']);
        expect(outcome(encodeSessionFrame({ type: 'fail', attempt: 1, error }))).toMatchObject({ type: 'fail' });
      }),
    );
    const error = new HelixFlowError('REQUEST_MALFORMED', { reason: '\u0000'.repeat(2_000) });
    expect(outcome(encodeSessionFrame({ type: 'fail', attempt: 1, error }))).toMatchObject({
      error: { code: 'REQUEST_MALFORMED', details: { reason: '\u0000'.repeat(256) } },
    });
  });

  test('a goodbye with a code of a later version is a closed channel', ({ expect }) => {
    expect(outcome(encodeValue([14, 'MOVED_TO_MARS']))).toEqual({ type: 'goodbye', code: 'CHANNEL_CLOSED' });
  });
});

interface Vectors {
  readonly valid: readonly { readonly name: string; readonly hex: string; readonly frame: unknown }[];
  /** Of peers that know no position that was appended since. */
  readonly older: Vectors['valid'];
  readonly unknown: readonly { readonly name: string; readonly hex: string }[];
  readonly invalid: readonly { readonly name: string; readonly hex: string }[];
}

describe('vectors', () => {
  const vectors = JSON.parse(readFileSync('protocol/vectors/session.json', 'utf8')) as Vectors;
  /** As JSON shows it: bytes in hex. */
  const shown = (frame: unknown): unknown =>
    JSON.parse(JSON.stringify(frame, (_, value: unknown) => (value instanceof Uint8Array ? toHex(value) : value)));

  test('cover every type', ({ expect }) => {
    const types = vectors.valid.map(({ frame }) => (frame as SessionFrame).type);
    expect(new Set(types)).toEqual(new Set(Object.keys(framesByType)));
    expect(vectors.invalid.length).toBeGreaterThan(20);
  });

  test.for(vectors.valid)('valid: $name', ({ hex, frame }, { expect }) => {
    const parsed = parseSessionFrame(fromHex(hex));
    expect(shown(plain(parsed))).toEqual(frame);
    expect(parsed === undefined ? '' : toHex(encodeSessionFrame(parsed))).toBe(hex);
  });

  test.for(vectors.older)('of a version without appended positions: $name', ({ hex, frame }, { expect }) => {
    expect(shown(plain(parseSessionFrame(fromHex(hex))))).toEqual(frame);
  });

  test.for(vectors.unknown)('of a later version: $name', ({ hex }, { expect }) => {
    expect(outcome(fromHex(hex))).toBe('unknown');
  });

  test.for(vectors.invalid)('invalid: $name', ({ hex }, { expect }) => {
    expect(outcome(fromHex(hex))).toBe('FRAME_MALFORMED');
  });
});
