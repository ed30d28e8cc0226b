/** Exports as JSON lines; with the signed blocks in them, whoever gets one can check it alone. */

import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { z } from 'zod';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { Role } from '../../protocol/grants.ts';
import { isMeshId, type MeshId } from '../../protocol/ids.ts';
import type { ExportRow } from '../export.ts';
import { camelCase, columns } from '../export-columns.ts';

const names = columns.map((column) => ({ column, name: camelCase(column.name) }));

/** One attempt as a line. */
export const jsonLine = (row: ExportRow): string =>
  `${JSON.stringify(Object.fromEntries(names.map(({ column, name }) => [name, column.of(row)])))}\n`;

const format = 1;

/** Whose feeds a file holds. */
export interface RawHeader {
  readonly meshId: MeshId;
  /** 32 bytes; hashes to the mesh id. */
  readonly rootPublicKey: Uint8Array;
  readonly role: Role;
}

/** Writes the lines of a file that can be checked alone: a head, rows of feeds, other lines, an end. */
export class RawWriter {
  readonly #hash: Hash = createHash('sha256');
  #rows = 0;

  #take(line: string): string {
    this.#hash.update(line);
    return line;
  }

  get rows(): number {
    return this.#rows;
  }

  head({ meshId, rootPublicKey, role }: RawHeader): string {
    const root = Buffer.from(rootPublicKey).toString('hex');
    return this.#take(`${JSON.stringify({ helixflow: 'ledger', format, meshId, rootPublicKey: root, role })}\n`);
  }

  row(key: Uint8Array, value: Uint8Array): string {
    this.#rows += 1;
    const texts = { key: Buffer.from(key).toString('hex'), row: Buffer.from(value).toString('base64') };
    return this.#take(`${JSON.stringify(texts)}\n`);
  }

  other(line: string): string {
    return this.#take(line);
  }

  /** The last line: how many rows there were, and the sha256 of everything before it. */
  end(): string {
    return `${JSON.stringify({ end: true, rows: this.#rows, sha256: this.#hash.digest('hex') })}\n`;
  }
}

/** What a file turned out to be. */
export interface RawFile {
  readonly header: RawHeader;
  /** The rows, in the order of the file; to be read once. Lines that are damaged are passed over. */
  readonly rows: AsyncIterable<readonly [key: Uint8Array, row: Uint8Array]>;
  /** Once the rows are read: what is wrong with the file, and in which line. */
  faults(): readonly RawFault[];
}

/** Something that is not as it was written. */
export interface RawFault {
  /** From 1; the one after the last where the end is missing. */
  readonly line: number;
  readonly what: string;
}

/** Twice as long as the longest line that is written. */
const lineMaxChars = 262_144;

const invalid = (path: string, reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('BACKUP_INVALID', { path, reason }, { cause });

type Line = Readonly<Record<string, unknown>>;

/** The object of a line; undefined for one that holds none. */
function readLine(line: string): Line | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Line) : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

const hex = (value: unknown, bytes: number): value is string =>
  typeof value === 'string' && new RegExp(`^[0-9a-f]{${2 * bytes}}$`).test(value);

function parseHead(path: string, line: string): RawHeader {
  const { helixflow, format: found, meshId, rootPublicKey, role } = readLine(line) ?? {};
  if (helixflow !== 'ledger' || typeof found !== 'number')
    throw invalid(path, 'it holds no signed blocks: it was exported without --raw');
  if (found > format) throw new HelixFlowError('FORMAT_TOO_NEW', { path, found, known: format });
  if (!isMeshId(meshId) || !hex(rootPublicKey, 32) || (role !== 'gateway' && role !== 'node')) {
    throw invalid(path, 'its first line is damaged');
  }
  const key = new Uint8Array(Buffer.from(rootPublicKey, 'hex'));
  if (createHash('sha256').update(key).digest('hex') !== meshId) throw invalid(path, 'its root key is of another mesh');
  return { meshId, rootPublicKey: key, role };
}

/** The lines of a file, none of them longer than `lineMaxChars`. */
async function* linesOf(path: string): AsyncGenerator<string> {
  let begun = '';
  try {
    for await (const chunk of createReadStream(path, { encoding: 'utf8', highWaterMark: 262_144 })) {
      const lines = (begun + String(chunk)).split('\n');
      begun = lines.pop() ?? '';
      yield* lines;
      if (begun.length > lineMaxChars) throw invalid(path, 'a line of it is too long');
    }
  } catch (cause) {
    if (cause instanceof HelixFlowError) throw cause;
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown';
    throw invalid(path, code === 'ENOENT' ? 'there is no such file' : `it cannot be read (${code})`, cause);
  }
  if (begun !== '') yield begun;
}

const rowFields = z.object({
  key: z.string().regex(/^([0-9a-f]{2})+$/),
  row: z.base64(),
});

/** Of a file that is damaged all over, the first faults tell enough. */
const faultsMax = 100;

class RawReader implements RawFile {
  readonly header: RawHeader;
  readonly rows: RawFile['rows'];
  readonly #faults: RawFault[] = [];
  readonly #hash: Hash;
  #rows = 0;

  /** @param lines Those after the first. */
  constructor(path: string, first: string, lines: AsyncGenerator<string>) {
    this.header = parseHead(path, first);
    this.#hash = createHash('sha256').update(`${first}\n`);
    this.rows = this.#read(lines);
  }

  faults(): readonly RawFault[] {
    return this.#faults;
  }

  #note(line: number, what: string): void {
    if (this.#faults.length < faultsMax) this.#faults.push({ line, what });
  }

  async *#read(lines: AsyncGenerator<string>) {
    let number = 1;
    let hasEnd = false;
    for await (const line of lines) {
      number += 1;
      const value = readLine(line);
      if (hasEnd) this.#note(number, 'something stands behind the end');
      hasEnd ||= value?.['end'] === true;
      if (value?.['end'] === true) this.#checkEnd(number, value);
      else this.#hash.update(`${line}\n`);
      const row = value === undefined ? undefined : this.#rowIn(number, value);
      if (value === undefined) this.#note(number, 'it is no JSON object');
      if (row !== undefined) yield row;
    }
    if (!hasEnd) this.#note(number + 1, 'the file ends too soon');
  }

  #rowIn(number: number, value: Line): readonly [Uint8Array, Uint8Array] | undefined {
    if (value['key'] === undefined && value['row'] === undefined) return undefined;
    this.#rows += 1;
    const { success, data } = rowFields.safeParse(value);
    if (!success) this.#note(number, 'it is no row of a feed');
    return success ? [bytesOf(data.key, 'hex'), bytesOf(data.row, 'base64')] : undefined;
  }

  #checkEnd(number: number, { rows, sha256 }: Line): void {
    const isSame = sha256 === this.#hash.copy().digest('hex') && rows === this.#rows;
    if (!isSame) this.#note(number, 'it does not fit the lines before it: some have changed, or are missing');
  }
}

const bytesOf = (text: string, encoding: 'hex' | 'base64'): Uint8Array => new Uint8Array(Buffer.from(text, encoding));

/** Opens a file that `RawWriter` wrote. @throws HelixFlowError BACKUP_INVALID, FORMAT_TOO_NEW */
export async function openRawFile(path: string): Promise<RawFile> {
  const lines = linesOf(path);
  const first = await lines.next();
  if (first.done === true) throw invalid(path, 'it is empty');
  return new RawReader(path, first.value, lines);
}
