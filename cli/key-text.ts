/** Keys and accounts in words and in JSON lines. */

import type { KeyView, NewKeyView } from '../gateway/admin/key-operations.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { RateLimits } from '../protocol/grants.ts';
import type { Preferences } from '../protocol/preferences.ts';
import { columns, isoOf, moment } from './lists.ts';

/** What `set` was told about the name: another one, null to erase it, undefined to leave it. */
export function nameChange({ name, forgetName }: { readonly name: string | undefined; readonly forgetName: boolean }) {
  if (name !== undefined && forgetName) {
    throw new HelixFlowError('CONFIG_INVALID', { reason: '--name and --forget-name exclude each other' });
  }
  return forgetName ? null : name;
}

/** `, 60 requests/min`; empty without limits. */
export function describeLimits({ rpm, tpm, concurrency }: RateLimits): string {
  const words = [
    rpm === undefined ? '' : `, ${rpm} requests/min`,
    tpm === undefined ? '' : `, ${tpm} tokens/min`,
    concurrency === undefined ? '' : `, ${concurrency} at a time`,
  ];
  return words.join('');
}

/** Where a key stands; one that was replaced is still good until the end of its grace. */
const stateCell = ({ state, revokedFromMs }: KeyView): string =>
  state === 'active' && revokedFromMs !== undefined ? `until ${moment(revokedFromMs)}` : state;

/** A revocation counts from a little before it was made, for clocks that differ. */
function stateText(key: KeyView): string {
  if (key.state === 'active' && key.revokedFromMs !== undefined) return `active ${stateCell(key)}`;
  if (key.state !== 'revoked') return key.state;
  return `revoked (counts from ${moment(key.revokedFromMs)})${key.cut === true ? ', cut' : ''}`;
}

export const limitsCell = (limits: RateLimits | undefined): string =>
  (limits === undefined ? '' : describeLimits(limits).slice(2)) || 'none';

/** The one JSON line of a key just made; `key` is the secret. */
export const newKeyValue = (made: NewKeyView): object => ({
  id: made.key,
  key: made.text,
  account: made.account,
  role: made.role,
  models: made.models,
  limits: made.limits,
  gateways: made.gateways,
  strict: made.strict,
  preferences: made.preferences,
  expires: isoOf(made.expiresMs),
});

/** `Key 1f… of account a, good without end`. */
export const newKeyText = ({ key, account, role, expiresMs }: NewKeyView): string =>
  `Key ${key} of account ${account}${role === 'user' ? '' : `, ${role}`}, good ${expiresMs === undefined ? 'without end' : `until ${moment(expiresMs)}`}`;

/** A key as the JSON lines show it. */
export const keyValue = (key: KeyView): object => ({
  id: key.key,
  state: key.state,
  name: key.name,
  account: key.account,
  role: key.role,
  models: key.models,
  limits: key.limits,
  gateways: key.gateways,
  preferences: key.preferences,
  created: isoOf(key.createdMs),
  expires: isoOf(key.expiresMs),
  revokedFrom: isoOf(key.revokedFromMs),
  cut: key.cut,
  replaces: key.replaces,
});

function preferenceLines({ prefer, region, nodes }: Preferences = {}): string[] {
  return [
    ...(prefer === undefined ? [] : [`prefers   ${prefer === 'price' ? 'cheap nodes' : 'the soonest node'}`]),
    ...(region === undefined ? [] : [`region    ${region}, where it has a node`]),
    ...(nodes?.allow === undefined ? [] : [`nodes     only ${nodes.allow.join(', ') || 'none'}`]),
    ...(nodes?.deny === undefined ? [] : [`not at    ${nodes.deny.join(', ')}`]),
  ];
}

/** A key on lines of its own. */
export const keyText = (key: KeyView): string =>
  [
    `key       ${key.key}  ${key.name ?? '(no name here)'}`,
    `state     ${stateText(key)}`,
    `account   ${key.account ?? 'unknown'}`,
    `role      ${key.role ?? 'unknown'}`,
    `models    ${key.models?.join(', ') || 'every model'}`,
    `limits    ${limitsCell(key.limits)}`,
    `gateways  ${key.gateways?.join(', ') || 'all'}`,
    ...preferenceLines(key.preferences),
    `created   ${moment(key.createdMs)}`,
    `expires   ${moment(key.expiresMs)}`,
    ...(key.replaces === undefined ? [] : [`replaces  ${key.replaces}`]),
  ].join('\n');

export const keyTable = (keys: readonly KeyView[]): string =>
  keys.length === 0
    ? 'no keys'
    : columns(
        ['KEY', 'NAME', 'STATE', 'ROLE', 'ACCOUNT', 'LIMITS', 'EXPIRES'],
        keys.map((key) => [
          key.key,
          key.name ?? '-',
          stateCell(key),
          key.role ?? '-',
          key.account ?? '-',
          limitsCell(key.limits),
          moment(key.expiresMs),
        ]),
      );
