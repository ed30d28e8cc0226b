/** The admin API: one table of operations, found by method and path, run the same way whatever they came in by. */

import type { z } from 'zod';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import type { KeyRole } from '../../protocol/grants.ts';
import { issueError, malformed } from '../openai/refuse.ts';
import { accountOperations } from './account-operations.ts';
import { keyOperations } from './key-operations.ts';
import { ledgerOperations } from './ledger-operations.ts';
import { meshOperations } from './mesh-operations.ts';
import type { AdminContext, AdminMethod, Caller, Operation } from './operation.ts';
import { priceOperations } from './price-operations.ts';
import { requestOperations } from './request-operations.ts';
import { usageOperations } from './usage-operations.ts';

/** Every operation, by name. `docs/admin-api.md` lists the same, and a test keeps them in step. */
export const operations = {
  ...meshOperations,
  ...ledgerOperations,
  ...keyOperations,
  ...accountOperations,
  ...priceOperations,
  ...usageOperations,
  ...requestOperations,
};

export type OperationName = keyof typeof operations;

type Row<Name extends OperationName> = (typeof operations)[Name];

/** What each operation takes and answers. */
export type AdminApi = {
  readonly [Name in OperationName]: {
    readonly request: z.input<Row<Name>['input']>;
    readonly response: Awaited<ReturnType<Row<Name>['run']>>;
  };
};

export const operationNames: readonly OperationName[] = Object.keys(operations) as OperationName[];

/** Where all paths of the API begin. */
export const adminPrefix = '/admin/v1/';

/** What the surfaces need to know of an operation. */
export interface OperationRow {
  readonly name: OperationName;
  readonly method: AdminMethod;
  /** From the root, with `:field` in place of what varies. */
  readonly path: string;
  readonly roles: readonly KeyRole[];
  readonly about: string;
  /** It changes something: the audit log hears of it even when it succeeds. */
  readonly changes: boolean;
}

/** The table as the surfaces see it. */
export const operationRows: readonly OperationRow[] = operationNames.map((name) => {
  const { method, path, roles, about }: Operation = operations[name] as unknown as Operation;
  return { name, method, path: `${adminPrefix}${path}`, roles, about, changes: method !== 'GET' };
});

/** A request as it came in; `body` is what its JSON says, undefined when it has none. */
export interface AdminRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly body: unknown;
}

/** An operation, and what it was asked with; nothing of that is checked yet. */
export interface FoundOperation {
  readonly operation: OperationRow;
  readonly input: Readonly<Record<string, unknown>>;
}

const urlMaxChars = 2_048;

/** The fields that `segments` fill in the pattern of a path; undefined when they do not fit it. */
function fieldsOf(pattern: string, segments: readonly string[]): Record<string, string> | undefined {
  const parts = pattern.split('/');
  if (parts.length !== segments.length) return undefined;
  const fields: Record<string, string> = {};
  for (const [index, part] of parts.entries()) {
    const segment = segments[index] ?? '';
    if (part.startsWith(':') && segment !== '') fields[part.slice(1)] = segment;
    else if (part !== segment) return undefined;
  }
  return fields;
}

function queryOf(search: string): Record<string, string> {
  const query = new Map<string, string>();
  for (const [field, value] of new URLSearchParams(search)) {
    if (query.has(field)) throw malformed(field.slice(0, 64), 'it is given twice');
    query.set(field, value);
  }
  return Object.fromEntries(query);
}

function bodyOf(body: unknown): Readonly<Record<string, unknown>> {
  if (body === undefined) return {};
  if (typeof body === 'object' && body !== null && !Array.isArray(body)) return body as Record<string, unknown>;
  throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'The body must be one JSON object.' });
}

/** What path and query or body say together; none may speak for another. */
function merge(
  fields: Readonly<Record<string, string>>,
  others: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const twice = Object.keys(fields).find((field) => Object.hasOwn(others, field));
  if (twice !== undefined) throw malformed(twice, 'it stands in the path already');
  return { ...others, ...fields };
}

/**
 * The operation that a request asks for. Segments of the path are taken as they are: ids need no escapes, so `%2f` is
 * no slash here and `%6beys` no `keys`.
 * @throws HelixFlowError ROUTE_NOT_FOUND, METHOD_NOT_ALLOWED; REQUEST_MALFORMED for a field that is given twice.
 */
