/** The line log: rows that tell when a byte of them changed, and rooms that lines fit in. */

import fc from 'fast-check';
import { test } from 'vitest';
import { LineSize } from '../../ledger/gateway-tab-size.ts';
import type { LineOutcome, UsageLine } from '../../ledger/line.ts';
import { lineOutcomes } from '../../ledger/line.ts';
import { LineLog, type LogReport, type LogRow } from '../../ledger/line-log.ts';
import { freePrice } from '../../ledger/price.ts';
import { encodeUsage, type Progress, type StatementEntry } from '../../ledger/statement.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { ModelDigest, PriceId, RequestId, Tag } from '../../protocol/ids.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { Disk, DiskStore } from './feed-stage.ts';
import { NodeStage, runNamed } from './gateway-tab-stage.ts';

const nodes = ['a', 'b', 'c'].map((name) => new NodeStage(name).peer);
const [node] = nodes as [(typeof nodes)[0]];
const hex = (bytes: number) =>
  fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((all) => Buffer.from(all).toString('hex'));
const tokens = fc.oneof(fc.nat(300), fc.nat(100_000_000));
const names = fc.constantFrom('tiny', 'größer', 'x'.repeat(128), '字'.repeat(40));

/** Lines as a gateway could write them; the serial is set by whoever uses them. */
const anyLine: fc.Arbitrary<UsageLine> = fc
  .record({
    run: fc.constantFrom(runNamed('one'), runNamed('two')),
    request: hex(16).map((text) => text as RequestId),
    model: names,
    digest: hex(32).map((text) => text as ModelDigest),
    caller: fc.record({
      day: fc.nat(40_000),
      account: hex(8).map((text) => text as Tag),
      key: hex(8).map((text) => text as Tag),
    }),
    price: fc.oneof(
      fc.constant(freePrice),
      fc.record({
        id: hex(8).map((text) => text as PriceId),
        prompt: fc.nat(1_000_000_000),
        cached: fc.nat(1_000_000_000),
        completion: fc.nat(1_000_000_000),
      }),
    ),
    lease: fc.option(
      hex(8).map((text) => text as Tag),
      { nil: undefined },
    ),
    payer: fc.constantFrom('account' as const, 'gateway' as const),
    startMs: fc.oneof(fc.nat(), fc.integer({ min: 1_700_000_000_000, max: 1_700_000_100_000 })).map(unixMs),
    firstMs: fc.nat(2_592_000_000).map(ms),
    durationMs: fc.nat(2_592_000_000).map(ms),
    promptTokens: tokens,
    completionTokens: tokens,
    nodeTokens: fc.option(tokens, { nil: undefined }),
    outcome: fc.constantFrom(...lineOutcomes.filter((outcome) => outcome !== 'running')),
    jump: fc.oneof(fc.nat(30), fc.nat(1_000_000_000)),
    back: fc.nat(1_000),
  })
  .map(({ lease, nodeTokens, jump, back, ...line }) => ({
    ...line,
    ...(lease === undefined ? {} : { lease }),
    ...(nodeTokens === undefined ? {} : { nodeTokens }),
    cachedTokens: Math.floor(line.promptTokens / 3),
    outcome: line.outcome as LineOutcome,
    serial: jump,
    first: back,
  }));

/** Serials count up in each run. */
const anyLines = (max: number): fc.Arbitrary<UsageLine[]> =>
  fc.array(anyLine, { minLength: 1, maxLength: max }).map((lines) => {
    let serial = 0;
    return lines.map((line) => {
      serial += line.serial + 1;
      return { ...line, serial, first: Math.max(1, serial - line.first) };
    });
  });

const lineAt = (serial: number): UsageLine => ({
  run: runNamed('one'),
  serial,
  first: serial,
  request: serial.toString(16).padStart(32, '0') as RequestId,
  model: 'tiny',
  digest: 'd'.repeat(64) as ModelDigest,
  caller: { day: 1, account: 'a'.repeat(16) as Tag, key: 'b'.repeat(16) as Tag },
  price: freePrice,
  payer: 'account',
  startMs: unixMs(1_700_000_000_000 + serial),
  firstMs: ms(10),
  durationMs: ms(20),
  promptTokens: 5,
  cachedTokens: 1,
  completionTokens: 7,
  nodeTokens: 7,
  outcome: 'done',
});

