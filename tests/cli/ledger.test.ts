/** `helixflow ledger`: what is told, checked, exported, backed up and put back of a directory that no daemon holds. */

import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, test } from 'vitest';
import { reconciledText } from '../../cli/commands/ledger-reconcile.ts';
import { locateDataDir } from '../../cli/data-dir.ts';
import { writeNewFileStream } from '../../cli/ledger-sink.ts';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import { type Entry, encodeEntry } from '../../ledger/entry.ts';
import { prune, writePrunedRow } from '../../ledger/feed-prune.ts';
import { feedKeys, readBlockRow } from '../../ledger/feed-rows.ts';
import { isRestored } from '../../ledger/lease-roll.ts';
import { addTotals, noTotals, statementHash } from '../../ledger/statement.ts';
import type { EpochId } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';
import { line, runNamed } from '../ledger/verify-stage.ts';
import { runHere } from './in-process.ts';
import { alice, bob, linesFrom, makeMesh, tell } from './ledger-stage.ts';
import { tempDir } from './temp-dir.ts';

/** Runs commands on one directory. */
function on(dir: string) {
  const run = (...words: readonly string[]) => runHere([...words, '--data-dir', dir]);
  const ok = async (...words: readonly string[]) => {
    const { code, value, error } = await run(...words);
    if (code !== 0) throw new Error(`${words.join(' ')} exited ${code}: ${error} ${JSON.stringify(value)}`);
    return value;
  };
  return { run, ok };
}

/** A directory with two processes' work: five lines, one refused, one statement that nobody has signed. */
async function furnished() {
  const temp = await tempDir();
  await makeMesh(temp.path);
  await tell(temp.path, [
    { by: alice, lines: linesFrom('run', 1, 2) },
    { by: bob, lines: [line('run', 3, { model: '=cmd|"x",y' })], refused: [{ index: 0, reason: 'count' }] },
  ]);
  await tell(temp.path, [{ by: alice, lines: linesFrom('run 2', 1, 2), refused: 'silent' }]);
  return { ...on(temp.path), path: temp.path, [Symbol.asyncDispose]: () => temp[Symbol.asyncDispose]() };
}

/** Does something to the rows of the gateway's feeds. */
async function tamper(
  path: string,
  change: (key: Uint8Array, row: Uint8Array) => Uint8Array | undefined,
): Promise<void> {
  const store = await openLevelStore(locateDataDir(path).peer('gateway').store);
  const rows: [Uint8Array, Uint8Array][] = [];
  for await (const [key, row] of store.range(feedKeys)) rows.push([key.slice(), row.slice()]);
  for (const [key, row] of rows) {
    const value = change(key, row);
    await store.batch([value === undefined ? { type: 'del', key } : { type: 'put', key, value }], { sync: true });
  }
  await store.close();
}

describe('verify', () => {
  test('finds nothing in what is right, and names a byte that was flipped', async ({ expect }) => {
    await using dir = await furnished();
    expect(await dir.ok('ledger', 'verify')).toEqual({ ok: true, entries: 7, lines: 5, requests: 5, problems: [] });
    let flipped = false;
    await tamper(dir.path, (_, row) => {
      if (flipped) return row;
      flipped = true;
      return row.with(40, (row[40] ?? 0) ^ 1);
    });
    const { code, value, error } = await dir.run('ledger', 'verify');
    expect([code, error, value['ok']]).toEqual([6, 'CHECK_FAILED', false]);
    expect(value['problems']).toContainEqual({
      place: expect.stringMatching(/^[0-9a-f]{64}\/[0-9a-f]{32}\/0$/),
      what: 'the block’s bytes have changed, or it is not the one of this place',
    });
  });

  test('a directory without a mesh, and one in which nothing ran, are told so', async ({ expect }) => {
    await using temp = await tempDir();
    const { run } = on(temp.path);
    expect((await run('ledger', 'verify')).error).toBe('MESH_MISSING');
    await makeMesh(temp.path);
    expect(await run('ledger', 'verify')).toMatchObject({ error: 'DATA_DIR_UNUSABLE' });
  });

  test('an export alone is enough, and a changed one is found out', async ({ expect }) => {
    await using dir = await furnished();
    const out = join(dir.path, 'export.jsonl');
    expect(await dir.ok('ledger', 'export', '--format', 'jsonl', '--raw', '--out', out)).toEqual({
      out,
      format: 'jsonl',
      attempts: 5,
      rows: 5,
    });
    const whole = await dir.ok('ledger', 'verify');
    await using other = await tempDir();
    expect(await on(other.path).ok('ledger', 'verify', '--from', out)).toEqual(whole);
    const text = await readFile(out, 'utf8');
    const changed = join(other.path, 'changed.jsonl');
    const rows = text.split('\n');
    // A row left out: the lines still are JSON, and each row that is there is right.
    await writeFile(changed, rows.filter((_, at) => at !== 2).join('\n'));
    const { code, value } = await on(other.path).run('ledger', 'verify', '--from', changed);
    expect(code).toBe(6);
    expect((value['problems'] as { what: string }[]).map(({ what }) => what)).toContain(
      'it does not fit the lines before it: some have changed, or are missing',
    );
    const mesh = await on(other.path).run('ledger', 'verify', '--from', out, '--mesh', 'ab'.repeat(32));
    expect(mesh).toMatchObject({ code: 6, error: 'CHECK_FAILED' });
    await writeFile(changed, 'no export');
    expect(await on(other.path).run('ledger', 'verify', '--from', changed)).toMatchObject({ error: 'BACKUP_INVALID' });
  });
});

