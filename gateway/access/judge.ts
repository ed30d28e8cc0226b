/** Whether an API key counts at this gateway at this moment: a pure decision over its token and what the ledger says of it. */

import type { Budget } from '../../ledger/money.ts';
import { type AccountStanding, type KeyStanding, termsOf } from '../../ledger/standing.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { KeyGrant, RateLimits } from '../../protocol/grants.ts';
import type { KeyId, PeerId } from '../../protocol/ids.ts';
import type { Ms, UnixMs } from '../../protocol/units.ts';

/** What a key may do now: its grant, with the terms that count in place of the token's. */
export interface Access extends KeyGrant {
  /** Of all keys of the account together; absent: none. */
  readonly accountLimits?: RateLimits;
  /** What all keys of the account together may spend; absent: as much as they like. */
  readonly budget?: Budget;
  /** Whole seconds since the issuer last vouched for what this gateway knows; present when that is too long ago. */
  readonly staleSeconds?: number;
}

/** How long a gateway may have heard nothing of an issuer. */
export interface StalePolicy {
  /** Up to this age everything is as usual. */
  readonly maxStaleMs: Ms;
  /** For this much longer keys that are neither strict nor an operator's or admin's are served, and marked. */
  readonly staleGraceMs: Ms;
}

/** What is judged. */
export interface KeyFacts {
  readonly grant: KeyGrant;
  /** The root has named its issuer, and not taken it back. */
  readonly isIssuerGood: boolean;
  readonly standing: Pick<KeyStanding, 'terms' | 'revoked'> | undefined;
  readonly account: Pick<AccountStanding, 'limits' | 'strict' | 'budget' | 'isErased'> | undefined;
  /** The issuer has vouched for everything that this gateway holds, at this moment. */
  readonly asOfMs: UnixMs;
  readonly nowMs: UnixMs;
}

export type KeyRefusalCode = 'KEY_INVALID' | 'KEY_REVOKED' | 'KEY_EXPIRED' | 'KEY_NOT_HERE' | 'KEY_UNVERIFIABLE';

/** `staleSeconds` is 0 while the gateway knows enough. */
export type Verdict =
  | { readonly kind: 'good'; readonly staleSeconds: number }
  | { readonly kind: 'refused'; readonly code: KeyRefusalCode; readonly staleSeconds: number };

const fresh: Verdict = { kind: 'good', staleSeconds: 0 };
const refused = (code: KeyRefusalCode, staleSeconds = 0): Verdict => ({ kind: 'refused', code, staleSeconds });

/** An operator's or admin's key names one gateway and is good at no other; a user's may name none. */
function isGoodHere({ role, gateways }: KeyGrant, self: PeerId): boolean {
  if (role === 'user') return gateways.length === 0 || gateways.includes(self);
  return gateways.length === 1 && gateways[0] === self;
}

const isUnforgiving = ({ grant, account }: KeyFacts): boolean =>
  grant.strict || grant.role !== 'user' || account?.strict === true;

/** What is certain comes first: a key that was revoked stays so, however old this gateway's knowledge is. */
export function judgeKey(facts: KeyFacts, self: PeerId, { maxStaleMs, staleGraceMs }: StalePolicy): Verdict {
  const { grant, isIssuerGood, standing, asOfMs, nowMs } = facts;
  if (!isIssuerGood) return refused('KEY_INVALID');
  if (facts.account?.isErased === true) return refused('KEY_REVOKED');
  if (standing?.revoked !== undefined && standing.revoked.fromMs <= nowMs) return refused('KEY_REVOKED');
  const { expiresMs } = standing?.terms ?? grant;
  if (expiresMs !== undefined && expiresMs <= nowMs) return refused('KEY_EXPIRED');
  if (!isGoodHere(grant, self)) return refused('KEY_NOT_HERE');
  const ageMs = nowMs - asOfMs;
  if (ageMs <= maxStaleMs) return fresh;
  const staleSeconds = Math.floor(ageMs / 1_000);
  if (isUnforgiving(facts) || ageMs > maxStaleMs + staleGraceMs) return refused('KEY_UNVERIFIABLE', staleSeconds);
  return { kind: 'good', staleSeconds };
}

/** The error that tells of a refusal of this key, whose signature is good. */
export function refusalError(
  { code, staleSeconds }: Extract<Verdict, { kind: 'refused' }>,
  keyId: KeyId,
): HelixFlowError {
  if (code === 'KEY_INVALID') return new HelixFlowError(code, {});
  return code === 'KEY_UNVERIFIABLE'
    ? new HelixFlowError(code, { staleSeconds, keyId })
    : new HelixFlowError(code, { keyId });
}

/** What a key that was found good may do. */
export function accessOf({ grant, standing, account }: KeyFacts, staleSeconds: number): Access {
  const { models, limits, expiresMs, preferences } = termsOf(grant, standing as KeyStanding | undefined);
  const { expiresMs: _tokens, preferences: _wishes, ...rest } = grant;
  return {
    ...rest,
    models,
    limits,
    strict: grant.strict || account?.strict === true,
    ...(expiresMs === undefined ? {} : { expiresMs }),
    ...(preferences === undefined ? {} : { preferences }),
    ...(account === undefined ? {} : { accountLimits: account.limits }),
    ...(account?.budget === undefined ? {} : { budget: account.budget }),
    ...(staleSeconds === 0 ? {} : { staleSeconds }),
  };
}
