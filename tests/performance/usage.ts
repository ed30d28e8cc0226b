/**
 * What usage costs: a million lines taken in from their bytes, beside decoding the bytes; sums over ten million lines,
 * beside the same sums by SQLite over the same rows. `node tests/performance/usage.ts [lines] [lines taken in]`.
 */

import { DatabaseSync } from 'node:sqlite';
import { createUsage } from '../../ledger/create-usage.ts';
import { encodeEntry, parseEntry } from '../../ledger/entry.ts';
import type { HeldEntry } from '../../ledger/feeds.ts';
import type { UsageLine } from '../../ledger/line.ts';
import { freePrice } from '../../ledger/price.ts';
import { noTotals, type StatementEntry, signCountersign, statementHash } from '../../ledger/statement.ts';
import type { Usage, UsageDimension, UsageFilter } from '../../ledger/usage.ts';
import { decodeValue } from '../../protocol/codec.ts';
import { fromHex, keyFromSeed, sha256, toHex } from '../../protocol/crypto.ts';
import type { AuthorId, EpochId, MeshId, ModelDigest, PriceId, ProcessId, RequestId, Tag } from '../../protocol/ids.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { SimRandom } from '../../sim/random.ts';
import { quantile } from './load.ts';

const meshId = 'ab'.repeat(32) as MeshId;
const perStatement = 100;
/** How often each question is asked. */
const asksEach = 100;
const days = 30;
const firstDay = 20_000;
const dayMs = 86_400_000;
const price = {
  ...freePrice,
  id: '0000000000000001' as PriceId,
  prompt: 1_000_000,
  cached: 100_000,
  completion: 3_000_000,
};

const hashOf = (text: string, characters: number): string => toHex(sha256(text)).slice(0, characters);
const many = <T>(count: number, make: (at: number) => T): T[] => Array.from({ length: count }, (_, at) => make(at));

const gateways = many(3, (at) => toHex(keyFromSeed(sha256(`gateway ${at}`)).publicKey) as AuthorId);
const nodes = many(20, (at) => {
  const key = keyFromSeed(sha256(`node ${at}`));
  return { key, peer: peerIdOf(key.publicKey) };
});
const models = many(20, (at) => ({ model: `model-${at}`, digest: hashOf(`model ${at}`, 64) as ModelDigest }));
const accounts = many(50, (at) => `account ${at}`);
const runOf = (gateway: number): ProcessId => hashOf(`run ${gateway}`, 32) as ProcessId;
const epochOf = (gateway: number): EpochId => hashOf(`epoch ${gateway}`, 32) as EpochId;
const tagOf = (account: string, day: number): Tag => hashOf(`${account} ${day}`, 16) as Tag;

