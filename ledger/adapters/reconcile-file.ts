/** What a provider has written down: CSV with a line of names, or JSON lines, one row an attempt or a request. */

import { createReadStream } from 'node:fs';
import { HelixFlowError } from '../../protocol/errors.ts';
import { camelCase } from '../export-columns.ts';
import { type ProviderField, type ProviderKey, type ProviderRow, providerFields } from '../reconcile.ts';

/** All rows are held while the feeds are read. */
const rowsMax = 5_000_000;
const lineMaxChars = 65_536;

const invalid = (path: string, reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('CONFIG_INVALID', { reason: `--with ${path}: ${reason}` }, { cause });

/** The cells of CSV (RFC 4180), row by row; quoted ones may hold line ends. */
async function* csvRows(path: string, text: AsyncIterable<string>): AsyncGenerator<readonly string[]> {
  let row: string[] = [];
  let cell = '';
  let isQuoted = false;
  let wasQuote = false;
  for await (const chunk of text) {
    for (const character of chunk) {
      if (isQuoted && character === '"') {
        isQuoted = false;
        wasQuote = true;
      } else if (isQuoted) cell += character;
      else if (character === '"') {
        // Two in a row stand for one.
        if (wasQuote) cell += '"';
        isQuoted = true;
        wasQuote = false;
      } else if (character === ',') {
        row.push(cell);
        cell = '';
        wasQuote = false;
      } else if (character === '\n') {
        yield [...row, cell];
        row = [];
        cell = '';
        wasQuote = false;
      } else if (character !== '\r') cell += character;
      if (cell.length > lineMaxChars || row.length > 1_000) throw invalid(path, 'a line of it is too long');
    }
  }
  if (row.length > 0 || cell !== '') yield [...row, cell];
}

async function* jsonRows(path: string, text: AsyncIterable<string>): AsyncGenerator<Readonly<Record<string, unknown>>> {
  let begun = '';
  for await (const chunk of text) {
    const lines = (begun + chunk).split('\n');
    begun = lines.pop() ?? '';
    if (begun.length > lineMaxChars * 4) throw invalid(path, 'a line of it is too long');
    for (const line of lines) if (line !== '') yield parseLine(path, line);
  }
  if (begun !== '') yield parseLine(path, begun);
}

function parseLine(path: string, line: string): Readonly<Record<string, unknown>> {
  try {
    return Object(JSON.parse(line)) as Record<string, unknown>;
  } catch (error) {
    // The engine's message quotes the line.
    if (error instanceof SyntaxError) throw invalid(path, 'a line of it is no JSON');
    throw error;
  }
}

async function* textOf(path: string): AsyncGenerator<string> {
  try {
    for await (const chunk of createReadStream(path, { encoding: 'utf8' })) yield String(chunk);
  } catch (cause) {
    if (cause instanceof HelixFlowError) throw cause;
    throw invalid(path, 'it cannot be read', cause);
  }
}

/** Rows by the names of their columns, in camelCase. */
async function* namedRows(path: string): AsyncGenerator<Readonly<Record<string, unknown>>> {
  const text = textOf(path);
  if (/\.jsonl?$/.test(path)) {
    // Lines of an export with blocks in it that are no attempts.
    for await (const row of jsonRows(path, text)) if ('run' in row || 'request' in row) yield row;
    return;
  }
  let names: readonly string[] | undefined;
  for await (const cells of csvRows(path, text)) {
    if (names === undefined) names = cells.map((cell) => camelCase(cell.trim()));
    else yield Object.fromEntries(names.map((name, at) => [name, cells[at] ?? '']));
  }
}

function numberIn(path: string, value: unknown): number | undefined {
  if (value === undefined || value === null || value === '') return undefined;
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < 0) throw invalid(path, 'a count in it is no whole number');
  return number;
}

function rowOf(path: string, row: Readonly<Record<string, unknown>>, key: ProviderKey): ProviderRow {
  const name = key === 'attempt' ? `${String(row['run'])}.${String(row['serial'])}` : String(row['request']);
  const counts: Partial<Record<ProviderField, number>> = {};
  for (const field of providerFields) {
    const count = numberIn(path, row[field]);
    if (count !== undefined) counts[field] = count;
  }
  return { name, counts };
}

/** What was read of a file. */
export interface ProviderFile {
  readonly key: ProviderKey;
  readonly rows: readonly ProviderRow[];
}

/**
 * Reads a file. Its columns are those of an export: `run` and `serial`, or `request`; and any of the counts.
 * @throws HelixFlowError CONFIG_INVALID
 */
export async function readProviderFile(path: string): Promise<ProviderFile> {
  const rows: ProviderRow[] = [];
  let key: ProviderKey | undefined;
  for await (const row of namedRows(path)) {
    if (key === undefined) {
      if ('run' in row && 'serial' in row) key = 'attempt';
      else if ('request' in row) key = 'request';
      else throw invalid(path, 'it has neither columns run and serial nor a column request');
    }
    if (rows.length >= rowsMax) throw invalid(path, `it has more than ${rowsMax} rows; split it`);
    rows.push(rowOf(path, row, key));
  }
  return { key: key ?? 'attempt', rows };
}
