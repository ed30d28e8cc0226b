/** A request as the audit log tells of it. */

import type { FastifyRequest } from 'fastify';
import type { AuditAction, AuditRecord } from '../../ledger/audit.ts';
import { errorRow, type HelixFlowError } from '../../protocol/errors.ts';
import { actorOf } from '../admin/operation.ts';

/** The pattern of the route, never what stood in its place. */
const routeOf = ({ method, routeOptions }: FastifyRequest): string =>
  routeOptions.url === undefined ? 'none' : `${method} ${routeOptions.url}`;

/** 5xx, and codes that are not for clients: the fault is on this side. */
function outcomeOf(error: HelixFlowError | undefined): AuditRecord['outcome'] {
  if (error === undefined) return 'done';
  const { http } = errorRow(error.code);
  return http === 0 || http >= 500 ? 'failed' : 'refused';
}

/** Names the key when it was found good, and no more of who asked. */
export const auditRecordOf = (action: AuditAction, request: FastifyRequest, error?: HelixFlowError): AuditRecord => ({
  action,
  actor: request.grant === undefined ? 'none' : actorOf(request.grant),
  object: routeOf(request),
  outcome: outcomeOf(error),
  reason: error?.code ?? '',
});
