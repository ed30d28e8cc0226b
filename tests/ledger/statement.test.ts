/** Statements, countersignatures and claims: chained, signed for one place, and each with one reading. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { encodeEntry, parseEntry } from '../../ledger/entry.ts';
import { momentMaxMs, type UsageLine } from '../../ledger/line.ts';
import {
  addTotals,
  type ClaimEntry,
  type CountersignEntry,
  claimAttemptsMax,
  encodeUsage,
  follows,
  isClaimed,
  isCountersigned,
  noTotals,
  parseUsage,
  refusalReasons,
  type StatementEntry,
  signClaim,
  signCountersign,
  statementHash,
  type TabTotals,
} from '../../ledger/statement.ts';
import { encodeValue, type Value } from '../../protocol/codec.ts';
import { keyFromSeed, sha256 } from '../../protocol/crypto.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { EpochId, MeshId, PeerId, ProcessId, RequestId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { peerIdFromSeed } from '../../protocol/peer/identity.ts';
import { unixMs } from '../../protocol/units.ts';
import { garbageOf } from '../support/frames.ts';
import '../support/seed.ts';
import { someLines, statements, usageByKind } from './usage-entries.ts';

const meshId = 'ab'.repeat(32) as MeshId;
const seedOf = (name: string): Uint8Array => sha256(name);
const nodeKey = keyFromSeed(seedOf('node'));
const node = peerIdFromSeed(seedOf('node'));
const gateway = peerIdFromSeed(seedOf('gateway'));
const other = peerIdFromSeed(seedOf('other'));
const epoch = '0e'.repeat(16) as EpochId;

function outcomeOf<T>(work: () => T): T | string {
  try {
    return work();
  } catch (error) {
    if (isHelixFlowError(error)) return error.code;
    throw error;
  }
}
const read = (value: Value): unknown => outcomeOf(() => parseEntry(encodeValue(value).slice()));
const written = (entry: StatementEntry): string => {
  const bytes = outcomeOf(() => encodeEntry(entry));
  return typeof bytes === 'string' ? bytes : 'written';
};

const someStatement = (drawn: Partial<StatementEntry> = {}): StatementEntry => ({
  kind: 'statement',
  node,
  number: 0,
  previous: new Uint8Array(32),
  run: '0a'.repeat(16) as ProcessId,
  lines: [],
  running: [],
  progress: [],
  totals: noTotals,
  ...drawn,
});
const [sample] = fc.sample(
  someLines(1).filter(({ length }) => length === 1),
  { numRuns: 1, seed: 7 },
) as [[UsageLine]];
const line = (serial: number, changes: Partial<UsageLine> = {}): UsageLine => ({
  ...sample[0],
  run: '0a'.repeat(16) as ProcessId,
  serial,
  first: serial,
  ...changes,
});
const runningLine = (serial: number): UsageLine => line(serial, { outcome: 'running' });

describe('a statement', () => {
  test('is read as it was written, from a feed and from a session', ({ expect }) => {
    fc.assert(
      fc.property(statements, (entry) => {
        const bytes = encodeEntry(entry);
        expect([parseEntry(bytes), parseUsage(bytes)]).toEqual([entry, entry]);
        expect(bytes.length).toBeLessThan(limits.entryMaxBytes);
      }),
      { numRuns: 300 },
    );
  });

  test('tells of an attempt once, whether it ended or runs', ({ expect }) => {
    const at = (serial: number) => ({ serial, completionTokens: 1 });
    expect(
      [
        someStatement({ lines: [line(1), line(2)], running: [runningLine(3)], progress: [at(4), at(5)] }),
        someStatement({ lines: [line(1), line(1)] }),
        someStatement({ lines: [line(1)], running: [runningLine(1)] }),
        someStatement({ lines: [line(1)], progress: [at(1)] }),
        someStatement({ running: [runningLine(1)], progress: [at(1)] }),
        someStatement({ progress: [at(2), at(2)] }),
        someStatement({ progress: [at(2), at(1)] }),
        // Of another process it is another attempt.
        someStatement({ lines: [line(1, { run: '0b'.repeat(16) as ProcessId })], progress: [at(1)] }),
      ].map(written),
    ).toEqual(['written', ...Array.from({ length: 6 }, () => 'FRAME_MALFORMED'), 'written']);
  });

  test('that tells of an attempt twice is not read either', ({ expect }) => {
    const run = new Uint8Array(16).fill(10);
    const tables: Value[] = [
      [run],
      [[new Uint8Array(32), 'm']],
      [[new Uint8Array(0), 0, 0, 0]],
      [[1, new Uint8Array(16)]],
    ];
    const row = (more: number, marks: number): Value => [
      0,
      more,
      new Uint8Array(16),
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      null,
      marks,
    ];
    const statement = (lines: Value, running: Value, progress: Value): unknown =>
      read([128, node, 0, new Uint8Array(32), run, tables, lines, running, progress, [1, 0, 0]]);
    expect(statement([row(1, 0)], [row(1, 6)], [3, 9])).toMatchObject({
      lines: [{ serial: 1 }],
      running: [{ serial: 2 }],
      progress: [{ serial: 3, completionTokens: 9 }],
    });
    expect([
      statement([row(1, 0), row(0, 0)], [], []),
      statement([row(1, 0)], [row(0, 6)], []),
      statement([row(1, 0)], [], [1, 9]),
      statement([], [row(1, 6)], [1, 9]),
      statement([], [], [1, 9, 0, 9]),
      statement([], [], [1]),
      statement([], [], [1, 100_000_001]),
      statement([], [], [Number.MAX_SAFE_INTEGER, 0, 1, 0]),
    ]).toEqual(Array.from({ length: 8 }, () => 'FRAME_MALFORMED'));
  });

  test('keeps what runs apart from what has ended', ({ expect }) => {
    expect(
      [
        someStatement({ lines: [runningLine(1)] }),
        someStatement({ running: [line(1)] }),
        someStatement({ running: [{ ...runningLine(1), run: '0b'.repeat(16) as ProcessId }] }),
      ].map(written),
    ).toEqual(['FRAME_MALFORMED', 'FRAME_MALFORMED', 'FRAME_MALFORMED']);
  });

  test('has as many lines as it may, and not one more', ({ expect }) => {
    const many = (count: number): UsageLine[] => Array.from({ length: count }, (_, index) => line(index + 1));
    expect(written(someStatement({ lines: many(limits.statementLinesMax) }))).toBe('written');
    expect(written(someStatement({ lines: many(limits.statementLinesMax + 1) }))).toBe('FRAME_MALFORMED');
  });

  test('has numbers that are exact', ({ expect }) => {
    const bad: Partial<StatementEntry>[] = [
      { number: -1 },
      { number: 0.5 },
      { previous: new Uint8Array(31) },
      { totals: { ...noTotals, lines: 2 ** 53 } },
      { totals: { ...noTotals, promptTokens: Number.NaN } },
      { progress: [{ serial: 1, completionTokens: Number.NaN }] },
      { progress: [{ serial: 1.5, completionTokens: 1 }] },
    ];
    expect(bad.map((changes) => written(someStatement(changes)))).toEqual(bad.map(() => 'FRAME_MALFORMED'));
  });
});

describe('a chain of statements', () => {
  const chains = fc.array(someLines(6), { minLength: 1, maxLength: 6 }).map((parts) => {
    const chain: StatementEntry[] = [];
    let before: { number: number; hash: Uint8Array; totals: TabTotals } | undefined;
    for (const [number, lines] of parts.entries()) {
      const totals = addTotals(before?.totals ?? noTotals, lines);
      const entry = someStatement({ number, previous: before?.hash ?? new Uint8Array(32), lines, totals });
      chain.push(entry);
      before = { number, hash: statementHash(encodeEntry(entry)), totals };
    }
    return chain;
  });
  const tipOf = (entry: StatementEntry | undefined) =>
    entry && { number: entry.number, hash: statementHash(encodeEntry(entry)), totals: entry.totals };

  test('follows from its beginning to its end, and each of them nothing else', ({ expect }) => {
    fc.assert(
      fc.property(chains, (chain) => {
        for (const [index, entry] of chain.entries()) {
          const fits = chain.map((_, before) => follows(entry, tipOf(chain[before - 1])));
          expect(fits).toEqual(chain.map((_, before) => before === index));
        }
      }),
      { numRuns: 50 },
    );
  });

  test('does not follow where number, hash or a sum was changed', ({ expect }) => {
    const totalsOf = (name: keyof TabTotals) =>
      fc.integer({ min: 1, max: 9 }).map(
        (more) =>
          (entry: StatementEntry): StatementEntry => ({
            ...entry,
            totals: { ...entry.totals, [name]: entry.totals[name] + more },
          }),
      );
    const change = fc.oneof(
      totalsOf('lines'),
      totalsOf('promptTokens'),
      totalsOf('completionTokens'),
      fc.constant((entry: StatementEntry): StatementEntry => ({ ...entry, number: entry.number + 1 })),
      fc.nat(31).map((at) => (entry: StatementEntry): StatementEntry => {
        const previous = entry.previous.slice();
        previous[at] = (previous[at] ?? 0) ^ 1;
        return { ...entry, previous };
      }),
    );
    fc.assert(
      fc.property(chains, change, (chain, bend) => {
        const [last, before] = [chain.at(-1), chain.at(-2)] as [StatementEntry, StatementEntry | undefined];
        expect([follows(last, tipOf(before)), follows(bend(last), tipOf(before))]).toEqual([true, false]);
      }),
      { numRuns: 100 },
    );
  });

  test('goes on where its sums are the largest that are exact', ({ expect }) => {
    const full = { lines: Number.MAX_SAFE_INTEGER, promptTokens: 2 ** 53 - 2, completionTokens: 2 ** 53 - 1 };
    const lines = [line(1, { promptTokens: 5, cachedTokens: 0, completionTokens: 5 })];
    const totals = addTotals(full, lines);
    expect(totals).toEqual({
      lines: Number.MAX_SAFE_INTEGER,
      promptTokens: Number.MAX_SAFE_INTEGER,
      completionTokens: Number.MAX_SAFE_INTEGER,
    });
    const hash = new Uint8Array(32).fill(1);
    const next = someStatement({ number: 1, previous: hash, lines, totals });
    expect([written(next), follows(next, { number: 0, hash, totals: full })]).toEqual(['written', true]);
  });
});

/** Every way of changing one thing that was signed. */
const bends = <T extends object>(entry: T, changes: Partial<T>): [string, T][] =>
  Object.entries(changes).map(([name, value]) => [name, { ...entry, [name]: value }]);

