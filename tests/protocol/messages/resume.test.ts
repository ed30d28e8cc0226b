/** What an answer goes on from: a node takes what a gateway may send, and trusts none of it. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { encodeValue, type Value } from '../../../protocol/codec.ts';
import { isHelixFlowError } from '../../../protocol/errors.ts';
import { encodeResume, parseResume } from '../../../protocol/messages/resume.ts';
import type { Resume } from '../../../protocol/ports.ts';
import { garbageOf, values } from '../../support/frames.ts';

/** What becomes of bytes: a resume, or the code of the error; anything else is thrown. */
function outcome(bytes: Uint8Array): unknown {
  try {
    return parseResume(bytes);
  } catch (error) {
    if (isHelixFlowError(error, 'REQUEST_MALFORMED')) return error.code;
    throw error;
  }
}

const resumes: fc.Arbitrary<Resume> = fc.record({
  tokenIds: fc.array(fc.maxSafeNat(), { maxLength: 40 }),
  text: fc.string({ unit: 'binary', maxLength: 200 }),
  tokens: fc.nat(10_000_000),
});

describe('a resume', () => {
  test('is read as it was written', ({ expect }) => {
    fc.assert(
      fc.property(resumes, (resume) => {
        expect(parseResume(encodeResume(resume))).toEqual(resume);
      }),
    );
  });

  test('ends in REQUEST_MALFORMED where it is garbage, and in nothing else', ({ expect }) => {
    fc.assert(
      fc.property(garbageOf(resumes.map(encodeResume)), (bytes) => {
        const result = outcome(bytes);
        if (result !== 'REQUEST_MALFORMED') expect(Object.keys(Object(result))).toEqual(['tokenIds', 'text', 'tokens']);
      }),
      { numRuns: 1_000 },
    );
  });

  test('of the right form but with wrong values is none', ({ expect }) => {
    fc.assert(
      fc.property(fc.array(values, { maxLength: 5 }), (fields) => {
        const [ids, text, tokens] = fields;
        const isRight = Array.isArray(ids) && typeof text === 'string' && typeof tokens === 'number';
        if (!isRight) expect(outcome(encodeValue(fields))).toBe('REQUEST_MALFORMED');
      }),
      { numRuns: 500 },
    );
  });

  test.for<[string, Value]>([
    ['ids below 0', [[-1], 'x', 1]],
    ['ids that are no numbers', [['1'], 'x', 1]],
    ['a count below 0', [[1], 'x', -1]],
    ['a count that no context holds', [[1], 'x', 10_000_001]],
    ['bytes for text', [[1], new Uint8Array(1), 1]],
    ['no count', [[1], 'x']],
    ['more ids than any answer has', [new Array<number>(1_048_577).fill(1), 'x', 1]],
    ['a long tail', [[1], 'x', 1, new Uint8Array(2_000)]],
  ])('with %s is none', ([, fields], { expect }) => {
    expect(outcome(encodeValue(fields))).toBe('REQUEST_MALFORMED');
  });

  test('of nothing but tiny pieces is none before any of them is read', ({ expect }) => {
    const pieces = 8_000_000;
    const bytes = new Uint8Array(pieces + 8).fill(0x80);
    bytes.set([0x83, 0x9a, 0, 0x0f, 0x42, 0x40]);
    const before = process.memoryUsage().heapUsed;
    expect(outcome(bytes)).toBe('REQUEST_MALFORMED');
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(16_000_000);
  });
});
