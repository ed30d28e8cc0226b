/** The admin API in words: what `docs/admin-api.md` shares with the table of operations. */

import { z } from 'zod';
import type { Operation } from './operation.ts';
import { operationRows, operations } from './operations.ts';

/** The parts of a JSON Schema that our inputs use. */
interface Schema {
  readonly description?: string;
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
}

const range = (low: number | undefined, high: number | undefined): string => `${low ?? 0} to ${high ?? '…'}`;

function words(schema: Schema): string {
  const { description, type, anyOf, items, properties } = schema;
  if (description !== undefined) return description;
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${value}\``).join(', ');
  if (anyOf !== undefined) return anyOf.map(words).join(', or ');
  if (type === 'array') return `${range(schema.minItems, schema.maxItems)} of: ${words(items ?? {})}`;
  if (type === 'object') {
    const fields = Object.entries(properties ?? {}).map(([name, field]) => `\`${name}\`: ${words(field)}`);
    return `an object (${fields.join('; ')})`;
  }
  if (type === 'integer') return `a whole number, ${range(schema.minimum, schema.maximum)}`;
  if (type === 'string') return `text, ${range(schema.minLength, schema.maxLength)} characters`;
  return type ?? 'anything';
}

/** What stands for a field that is absent, in the form that `run` gets. */
function fallbackOf(field: z.ZodType | undefined): string {
  const parsed = field?.safeParse(undefined);
  return parsed?.data === undefined ? '' : `\`${JSON.stringify(parsed.data)}\``;
}

function fieldRows(name: string, { input }: Operation): string[] {
  const schema = z.toJSONSchema(input, { io: 'input', unrepresentable: 'any' }) as Schema;
  const { shape } = input as z.ZodObject<Record<string, z.ZodType>>;
  return Object.entries(schema.properties ?? {}).map(([field, value]) => {
    const isRequired = schema.required?.includes(field) === true;
    return `| \`${name}\` | \`${field}\` | ${words(value)} | ${isRequired ? 'required' : fallbackOf(shape[field])} |`;
  });
}

/** Two tables in Markdown: the operations, and the fields of their inputs. */
export function operationTables(): string {
  const rows = operationRows.map(
    ({ name, method, path, roles, about }) =>
      `| \`${name}\` | \`${method} ${path}\` | ${roles.join(', ')} | ${about} |`,
  );
  const fields = Object.entries(operations).flatMap(([name, row]) => fieldRows(name, row as unknown as Operation));
  return [
    '| operation | request | roles | what it does |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
    '| operation | field | value | default |',
    '| --- | --- | --- | --- |',
    ...fields,
  ].join('\n');
}