const openLog = (disk: Disk, run = 'one') => {
  const store = new DiskStore(disk);
  return { store, log: new LineLog({ clock: new ManualClock(), store }, runNamed(run)) };
};

const write = (log: LineLog, lines: readonly UsageLine[]): Promise<LogRow[]> =>
  Promise.all(
    lines.map(
      (line, at) =>
        new Promise<LogRow>((resolve, reject) => {
          log.write(nodes[at % nodes.length] ?? node, line, (row) =>
            isHelixFlowError(row) ? reject(row) : resolve(row),
          );
        }),
    ),
  );

const linesOf = ({ lines }: LogReport): UsageLine[] => lines.map(({ line }) => line);

test('what was written is read as it was, with its node', async ({ expect }) => {
  await fc.assert(
    fc.asyncProperty(anyLines(80), async (lines) => {
      const disk = new Disk();
      await write(openLog(disk).log, lines);
      const { lines: found, damaged } = await openLog(disk, 'two').log.open();
      expect(found.map(({ line }) => line)).toEqual(lines);
      expect([found.map((one) => one.node), damaged]).toEqual([lines.map((_, at) => nodes[at % nodes.length]), 0]);
    }),
    { numRuns: 60 },
  );
});

test('a row goes when all its lines are stated, and not before', async ({ expect }) => {
  const disk = new Disk();
  const { log, store } = openLog(disk);
  const rows = await write(log, [1, 2, 3].map(lineAt));
  expect(new Set(rows).size).toBe(1);
  for (const row of rows.slice(1)) log.stated(row);
  log.sweep();
  await log.settled();
  expect(disk.rows.size).toBe(1);
  log.stated(rows[0]!);
  log.sweep();
  await log.settled();
  expect([disk.rows.size, store.batches]).toEqual([0, 2]);
});

test('256 lines lie in a row, and all that wait go out in one write', async ({ expect }) => {
  const disk = new Disk();
  const { log, store } = openLog(disk);
  const rows = await write(
    log,
    Array.from({ length: 1_000 }, (_, at) => lineAt(at + 1)),
  );
  expect([store.batches, new Set(rows).size, [...new Set(rows)].map(({ unstated }) => unstated)]).toEqual([
    1,
    4,
    [256, 256, 256, 232],
  ]);
});

test('while lines come several at a time a write waits for more of them, and a line that comes alone never does', async ({
  expect,
}) => {
  const disk = new Disk();
  const store = new DiskStore(disk);
  const arriving: UsageLine[] = [];
  let log: LineLog;
  class BusyClock extends ManualClock {
    turns = 0;
    override async turn() {
      this.turns += 1;
      await super.turn();
      const next = arriving.shift();
      if (next !== undefined) void write(log, [next]);
    }
  }
  const clock = new BusyClock();
  log = new LineLog({ clock, store }, runNamed('one'));
  await write(log, [lineAt(1)]);
  await write(log, [lineAt(2)]);
  expect([store.batches, clock.turns]).toEqual([2, 2]);
  await write(log, [lineAt(3), lineAt(4)]);
  // Each turn brings one, until one brings none.
  arriving.push(...Array.from({ length: 20 }, (_, at) => lineAt(5 + at)));
  await write(log, [lineAt(90), lineAt(91)]);
  await log.settled();
  expect([store.batches, clock.turns]).toEqual([4, 2 + 1 + 21]);
  // No more than this many wait for others.
  arriving.push(...Array.from({ length: 100 }, (_, at) => lineAt(100 + at)));
  await write(log, [lineAt(92), lineAt(93)]);
  expect(store.batches).toBe(5);
  expect(arriving.length).toBeGreaterThan(30);
});

test('a write never waits for longer than a millisecond', async ({ expect }) => {
  const store = new DiskStore(new Disk());
  let serial = 10;
  let log: LineLog;
  class SlowClock extends ManualClock {
    aheadMs = 0;
    override nowMs() {
      return ms(super.nowMs() + this.aheadMs);
    }
    override async turn() {
      await super.turn();
      serial += 1;
      if (serial < 50) void write(log, [lineAt(serial)]);
      this.aheadMs += 0.4;
    }
  }
  log = new LineLog({ clock: new SlowClock(), store }, runNamed('one'));
  await write(log, [lineAt(1), lineAt(2)]);
  const before = serial;
  await write(log, [lineAt(3), lineAt(4)]);
  expect(serial - before).toBeLessThan(6);
});

