/**
 * `helixflow ledger export --to`: a real PostgreSQL holds what the feeds come to, whatever ends the export on its way.
 * Needs the URL of a server in HELIXFLOW_TEST_POSTGRES, as `.ci/run` sets it.
 */

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { openPostgresExport } from '../../ledger/adapters/export-postgres.ts';
import { parsePostgresUrl } from '../../ledger/adapters/export-postgres-connect.ts';
import type { Block } from '../../ledger/block.ts';
import { blockKey } from '../../ledger/feed-rows.ts';
import type { Settled } from '../../ledger/settlement.ts';
import { alice, bob, linesFrom, makeMesh, tell } from '../cli/ledger-stage.ts';
import { entry, runCli } from '../cli/run-cli.ts';
import { type TempDir, tempDir } from '../cli/temp-dir.ts';
import { feedsOf, scenarios, settledOf } from '../ledger/export-stage.ts';
import { meshId } from '../ledger/feed-stage.ts';
import { gateway, line, storeOf } from '../ledger/verify-stage.ts';
import { Daemons, until } from '../support/daemons.ts';
import '../support/seed.ts';

const server = process.env['HELIXFLOW_TEST_POSTGRES'];
if (server === undefined) console.info('HELIXFLOW_TEST_POSTGRES is not set: nothing is exported to PostgreSQL');

/** A database of its own. */
interface Database extends AsyncDisposable {
  readonly url: string;
  query(sql: string, values?: readonly unknown[]): Promise<readonly Record<string, unknown>[]>;
}

async function newDatabase(): Promise<Database> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  const admin = new Client({ connectionString: server });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  const url = String(server).replace(/\/[^/]*$/, `/${name}`);
  const client = new Client({ connectionString: url });
  await client.connect();
  return {
    url,
    query: async (sql, values = []) => (await client.query(sql, [...values])).rows,
    [Symbol.asyncDispose]: async () => {
      await client.end();
      await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await admin.end();
    },
  };
}

/** Everything but what depends on how often the export was run. */
const contents = async (database: Database): Promise<readonly Record<string, unknown>[]> => {
  const tables = ['lines', 'statements', 'countersignatures', 'claims', 'cursors'];
  const sums = tables.map(
    (table) =>
      `SELECT '${table}' AS name, count(*)::int AS rows, md5(string_agg(t::text, '' ORDER BY t::text)) AS sum FROM helixflow.${table} t`,
  );
  return database.query(sums.join(' UNION ALL '));
};

const options = { meshId, holds: 'all' } as const;

/** Blocks in the order in which they came to be, as far as `share` of them. */
async function exportPart(database: Database, blocks: readonly Block[], share: number): Promise<void> {
  await using opened = await openPostgresExport(parsePostgresUrl(database.url), options);
  await opened.pass(await storeOf({ blocks: blocks.slice(0, Math.ceil(blocks.length * share)) }));
}

const settledColumns = [
  'author',
  'node',
  'run',
  'serial',
  'state',
  'prompt_tokens',
  'cached_tokens',
  'completion_tokens',
  'amount_micro',
  'payer',
  'billed',
] as const;

const settledTexts = (settled: readonly Settled[]): string[] =>
  settled
    .map(({ author, node, line: said, state, promptTokens, cachedTokens, completionTokens, ...rest }) =>
      [
        ...[author, node, said.run, said.serial, state, promptTokens, cachedTokens, completionTokens],
        ...[rest.amountMicro, rest.payer, rest.isBilled],
      ].join(' '),
    )
    .toSorted();

