/** The operators' door over a desk in memory, with keys whose texts say what becomes of them. */

import { type IncomingHttpHeaders, request } from 'node:http';
import { text } from 'node:stream/consumers';
import type { FastifyInstance } from 'fastify';
import type { KeyChecker } from '../../../gateway/access/keys.ts';
import type { AdminContext } from '../../../gateway/admin/operation.ts';
import {
  type AdminAppDeps,
  type AdminAppOptions,
  adminAppDefaults,
  createAdminApp,
} from '../../../gateway/http/admin.ts';
import type { AuditRecord } from '../../../ledger/audit.ts';
import { cleanRecord } from '../../../ledger/audit-record.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { KeyGrant } from '../../../protocol/grants.ts';
import { quietLog, seededRandom } from '../../protocol/mesh-fixture.ts';
import { grantOf, otherGateway, type Stage, self, stage } from '../admin/fakes.ts';

const grants: Readonly<Record<string, KeyGrant>> = {
  'sk-hx-user': grantOf('user'),
  'sk-hx-operator': grantOf('operator'),
  'sk-hx-admin': grantOf('admin'),
  'sk-hx-elsewhere': grantOf('admin', { gateways: [otherGateway] }),
  'sk-hx-everywhere': grantOf('admin', { gateways: [] }),
  'sk-hx-both': grantOf('admin', { gateways: [self, otherGateway] }),
};

/** Takes the texts above; everything else is no key. */
const keysByText: KeyChecker = {
  check: (text) => {
    const grant = grants[text];
    if (grant === undefined) throw new HelixFlowError('KEY_INVALID', {});
    return grant;
  },
};

export interface AdminStage extends Stage, AsyncDisposable {
  readonly app: FastifyInstance;
  readonly deps: AdminAppDeps;
  /** As they would be written: what may not be in the log is gone. */
  readonly noted: AuditRecord[];
}

/** An app that is asked through `inject`, or listened with. */
export function openAdmin(
  options: Partial<AdminAppOptions> = {},
  {
    context: changes = {},
    ...more
  }: { readonly context?: Partial<AdminContext> } & Omit<Partial<AdminAppDeps>, 'context'> = {},
): AdminStage {
  const made = stage(changes);
  const noted: AuditRecord[] = [];
  const deps: AdminAppDeps = {
    clock: made.clock,
    random: seededRandom('admin door'),
    log: quietLog,
    keys: keysByText,
    context: made.context,
    audit: { note: (record) => void noted.push(cleanRecord(record).record) },
    ...more,
  };
  const app = createAdminApp(deps, { ...adminAppDefaults, ...options });
  return { ...made, app, deps, noted, [Symbol.asyncDispose]: () => app.close() };
}

/** Headers that bring a key. */
export const bearing = (key: string): Record<string, string> => ({ authorization: `Bearer ${key}` });

export interface RawAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** A request whose path leaves as it stands here; `inject` and `fetch` would tidy it up. */
export async function askRaw(
  port: number,
  { method, path, headers, body }: { method: string; path: string; headers: Record<string, string>; body?: string },
): Promise<RawAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<RawAnswer>();
  const sending = request({ host: '127.0.0.1', port, method, path, headers, agent: false }, (message) => {
    const { statusCode = 0 } = message;
    text(message).then((whole) => resolve({ status: statusCode, headers: message.headers, body: whole }), reject);
  });
  sending.once('error', reject).end(body);
  return promise;
}
