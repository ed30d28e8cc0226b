/** What the export keeps in PostgreSQL: the schema `helixflow`, made and changed by migrations that are applied once each. */

import { type ColumnKind, columns } from '../export-columns.ts';

const sqlTypes: Readonly<Record<ColumnKind, string>> = {
  text: 'text',
  count: 'bigint',
  flag: 'boolean',
  moment: 'timestamptz',
};

/** A column of a table, for statements that are put together. */
export interface SqlColumn {
  readonly name: string;
  readonly type: string;
}

/** What a row of `lines` has beside the columns of every export. */
const extra: readonly SqlColumn[] = [
  { name: 'running_tokens', type: 'bigint' },
  { name: 'others', type: 'jsonb' },
  { name: 'other_hashes', type: 'text[]' },
];

export const lineColumns: readonly SqlColumn[] = [
  ...columns.map(({ name, kind }) => ({ name, type: sqlTypes[kind] })),
  ...extra,
];
/** What tells most comes first: of a table that it knows nothing of, the planner takes any index that begins as asked. */
export const lineKey = ['serial', 'run', 'author', 'node'] as const;

const place = [
  { name: 'author', type: 'text' },
  { name: 'epoch', type: 'text' },
  { name: 'block', type: 'bigint' },
  { name: 'entry', type: 'bigint' },
] as const satisfies readonly SqlColumn[];

/** Where an entry stands is what it is known by. */
export const placeKey = place.map(({ name }) => name);

export const statementColumns: readonly SqlColumn[] = [
  ...place,
  { name: 'node', type: 'text' },
  { name: 'statement', type: 'bigint' },
  { name: 'statement_hash', type: 'text' },
  { name: 'stated', type: 'timestamptz' },
  { name: 'lines', type: 'bigint' },
  { name: 'total_lines', type: 'bigint' },
  { name: 'total_prompt_tokens', type: 'bigint' },
  { name: 'total_completion_tokens', type: 'bigint' },
];

export const countersignatureColumns: readonly SqlColumn[] = [
  ...place,
  { name: 'generation', type: 'bigint' },
  { name: 'node', type: 'text' },
  { name: 'statement_epoch', type: 'text' },
  { name: 'statement', type: 'bigint' },
  { name: 'statement_hash', type: 'text' },
  { name: 'signed', type: 'timestamptz' },
  { name: 'refused', type: 'jsonb' },
  { name: 'valid', type: 'boolean' },
];

export const claimColumns: readonly SqlColumn[] = [
  ...place,
  { name: 'node', type: 'text' },
  { name: 'gateway', type: 'text' },
  { name: 'claimed', type: 'timestamptz' },
  { name: 'attempts', type: 'jsonb' },
  { name: 'valid', type: 'boolean' },
];

const quoted = (name: string): string => `"${name}"`;
export const quotedList = (names: readonly string[]): string => names.map(quoted).join(', ');

/** Columns that may be empty. */
const optional = new Set(['lease_tag', 'node_tokens', 'refused', 'running_tokens', 'others', 'other_hashes']);

function table(name: string, its: readonly SqlColumn[], key: readonly string[]): string {
  const rows = its.map((column) => {
    const isNeeded = !optional.has(column.name) || name !== 'lines';
    return `  ${quoted(column.name)} ${column.type}${isNeeded ? ' NOT NULL' : ''}`;
  });
  return `CREATE TABLE helixflow.${name} (\n${rows.join(',\n')},\n  PRIMARY KEY (${quotedList(key)})\n)`;
}

const first = [
  'CREATE TABLE helixflow.mesh (mesh_id text PRIMARY KEY)',
  'CREATE TABLE helixflow.cursors (author text, epoch text, next_block bigint NOT NULL, PRIMARY KEY (author, epoch))',
  table('statements', statementColumns, placeKey),
  'CREATE INDEX ON helixflow.statements (statement_hash)',
  table('countersignatures', countersignatureColumns, placeKey),
  'CREATE INDEX ON helixflow.countersignatures (statement_hash)',
  table('claims', claimColumns, placeKey),
  table('lines', lineColumns, lineKey),
  'CREATE INDEX ON helixflow.lines (first, run, author)',
  'CREATE INDEX ON helixflow.lines (statement_hash)',
  'CREATE INDEX ON helixflow.lines USING gin (other_hashes) WHERE other_hashes IS NOT NULL',
  'CREATE INDEX ON helixflow.lines (start)',
  'CREATE INDEX ON helixflow.lines (account_tag, start)',
  'CREATE INDEX ON helixflow.lines (node, start)',
];

/** Each is applied once, in this order, in one transaction; only ever appended. */
export const migrations: readonly (readonly string[])[] = [first];

/** What has to be there before anything can be asked. */
export const foundation: readonly string[] = [
  'CREATE SCHEMA IF NOT EXISTS helixflow',
  `CREATE TABLE IF NOT EXISTS helixflow.migrations (
  number integer PRIMARY KEY,
  applied timestamptz NOT NULL DEFAULT now()
)`,
];

/** Takes rows as JSON in its one parameter; what is there already stays, or is brought up to date. */
export function upsert(
  name: string,
  its: readonly SqlColumn[],
  key: readonly string[],
  existing: 'keep' | 'replace',
): string {
  const names = its.map((column) => column.name);
  const types = its.map((column) => `${quoted(column.name)} ${column.type}`).join(', ');
  const others = names.filter((column) => !key.includes(column));
  const changes = others.map((column) => `${quoted(column)} = excluded.${quoted(column)}`).join(', ');
  const rowOf = (source: string): string => `(${others.map((column) => `${source}.${quoted(column)}`).join(', ')})`;
  const onConflict =
    existing === 'keep'
      ? 'DO NOTHING'
      : `DO UPDATE SET ${changes} WHERE ${rowOf('known')} IS DISTINCT FROM ${rowOf('excluded')}`;
  return `INSERT INTO helixflow.${name} AS known (${quotedList(names)})
SELECT ${quotedList(names)} FROM json_to_recordset($1::json) AS given (${types})
ON CONFLICT (${quotedList(key)}) ${onConflict}`;
}