/** Statements with their countersignatures, of all gateways in turn, the days one after the other. */
function* statements(lines: number, isEncoded: boolean): Generator<HeldEntry> {
  const random = new SimRandom('usage');
  let callers: readonly UsageLine['caller'][] = [];
  const serials = gateways.map(() => 0);
  const numbers = new Map<string, number>();
  const places = gateways.map(() => 0);
  const total = Math.ceil(lines / perStatement);
  for (let at = 0; at < total; at += 1) {
    const gateway = at % gateways.length;
    const author = gateways[gateway] as AuthorId;
    const node = nodes[random.int(nodes.length)] as (typeof nodes)[number];
    const day = firstDay + Math.floor((at * days) / total);
    if (callers[0]?.day !== day) {
      callers = accounts.map((name) => ({ day, account: tagOf(name, day), key: tagOf(`key of ${name}`, day) }));
    }
    const drawn = many(Math.min(perStatement, lines - at * perStatement), (index): UsageLine => {
      serials[gateway] = (serials[gateway] as number) + 1;
      const serial = serials[gateway] as number;
      const caller = callers[random.int(callers.length)] as UsageLine['caller'];
      const { model, digest } = models[random.int(models.length)] as (typeof models)[number];
      const chance = random.int(100);
      // Some are tried again, some are left by their clients, some lose to a hedge.
      const outcome = chance === 0 ? 'lost' : chance === 1 ? 'hedged' : chance === 2 ? 'cancelled' : 'done';
      const completionTokens = random.int(500);
      const line: UsageLine = {
        run: runOf(gateway),
        serial,
        first: chance === 3 && index > 0 ? serial - 1 : serial,
        request: toHex(random.bytes(16)) as RequestId,
        model,
        digest,
        caller,
        price,
        payer: 'account',
        startMs: unixMs(day * dayMs + at * 60 + index),
        firstMs: ms(40),
        durationMs: ms(2_000),
        promptTokens: 100 + random.int(1_000),
        cachedTokens: random.int(100),
        completionTokens,
        outcome,
      };
      return outcome === 'lost' ? line : { ...line, nodeTokens: completionTokens };
    });
    const tab = `${gateway} ${node.peer}`;
    const number = numbers.get(tab) ?? 0;
    numbers.set(tab, number + 1);
    const start = {
      kind: 'statement',
      node: node.peer,
      number,
      previous: new Uint8Array(32),
      run: runOf(gateway),
    } as const;
    const entry: StatementEntry = { ...start, lines: drawn, running: [], progress: [], totals: noTotals };
    const placeOf = () => {
      places[gateway] = (places[gateway] as number) + 1;
      const block = places[gateway] as number;
      return {
        author,
        epoch: epochOf(gateway),
        generation: 0,
        number: block,
        index: 0,
        timeMs: day * dayMs,
        isAfterFork: false,
      };
    };
    // What stands for the entry in its countersignature must be its own.
    const bytes = isEncoded ? encodeEntry(entry) : random.bytes(16);
    yield { entry, bytes, place: placeOf() };
    const by = { meshId, gateway: peerIdOf(fromHex(author)) };
    const word = { kind: 'countersign', node: node.peer, epoch: epochOf(gateway), number } as const;
    const said = { ...word, statement: statementHash(bytes), refused: [], timeMs: unixMs(day * dayMs) };
    yield { entry: signCountersign(said, by, node.key), bytes: new Uint8Array(0), place: placeOf() };
  }
}

const openUsage = (): Usage => createUsage({ clock: { wallMs: () => unixMs((firstDay + days) * dayMs) } }, { meshId });

/** Taking in lines as they come from a disk; seconds of CPU time. */
export interface TakenIn {
  readonly lines: number;
  readonly decodeSeconds: number;
  readonly parseSeconds: number;
  readonly applySeconds: number;
  /** Of these, the signatures of nodes. */
  readonly signatureSeconds: number;
}

function secondsOf(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000_000;
}

/** In parts, as a disk gives them: lines that are all held at once would be the collector's work, not this one's. */
function takeIn(lines: number): TakenIn {
  const [usage, known] = [openUsage(), openUsage()];
  const sums = { decodeSeconds: 0, parseSeconds: 0, applySeconds: 0, signatureSeconds: 0 };
  let part: HeldEntry[] = [];
  const take = (): void => {
    const held = part.map((one) => ({ ...one, bytes: encodeEntry(one.entry) }));
    sums.decodeSeconds += secondsOf(() => {
      for (const { bytes } of held) decodeValue(bytes);
    });
    let parsed: HeldEntry[] = [];
    sums.parseSeconds += secondsOf(() => {
      parsed = held.map((one) => ({ ...one, entry: parseEntry(one.bytes) }));
    });
    sums.applySeconds += secondsOf(() => {
      for (const one of parsed) usage.apply(one);
    });
    sums.signatureSeconds += secondsOf(() => {
      // Of statements that it does not know, so nothing is left but the check.
      for (const one of parsed) if (one.entry.kind === 'countersign') known.apply(one);
    });
    part = [];
  };
  for (const one of statements(lines, true)) {
    part.push(one);
    if (part.length === 200) take();
  }
  take();
  if (usage.totals().attempts !== lines) throw new Error(`${usage.totals().attempts} attempts of ${lines} lines`);
  return { lines, ...sums };
}

