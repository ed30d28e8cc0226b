/** What may stand in the audit log: references and words of closed forms, and nothing that could be a secret or an address. */

import {
  isAccountId,
  isAuthorId,
  isEpochId,
  isIssuerId,
  isKeyId,
  isLeaseId,
  isMeshId,
  isPeerId,
  isPriceId,
} from '../protocol/ids.ts';
import { type AuditRecord, auditActions } from './audit.ts';

const actions: ReadonlySet<string> = new Set(auditActions);
const outcomes: ReadonlySet<string> = new Set(['done', 'refused', 'failed']);
const nobody: ReadonlySet<string> = new Set(['local', 'none', 'many']);

/** Each kind of reference has the form of its own ids: no other text fits behind its colon. */
const kinds: ReadonlyMap<string, (id: string) => boolean> = new Map<string, (id: string) => boolean>([
  ['key', isKeyId],
  ['account', isAccountId],
  ['peer', isPeerId],
  // An invite is named by 32 hex characters, as an epoch is.
  ['invite', isEpochId],
  ['issuer', isIssuerId],
  ['author', isAuthorId],
  ['mesh', isMeshId],
  ['price', isPriceId],
  ['lease', isLeaseId],
]);

const route = /^(?:[A-Z]{3,7} )?\/[A-Za-z0-9._:{}*/-]{0,127}$/;
/** An error code, or one word: no sentence fits. */
const word = /^(?:[A-Za-z][A-Za-z0-9_-]{0,47})?$/;

/** API keys, invites, tokens (JWTs begin with `ey`), IPv4, IPv6. */
const secrets = [
  /sk-hx-/i,
  /hx-invite-/i,
  /(?:^|[^A-Za-z0-9])ey[A-Za-z0-9_-]{6,}/,
  /(?:^|[^0-9])\d{1,3}(?:\.\d{1,3}){3}(?:[^0-9]|$)/,
  /[0-9a-f]*:[0-9a-f]*:[0-9a-f:]*/i,
];

function isReference(text: string): boolean {
  const colon = text.indexOf(':');
  return colon < 0 ? nobody.has(text) : kinds.get(text.slice(0, colon))?.(text.slice(colon + 1)) === true;
}

const isClean = (text: unknown, ...forms: readonly ((text: string) => boolean)[]): boolean =>
  typeof text === 'string' && forms.some((isOf) => isOf(text)) && !secrets.some((secret) => secret.test(text));

const isRoute = (text: string): boolean => route.test(text);
const isWord = (text: string): boolean => word.test(text);
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
    ['actor', isClean(actor, isReference)],
    ['object', isClean(object, isReference, isRoute)],
    ['outcome', outcomes.has(outcome)],
    ['reason', isClean(reason, isWord)],
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