describe('export', () => {
  test('CSV has a line an attempt, and no cell that a spreadsheet would compute', async ({ expect }) => {
    await using dir = await furnished();
    const out = join(dir.path, 'export.csv');
    expect(await dir.ok('ledger', 'export', '--out', out)).toEqual({ out, format: 'csv', attempts: 5 });
    const [head = '', ...lines] = (await readFile(out, 'utf8')).split('\r\n').filter((text) => text !== '');
    expect(head.split(',').slice(0, 4)).toEqual(['author', 'gateway', 'node', 'run']);
    expect(lines).toHaveLength(5);
    expect(lines.filter((text) => text.includes(`"'=cmd|""x"",y"`))).toHaveLength(1);
    expect(lines.filter((text) => text.includes(',refused,count,'))).toHaveLength(1);
    expect(await dir.run('ledger', 'export', '--out', out)).toMatchObject({ code: 2, error: 'CONFIG_INVALID' });
  });

  test('JSON lines say what was said, what it comes to, and where it stands', async ({ expect }) => {
    await using dir = await furnished();
    const out = join(dir.path, 'export.jsonl');
    await dir.ok('ledger', 'export', '--format', 'jsonl', '--out', out);
    const rows = (await readFile(out, 'utf8'))
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text));
    expect(rows.map(({ serial, state }) => [serial, state]).toSorted()).toEqual([
      [1, 'agreed'],
      [1, 'alone'],
      [2, 'agreed'],
      [2, 'alone'],
      [3, 'refused'],
    ]);
    expect(rows.find(({ state }) => state === 'agreed')).toMatchObject({
      node: alice.peer,
      lineCompletionTokens: 20,
      completionTokens: 20,
      billed: true,
      block: 0,
      statement: 0,
    });
  });

  test('what does not go together is refused', async ({ expect }) => {
    await using dir = await furnished();
    expect(await dir.run('ledger', 'export', '--raw')).toMatchObject({ code: 2, error: 'CONFIG_INVALID' });
    expect(await dir.run('ledger', 'export', '--since', 'yesterday')).toMatchObject({ code: 2 });
  });
});

test('status counts what is held of each author', async ({ expect }) => {
  await using dir = await furnished();
  const status = await dir.ok('ledger', 'status');
  expect(status).toMatchObject({ epochs: 2, lines: 5, statements: 3, countersigned: 2, unattested: 0, refused: 1 });
  expect(status['authors']).toMatchObject([{ role: 'gateway', epochs: 2, lines: 5 }]);
});

test('tail shows the newest attempts last', async ({ expect }) => {
  await using dir = await furnished();
  // Each is a JSON line of its own; the last one stays.
  expect(await dir.ok('ledger', 'tail', '-n', '2')).toMatchObject({ serial: 2, state: 'waiting', node: alice.peer });
  expect(await dir.run('ledger', 'tail', '--follow')).toMatchObject({ error: 'DAEMON_UNREACHABLE' });
});

