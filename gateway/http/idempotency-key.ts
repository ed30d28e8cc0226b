/** The header `Idempotency-Key`: what a client calls a request by, should it have to send it again. */

import type { IncomingHttpHeaders } from 'node:http';
import { HelixFlowError } from '../../protocol/errors.ts';

const printable = /^[\x20-\x7e]{1,255}$/;

/** Undefined without one. @throws HelixFlowError REQUEST_MALFORMED */
export function idempotencyKeyOf({ 'idempotency-key': key }: IncomingHttpHeaders): string | undefined {
  if (key === undefined) return undefined;
  if (typeof key === 'string' && printable.test(key)) return key;
  const reason = 'The header Idempotency-Key takes 1 to 255 printable ASCII characters.';
  throw new HelixFlowError('REQUEST_MALFORMED', { reason, param: 'Idempotency-Key' });
}