test('a byte that changed anywhere in a row, or its key, is found; the other rows stand', async ({ expect }) => {
  const disk = new Disk();
  await write(openLog(disk).log, [1, 2].map(lineAt));
  await write(openLog(disk, 'two').log, [lineAt(3)]);
  const [[key, value]] = [...disk.rows] as [[string, Uint8Array]];
  const whole = linesOf(await openLog(disk, 'x').log.open());
  let tried = 0;
  for (let at = 0; at < value.length; at += 1) {
    for (const bit of [1, 128]) {
      const copy = disk.copy();
      const changed = value.slice();
      changed[at]! ^= bit;
      copy.rows.set(key, changed);
      const { log } = openLog(copy, 'x');
      const report = await log.open();
      expect([report.damaged, report.lines.length]).toEqual([1, whole.length - 2]);
      log.sweep();
      await log.settled();
      expect(copy.rows.size).toBe(1);
      tried += 1;
    }
  }
  for (let at = 4; at < key.length; at += 1) {
    const copy = disk.copy();
    const moved = `${key.slice(0, at)}${key[at] === '0' ? '1' : '0'}${key.slice(at + 1)}`;
    copy.rows.delete(key);
    copy.rows.set(moved, value);
    expect((await openLog(copy, 'x').log.open()).damaged).toBe(1);
    tried += 1;
  }
  console.info(`changed bytes and keys tried: ${tried}, not found: 0`);
});

const most = Number.MAX_SAFE_INTEGER;
/** As long as one without rows can be. */
const emptyStatement: StatementEntry = {
  kind: 'statement',
  node,
  number: most,
  previous: new Uint8Array(32),
  run: runNamed('one'),
  lines: [],
  running: [],
  progress: [],
  totals: { lines: most, promptTokens: most, completionTokens: most },
};

/** All alike but for one thing, so that nothing else makes up for what is reckoned too small. */
const alike = (differ: readonly (keyof UsageLine)[]) =>
  anyLines(120).map((lines) =>
    lines.map((line, at) => {
      const own = Object.fromEntries(differ.map((field) => [field, line[field]]));
      return { ...lineAt(at + 1), ...own };
    }),
  );

test('lines never take more than they were reckoned to', ({ expect }) => {
  let slackMax = 0;
  const kinds: readonly (readonly (keyof UsageLine)[])[] = [
    ['price'],
    ['caller', 'lease'],
    ['model', 'digest'],
    ['run'],
  ];
  fc.assert(
    fc.property(fc.oneof(anyLines(120), ...kinds.map(alike)), ([...lines]) => {
      const bytesMax = 3_000;
      const size = new LineSize({ linesMax: 100, bytesMax }, 256);
      const taken: UsageLine[] = [];
      for (const line of lines) {
        if (!size.take(line, node)) break;
        taken.push(line);
      }
      // Rows of attempts that run come behind those of lines, and are of one process.
      const half = taken.findLastIndex(({ run }) => run !== runNamed('one')) + 1;
      const entry: StatementEntry = {
        ...emptyStatement,
        lines: taken.slice(0, half),
        running: taken.slice(half).map((line) => ({ ...line, outcome: 'running', run: runNamed('one') })),
      };
      const bytes = encodeUsage(entry).length;
      expect(bytes).toBeLessThanOrEqual(bytesMax);
      slackMax = Math.max(slackMax, bytesMax - bytes);
    }),
  );
  expect(slackMax).toBeGreaterThan(0);
});

test('nor does the progress of attempts', ({ expect }) => {
  const pair = fc.record({ more: fc.integer({ min: 1, max: 1_000_000 }), completionTokens: tokens });
  fc.assert(
    fc.property(fc.array(pair, { minLength: 1, maxLength: 400 }), (pairs) => {
      const bytesMax = 1_000;
      const size = new LineSize({ linesMax: 1, bytesMax }, 256);
      const progress: Progress[] = [];
      let serial = 0;
      for (const { more, completionTokens } of pairs) {
        serial += more;
        if (!size.takePair(serial, completionTokens)) break;
        progress.push({ serial, completionTokens });
      }
      expect(encodeUsage({ ...emptyStatement, progress }).length).toBeLessThanOrEqual(bytesMax);
    }),
  );
});
