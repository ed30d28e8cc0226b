/** How a request is refused at the door: what is wrong, and with which parameter, in words a developer can act on. */

import type { z } from 'zod';
import { HelixFlowError } from '../../protocol/errors.ts';
import { assert } from '../../protocol/invariant.ts';
import { issueWords } from './words.ts';

type Path = readonly PropertyKey[];

/** A place in the body, as OpenAI writes it: `messages[0].content`. */
export const printPath = (path: Path): string =>
  path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`;
    return text === '' ? String(key) : `${text}.${String(key)}`;
  }, '');

export const malformed = (param: string, problem: string): HelixFlowError<'REQUEST_MALFORMED'> =>
  new HelixFlowError('REQUEST_MALFORMED', { reason: `Invalid value for '${param}': ${problem}.`, param });

export const missing = (param: string): HelixFlowError<'REQUEST_MALFORMED'> =>
  new HelixFlowError('REQUEST_MALFORMED', { reason: `Missing required parameter: '${param}'.`, param });

export const unsupported = (param: string, reason: string): HelixFlowError<'REQUEST_UNSUPPORTED'> =>
  new HelixFlowError('REQUEST_UNSUPPORTED', { param, reason });

const valueAt = (body: unknown, path: Path): unknown =>
  path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | null | undefined)?.[key], body);

interface Found {
  readonly path: Path;
  readonly issue: z.core.$ZodIssue;
  readonly rank: number;
}

/** Of a union, the branch that got further into the value than its kind tells best what is wrong with it. */
function bestIssue(issue: z.core.$ZodIssue, prefix: Path): Found {
  const path = [...prefix, ...issue.path];
  const isKind = issue.code === 'invalid_type' || issue.code === 'invalid_union';
  const found = { path, issue, rank: path.length * 2 + (isKind ? 0 : 1) };
  if (issue.code !== 'invalid_union') return found;
  const branches = issue.errors.flatMap((branch) => branch.slice(0, 1)).map((each) => bestIssue(each, path));
  return branches.reduce((best, other) => (other.rank > best.rank ? other : best), found);
}

/** The first thing that a schema found wrong with `body`. @param prefix Where in the request `body` stands. */
export function issueError(error: z.core.$ZodError, body: unknown, prefix: Path = []): HelixFlowError {
  const [first] = error.issues;
  assert(first !== undefined, 'a value that is refused has an issue');
  const { path, issue } = bestIssue(first, []);
  const param = printPath([...prefix, ...path]);
  if (param === '') return new HelixFlowError('REQUEST_MALFORMED', { reason: 'The body must be one JSON object.' });
  const value = valueAt(body, path) ?? undefined;
  return value === undefined ? missing(param) : malformed(param, issueWords(issue, value));
}
