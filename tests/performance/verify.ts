/**
 * How long `ledger verify` takes for a million lines, beside what cannot be left out: reading the rows, hashing their
 * bytes twice (row and Merkle tree), and checking the signatures. `node tests/performance/verify.ts [lines] [per statement]`.
 */

import { isSigned } from '../../ledger/block.ts';
import { parseEntry } from '../../ledger/entry.ts';
import { blockKey, readBlockRow, writeBlockRow } from '../../ledger/feed-rows.ts';
import { isCountersigned } from '../../ledger/statement.ts';
import { verifyFeeds } from '../../ledger/verify.ts';
import { sha256 } from '../../protocol/crypto.ts';
import { meshId } from '../ledger/feed-stage.ts';
import { auditing, FeedMaker, line, node } from '../ledger/verify-stage.ts';

type Row = readonly [Uint8Array, Uint8Array];

/** What the measurement came to; seconds of one process. */
export interface VerifyReport {
  readonly lines: number;
  readonly statements: number;
  readonly blocks: number;
  readonly bytes: number;
  readonly baselineSeconds: number;
  readonly verifySeconds: number;
  readonly heapMiB: number;
}

/** Feeds of one gateway with four nodes: two statements and two countersignatures a block. */
function makeRows(lines: number, perStatement: number): { readonly rows: readonly Row[]; readonly statements: number } {
  const feed = new FeedMaker('gateway', 'gateway');
  const nodes = [node('a'), node('b'), node('c'), node('d')];
  const rows: Row[] = [];
  let serial = 0;
  let statements = 0;
  while (serial < lines) {
    const stated = [0, 1].map((at) => {
      const by = nodes[(statements + at) % nodes.length] ?? node('a');
      const some = Array.from({ length: Math.min(perStatement, lines - serial) }, () => {
        serial += 1;
        return line('run', serial);
      });
      return { by, entry: feed.statement(by.peer, some) };
    });
    statements += stated.length;
    const words = stated.map(({ by, entry }) => feed.word(by.key, entry));
    const block = feed.block([...stated.map(({ entry }) => entry), ...words]);
    const key = blockKey(block.head.header);
    rows.push([key, writeBlockRow(key, block)]);
  }
  return { rows, statements };
}

const secondsOf = (startMs: number): number => Math.round(performance.now() - startMs) / 1_000;

/** Hashes and signatures alone: each byte twice, each countersignature, a header in 256. */
function baseline(rows: readonly Row[]): number {
  const words = rows.flatMap(([key, value]) => {
    const block = readBlockRow(key, value);
    if (block === undefined || !('entries' in block)) return [];
    const signs = block.entries.map(parseEntry).filter((entry) => entry.kind === 'countersign');
    return [{ head: block.head, entries: block.entries, signs }];
  });
  const gateway = new FeedMaker('gateway', 'gateway').peer;
  const from = performance.now();
  for (const [key, value] of rows) sha256(key, value);
  for (const [at, { head, entries, signs }] of words.entries()) {
    for (const entry of entries) sha256(entry);
    if (at % 256 === 0) isSigned(head, meshId);
    for (const sign of signs) isCountersigned(sign, { meshId, gateway });
  }
  return secondsOf(from);
}

async function* stream(rows: readonly Row[]): AsyncGenerator<Row> {
  yield* rows;
}

/** @throws Error when the check finds anything, or other lines than there are. */
export async function measureVerify(lines = 1_000_000, perStatement = 100): Promise<VerifyReport> {
  const { rows, statements } = makeRows(lines, perStatement);
  const bytes = rows.reduce((sum, [key, value]) => sum + key.length + value.length, 0);
  const baselineSeconds = baseline(rows.slice());
  const before = process.memoryUsage().heapUsed;
  const from = performance.now();
  const verdict = await verifyFeeds(stream(rows), auditing);
  const verifySeconds = secondsOf(from);
  const heapMiB = Math.round((process.memoryUsage().heapUsed - before) / 1_048_576);
  if (!verdict.ok || verdict.lines !== lines) throw new Error(`found ${JSON.stringify(verdict).slice(0, 400)}`);
  return { lines, statements, blocks: rows.length, bytes, baselineSeconds, verifySeconds, heapMiB };
}

export const verifyText = ({
  lines,
  statements,
  bytes,
  baselineSeconds,
  verifySeconds,
  heapMiB,
}: VerifyReport): string =>
  [
    `${lines} lines in ${statements} statements, ${Math.round(bytes / lines)} bytes a line`,
    `verified in ${verifySeconds} s (to reach: ≤ 10 s), hashes and signatures alone ${baselineSeconds} s; ${heapMiB} MiB of heap`,
  ].join('\n');

if (import.meta.main) {
  const [lines = 1_000_000, perStatement = 100] = process.argv.slice(2).map(Number);
  process.stdout.write(`${verifyText(await measureVerify(lines, perStatement))}\n`);
}
