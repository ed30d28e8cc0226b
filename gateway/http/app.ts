/** The clients' door: OpenAI's routes over the service; built here, listening elsewhere. */

import type { FastifyInstance } from 'fastify';
import { type Audit, noAudit } from '../../ledger/audit.ts';
import { type ErrorCode, isHelixFlowError } from '../../protocol/errors.ts';
import { auditRecordOf } from './audit-record.ts';
import { createDoor } from './door.ts';
import { addEndpoints } from './endpoints.ts';
import type { RequestObserver } from './exchange.ts';
import { addressOf, createFailures } from './failures.ts';
import { type GatewayAppDeps, type GatewayAppOptions, gatewayAppDefaults } from './options.ts';
import { publicDoor } from './roles.ts';
import { methodsOf, unknownRoute } from './routes.ts';

/** Refusals that say something about a key, and so belong into the audit log. */
const aboutKeys: ReadonlySet<ErrorCode> = new Set([
  'KEY_MISSING',
  'KEY_INVALID',
  'KEY_EXPIRED',
  'KEY_REVOKED',
  'KEY_NOT_HERE',
  'KEY_UNVERIFIABLE',
  'KEY_ROLE_NOT_ALLOWED',
  'KEY_MODEL_NOT_ALLOWED',
]);

/** The same of keys that were good when their requests came in: these end the answer, not the request. */
const aboutAnswers: ReadonlySet<ErrorCode> = new Set(['RATE_LIMITED', 'REQUEST_OVER_LIMIT', 'KEY_REVOKED']);

/** Tells the audit log of requests whose answer was refused to a good key. */
const auditAnswers = (audit: Audit): RequestObserver => ({
  finished: ({ keyId, error, method, route }) => {
    if (keyId === undefined || error === undefined || !aboutAnswers.has(error)) return;
    const [actor, object] = [`key:${keyId}`, `${method} ${route}`];
    audit.note({ action: 'request.refuse', actor, object, outcome: 'refused', reason: error });
  },
});

/** Builds the app, as `createDoor` does. `audit` hears of keys that are refused. */
export function createGatewayApp(
  deps: GatewayAppDeps & { readonly audit?: Audit },
  options: GatewayAppOptions = gatewayAppDefaults,
): FastifyInstance {
  const { keys, clock, log, audit = noAudit, observers = [] } = deps;
  const failures = createFailures(clock, options.failures);
  const watching = audit === noAudit ? observers : [...observers, auditAnswers(audit)];
  const app = createDoor({ ...deps, observers: watching }, options, {
    guard: {
      table: publicDoor,
      keys,
      unknown: 'public',
      // Only once a key was found wrong: many clients may share the address of a proxy, and those with good keys never wait.
      wrong: (request, error) => {
        if (!isHelixFlowError(error, 'KEY_INVALID')) return error;
        const address = addressOf(request);
        const refusal = failures.refusal(address);
        if (refusal === undefined) failures.failed(address);
        return refusal ?? error;
      },
    },
    paths: 'forgiving',
    unknownRoute,
    ...(options.pageOrigins.length === 0 ? {} : { pages: { origins: options.pageOrigins, methodsOf } }),
    refused: (request, error) => {
      const isGuess = error.code === 'RATE_LIMITED' && request.grant === undefined;
      if (isGuess || aboutKeys.has(error.code)) audit.note(auditRecordOf('request.refuse', request, error));
    },
  });
  addEndpoints(app, deps, { options, responding: { clock, log, stallMs: options.stallMs } });
  return app;
}