describe.runIf(server !== undefined)('PostgreSQL', () => {
  let temp: TempDir;
  const lines = 30_000;

  /** A gateway's directory with enough in it for an export to be ended half way. */
  beforeAll(async () => {
    temp = await tempDir();
    await makeMesh(temp.path);
    const told = Array.from({ length: lines / 100 }, (_, at) => ({
      by: at % 2 === 0 ? alice : bob,
      lines: linesFrom('run', 1 + 100 * at, 100),
      refused: at % 3 === 0 ? ('silent' as const) : at % 7 === 0 ? [{ index: 3, reason: 'count' as const }] : [],
    }));
    await tell(temp.path, told);
    await tell(temp.path, [
      { by: alice, lines: [line('run 2', 1, { model: 'a\0b' }), line('run 2', 2, { first: 1 })] },
    ]);
  }, 60_000);

  afterAll(() => temp?.[Symbol.asyncDispose]());

  const exportTo = (url: string, ...more: string[]) =>
    runCli(['ledger', 'export', '--data-dir', temp.path, '--to', url, '--json', ...more]);

  test('holds every attempt as a file has it; a second export adds nothing', async ({ expect }) => {
    await using database = await newDatabase();
    const out = join(temp.path, 'all.jsonl');
    await runCli(['ledger', 'export', '--data-dir', temp.path, '--format', 'jsonl', '--out', out]);
    const file = (await readFile(out, 'utf8'))
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text));
    const first = await exportTo(database.url);
    expect([first.code, JSON.parse(first.stdout)]).toEqual([0, { blocks: expect.any(Number), lines: lines + 2 }]);
    const before = await contents(database);
    const second = await exportTo(database.url);
    expect(JSON.parse(second.stdout)).toEqual({ blocks: 0, lines: 0 });
    expect(await contents(database)).toEqual(before);
    const held = await database.query(
      'SELECT run, serial::int, state, refused, amount_micro::int AS amount, block::int, entry::int, statement_hash AS hash, model FROM helixflow.lines',
    );
    const text = (row: object): string => JSON.stringify(row);
    expect(held.map(text).toSorted()).toEqual(
      file
        .map(({ run, serial, state, refused, amountMicro, block, entry: at, statementHash, model }) =>
          text({
            run,
            serial,
            state,
            refused,
            amount: amountMicro,
            block,
            entry: at,
            hash: statementHash,
            model: model.replace('\0', '\ufffd'),
          }),
        )
        .toSorted(),
    );
  });

  test('killed at any moment, it goes on where it was: the rows are those of one export', async ({ expect }) => {
    await using whole = await newDatabase();
    await exportTo(whole.url);
    await using database = await newDatabase();
    const kills: number[] = [];
    for (const enough of [1, 8_000, 16_000, 24_000]) {
      const child = spawn(
        process.execPath,
        [entry, 'ledger', 'export', '--data-dir', temp.path, '--to', database.url],
        {
          stdio: 'ignore',
        },
      );
      const ended = new Promise((resolve) => child.once('exit', resolve));
      const count = async (): Promise<number> => {
        const [row] = await database.query(
          "SELECT CASE WHEN to_regclass('helixflow.lines') IS NULL THEN 0 ELSE 1 END AS made",
        );
        if (row?.['made'] !== 1) return 0;
        return Number((await database.query('SELECT count(*) AS n FROM helixflow.lines'))[0]?.['n']);
      };
      while ((await count()) < enough && child.exitCode === null) await new Promise((resolve) => setImmediate(resolve));
      child.kill('SIGKILL');
      await ended;
      kills.push(await count());
    }
    expect((await exportTo(database.url)).code).toBe(0);
    console.info(`killed with ${kills.join(', ')} of ${lines + 2} lines there`);
    expect(kills[0]).toBeLessThan(lines);
    expect(await contents(database)).toEqual(await contents(whole));
  });

  test('two exports at once do each other’s work once', async ({ expect }) => {
    await using whole = await newDatabase();
    await using database = await newDatabase();
    await exportTo(whole.url);
    // One process holds the directory, so the other reads an export of its own.
    const blocks = feedOfMany();
    const runs = [0, 1, 2].map(() => exportPart(database, blocks, 1));
    await Promise.all(runs);
    await using once = await newDatabase();
    await exportPart(once, blocks, 1);
    expect(await contents(database)).toEqual(await contents(once));
  });

  const feedOfMany = (): Block[] => {
    const g = gateway();
    for (let at = 0; at < 300; at += 1) {
      const entryOf = g.statement(alice.peer, linesFrom('run', 1 + 50 * at, 50));
      g.block([entryOf, g.word(alice.key, entryOf)]);
    }
    return g.blocks;
  };

  test('in parts of any size, it comes to what all of it at once comes to', async ({ expect }) => {
    const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 });
    await using database = await newDatabase();
    await fc.assert(
      fc.asyncProperty(scenarios, cuts, async (told, shares) => {
        // Who signed how far an attempt had come is not kept; it decides only between two nodes of one attempt, and
        // between two rows that tell of one attempt as running, of which an honest gateway writes one.
        const running = new Set<string>();
        const scenario = told.map((one) => ({
          ...one,
          node: 0,
          running: one.running.filter(({ run, serial }) => {
            const name = `${run}.${serial}`;
            return !running.has(name) && running.add(name);
          }),
        }));
        await database.query('DROP SCHEMA IF EXISTS helixflow CASCADE');
        const feeds = feedsOf(scenario);
        const blocks = feeds.flatMap((feed) => feed.blocks);
        for (const share of [...shares.toSorted((a, b) => a - b), 1]) await exportPart(database, blocks, share);
        const rows = await database.query(`SELECT ${settledColumns.join(', ')} FROM helixflow.lines`);
        const texts = rows.map((row) => settledColumns.map((name) => String(row[name])).join(' ')).toSorted();
        expect(texts).toEqual(settledTexts(settledOf(feeds)));
      }),
      { numRuns: 60 },
    );
  });

  test('a hole is waited for', async ({ expect }) => {
    await using database = await newDatabase();
    const blocks = feedOfMany().slice(0, 5);
    const store = await storeOf({ blocks });
    await store.batch([{ type: 'del', key: blockKey((blocks[2] as Block).head.header) }]);
    await using opened = await openPostgresExport(parsePostgresUrl(database.url), options);
    expect(await opened.pass(store)).toEqual({ blocks: 2, lines: 100 });
    expect(await opened.pass(await storeOf({ blocks }))).toEqual({ blocks: 3, lines: 150 });
    expect(await opened.pass(await storeOf({ blocks }))).toEqual({ blocks: 0, lines: 0 });
  });

  test('follows a daemon: what is asked is there a moment later, and changes when its node has signed', async ({
    expect,
  }) => {
    await using database = await newDatabase();
    await using daemons = new Daemons();
    await daemons.json(['mesh', 'create', '--data-dir', daemons.path('gateway')]);
    const at = await daemons.start('gateway', ['gateway', '--port', '0']);
    const on = (...words: string[]) => daemons.json([...words, '--data-dir', at.dir]);
    const { token } = await on('mesh', 'invite', '--role', 'node');
    await daemons.start('node', ['node', '--join', '-', '--engine', 'synthetic'], String(token));
    const { key } = await on('keys', 'create');
    const args = ['ledger', 'export', '--follow', '--data-dir', at.dir, '--json'];
    // The URL holds a password, which arguments would show to others.
    const env = { ...process.env, HELIXFLOW_LEDGER_TO: database.url };
    const exporter = spawn(process.execPath, [entry, ...args], { env, stdio: ['ignore', 'pipe', 'ignore'] });
    let told = '';
    exporter.stdout.setEncoding('utf8').on('data', (text: string) => {
      told += text;
    });
    for (let left = 4; left > 0; left -= 1) {
      const response = await fetch(`${String(at.ready['baseUrl'])}/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${String(key)}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'synthetic', max_tokens: 5, messages: [{ role: 'user', content: 'hello' }] }),
      });
      expect(response.status).toBe(200);
      await response.arrayBuffer();
    }
    await until(async () => {
      const [made] = await database.query("SELECT to_regclass('helixflow.lines') AS made");
      if (made?.['made'] === null) return undefined;
      const rows = await database.query("SELECT 1 FROM helixflow.lines WHERE state = 'agreed'");
      return rows.length === 4 ? true : undefined;
    }, 30_000);
    exporter.kill('SIGINT');
    await new Promise((resolve) => exporter.once('exit', resolve));
    expect([exporter.exitCode, JSON.parse(told)]).toEqual([0, { blocks: expect.any(Number), lines: 4 }]);
    const reconciled = await on('ledger', 'reconcile', '--with', database.url);
    expect(reconciled).toEqual({ ok: true, compared: ['counters', 'database'], differences: [] });
  });

  test('what goes wrong is said without the password', async ({ expect }) => {
    await using database = await newDatabase();
    const secret = 'a-secret-that-nobody-shall-see';
    const wrong = database.url.replace(/:[^:@/]+@/, `:${secret}@`);
    const refused = await exportTo(wrong);
    expect([refused.code, JSON.parse(refused.stderr.trim().split('\n').at(-1) ?? '').code]).toEqual([
      5,
      'EXPORT_FAILED',
    ]);
    expect(refused.stdout + refused.stderr).not.toContain(secret);
    const away = await exportTo(`postgres://user:${secret}@127.0.0.1:1/none`);
    expect([away.code, (away.stdout + away.stderr).includes(secret)]).toEqual([5, false]);
    const bad = await exportTo(`mysql://user:${secret}@127.0.0.1/none`);
    expect([bad.code, (bad.stdout + bad.stderr).includes(secret)]).toEqual([2, false]);
    await exportPart(database, feedOfMany().slice(0, 1), 1);
    const foreign = await exportTo(database.url);
    expect([foreign.code, foreign.stderr.includes('holds the ledger of mesh')]).toEqual([5, true]);
    await database.query('INSERT INTO helixflow.migrations (number) VALUES (1000)');
    const newer = await exportTo(database.url);
    expect([newer.code, newer.stderr.includes('this version knows up to')]).toEqual([5, true]);
  });
});
