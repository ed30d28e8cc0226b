/** Keys and accounts: made, listed, changed, taken back. */

import { z } from 'zod';
import type { Named, NewKey } from '../../ledger/desk.ts';
import type { KeyStanding } from '../../ledger/standing.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { KeyGrant, KeyRole, KeyTerms, RateLimits } from '../../protocol/grants.ts';
import { rateLimitsShape } from '../../protocol/grants.ts';
import type { AccountId, KeyId, PeerId } from '../../protocol/ids.ts';
import type { Preferences } from '../../protocol/preferences.ts';
import { type Ms, type UnixMs, unixMs } from '../../protocol/units.ts';
import { malformed } from '../openai/refuse.ts';
import { changed, changedPreferences, given, inLane } from './changes.ts';
import {
  accountField,
  durationField,
  gatewaysField,
  keyField,
  limitsChange,
  modelsField,
  nameField,
  preferencesChange,
  preferencesField,
} from './fields.ts';
import { pageInput, pageOf } from './lists.ts';
import { type AdminContext, actorOf, admins, deskFor, operation, watchers } from './operation.ts';

/** A key as it counts now; never its text. */
export interface KeyView {
  readonly key: KeyId;
  readonly state: 'active' | 'expired' | 'revoked';
  /** Undefined where the name was erased. */
  readonly name?: string;
  readonly account?: AccountId;
  readonly role?: KeyRole;
  readonly gateways?: readonly PeerId[];
  readonly models?: readonly string[];
  readonly limits?: RateLimits;
  readonly preferences?: Preferences;
  readonly createdMs?: UnixMs;
  readonly expiresMs?: UnixMs;
  /** From when on it is good for nothing; may lie ahead, after a rotation. */
  readonly revokedFromMs?: UnixMs;
  /** Requests under way were ended, too. */
  readonly cut?: boolean;
  /** The key it took the place of. */
  readonly replaces?: KeyId;
}

/** A key just made: the only time that its text is shown. */
export interface NewKeyView {
  /** `sk-hx-…`, a secret. */
  readonly text: string;
  readonly key: KeyId;
  readonly account: AccountId;
  readonly role: KeyRole;
  readonly gateways: readonly PeerId[];
  readonly models: readonly string[];
  readonly limits: RateLimits;
  readonly strict: boolean;
  readonly preferences?: Preferences;
  readonly expiresMs?: UnixMs;
}

const termsOf = ({ terms, made }: KeyStanding): KeyTerms | undefined => terms ?? made?.terms;

function stateOf(standing: KeyStanding, nowMs: UnixMs): KeyView['state'] {
  if (standing.revoked !== undefined && standing.revoked.fromMs <= nowMs) return 'revoked';
  const expiresMs = termsOf(standing)?.expiresMs;
  return expiresMs !== undefined && expiresMs <= nowMs ? 'expired' : 'active';
}

export function keyView(standing: KeyStanding & Named, nowMs: UnixMs): KeyView {
  const { key, name, made, revoked } = standing;
  const terms = termsOf(standing);
  return given({
    key,
    state: stateOf(standing, nowMs),
    name,
    account: made?.account,
    role: made?.role,
    gateways: made?.gateways,
    models: terms?.models,
    limits: terms?.limits,
    preferences: terms?.preferences,
    createdMs: made?.atMs,
    expiresMs: terms?.expiresMs,
    revokedFromMs: revoked?.fromMs,
    cut: revoked?.cut,
    replaces: made?.replaces,
  } as KeyView);
}

function newKeyView({ text, grant }: NewKey): NewKeyView {
  const { keyId: key, issuer: _issuer, ...rest }: KeyGrant = grant;
  return given({ text, key, ...rest });
}

const untilMs = ({ clock }: AdminContext, ttlMs: Ms | null | undefined): { expiresMs?: UnixMs } =>
  ttlMs === undefined || ttlMs === null ? {} : { expiresMs: unixMs(clock.wallMs() + ttlMs) };

const ttlField = durationField(1_000, 3_650);
const roleField = z.enum(['user', 'operator', 'admin']);

/** An operator's or admin's key is good at one gateway only: this one, unless the request says which. */
function gatewaysFor({ self }: AdminContext, role: KeyRole, asked: readonly PeerId[]): readonly PeerId[] {
  if (role === 'user') return asked;
  if (asked.length > 1) throw malformed('gateways', `a key with role '${role}' is good at exactly one gateway`);
  return asked.length === 1 ? asked : [self];
}

