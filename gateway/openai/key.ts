/** `GET /v1/keys/self`: what the key of the request may do, and what it has left at this gateway. */

import type { RateLimits } from '../../protocol/grants.ts';
import type { Access } from '../access/judge.ts';
import type { Rate } from '../access/subject.ts';

const printLimits = ({ rpm, tpm, concurrency }: RateLimits = {}): object => ({
  rpm: rpm ?? null,
  tpm: tpm ?? null,
  concurrency: concurrency ?? null,
});

/** The key as JSON. In limits and in what remains, `null` is unlimited; `remaining` counts the account's, too. */
export function selfKey(access: Access, rate: Rate | undefined): string {
  const { keyId, account, role, models, gateways, strict, expiresMs, preferences = {} } = access;
  return JSON.stringify({
    object: 'key',
    id: keyId,
    account,
    role,
    models,
    gateways,
    strict,
    preferences,
    expires_at: expiresMs === undefined ? null : Math.floor(expiresMs / 1_000),
    limits: printLimits(access.limits),
    account_limits: printLimits(access.accountLimits),
    remaining: {
      requests: rate?.requests?.remaining ?? null,
      tokens: rate?.tokens?.remaining ?? null,
      concurrency: rate?.concurrency?.remaining ?? null,
    },
  });
}