test('tail knows what a node said after the gateway was started again', async ({ expect }) => {
  await using dir = await furnished();
  const { running, progress } = { running: [], progress: [] };
  const lines = linesFrom('run 2', 1, 2);
  const first = { number: 0, previous: new Uint8Array(32), totals: addTotals(noTotals, lines) };
  const run = runNamed('run 2');
  const statement = statementHash(
    encodeEntry({ kind: 'statement', node: alice.peer, ...first, run, lines, running, progress }),
  );
  const [, epoch] = String((await dir.ok('ledger', 'tail', '-n', '1'))['place']).split('/');
  const word = { kind: 'countersign', node: alice.peer, epoch: epoch as EpochId, number: 0, statement } as const;
  const signature = new Uint8Array(64);
  await tell(dir.path, [], [{ ...word, refused: [], timeMs: unixMs(Date.now()), signature }]);
  expect(await dir.ok('ledger', 'tail', '-n', '1')).toMatchObject({ serial: 2, state: 'countersigned' });
});

test('reconcile compares with what the last gateway had counted, where no daemon runs', async ({ expect }) => {
  await using dir = await furnished();
  expect(await dir.ok('ledger', 'reconcile')).toEqual({ ok: true, compared: ['counters'], differences: [] });
  await using node = await tempDir();
  await makeMesh(node.path);
  const { store } = locateDataDir(node.path).peer('node');
  await mkdir(dirname(store), { recursive: true });
  await (await openLevelStore(store)).close();
  expect(await on(node.path).run('ledger', 'reconcile')).toMatchObject({ code: 2, error: 'CONFIG_INVALID' });
});

test('reconcile tells people of twenty differences, with dates', ({ expect }) => {
  const place = `day 20758, gateway g, node n, model m, day 1, caller 20757/${'ab'.repeat(8)}/${'cd'.repeat(8)}`;
  const one = { with: 'counters', place, field: 'accountMicro', feeds: 2, theirs: 0 } as const;
  const textOf = (count: number): string[] =>
    reconciledText({ ok: false, compared: ['counters'], differences: Array.from({ length: count }, () => one) }).split(
      '\n',
    );
  expect(textOf(1)).toEqual([
    'compared  with counters',
    'differs  counters: 2026-11-01, gateway g, node n, model m, day 1, tags of 2026-10-31: account abababababababab, key cdcdcdcdcdcdcdcd: micro-credits that accounts owe: feeds 2, counters 0',
    'found    1 difference',
  ]);
  const many = textOf(23);
  expect([many.length, ...many.slice(-2)]).toEqual([
    23,
    '… and 3 more (--json has them all)',
    'found    23 differences',
  ]);
});

test('a store whose files have changed is told so, with what helps', async ({ expect }) => {
  await using dir = await furnished();
  const { store } = locateDataDir(dir.path).peer('gateway');
  await (await openLevelStore(store)).close();
  for (const name of await readdir(store)) {
    if (name.startsWith('MANIFEST')) await writeFile(join(store, name), 'x'.repeat(500));
  }
  expect(await dir.run('ledger', 'verify')).toMatchObject({ code: 6, error: 'CHECK_FAILED' });
});

describe('an output file', () => {
  test.for([
    ['backup', '/nonexist/y'],
    ['backup', '/proc/x'],
    ['export', '--out', '/nonexist/z'],
  ])('that cannot be made is an error at once: ledger %s', async (words, { expect }) => {
    await using dir = await furnished();
    expect(await dir.run('ledger', ...words)).toMatchObject({ code: 2, error: 'CONFIG_INVALID' });
    // The directory is nobody's any more.
    expect(await dir.run('ledger', 'status')).toMatchObject({ code: 0 });
  });

  test('that fails half-way is not there, nor is its draft', async ({ expect }) => {
    await using temp = await tempDir();
    const full = Object.assign(new Error('full'), { code: 'ENOSPC' });
    const path = join(temp.path, 'out');
    const written = writeNewFileStream(path, async (sink) => {
      await sink.write('x'.repeat(300_000));
      throw full;
    });
    await expect(written).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      details: { reason: `${path}: cannot be written: the disk is full` },
    });
    expect(await readdir(temp.path)).toEqual([]);
  });
});

