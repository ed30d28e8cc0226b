/** Lines as rows: read as they were written, small, and nothing is written that would not be read. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import {
  attemptName,
  durationMaxMs,
  LineReader,
  LineWriter,
  lineTokensMax,
  momentMaxMs,
  tableMax,
  type UsageLine,
} from '../../ledger/line.ts';
import { freePrice, maxPriceMicro } from '../../ledger/price.ts';
import { decodeValue, encodeValue, type Value } from '../../protocol/codec.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest, PriceId, ProcessId, RequestId, Tag } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { Reader } from '../../protocol/reader.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import '../support/seed.ts';
import { someLines } from './usage-entries.ts';

const usual: UsageLine = {
  run: '0a'.repeat(16) as ProcessId,
  serial: 7,
  first: 7,
  request: '0b'.repeat(16) as RequestId,
  model: 'helix-tiny',
  digest: '0c'.repeat(32) as ModelDigest,
  caller: { day: 20_000, account: '0d'.repeat(8) as Tag, key: '0e'.repeat(8) as Tag },
  price: { id: '0f'.repeat(8) as PriceId, prompt: 100, cached: 10, completion: 400 },
  lease: '1a'.repeat(8) as Tag,
  payer: 'account',
  startMs: unixMs(1_763_700_000_000),
  firstMs: ms(120),
  durationMs: ms(2_400),
  promptTokens: 800,
  cachedTokens: 64,
  completionTokens: 210,
  nodeTokens: 210,
  outcome: 'done',
};

/** What an error comes to, or what was done. */
function outcomeOf<T>(work: () => T): T | string {
  try {
    return work();
  } catch (error) {
    if (isHelixFlowError(error)) return error.code;
    throw error;
  }
}

function encode(lines: readonly UsageLine[]): Uint8Array {
  const writer = new LineWriter();
  const rows = lines.map((line) => writer.write(line));
  return encodeValue([writer.tables(), rows]).slice();
}

function decode(bytes: Uint8Array): UsageLine[] {
  const r = new Reader(decodeValue(bytes), 'lines');
  const reader = new LineReader(r.row());
  return r.list(10_000, (value) => reader.read(value));
}

/** Tables and one row as they are for `usual`, with something else at a place. */
const tables: Value[] = [
  [new Uint8Array(16)],
  [[new Uint8Array(32), 'm']],
  [[new Uint8Array(8), 1, 1, 1]],
  [[20_000, new Uint8Array(24)]],
];
const row: Value[] = [0, 7, new Uint8Array(16), 0, 0, 0, 1_763_700_000_000, 1, 2, 10, 5, 20, 0, 0];
const read = (rows: readonly Value[], of: readonly Value[] = tables): unknown =>
  outcomeOf(() => decode(encodeValue([of, rows]).slice()).map(attemptName));
const withAt = (values: readonly Value[], at: number, value: Value): Value[] => values.with(at, value);

