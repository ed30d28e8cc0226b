/** Exports as CSV (RFC 4180), safe to open in a program that takes cells for formulas. */

import type { ExportRow } from '../export.ts';
import { type Cell, type Column, columns } from '../export-columns.ts';

/** What a spreadsheet would compute: OWASP, CSV Injection. */
const isFormula = (text: string): boolean => /^[=+\-@\t\r]/.test(text);

function textCell(text: string): string {
  const safe = isFormula(text) ? `'${text}` : text;
  return /[",\r\n']/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function cellText(cell: Cell, { kind }: Column): string {
  if (cell === null) return '';
  if (kind === 'moment') return new Date(Number(cell)).toISOString();
  return typeof cell === 'string' ? textCell(cell) : String(cell);
}

const end = '\r\n';

/** The names of the columns, as the first line. */
export const csvHeader: string = columns.map(({ name }) => name).join(',') + end;

/** One attempt as a line. */
export const csvLine = (row: ExportRow): string =>
  columns.map((column) => cellText(column.of(row), column)).join(',') + end;
