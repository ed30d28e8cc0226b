/** What may stand in the audit log: references and words of closed lists, and nothing that could be a secret or an address. */

import { type AuditRecord, auditActions } from './audit.ts';

const actions: ReadonlySet<string> = new Set(auditActions);
const outcomes: ReadonlySet<string> = new Set(['done', 'refused', 'failed']);

const reference =
  /^(?:local|none|many|(?:key|account|peer|invite|issuer|author|mesh):[A-Za-z0-9][A-Za-z0-9._-]{0,127})$/;
const route = /^(?:[A-Z]{3,7} )?\/[A-Za-z0-9._:{}*/-]{0,127}$/;
const word = /^(?:[A-Za-z][A-Za-z0-9_. -]{0,63})?$/;

/** API keys, invites, tokens (JWTs begin with `ey`), IPv4, IPv6. */
const secrets = [
  /sk-hx-/i,
  /hx-invite-/i,
  /(?:^|[^A-Za-z0-9])ey[A-Za-z0-9_-]{6,}/,
  /(?:^|[^0-9])\d{1,3}(?:\.\d{1,3}){3}(?:[^0-9]|$)/,
  /[0-9a-f]*:[0-9a-f]*:[0-9a-f:]*/i,
];

const holds = (text: unknown, ...forms: readonly RegExp[]): boolean =>
  typeof text === 'string' && forms.some((form) => form.test(text)) && !secrets.some((secret) => secret.test(text));

const isCount = (count: unknown): boolean => count === undefined || (Number.isSafeInteger(count) && Number(count) > 0);

/** What takes the place of what may not be written. */
export const removed = 'removed';

/** A record fit to be written, and the members that were not. */
export interface CleanRecord {
  readonly record: AuditRecord;
  /** Names of members, never their values. */
  readonly faults: readonly (keyof AuditRecord)[];
}

/**
 * Replaces whatever may not enter the log, whoever passed it on: a record is never refused, since what happened has
 * happened. An action outside the list becomes `admin.request`, the one that says least.
 */
export function cleanRecord({ action, actor, object, outcome, reason, count }: AuditRecord): CleanRecord {
  const checks: readonly (readonly [keyof AuditRecord, boolean])[] = [
    ['action', actions.has(action)],
    ['actor', holds(actor, reference)],
    ['object', holds(object, reference, route)],
    ['outcome', outcomes.has(outcome)],
    ['reason', holds(reason, word)],
    ['count', isCount(count)],
  ];
  const faults = checks.flatMap(([name, isFit]) => (isFit ? [] : [name]));
  const isFit = (name: keyof AuditRecord): boolean => !faults.includes(name);
  const record: AuditRecord = {
    action: isFit('action') ? action : 'admin.request',
    actor: isFit('actor') ? actor : removed,
    object: isFit('object') ? object : removed,
    outcome: isFit('outcome') ? outcome : 'failed',
    reason: isFit('reason') ? reason : removed,
    ...(count !== undefined && count > 1 && isFit('count') ? { count } : {}),
  };
  return { record, faults };
}
