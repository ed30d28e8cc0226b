/** How a request is refused at the door: what is wrong, and with which parameter, in words a developer can act on. */

import type { z } from 'zod';
import { HelixFlowError } from '../../protocol/errors.ts';

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
  readonly message: string;
  readonly rank: number;
}

/** Of a union, the branch that got furthest into the value tells best what is wrong with it. */
function bestIssue(issue: z.core.$ZodIssue, prefix: Path): Found {
  const path = [...prefix, ...issue.path];
  const rank = path.length * 2 + (issue.code === 'invalid_type' ? 0 : 1);
  if (issue.code !== 'invalid_union') return { path, message: issue.message, rank };
  const branches = issue.errors.flatMap((branch) => branch.slice(0, 1)).map((each) => bestIssue(each, path));
  return branches.reduce((best, other) => (other.rank > best.rank ? other : best), { path, message: '', rank: -1 });
}

/** The first thing that a schema found wrong with `body`. @param prefix Where in the request `body` stands. */
export function issueError(error: z.core.$ZodError, body: unknown, prefix: Path = []): HelixFlowError {
  const [first] = error.issues;
  const { path, message } = first === undefined ? { path: [], message: 'invalid' } : bestIssue(first, []);
  const param = printPath([...prefix, ...path]);
  if (param === '') return new HelixFlowError('REQUEST_MALFORMED', { reason: 'The body must be one JSON object.' });
  return (valueAt(body, path) ?? undefined) === undefined ? missing(param) : malformed(param, message);
}