export function findOperation({ method, url, body }: AdminRequest): FoundOperation {
  const cut = url.indexOf('?');
  const path = cut < 0 ? url : url.slice(0, cut);
  const segments = url.length > urlMaxChars ? [] : path.split('/');
  const fitting = operationRows.flatMap((operation) => {
    const fields = fieldsOf(operation.path, segments);
    return fields === undefined ? [] : [{ operation, fields }];
  });
  const found = fitting.find(({ operation }) => operation.method === method);
  if (found === undefined)
    throw notFound(
      method,
      path,
      fitting.map(({ operation }) => operation.method),
    );
  const others = method === 'GET' ? queryOf(cut < 0 ? '' : url.slice(cut + 1)) : bodyOf(body);
  return { operation: found.operation, input: merge(found.fields, others) };
}

function notFound(method: string, path: string, allowed: readonly AdminMethod[]): HelixFlowError {
  const shown = { method: method.slice(0, 16), path: path.slice(0, 200) };
  if (allowed.length > 0) return new HelixFlowError('METHOD_NOT_ALLOWED', { ...shown, allowed: allowed.join(', ') });
  return new HelixFlowError('ROUTE_NOT_FOUND', { ...shown, hint: 'docs/admin-api.md lists the operations.' });
}

/** @throws HelixFlowError KEY_ROLE_NOT_ALLOWED */
export function requireRole(role: KeyRole, roles: readonly KeyRole[]): void {
  if (!roles.includes(role)) throw new HelixFlowError('KEY_ROLE_NOT_ALLOWED', { role, allowed: roles.join(' or ') });
}

/** What the desk finds wrong with a request is the caller's to put right, not the process's. */
async function perform<Output>(
  { run }: Operation<z.ZodType, Output>,
  ...[context, input, caller]: Parameters<typeof run>
): Promise<Output> {
  try {
    return await run(context, input, caller);
  } catch (cause) {
    if (!isHelixFlowError(cause, 'CONFIG_INVALID')) throw cause;
    throw new HelixFlowError('REQUEST_MALFORMED', { reason: cause.details.reason }, { cause });
  }
}

/**
 * Checks who asks and with what, then does it.
 * @param input Unchecked.
 * @throws HelixFlowError KEY_ROLE_NOT_ALLOWED; REQUEST_MALFORMED; what the operation throws.
 */
export async function runOperation<Name extends OperationName>(
  name: Name,
  context: AdminContext,
  input: unknown,
  caller: Caller,
): Promise<AdminApi[Name]['response']> {
  const row = operations[name] as unknown as Operation<z.ZodType, AdminApi[Name]['response']>;
  if (caller !== 'local') requireRole(caller.role, row.roles);
  const parsed = row.input.safeParse(input);
  if (parsed.success) return perform(row, context, parsed.data, caller);
  const [issue] = parsed.error.issues;
  if (issue?.code === 'unrecognized_keys') {
    const [field = ''] = issue.keys;
    throw malformed([...issue.path, field].join('.').slice(0, 64), 'there is no such field');
  }
  throw issueError(parsed.error, input);
}

/** How a client asks for an operation. */
export interface AdminCall {
  readonly method: AdminMethod;
  /** Path and query. */
  readonly url: string;
  /** JSON, or undefined. */
  readonly body: string | undefined;
}

/** Writes a request for `findOperation` to read. */
export function requestFor<Name extends OperationName>(name: Name, request: AdminApi[Name]['request']): AdminCall {
  const { method, path } = operations[name] as unknown as Operation;
  const rest = new Map(Object.entries(request as Record<string, unknown>).filter(([, value]) => value !== undefined));
  const segments = path.split('/').map((part) => {
    if (!part.startsWith(':')) return part;
    const value = String(rest.get(part.slice(1)));
    rest.delete(part.slice(1));
    return encodeURIComponent(value);
  });
  const url = `${adminPrefix}${segments.join('/')}`;
  if (method !== 'GET') return { method, url, body: JSON.stringify(Object.fromEntries(rest)) };
  const query = new URLSearchParams();
  for (const [field, value] of rest) query.set(field, String(value));
  return { method, url: query.size === 0 ? url : `${url}?${query}`, body: undefined };
}