interface Query {
  readonly name: string;
  readonly run: (usage: Usage) => readonly unknown[];
  readonly sql: string;
}

const lastDays = (count: number): UsageFilter => ({ sinceDay: firstDay + days - count });
const sums =
  'sum(requests), sum(attempts), sum(prompt), sum(cached), sum(completion), sum(account_micro), sum(gateway_micro), sum(refused), sum(lower)';

function rolled(name: string, filter: UsageFilter, by: readonly UsageDimension[], where = '1'): Query {
  const columns = by.map((dimension) => (dimension === 'account' ? 'tag_day, account' : dimension)).join(', ');
  const sql = `SELECT ${columns}, ${sums} FROM rows WHERE ${where} GROUP BY ${columns} ORDER BY ${columns}`;
  return { name, run: (usage) => usage.rollUp(filter, by), sql };
}

function queries(): readonly Query[] {
  const tags = new Set(many(days, (day) => tagOf('account 7', firstDay + day)));
  const own: UsageFilter = { caller: ({ account }) => tags.has(account) };
  const inTags = `account IN (${[...tags].map((tag) => `'${tag}'`).join(',')})`;
  const [node] = nodes;
  return [
    rolled('all by account', {}, ['account']),
    rolled('all by model', {}, ['model']),
    rolled('all by node', {}, ['node']),
    rolled('all by gateway', {}, ['gateway']),
    rolled('all by day', {}, ['day']),
    rolled('all by day and model', {}, ['day', 'model']),
    rolled('all by account and model', {}, ['account', 'model']),
    rolled('a week by account', lastDays(7), ['account'], `day >= ${firstDay + days - 7}`),
    rolled('today by model', lastDays(1), ['model'], `day >= ${firstDay + days - 1}`),
    rolled('a model by account', { model: 'model-3' }, ['account'], "model = 'model-3'"),
    rolled('a node by day', { node: node?.peer as never }, ['day'], `node = '${node?.peer}'`),
    rolled('own by day and model', own, ['day', 'model'], inTags),
    {
      name: 'own, every row',
      run: (usage) => usage.rows(own),
      sql: `SELECT * FROM rows WHERE ${inTags} ORDER BY day, account, key, model, node, gateway`,
    },
  ];
}

/** A database in memory with the same rows. */
function openDatabase(usage: Usage): DatabaseSync {
  const database = new DatabaseSync(':memory:');
  database.exec(
    'CREATE TABLE rows (day INT, tag_day INT, account TEXT, key TEXT, model TEXT, node TEXT, gateway TEXT, requests INT, attempts INT, prompt INT, cached INT, completion INT, account_micro INT, gateway_micro INT, refused INT, lower INT)',
  );
  const insert = database.prepare(`INSERT INTO rows VALUES (${many(16, () => '?').join(',')})`);
  database.exec('BEGIN');
  for (let day = firstDay; day < firstDay + days; day += 1) {
    for (const [key, counts] of usage.rows({ sinceDay: day, untilDay: day + 1 })) {
      insert.run(...Object.values(key), ...Object.values(counts));
    }
  }
  database.exec('COMMIT');
  database.exec('CREATE INDEX by_day ON rows (day)');
  database.exec('CREATE INDEX by_account ON rows (account)');
  return database;
}

interface Timed {
  readonly rows: number;
  readonly wallMs: readonly number[];
  readonly cpuMs: readonly number[];
}

function timesOf(count: number, run: () => readonly unknown[]): Timed {
  let rows = 0;
  const times = many(count, () => {
    const [from, before] = [performance.now(), process.cpuUsage()];
    rows = run().length;
    const { user, system } = process.cpuUsage(before);
    return { wall: performance.now() - from, cpu: (user + system) / 1_000 };
  });
  return { rows, wallMs: times.map(({ wall }) => wall), cpuMs: times.map(({ cpu }) => cpu) };
}

/** Milliseconds of one kind of question. */
export interface QueryTimes {
  readonly name: string;
  readonly rows: number;
  /** The first time that it was asked. */
  readonly coldMs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p99CpuMs: number;
  readonly sqliteMs: number;
}

