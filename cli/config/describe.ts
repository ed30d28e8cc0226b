/** Options in words: for `--help` and for `docs/configuration.md`. Secrets have no values here. */

import { expectedText, isArgument, type OptionRow, type OptionTable, shapeOf } from './option.ts';
import { commandTables, commonOptions } from './tables.ts';

/** The fallback as somebody would write it. */
function fallbackText(row: OptionRow): string {
  const { default: fallback } = shapeOf(row);
  if (row.otherwise !== undefined) return row.otherwise;
  if (fallback === undefined) return 'required';
  return Array.isArray(fallback) ? fallback.join(',') || 'none' : String(fallback);
}

/** What `--help` says beside the flag. */
export const helpText = (row: OptionRow): string =>
  isArgument(row)
    ? `${row.about} (${expectedText(row)})`
    : `${row.about} (${expectedText(row)}; default: ${fallbackText(row)}; ${row.env})`;

const cell = (text: string): string => text.replaceAll('|', '\\|');

function tableText(table: OptionTable): string {
  const rows = Object.values(table).map((row) => {
    const unit = row.unit === undefined ? '' : ` (${row.unit})`;
    const flag = row.flag === '' ? '' : `\`${row.flag}\``;
    const variable = row.env === '' ? '' : `\`${row.env}\``;
    return [flag, variable, `${expectedText(row)}${unit}`, fallbackText(row), row.about];
  });
  const head = ['flag', 'variable', 'value', 'default', 'meaning'];
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.map(cell).join(' | ')} |`).join('\n');
}

/** The generated part of `docs/configuration.md`. */
export function configurationTables(): string {
  const commands = Object.entries<OptionTable>(commandTables).filter(([, table]) => Object.keys(table).length > 0);
  return [
    `## Every command\n\n${tableText(commonOptions)}`,
    ...commands.map(([name, table]) => `## helixflow ${name}\n\n${tableText(table)}`),
  ].join('\n\n');
}
