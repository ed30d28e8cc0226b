/** `npm run docs`: writes the tables that documents share with the code; a test fails where they differ. */

import { readFileSync, writeFileSync } from 'node:fs';
import { type ErrorRow, errorTable } from '../protocol/error-table.ts';
import { limitTable } from '../protocol/limits.ts';

const cell = (text: string): string => text.replaceAll('|', '\\|');
const row = (...cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;

const errors = Object.entries<ErrorRow>(errorTable).map(([name, { http, code, retry, exit, text }]) =>
  row(`\`${name}\``, http === 0 ? '' : String(http), code ?? '', retry, String(exit), text),
);
const limits = Object.entries(limitTable).map(([name, { value, unit, why }]) =>
  row(`\`${name}\``, String(value), unit, why),
);

/** Puts `rows` in place of those under `heading`, up to the first line that is none. */
function replaceTable(markdown: string, heading: string, head: string, rows: readonly string[]): string {
  const start = markdown.indexOf(`\n${head}\n`, markdown.indexOf(`\n## ${heading}\n`)) + 1;
  if (start === 0) throw new Error(`no table under ${heading}`);
  const lines = markdown.slice(start).split('\n');
  const end = lines.findIndex((line) => !line.startsWith('|'));
  return markdown.slice(0, start) + [head, ...lines.slice(1, 2), ...rows, ...lines.slice(end)].join('\n');
}

const file = 'protocol/README.md';
let text = readFileSync(file, 'utf8');
text = replaceTable(text, 'Limits', '| limit | value | unit | why |', limits);
text = replaceTable(
  text,
  'Errors',
  '| code | HTTP | `error.code` | retry | exit | what happened, what to do |',
  errors,
);
writeFileSync(file, text);
