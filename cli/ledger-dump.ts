/** Feeds written down in one file: settled attempts for people and programs, signed blocks for whoever checks them. */

import { csvHeader, csvLine } from '../ledger/adapters/export-csv.ts';
import { jsonLine, RawWriter } from '../ledger/adapters/export-jsonl.ts';
import { type ExportRow, exportSettled } from '../ledger/export.ts';
import { rowsInOrder } from '../ledger/verify-rows.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import type { Span } from './config/values.ts';
import { type Sink, writeNewFileStream, writeStdout } from './ledger-sink.ts';
import type { LedgerSource } from './ledger-source.ts';

/** Which attempts, in which form. */
export interface DumpOptions {
  readonly format: 'csv' | 'jsonl';
  readonly raw: boolean;
  readonly sinceMs: UnixMs | undefined;
  readonly untilMs: UnixMs | undefined;
}

/** What was written. */
export interface Dumped {
  readonly attempts: number;
  /** Rows of feeds; 0 without `--raw`. */
  readonly rows: number;
}

export const sinceMsOf = (span: Span | undefined, nowMs: number): UnixMs | undefined =>
  span && unixMs('agoMs' in span ? nowMs - span.agoMs : span.fromMs);
/** The end of a day or month. */
export const untilMsOf = (span: Span | undefined, nowMs: number): UnixMs | undefined =>
  span && unixMs('agoMs' in span ? nowMs - span.agoMs : span.toMs);

/** Every row of the feeds, between a head and an end that tells when a byte of them has changed. */
async function dumpRaw(source: LedgerSource, writer: RawWriter, sink: Sink): Promise<void> {
  const { known, role, rows } = source;
  await sink.write(writer.head({ ...known.mesh, role }));
  for await (const [key, row] of rowsInOrder(rows)) await sink.write(writer.row(key, row));
}

async function dump(source: LedgerSource, { format, raw, sinceMs, untilMs }: DumpOptions, sink: Sink): Promise<Dumped> {
  const { known, role } = source;
  const writer = new RawWriter();
  if (raw) await dumpRaw(source, writer, sink);
  else if (format === 'csv') await sink.write(csvHeader);
  const lineOf = (row: ExportRow): string => (format === 'csv' ? csvLine(row) : jsonLine(row));
  const options = { meshId: known.mesh.meshId, holds: role === 'gateway' ? 'all' : 'open', sinceMs, untilMs } as const;
  let attempts = 0;
  for await (const row of exportSettled(source.rows, options)) {
    attempts += 1;
    await sink.write(raw ? writer.other(lineOf(row)) : lineOf(row));
  }
  if (raw) await sink.write(writer.end());
  return { attempts, rows: writer.rows };
}

/** @param out `-` for stdout. @throws HelixFlowError CONFIG_INVALID when there is such a file. */
export async function dumpTo(out: string, source: LedgerSource, options: DumpOptions): Promise<Dumped> {
  let dumped: Dumped = { attempts: 0, rows: 0 };
  const produce = async (sink: Sink): Promise<void> => {
    dumped = await dump(source, options, sink);
  };
  if (out === '-') await writeStdout(produce);
  else await writeNewFileStream(out, produce);
  return dumped;
}

/** A backup: the rows of the feeds, and nothing else. */
export async function backUp(out: string, source: LedgerSource): Promise<{ rows: number; bytes: number }> {
  const writer = new RawWriter();
  const bytes = await writeNewFileStream(out, async (sink) => {
    await dumpRaw(source, writer, sink);
    await sink.write(writer.end());
  });
  return { rows: writer.rows, bytes };
}
