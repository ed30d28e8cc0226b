/** A batch merged with what PostgreSQL holds of the same requests. */

import type { Client } from 'pg';
import type { AuthorId, PeerId } from '../../protocol/ids.ts';
import type { Word } from '../export-index.ts';
import { AttemptMerge, type MergedAttempt, mentionOf, type StoredAttempt, type StoredRow } from '../export-merge.ts';
import { type Mention, mentionsOf } from '../export-read.ts';
import type { RefusedLine } from '../statement.ts';
import type { Batch } from './export-postgres-rows.ts';
import { lineColumns, quotedList } from './export-postgres-schema.ts';

export type Connection = Pick<Client, 'query'>;

/** Requests, or attempts, by process and number. */
interface Names {
  readonly runs: string[];
  readonly serials: number[];
}

/** A row of `lines`, read back. */
interface LineRecord extends StoredRow {
  readonly [name: string]: string | number | boolean | null;
}

const others = (record: LineRecord): readonly Mention[] => (record['others'] ?? []) as unknown as readonly Mention[];

function storedOf(author: AuthorId, record: LineRecord): StoredAttempt {
  const running = record['running_tokens'];
  const mention = mentionOf(record);
  return {
    author,
    node: mention.node,
    mentions: [mention, ...others(record)],
    runningTokens: running === null || running === undefined ? undefined : Number(running),
  };
}

const list = quotedList(lineColumns.map(({ name }) => name).filter((name) => name !== 'start'));
/** Moments come back as they were given. */
const selected = `${list}, (extract(epoch FROM start) * 1000)::bigint AS start`;

const lookUp = (condition: string, from: string): string =>
  `CROSS JOIN LATERAL (
    SELECT * FROM helixflow.lines WHERE author = $1 AND run = ${from}.run AND ${condition} OFFSET 0
  ) AS known`;

const sql = {
  /**
   * Each part goes by an index of its own: `OFFSET 0` keeps the planner, who knows nothing of a young table, from reading
   * all of it for a few rows.
   */
  touched: `WITH named AS (SELECT DISTINCT * FROM unnest($2::text[], $3::bigint[]) AS given (run, number)),
asked AS (
  SELECT * FROM named
  UNION SELECT run, first FROM helixflow.lines WHERE author = $1 AND statement_hash = ANY($4)
  UNION SELECT run, first FROM helixflow.lines WHERE author = $1 AND other_hashes IS NOT NULL AND other_hashes && $4
  UNION SELECT known.run, known.first FROM named ${lookUp('serial = named.number', 'named')}
)
SELECT DISTINCT ON (author, run, serial, node) ${selected} FROM (
  SELECT known.* FROM asked ${lookUp('first = asked.number', 'asked')}
  UNION ALL SELECT known.* FROM asked ${lookUp('serial = asked.number', 'asked')}
) AS found`,
  words: `SELECT statement_hash, node, refused FROM helixflow.countersignatures
WHERE author = $1 AND statement_hash = ANY($2) AND valid ORDER BY generation, epoch, block, entry`,
} as const;

function namesIn({ statements }: Batch, mentions: readonly Mention[]): Names {
  const names: Names = { runs: [], serials: [] };
  const add = (run: string, number: number): void => {
    names.runs.push(run);
    names.serials.push(number);
  };
  for (const { line } of mentions) {
    add(line.run, line.serial);
    if (line.first !== line.serial) add(line.run, line.first);
  }
  for (const { statement } of statements) {
    for (const { serial } of statement.progress) add(statement.run, serial);
  }
  return names;
}

const keyOf = (run: string, number: number): string => `${run}.${number}`;

/** What hangs together with these rows and was not asked for yet. */
function furtherNames(records: readonly LineRecord[], asked: Set<string>): Names {
  const names: Names = { runs: [], serials: [] };
  for (const { line } of records.flatMap((record) => [mentionOf(record), ...others(record)])) {
    for (const number of new Set([line.serial, line.first])) {
      const key = keyOf(line.run, number);
      if (asked.has(key)) continue;
      asked.add(key);
      names.runs.push(line.run);
      names.serials.push(number);
    }
  }
  return names;
}

/** Attempts that are kept already: those of the same requests, and of statements that are countersigned now. */
async function touched(client: Connection, batch: Batch, names: Names): Promise<readonly LineRecord[]> {
  const asked = new Set(names.runs.map((run, at) => keyOf(run, names.serials[at] ?? 0)));
  const records = new Map<string, LineRecord>();
  let signed = [...batch.signed];
  let next = names;
  while (next.runs.length > 0 || signed.length > 0) {
    const { rows } = await client.query(sql.touched, [batch.author, next.runs, next.serials, signed]);
    const found = rows as LineRecord[];
    for (const record of found) records.set(`${record['run']}.${record['serial']} ${record['node']}`, record);
    signed = [];
    // One attempt told of at several nodes, or for several requests, ties those together.
    next = furtherNames(found, asked);
  }
  return [...records.values()];
}

async function wordsOn(
  client: Connection,
  author: AuthorId,
  hashes: readonly string[],
): Promise<ReadonlyMap<string, Word>> {
  const { rows } = await client.query(sql.words, [author, hashes]);
  return new Map(
    (rows as { statement_hash: string; node: PeerId; refused: readonly RefusedLine[] }[]).map(
      ({ statement_hash, node, refused }) => [statement_hash, { node, refused }],
    ),
  );
}

/** Everything that hangs together with what a batch says, settled anew. The batch's countersignatures are kept already. */
export async function mergeBatch(client: Connection, batch: Batch): Promise<readonly MergedAttempt[]> {
  const { author, statements } = batch;
  const merge = new AttemptMerge();
  const said = statements.map((placed) => ({ placed, mentions: [...mentionsOf(placed, () => undefined)] }));
  const names = namesIn(
    batch,
    said.flatMap(({ mentions }) => mentions),
  );
  for (const record of await touched(client, batch, names)) merge.keep(storedOf(author, record));
  for (const { placed, mentions } of said) {
    for (const mention of mentions) merge.add(mention);
    const { node, run, progress } = placed.statement;
    for (const { serial, completionTokens } of progress) {
      merge.further({ author, node, run, serial, tokens: completionTokens });
    }
  }
  const words = await wordsOn(client, author, merge.hashes());
  return merge.settle(({ hash }) => words.get(hash));
}
