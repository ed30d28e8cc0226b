/** One option as one row: its type, its flag, its variable and its meaning; parsing, help and docs derive from it. */

import { z } from 'zod';

/** A configurable value. Its key in a table is the long flag in camelCase, and its key in the configuration file. */
export interface OptionRow<Schema extends z.ZodType = z.ZodType> {
  /** Takes a string, number, boolean or list of strings; a `default` is the fallback. */
  readonly schema: Schema;
  /** As commander writes it: `--slots <count>`; `<peer>` for a word that follows the command; '' for neither. */
  readonly flag: string;
  /** '' for a word that follows the command. */
  readonly env: string;
  /** One sentence. */
  readonly about: string;
  readonly unit?: string;
  /** What a good value looks like, where the schema's type and range do not say it. */
  readonly expected?: string;
  /** What happens without a value, where there is no fixed fallback. */
  readonly otherwise?: string;
  /** Never printed, not even when it is wrong. */
  readonly secret?: true;
  /** `--no-…` means no. */
  readonly negatable?: true;
}

export type OptionTable = Readonly<Record<string, OptionRow>>;

/** The values of a table. */
export type ConfigOf<Table extends OptionTable> = {
  readonly [Key in keyof Table]: z.output<Table[Key]['schema']>;
};

/** Keeps the schema's own type, so that `ConfigOf` can tell the value's. */
export const option = <Schema extends z.ZodType>(
  schema: Schema,
  row: Omit<OptionRow<Schema>, 'schema'>,
): OptionRow<Schema> => ({ schema, ...row });

/** A word that follows the command, such as `<peer>`: it stands in no variable and in no file. */
export const argument = <Schema extends z.ZodType>(
  schema: Schema,
  row: Omit<OptionRow<Schema>, 'schema' | 'env' | 'secret'>,
): OptionRow<Schema> => ({ schema, env: '', ...row });

export const isArgument = ({ flag }: OptionRow): boolean => flag.startsWith('<');

/** The part of JSON Schema that options use. */
interface Shape {
  readonly type?: 'string' | 'integer' | 'number' | 'boolean' | 'array';
  readonly anyOf?: readonly Shape[];
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly default?: unknown;
}

/** What the row's schema takes, before any transformation. */
export const shapeOf = (row: OptionRow): Shape => z.toJSONSchema(row.schema, { io: 'input' }) as Shape;

const rangeText = ({ minimum, maximum, exclusiveMinimum }: Shape): string => {
  if (minimum !== undefined && maximum !== undefined) return ` from ${minimum} to ${maximum}`;
  if (exclusiveMinimum !== undefined)
    return ` above ${exclusiveMinimum}${maximum === undefined ? '' : `, up to ${maximum}`}`;
  return minimum === undefined ? '' : ` from ${minimum}`;
};

/** What a good value looks like, in words: `an integer from 1 to 64`. */
export function expectedText(row: OptionRow): string {
  if (row.expected !== undefined) return row.expected;
  const shape = shapeOf(row);
  if (shape.enum !== undefined) return `one of ${shape.enum.join(', ')}`;
  switch (shape.type) {
    case 'integer':
      return `an integer${rangeText(shape)}`;
    case 'number':
      return `a number${rangeText(shape)}`;
    case 'boolean':
      return 'true or false';
    case 'array':
      return 'a list, separated by commas';
    default:
      return 'a text that is not empty';
  }
}

const numeral = /^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/i;
const booleans: Readonly<Record<string, boolean>> = {
  true: true,
  1: true,
  yes: true,
  false: false,
  0: false,
  no: false,
};

/** What a text may turn into: of several shapes the first that is no text. */
const kindOf = ({ type, anyOf }: Shape): Shape['type'] =>
  type ?? anyOf?.find((shape) => shape.type !== undefined && shape.type !== 'string')?.type;

/** Text from a flag or a variable as the input of the row's schema; what does not convert is left for it to refuse. */
export function fromText(row: OptionRow, text: string): unknown {
  switch (kindOf(shapeOf(row))) {
    case 'integer':
    case 'number':
      return numeral.test(text) ? Number(text) : text;
    case 'boolean':
      return booleans[text.toLowerCase()] ?? text;
    case 'array':
      return text
        .split(',')
        .map((item) => item.trim())
        .filter((item) => item !== '');
    default:
      return text;
  }
}

/** `--slots` of `--slots <count>`. */
export const longFlag = ({ flag }: OptionRow): string => flag.split(' ').find((word) => !word.endsWith(',')) ?? flag;