describe('a countersignature', () => {
  const unsigned = {
    kind: 'countersign',
    node,
    epoch,
    number: 3,
    statement: new Uint8Array(32).fill(5),
    refused: [{ index: 2, reason: 'count' }],
    timeMs: unixMs(1_700_000_000_000),
  } as const;
  const place = { meshId, gateway };
  const signed = signCountersign(unsigned, place, nodeKey);

  test('holds for the statement it names, and as it was sent', ({ expect }) => {
    expect(isCountersigned(signed, place)).toBe(true);
    const again = parseUsage(encodeUsage(signed)) as CountersignEntry;
    expect([again, isCountersigned(again, place)]).toEqual([signed, true]);
  });

  test('holds nowhere else, and for nothing else', ({ expect }) => {
    const bent = bends<CountersignEntry>(signed, {
      node: other,
      epoch: '0f'.repeat(16) as EpochId,
      number: 4,
      statement: new Uint8Array(32).fill(6),
      refused: [],
      timeMs: unixMs(1_700_000_000_001),
      signature: signed.signature.map((byte, at) => (at === 63 ? byte ^ 1 : byte)),
    });
    const other1 = refusalReasons.map((reason) => ({ ...signed, refused: [{ index: 2, reason }] }));
    expect(bent.filter(([, entry]) => isCountersigned(entry, place))).toEqual([]);
    expect(other1.map((entry) => isCountersigned(entry, place))).toEqual(
      refusalReasons.map((reason) => reason === 'count'),
    );
    expect(isCountersigned(signed, { meshId: 'cd'.repeat(32) as MeshId, gateway })).toBe(false);
    expect(isCountersigned(signed, { meshId, gateway: other })).toBe(false);
    expect(isCountersigned({ ...signed, node: 'notakey' as PeerId }, place)).toBe(false);
  });

  test('names the lines it refuses in order, each once', ({ expect }) => {
    const refuse = (...indexes: readonly number[]): string => {
      const refused = indexes.map((index) => ({ index, reason: 'count' }) as const);
      const bytes = outcomeOf(() => encodeEntry({ ...signed, refused }));
      return typeof bytes === 'string' ? bytes : 'written';
    };
    expect([refuse(0, 1, 255), refuse(1, 1), refuse(1, 0), refuse(256), refuse(-1)]).toEqual([
      'written',
      ...Array.from({ length: 4 }, () => 'FRAME_MALFORMED'),
    ]);
    const place = [node, new Uint8Array(16), 0, new Uint8Array(32)];
    const sent = (...refused: readonly Value[]): unknown => read([129, ...place, refused, 0, new Uint8Array(64)]);
    expect(sent([0, 1], [1, 1])).toMatchObject({ refused: [{ index: 0 }, { index: 1 }] });
    expect([sent([1, 1], [1, 1]), sent([0, 5]), sent([256, 0])]).toEqual([
      'FRAME_MALFORMED',
      'FRAME_MALFORMED',
      'FRAME_MALFORMED',
    ]);
  });

  test('has a time that a calendar shows', ({ expect }) => {
    const at = (timeMs: number): unknown =>
      read([129, node, new Uint8Array(16), 0, new Uint8Array(32), [], timeMs, new Uint8Array(64)]);
    expect(at(momentMaxMs)).toMatchObject({ timeMs: momentMaxMs });
    expect(at(momentMaxMs + 1)).toBe('FRAME_MALFORMED');
  });
});