export const keyOperations = {
  'keys.create': operation({
    method: 'POST',
    path: 'keys',
    roles: admins,
    about: 'Makes a key. Its text is in this answer and nowhere else.',
    input: z.strictObject({
      name: nameField,
      account: accountField.optional(),
      role: roleField.default('user'),
      models: modelsField.default([]),
      limits: rateLimitsShape.default({}),
      ttlMs: ttlField.optional(),
      gateways: gatewaysField.default([]),
      preferences: preferencesField.optional(),
    }),
    run: async (context, { name, account, role, gateways, ttlMs, ...asked }, caller): Promise<NewKeyView> => {
      const { models, limits, preferences } = asked;
      const wishes = preferences === undefined ? {} : { preferences };
      const terms = { models, limits, ...untilMs(context, ttlMs), ...wishes };
      const request = { name, account, role, terms, gateways: gatewaysFor(context, role, gateways) };
      return newKeyView(await deskFor(context, caller).createKey(request, actorOf(caller)));
    },
  }),
  'keys.list': operation({
    method: 'GET',
    path: 'keys',
    roles: watchers,
    about: 'Lists the keys of this issuer, also those that are good no more.',
    input: pageInput,
    run: async (context, page, caller) => {
      const keys = await deskFor(context, caller).keys();
      const { data, hasMore } = pageOf(keys, ({ key }) => key, page);
      return { data: data.map((key) => keyView(key, context.clock.wallMs())), hasMore };
    },
  }),
  'keys.show': operation({
    method: 'GET',
    path: 'keys/:key',
    roles: watchers,
    about: 'Shows one key.',
    input: z.strictObject({ key: keyField }),
    run: async (context, { key }, caller) => keyView(await deskFor(context, caller).key(key), context.clock.wallMs()),
  }),
  'keys.set': operation({
    method: 'PATCH',
    path: 'keys/:key',
    roles: admins,
    about:
      'Changes what a key may be used for; what is not named stays. A null limit, preference, ttlMs or name removes it.',
    input: z.strictObject({
      key: keyField,
      name: nameField.nullable().optional(),
      models: modelsField.optional(),
      limits: limitsChange.optional(),
      ttlMs: ttlField.nullable().optional(),
      preferences: preferencesChange.optional(),
    }),
    run: async (context, { key, name, ...terms }, caller) => {
      const desk = deskFor(context, caller);
      if (name !== undefined) await desk.rename(`key:${key}`, name ?? undefined, actorOf(caller));
      const nowMs = context.clock.wallMs();
      if (Object.values(terms).every((value) => value === undefined)) return keyView(await desk.key(key), nowMs);
      return inLane(desk, key, async () => {
        const before = termsOf(await desk.key(key));
        if (before === undefined) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'key', id: key });
        const { expiresMs } = before;
        const { models, limits, ttlMs } = terms;
        const until = ttlMs === undefined ? (expiresMs === undefined ? {} : { expiresMs }) : untilMs(context, ttlMs);
        const preferences = changedPreferences(before.preferences, terms.preferences);
        const wishes = preferences === undefined ? {} : { preferences };
        const next = { models: models ?? before.models, limits: changed(before.limits, limits), ...until, ...wishes };
        return keyView(await desk.setKey(key, next, actorOf(caller)), nowMs);
      });
    },
  }),
  'keys.rotate': operation({
    method: 'POST',
    path: 'keys/:key/rotate',
    roles: admins,
    about: 'Makes a key like this one, which stays good for graceMs more.',
    input: z.strictObject({ key: keyField, graceMs: durationField(0, 90).default(86_400_000 as Ms) }),
    run: async (context, { key, graceMs }, caller) => {
      const made = await deskFor(context, caller).rotateKey(key, graceMs, actorOf(caller));
      return { ...newKeyView(made), replaces: key, oldUntilMs: made.oldUntilMs };
    },
  }),
  'keys.revoke': operation({
    method: 'POST',
    path: 'keys/:key/revoke',
    roles: admins,
    about: 'Ends a key for good; with cut, also the requests that it has under way.',
    input: z.strictObject({ key: keyField, cut: z.boolean().default(false) }),
    run: async (context, { key, cut }, caller) =>
      keyView(await deskFor(context, caller).revokeKey(key, cut, actorOf(caller)), context.clock.wallMs()),
  }),
};