describe('lines', () => {
  test('are read as they were written, whatever they share', ({ expect }) => {
    fc.assert(
      fc.property(someLines(40), (lines) => {
        expect(decode(encode(lines))).toEqual(lines);
      }),
      { numRuns: 200 },
    );
  });

  test('take as many bytes as the design counts on', ({ expect }) => {
    const bytesOf = (count: number, callers: number): number => {
      const lines = Array.from({ length: count }, (_, index): UsageLine => {
        const tag = (from: number): Tag => (from + (index % callers)).toString(16).padStart(16, 'a') as Tag;
        return {
          ...usual,
          serial: 1_000_000 + index,
          first: 1_000_000 + index,
          request: index.toString(16).padStart(32, 'f') as RequestId,
          caller: { day: 20_000, account: tag(1_000), key: tag(100_000) },
          lease: tag(10_000_000),
          startMs: unixMs(usual.startMs + ((index * 7_919) % 20_000)),
          durationMs: ms(1_000 + ((index * 104_729) % 20_000)),
        };
      });
      return encode(lines).length / count;
    };
    // Half of the statement's own 270 bytes at 25 lines is left to it.
    expect([bytesOf(25, 5) < 55, bytesOf(25, 25) < 73, bytesOf(256, 40) < 50, bytesOf(256, 256) < 73]).toEqual([
      true,
      true,
      true,
      true,
    ]);
  });

  test('that no reader would take are not written, and times are rounded', ({ expect }) => {
    const odd = fc.oneof(
      fc.constantFrom(-1, 0, 1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, lineTokensMax, lineTokensMax + 1),
      fc.constantFrom(momentMaxMs, momentMaxMs + 1, durationMaxMs, durationMaxMs + 1, maxPriceMicro + 1),
      fc.constantFrom(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER + 1, -Number.MAX_SAFE_INTEGER),
    );
    const text = fc.oneof(
      fc.constantFrom('', '0', '0g'.repeat(8), 'ab'.repeat(8), 'ab'.repeat(16), 'ab'.repeat(32)),
      fc.string({ minLength: 120, maxLength: 140 }),
    );
    const changes = fc.oneof(
      fc.record(
        {
          serial: odd,
          first: odd,
          startMs: odd.map(unixMs),
          firstMs: odd.map(ms),
          durationMs: odd.map(ms),
          promptTokens: odd,
          cachedTokens: odd,
          completionTokens: odd,
          nodeTokens: odd,
        },
        { requiredKeys: [] },
      ),
      fc.record({ run: text, request: text, model: text, digest: text, lease: text }, { requiredKeys: [] }),
      fc.record({ caller: fc.record({ day: odd, account: text, key: text }) }),
      fc.record({ price: fc.record({ id: text, prompt: odd, cached: odd, completion: odd }) }),
    );
    fc.assert(
      fc.property(changes, (change) => {
        const line = { ...usual, ...change } as UsageLine;
        const bytes = outcomeOf(() => encode([line]));
        if (typeof bytes === 'string') expect(bytes).toBe('FRAME_MALFORMED');
        else {
          const [again] = decode(bytes);
          const { firstMs, durationMs } = line;
          expect(again).toEqual({ ...line, firstMs: Math.round(firstMs), durationMs: Math.round(durationMs) });
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test('may have every number at its largest and at its least', ({ expect }) => {
    const most: UsageLine = {
      ...usual,
      serial: Number.MAX_SAFE_INTEGER,
      first: Number.MAX_SAFE_INTEGER - 2 ** 40,
      startMs: unixMs(momentMaxMs),
      firstMs: ms(durationMaxMs),
      durationMs: ms(durationMaxMs),
      promptTokens: lineTokensMax,
      cachedTokens: lineTokensMax,
      completionTokens: lineTokensMax,
      nodeTokens: 0,
      payer: 'gateway',
      outcome: 'running',
      price: { ...usual.price, prompt: maxPriceMicro, cached: maxPriceMicro, completion: maxPriceMicro },
    };
    const { lease: _, nodeTokens: __, ...rest } = usual;
    const least: UsageLine = {
      ...rest,
      serial: 1,
      first: 1,
      startMs: unixMs(0),
      firstMs: ms(0),
      durationMs: ms(0),
      promptTokens: 0,
      cachedTokens: 0,
      completionTokens: 0,
      model: '',
      price: freePrice,
    };
    expect(decode(encode([most, least]))).toEqual([most, least]);
  });

  test('name an attempt once: it is neither written nor read twice', ({ expect }) => {
    expect(outcomeOf(() => encode([usual, usual]))).toBe('FRAME_MALFORMED');
    expect(read([row, withAt(row, 1, 1)])).toEqual([`${'00'.repeat(16)}.7`, `${'00'.repeat(16)}.8`]);
    expect(read([row, withAt(row, 1, 0)])).toBe('FRAME_MALFORMED');
    expect(read([row, withAt(row, 1, 1), withAt(row, 1, -1)])).toBe('FRAME_MALFORMED');
    // The same process in two rows of its table would be two.
    expect(read([row, withAt(row, 0, 1)], withAt(tables, 0, [new Uint8Array(16), new Uint8Array(16)]))).toBe(
      'FRAME_MALFORMED',
    );
  });
});

describe('a row', () => {
  const bad: readonly [what: string, at: number, value: Value][] = [
    ['a process that is not in the table', 0, 1],
    ['a serial below 1', 1, 0],
    ['a serial beyond what is exact', 1, -1],
    ['a request of 15 bytes', 2, new Uint8Array(15)],
    ['a model that is not in the table', 3, 1],
    ['a caller that is not in the table', 4, 1],
    ['a price that is not in the table', 5, 1],
    ['a start before 1970', 6, -1],
    ['a start that no calendar shows', 6, momentMaxMs + 1],
    ['a first content after more than 30 days', 7, durationMaxMs + 1],
    ['more than 30 days', 8, durationMaxMs + 1],
    ['a prompt that fits nowhere', 9, lineTokensMax + 1],
    ['more cached than the prompt has', 10, 11],
    ['a completion that fits nowhere', 11, lineTokensMax + 1],
    ['fewer tokens than none by the node', 12, -21],
    ['more tokens than any by the node', 12, lineTokensMax],
    ['an outcome that is none', 13, 7],
    ['a first attempt before attempt 1', 13, 7 * 16],
    ['a negative mark', 13, -1],
  ];
  test.for(bad)('with %s is refused', ([, at, value], { expect }) => {
    expect(read([row])).toEqual([`${'00'.repeat(16)}.7`]);
    expect(read([withAt(row, at, value)])).toBe('FRAME_MALFORMED');
  });

  test('that lacks a position is refused; one that has more is read', ({ expect }) => {
    for (let length = 0; length < row.length; length += 1) expect(read([row.slice(0, length)])).toBe('FRAME_MALFORMED');
    expect(read([[...row, 'news']])).toEqual([`${'00'.repeat(16)}.7`]);
  });
});

describe('tables', () => {
  const bad: readonly [what: string, at: number, value: Value][] = [
    ['a process of 15 bytes', 0, [new Uint8Array(15)]],
    ['more processes than rows', 0, Array.from({ length: tableMax + 1 }, (_, at) => new Uint8Array(16).fill(at))],
    ['a model without its name', 1, [[new Uint8Array(32)]]],
    ['a name that is too long', 1, [[new Uint8Array(32), 'm'.repeat(limits.modelNameMaxChars + 1)]]],
    ['a price of 7 bytes', 2, [[new Uint8Array(7), 1, 1, 1]]],
    ['a price beyond belief', 2, [[new Uint8Array(8), maxPriceMicro + 1, 1, 1]]],
    ['a price that no entry has set', 2, [[new Uint8Array(0), 0, 0, 1]]],
    ['a caller without a day', 3, [[new Uint8Array(16)]]],
    ['a caller of 17 bytes', 3, [[1, new Uint8Array(17)]]],
    ['no callers', 3, null],
  ];
  test.for(bad)('with %s are refused', ([, at, value], { expect }) => {
    expect(read([row], withAt(tables, at, value))).toBe('FRAME_MALFORMED');
  });
});
