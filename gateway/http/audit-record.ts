/** A request as the audit log tells of it. */

import type { FastifyRequest } from 'fastify';
import type { AuditAction, AuditRecord } from '../../ledger/audit.ts';
import { errorRow, type HelixFlowError } from '../../protocol/errors.ts';
import type { KeyId } from '../../protocol/ids.ts';
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

/** The key that was refused, where its signature was found good: what anybody may write names nobody. */
function refusedKey(error: HelixFlowError | undefined): KeyId | undefined {
  const { keyId } = (error?.details ?? {}) as { readonly keyId?: KeyId };
  return keyId;
}

function actorOfRequest({ grant }: FastifyRequest, error: HelixFlowError | undefined): string {
  if (grant !== undefined) return actorOf(grant);
  const key = refusedKey(error);
  return key === undefined ? 'none' : `key:${key}`;
}

/** Names the key when its signature was found good, and no more of who asked. */
export const auditRecordOf = (action: AuditAction, request: FastifyRequest, error?: HelixFlowError): AuditRecord => ({
  action,
  actor: actorOfRequest(request, error),
  object: routeOf(request),
  outcome: outcomeOf(error),
  reason: error?.code ?? '',
});
