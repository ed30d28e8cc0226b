/** The operators' door: the admin API over TCP, for keys that name this gateway and for nobody else. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Audit } from '../../ledger/audit.ts';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import type { KeyGrant } from '../../protocol/grants.ts';
import { assert } from '../../protocol/invariant.ts';
import { type Ms, seconds } from '../../protocol/units.ts';
import type { KeyChecker } from '../access/keys.ts';
import type { AdminContext } from '../admin/operation.ts';
import { findOperation, type OperationRow, operationRows, runOperation } from '../admin/operations.ts';
import { auditRecordOf } from './audit-record.ts';
import { boundPieces } from './body.ts';
import { createDoor, type DoorDeps, type DoorOptions } from './door.ts';
import { addressOf, createFailures, type FailureLimits } from './failures.ts';
import { isLoopback, type ListenOptions, startListening, urlHost } from './listen.ts';
import { type Response, respond } from './respond.ts';
import { adminDoor } from './roles.ts';

export interface AdminAppDeps extends DoorDeps {
  readonly keys: KeyChecker;
  readonly context: AdminContext;
  /** Hears of everything that is refused, and of everything that changes something. */
  readonly audit: Audit;
}

export interface AdminAppOptions extends DoorOptions {
  readonly failures: FailureLimits;
}

export const adminAppDefaults: AdminAppOptions = {
  bodyMaxBytes: 65_536,
  headersMaxBytes: 16_384,
  headersTimeoutMs: seconds(10),
  requestTimeoutMs: seconds(30),
  stallMs: seconds(30),
  idleTimeoutMs: seconds(30),
  connectionsMax: 64,
  failures: { failuresMax: 10, windowMs: seconds(60), addressesMax: 4_096 },
};

/** What says that a key was wrong. One that is missing was not guessed, one of another role is good. */
const wrongKey: ReadonlySet<string> = new Set(['KEY_INVALID', 'KEY_EXPIRED', 'KEY_REVOKED', 'KEY_NOT_HERE']);

/** Answers hold keys and invites: nothing between here and the client may keep them. */
const privately = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' } as const;

/** A browser names the page that a request comes from; there is no page for this door. */
function refusePages({ headers }: FastifyRequest): void {
  const site = headers['sec-fetch-site'];
  if (headers.origin !== undefined || (site !== undefined && site !== 'none')) {
    throw new HelixFlowError('ORIGIN_REFUSED', {});
  }
}

/** What is sent along with a GET has no meaning, and servers differ in where they see the next request begin. */
function refuseSpareBody({ method, headers }: FastifyRequest): void {
  const hasBody = headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0';
  if (method !== 'GET' || !hasBody) return;
  throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'A GET takes no body.' });
}

const callerOf = (request: FastifyRequest): KeyGrant => {
  assert(request.grant !== undefined, 'the guard has let this request pass');
  return request.grant;
};

const noOperation = (method: string, url: string): HelixFlowError =>
  new HelixFlowError('ROUTE_NOT_FOUND', {
    method,
    path: (url.split('?', 1)[0] ?? '').slice(0, 200),
    hint: 'docs/admin-api.md lists the operations.',
  });

/** Why no operation takes a request, and the methods that its path does take. */
function unknownRoute(method: string, url: string): { error: HelixFlowError; headers: Record<string, string> } {
  try {
    findOperation({ method, url, body: undefined });
  } catch (error) {
    if (!isHelixFlowError(error)) throw error;
    return { error, headers: isHelixFlowError(error, 'METHOD_NOT_ALLOWED') ? { allow: error.details.allowed } : {} };
  }
  return { error: noOperation(method, url), headers: {} };
}

/** The app of the operators' door, as `createDoor` builds it. */
export function createAdminApp(deps: AdminAppDeps, options: AdminAppOptions = adminAppDefaults): FastifyInstance {
  const { clock, log, keys, context, audit } = deps;
  const failures = createFailures(clock, options.failures);
  const responding = { clock, log, stallMs: options.stallMs };

  const app = createDoor(deps, options, {
    guard: {
      table: adminDoor,
      keys,
      unknown: ['operator', 'admin'],
      admit: (request) => {
        const refusal = failures.refusal(addressOf(request));
        if (refusal !== undefined) throw refusal;
        refusePages(request);
        refuseSpareBody(request);
      },
      vet: ({ gateways }) => {
        if (gateways.length !== 1 || gateways[0] !== context.self) throw new HelixFlowError('KEY_NOT_HERE', {});
      },
    },
    paths: 'exact',
    unknownRoute,
    refused: (request, error) => {
      if (wrongKey.has(error.code)) failures.failed(addressOf(request));
      audit.note(auditRecordOf('admin.request', request, error));
    },
  });

  const serve = async (request: FastifyRequest, reply: FastifyReply, row: OperationRow): Promise<void> => {
    const { method, url, body } = request;
    const { operation, input } = findOperation({ method, url, body });
    // The router and this table read a path by rules of their own; where they differ, nobody is served.
    if (operation !== row) throw noOperation(method, url);
    const result = await runOperation(row.name, context, input, callerOf(request));
    if (row.changes) audit.note(auditRecordOf('admin.request', request));
    reply.hijack();
    const answer: Response = { status: 200, body: JSON.stringify(result ?? null), headers: privately };
    respond(request.exchange, answer, responding);
  };
  for (const row of operationRows) {
    const { method, path } = row;
    app.route({ method, url: path, preParsing: boundPieces, handler: (request, reply) => serve(request, reply, row) });
  }
  return app;
}

/** An open operators' door. */
export interface AdminListening extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** Where the operations are: `https://192.0.2.7:7421/admin/v1`. */
  readonly url: string;
  /** Finishes what is under way for up to `graceMs`, and closes. */
  close(graceMs: Ms): Promise<void>;
}

/**
 * Opens the operators' door.
 * @throws HelixFlowError CONFIG_INVALID for plain HTTP on anything but loopback; PORT_IN_USE
 */
export async function startAdminServer(
  deps: AdminAppDeps,
  listen: ListenOptions,
  options: AdminAppOptions = adminAppDefaults,
): Promise<AdminListening> {
  const { host } = listen;
  if (deps.tls === undefined && !isLoopback(host)) {
    const reason = `${listen.option}: ${host} is not loopback, and plain HTTP would carry the keys of operators in the clear; give --tls-cert and --tls-key, or listen on 127.0.0.1`;
    throw new HelixFlowError('CONFIG_INVALID', { reason });
  }
  const {
    port,
    close,
    [Symbol.asyncDispose]: dispose,
  } = await startListening(createAdminApp(deps, options), deps.clock, listen);
  const scheme = deps.tls === undefined ? 'http' : 'https';
  return {
    host,
    port,
    url: `${scheme}://${urlHost(host)}:${port}/admin/v1`,
    close,
    [Symbol.asyncDispose]: dispose,
  };
}
