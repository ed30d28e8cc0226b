/** Reads the values of options from flags, variables and a file, in this order, and reports all bad ones together. */

import { readFileSync } from 'node:fs';
import { HelixFlowError } from '../../protocol/errors.ts';
import { systemReason } from '../files.ts';
import { redactValue } from '../redact.ts';
import {
  type ConfigOf,
  expectedText,
  fromText,
  isArgument,
  longFlag,
  type OptionRow,
  type OptionTable,
} from './option.ts';
import { suggest } from './suggest.ts';

export interface Sources {
  /** By key: text, true for a flag without value, or a list for a repeated one. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Path of a JSON file with values by key. */
  readonly file: string | undefined;
}

/** A value, and how to name where it came from. */
interface Found {
  readonly input: unknown;
  readonly label: string;
}

const invalid = (reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('CONFIG_INVALID', { reason }, { cause });

function readFile(path: string): Readonly<Record<string, unknown>> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw invalid(`the configuration file ${path} cannot be read: ${systemReason(cause)}`, cause);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  } catch (error) {
    // The engine's message quotes the file, which may hold secrets.
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw invalid(`the configuration file ${path} holds no JSON object`);
}

/** Lists are shown as somebody would write them, each of their items by itself. */
function shown(row: OptionRow, value: unknown): string {
  if (row.secret) return '[hidden]';
  if (Array.isArray(value)) return value.map((item) => shown(row, item)).join(',');
  return value === '' ? "''" : redactValue(typeof value === 'string' ? value : JSON.stringify(value));
}

/** Nothing where something was meant, such as an unset variable: it must never pass for a list that limits nothing. */
const isEmptyList = (input: unknown): boolean => Array.isArray(input) && input.length === 0;

/** What the repetitions of a flag say together; empty when one of them is. */
function fromRepeated(row: OptionRow, items: readonly unknown[]): unknown {
  const inputs = items.map((item) => fromText(row, String(item)));
  return inputs.some(isEmptyList) ? [] : inputs.flat();
}

function fromFlag(row: OptionRow, value: unknown): Found | undefined {
  if (value === undefined) return undefined;
  const label = value === true ? longFlag(row) : `${longFlag(row)} ${shown(row, value)}`;
  if (Array.isArray(value)) return { input: fromRepeated(row, value), label };
  return { input: typeof value === 'string' ? fromText(row, value) : value, label };
}

function fromEnv(row: OptionRow, value: string | undefined): Found | undefined {
  if (value === undefined || value === '') return undefined;
  return { input: fromText(row, value), label: `${row.env}=${shown(row, value)}` };
}

function fromFile(row: OptionRow, value: unknown, label: string): Found | undefined {
  if (value === undefined || isArgument(row)) return undefined;
  return { input: typeof value === 'string' ? fromText(row, value) : value, label: `${label}=${shown(row, value)}` };
}

/** The keys of a table that a file may hold. */
export const optionKeys = (table: OptionTable): readonly string[] =>
  Object.entries(table).flatMap(([key, row]) => (isArgument(row) ? [] : [key]));

/**
 * Reads every row once. Order: flag, variable, file, fallback.
 * @param known Keys that the file may also hold: the options of other commands.
 * @throws HelixFlowError CONFIG_INVALID that names every bad value.
 */
export function readConfig<Table extends OptionTable>(
  table: Table,
  sources: Sources,
  known: readonly string[] = [],
): ConfigOf<Table> {
  const file = sources.file === undefined ? {} : readFile(sources.file);
  const problems: string[] = [];
  const keys = [...optionKeys(table), ...known];
  for (const key of Object.keys(file)) {
    if (!keys.includes(key))
      problems.push(`${sources.file}: unknown option '${redactValue(key)}'${suggest(key, keys)}`);
  }
  const values: Record<string, unknown> = {};
  for (const [key, row] of Object.entries(table)) {
    const found =
      fromFlag(row, sources.flags[key]) ??
      fromEnv(row, sources.env[row.env]) ??
      fromFile(row, file[key], `${sources.file}: ${key}`);
    const parsed = row.schema.safeParse(found?.input);
    if (parsed.success && !isEmptyList(found?.input)) values[key] = parsed.data;
    else if (found === undefined) problems.push(`${longFlag(row)} is missing: expected ${expectedText(row)}`);
    else problems.push(`${found.label}: expected ${expectedText(row)}`);
  }
  if (problems.length > 0) throw invalid(problems.join('\n'));
  return Object.freeze(values) as ConfigOf<Table>;
}