describe('a claim', () => {
  const attempt = {
    run: '0a'.repeat(16) as ProcessId,
    serial: 1,
    request: '0b'.repeat(16) as RequestId,
    startMs: unixMs(1_700_000_000_000),
    promptTokens: 10,
    completionTokens: 20,
  };
  const unsigned = { kind: 'claim', node, gateway, attempts: [attempt], timeMs: unixMs(1_700_000_000_500) } as const;
  const signed = signClaim(unsigned, meshId, nodeKey);

  test('holds as it was signed, and in no other way', ({ expect }) => {
    const again = parseUsage(encodeUsage(signed)) as ClaimEntry;
    expect([again, isClaimed(again, meshId)]).toEqual([signed, true]);
    const bent = bends<ClaimEntry>(signed, {
      node: other,
      gateway: other,
      timeMs: unixMs(1),
      signature: new Uint8Array(64),
      attempts: [{ ...attempt, completionTokens: 21 }],
    });
    expect(bent.filter(([, entry]) => isClaimed(entry, meshId))).toEqual([]);
    expect(isClaimed(signed, 'cd'.repeat(32) as MeshId)).toBe(false);
  });

  test('is no countersignature, nor the other way round', ({ expect }) => {
    const word = signCountersign(
      { kind: 'countersign', node, epoch, number: 0, statement: new Uint8Array(32), refused: [], timeMs: unixMs(1) },
      { meshId, gateway },
      nodeKey,
    );
    expect(isClaimed({ ...signed, signature: word.signature }, meshId)).toBe(false);
    expect(isCountersigned({ ...word, signature: signed.signature }, { meshId, gateway })).toBe(false);
  });

  test('claims something, of each attempt once, and no more than it may', ({ expect }) => {
    const claim = (count: number, from = 1): string => {
      const attempts = Array.from({ length: count }, (_, index) => ({ ...attempt, serial: from * index + 1 }));
      const bytes = outcomeOf(() => encodeEntry({ ...signed, attempts }));
      return typeof bytes === 'string' ? bytes : 'written';
    };
    expect([claim(1), claim(claimAttemptsMax), claim(0), claim(claimAttemptsMax + 1), claim(2, 0)]).toEqual([
      'written',
      'written',
      'FRAME_MALFORMED',
      'FRAME_MALFORMED',
      'FRAME_MALFORMED',
    ]);
    const row = [new Uint8Array(16), 1, new Uint8Array(16), 0, 0, 0];
    const sent = (...rows: readonly Value[]): unknown => read([130, node, gateway, rows, 0, new Uint8Array(64)]);
    expect(sent(row)).toMatchObject({ attempts: [{ serial: 1 }] });
    expect([sent(), sent(row, row), sent(row.with(1, 0))]).toEqual([
      'FRAME_MALFORMED',
      'FRAME_MALFORMED',
      'FRAME_MALFORMED',
    ]);
  });
});

describe('what comes on a session', () => {
  test('is an entry about usage or FRAME_MALFORMED, whatever the bytes are', ({ expect }) => {
    const real = fc.oneof(...Object.values(usageByKind)).map(encodeUsage);
    fc.assert(
      fc.property(garbageOf(real), (bytes) => {
        const outcome = outcomeOf(() => parseUsage(bytes));
        if (typeof outcome === 'string') expect(outcome).toBe('FRAME_MALFORMED');
        else expect(parseUsage(encodeUsage(outcome))).toEqual(outcome);
      }),
      { numRuns: 2_000 },
    );
  });

  test('is no other entry, and not too long', ({ expect }) => {
    const ban = encodeEntry({ kind: 'ban', peer: node, ban: '01'.repeat(16) });
    expect(outcomeOf(() => parseUsage(ban))).toBe('FRAME_MALFORMED');
    expect(outcomeOf(() => parseUsage(new Uint8Array(limits.entryMaxBytes + 1)))).toBe('FRAME_TOO_LARGE');
  });
});
