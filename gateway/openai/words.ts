/** What a schema finds wrong with a value, in plain words: what to send. */

import type { z } from 'zod';

const kinds: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'an array',
  object: 'an object',
  null: 'null',
};

/** How much more than nothing a kind of value has. */
const pieces: Readonly<Record<string, string>> = { string: 'character', array: 'element' };

const kindOf = (value: unknown): string => {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : (kinds[typeof value] ?? 'that');
};

function boundWords(bound: 'at least' | 'at most', origin: string, limit: number | bigint): string {
  const piece = pieces[origin];
  if (piece === undefined) return `send ${kinds[origin] ?? 'a value'} of ${bound} ${limit}`;
  return `send ${bound} ${limit} ${piece}${Number(limit) === 1 ? '' : 's'}`;
}

const insteadOf = (wanted: string, value: unknown): string =>
  wanted === kinds['int'] && typeof value === 'number' ? `send ${wanted}` : `send ${wanted}, not ${kindOf(value)}`;

/** A value that fits none of several kinds: the kinds, unless one of them comes closer than that. */
function unionWords({ errors }: z.core.$ZodIssueInvalidUnion, value: unknown): string {
  const firsts = errors.flatMap((branch) => branch.slice(0, 1));
  const wanted = firsts.flatMap((issue) =>
    issue.code === 'invalid_type' ? [kinds[issue.expected] ?? issue.expected] : [],
  );
  return insteadOf(wanted.join(' or '), value);
}

/** @param value Where the issue was found. */
export function issueWords(issue: z.core.$ZodIssue, value: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      return insteadOf(kinds[issue.expected] ?? issue.expected, value);
    case 'invalid_union':
      return unionWords(issue, value);
    case 'invalid_value':
      return `send one of ${issue.values.map((each) => `'${String(each)}'`).join(', ')}`;
    case 'too_small':
      return boundWords('at least', issue.origin, issue.minimum);
    case 'too_big':
      return boundWords('at most', issue.origin, issue.maximum);
    default:
      return issue.message;
  }
}