export interface UsageReport {
  readonly takenIn: TakenIn;
  readonly lines: number;
  readonly rows: number;
  readonly applySeconds: number;
  /** What the counters of all lines take. */
  readonly mebibytes: number;
  /** Of all questions together, the first ones among them. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p99CpuMs: number;
  readonly queries: readonly QueryTimes[];
}

const memory = (): number => {
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
};

/** @throws Error when sums differ from those of the database. */
export function measureUsage(lines = 10_000_000, linesTakenIn = 1_000_000): UsageReport {
  const takenIn = takeIn(linesTakenIn);
  const before = memory();
  const usage = openUsage();
  let applyUs = 0;
  for (const held of statements(lines, false)) {
    const from = process.cpuUsage();
    usage.apply(held);
    const { user, system } = process.cpuUsage(from);
    applyUs += user + system;
  }
  const mebibytes = Math.round((memory() - before) / 1_048_576);
  const asked = queries().map((query) => ({ query, ...timesOf(asksEach, () => query.run(usage)) }));
  const database = openDatabase(usage);
  const { count } = database.prepare('SELECT count(*) AS count FROM rows').get() as { count: number };
  const told = asked.map(({ query, wallMs, cpuMs, rows }): QueryTimes => {
    const statement = database.prepare(query.sql);
    const sqlite = timesOf(3, () => statement.all());
    if (sqlite.rows !== rows) throw new Error(`${query.name}: ${rows} rows, SQLite has ${sqlite.rows}`);
    const [p50Ms, p99Ms] = [quantile(wallMs, 0.5), quantile(wallMs, 0.99)];
    const times = { coldMs: wallMs[0] ?? 0, p50Ms, p99Ms, p99CpuMs: quantile(cpuMs, 0.99) };
    return { name: query.name, rows, ...times, sqliteMs: quantile(sqlite.wallMs, 0.5) };
  });
  const wallMs = asked.flatMap((one) => one.wallMs);
  const p99CpuMs = quantile(
    asked.flatMap((one) => one.cpuMs),
    0.99,
  );
  const times = { p50Ms: quantile(wallMs, 0.5), p99Ms: quantile(wallMs, 0.99), p99CpuMs };
  return { takenIn, lines, rows: count, applySeconds: applyUs / 1_000_000, mebibytes, ...times, queries: told };
}

const tenth = (value: number): string => value.toFixed(1);

/** For people. */
export function usageText({
  takenIn,
  lines,
  rows,
  mebibytes,
  p50Ms,
  p99Ms,
  p99CpuMs,
  queries: asked,
}: UsageReport): string {
  const { decodeSeconds, parseSeconds, applySeconds, signatureSeconds } = takenIn;
  const each = asked.map((one) => {
    const times = [one.p50Ms, one.p99Ms, one.coldMs, one.sqliteMs].map((time) => tenth(time).padStart(8)).join('');
    return `${one.name.padEnd(26)}${String(one.rows).padStart(7)}${times}`;
  });
  return [
    `${takenIn.lines} lines taken in: parsed in ${tenth(parseSeconds)} s, settled in ${tenth(applySeconds)} s of CPU, ${tenth(signatureSeconds)} s of it for signatures; decoding alone takes ${tenth(decodeSeconds)} s`,
    `${lines} lines in ${rows} rows, ${mebibytes} MiB; a question p50 ${tenth(p50Ms)} ms, p99 ${tenth(p99Ms)} ms (to reach: ≤ 50), ${tenth(p99CpuMs)} ms of CPU`,
    `${'question'.padEnd(26)}   rows  p50 ms  p99 ms first ms  SQLite`,
    ...each,
  ].join('\n');
}

if (import.meta.main) {
  const [lines, linesTakenIn] = process.argv.slice(2).map(Number);
  process.stdout.write(`${JSON.stringify(measureUsage(lines, linesTakenIn), undefined, 1)}\n`);
}