describe('a backup', () => {
  test('puts back what was lost, and leaves alone what is there', async ({ expect }) => {
    await using dir = await furnished();
    const file = join(dir.path, 'feeds.backup');
    expect(await dir.ok('ledger', 'backup', file)).toMatchObject({ out: file, rows: 5 });
    const whole = await dir.ok('ledger', 'verify');
    // Written after the backup was made.
    await tell(dir.path, [{ by: bob, lines: linesFrom('run 3', 1, 3) }]);
    const newer = await dir.ok('ledger', 'status');
    expect(await dir.ok('ledger', 'restore', file)).toMatchObject({
      blocks: 0,
      known: 5,
      gaps: 0,
      forked: 0,
      refused: 0,
    });
    expect(await dir.ok('ledger', 'status')).toEqual(newer);
    await rm(locateDataDir(dir.path).peer('gateway').store, { recursive: true });
    expect(await dir.ok('ledger', 'restore', file)).toMatchObject({ blocks: 5, known: 0, refused: 0 });
    expect(await dir.ok('ledger', 'verify')).toEqual(whole);
    const store = await openLevelStore(locateDataDir(dir.path).peer('gateway').store);
    expect(await isRestored(store)).toBe(true);
    await store.close();
  });

  test('a process that goes on from it forks nothing', async ({ expect }) => {
    await using dir = await furnished();
    const file = join(dir.path, 'feeds.backup');
    await dir.ok('ledger', 'backup', file);
    const before = await dir.ok('ledger', 'status');
    await rm(locateDataDir(dir.path).peer('gateway').store, { recursive: true });
    await dir.ok('ledger', 'restore', file);
    await tell(dir.path, [{ by: alice, lines: linesFrom('run 4', 1, 1) }]);
    const after = await dir.ok('ledger', 'status');
    expect(after['epochs']).toBe(Number(before['epochs']) + 1);
    expect(after['forks']).toEqual([]);
    expect(await dir.ok('ledger', 'verify')).toMatchObject({ ok: true, lines: 6 });
  });

  test('of feeds whose settled statements are gone is put back as it was', async ({ expect }) => {
    await using dir = await furnished();
    const store = locateDataDir(dir.path).peer('gateway').store;
    await tamper(dir.path, (key, row) => {
      const block = readBlockRow(key, row);
      const isGone = ({ kind }: Entry): boolean => kind === 'statement';
      const cut = block !== undefined && 'entries' in block ? prune(block, isGone) : undefined;
      return cut === undefined ? row : writePrunedRow(key, cut);
    });
    const whole = await dir.ok('ledger', 'verify');
    expect(whole).toMatchObject({ ok: true, lines: 0, pruned: 3 });
    const file = join(dir.path, 'feeds.backup');
    await dir.ok('ledger', 'backup', file);
    await rm(store, { recursive: true });
    expect(await dir.ok('ledger', 'restore', file)).toMatchObject({ blocks: 2, pruned: 3, refused: 0, gaps: 0 });
    expect(await dir.ok('ledger', 'verify')).toEqual(whole);
    await tell(dir.path, [{ by: alice, lines: linesFrom('run 5', 1, 1) }]);
    expect(await dir.ok('ledger', 'verify')).toMatchObject({ ok: true, lines: 1, pruned: 3 });
  });

  test('of another mesh, and one that was changed, put nothing anywhere', async ({ expect }) => {
    await using dir = await furnished();
    const file = join(dir.path, 'feeds.backup');
    await dir.ok('ledger', 'backup', file);
    await using other = await tempDir();
    await makeMesh(other.path);
    expect(await on(other.path).run('ledger', 'restore', file)).toMatchObject({ code: 2, error: 'MESH_EXISTS' });
    const text = await readFile(file, 'utf8');
    await writeFile(`${file}.cut`, text.slice(0, -200));
    await rm(locateDataDir(dir.path).peer('gateway').store, { recursive: true });
    expect(await dir.run('ledger', 'restore', `${file}.cut`)).toMatchObject({ error: 'BACKUP_INVALID' });
    expect(await dir.run('ledger', 'status')).toMatchObject({ error: 'DATA_DIR_UNUSABLE' });
  });
});
