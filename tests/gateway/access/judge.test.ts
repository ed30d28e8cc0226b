/** Whether a key counts, cell by cell. */

import { describe, test } from 'vitest';
import { accessOf, judgeKey, type KeyFacts, refusalError } from '../../../gateway/access/judge.ts';
import type { KeyGrant } from '../../../protocol/grants.ts';
import type { AccountId, IssuerId, KeyId, PeerId } from '../../../protocol/ids.ts';
import { ms, unixMs } from '../../../protocol/units.ts';

const self = '12D3KooWSeEf' as PeerId;
const other = '12D3KooWother' as PeerId;
const nowMs = unixMs(1_700_000_000_000);
const policy = { maxStaleMs: ms(600_000), staleGraceMs: ms(86_400_000) };
const edgeMs = policy.maxStaleMs;
const endMs = policy.maxStaleMs + policy.staleGraceMs;

const grant: KeyGrant = {
  keyId: '0123456789abcdef' as KeyId,
  issuer: '12'.repeat(16) as IssuerId,
  account: 'team-a' as AccountId,
  role: 'user',
  models: ['helix*'],
  limits: { rpm: 10 },
  gateways: [],
  strict: false,
};

interface Cell {
  readonly grant?: Partial<KeyGrant>;
  readonly facts?: Partial<KeyFacts>;
  readonly ageMs?: number;
}

const factsOf = ({ grant: changes = {}, facts = {}, ageMs = 0 }: Cell): KeyFacts => ({
  grant: { ...grant, ...changes },
  isIssuerGood: true,
  standing: undefined,
  account: undefined,
  asOfMs: unixMs(nowMs - ageMs),
  nowMs,
  ...facts,
});
const verdictOf = (cell: Cell): string => {
  const verdict = judgeKey(factsOf(cell), self, policy);
  if (verdict.kind === 'refused') return verdict.code;
  return verdict.staleSeconds === 0 ? 'good' : `good, ${verdict.staleSeconds} s stale`;
};

const revoked = (fromMs: number, cut = false) => ({ standing: { revoked: { fromMs: unixMs(fromMs), cut } } });
const terms = (expiresMs?: number) => ({
  standing: { terms: { models: [], limits: {}, ...(expiresMs === undefined ? {} : { expiresMs: unixMs(expiresMs) }) } },
});
const expires = (expiresMs: number) => ({ expiresMs: unixMs(expiresMs) });
const admin = { role: 'admin', gateways: [self] } as const;
const strictAccount = { account: { limits: {}, strict: true } };

describe('a key', () => {
  test.for<[string, Cell, string]>([
    ['that nothing is known of beyond its token', {}, 'good'],
    ['by an issuer that counts no more', { facts: { isIssuerGood: false } }, 'KEY_INVALID'],
    ['of such an issuer, revoked too', { facts: { isIssuerGood: false, ...revoked(0) } }, 'KEY_INVALID'],
    ['revoked long ago', { facts: revoked(0) }, 'KEY_REVOKED'],
    ['revoked with a cut', { facts: revoked(0, true) }, 'KEY_REVOKED'],
    [
      'of an account that was erased',
      { facts: { account: { limits: {}, strict: false, isErased: true } } },
      'KEY_REVOKED',
    ],
    ['revoked from this moment on', { facts: revoked(nowMs) }, 'KEY_REVOKED'],
    ['revoked from the next millisecond on, as after a rotation', { facts: revoked(nowMs + 1) }, 'good'],
    ['revoked and expired', { grant: expires(0), facts: revoked(0) }, 'KEY_REVOKED'],
    ['revoked, at a gateway that knows nothing new', { facts: revoked(0), ageMs: endMs + 1 }, 'KEY_REVOKED'],
    ['that expires in a millisecond', { grant: expires(nowMs + 1) }, 'good'],
    ['that expires now', { grant: expires(nowMs) }, 'KEY_EXPIRED'],
    ['that expired at another gateway', { grant: { ...expires(0), gateways: [other] } }, 'KEY_EXPIRED'],
    ['expired by its token, with a later end by its terms', { grant: expires(0), facts: terms(nowMs + 1) }, 'good'],
    ['expired by its token, with no end by its terms', { grant: expires(0), facts: terms() }, 'good'],
    ['good by its token, expired by its terms', { grant: expires(nowMs + 1), facts: terms(nowMs) }, 'KEY_EXPIRED'],
    ['good at this gateway', { grant: { gateways: [self] } }, 'good'],
    ['good at this gateway and another', { grant: { gateways: [other, self] } }, 'good'],
    ['good at another gateway', { grant: { gateways: [other] } }, 'KEY_NOT_HERE'],
    ['of an operator, good here', { grant: { ...admin, role: 'operator' } }, 'good'],
    ['of an admin, good here', { grant: admin }, 'good'],
    ['of an admin, good elsewhere', { grant: { role: 'admin', gateways: [other] } }, 'KEY_NOT_HERE'],
    ['of an admin, good everywhere', { grant: { role: 'admin', gateways: [] } }, 'KEY_NOT_HERE'],
    ['of an operator, good at two', { grant: { role: 'operator', gateways: [self, other] } }, 'KEY_NOT_HERE'],
    ['of an admin, elsewhere and stale', { grant: { role: 'admin', gateways: [other] }, ageMs: endMs }, 'KEY_NOT_HERE'],
  ])('%s: %3$s', ([, cell, verdict], { expect }) => {
    expect(verdictOf(cell)).toBe(verdict);
  });
});

describe('at a gateway that has heard nothing of the issuer', () => {
  const ages = [0, edgeMs, edgeMs + 1, endMs, endMs + 1, -60_000];
  const served = ['good', 'good', 'good, 600 s stale', 'good, 87000 s stale', 'KEY_UNVERIFIABLE', 'good'];
  const unforgiving = ['good', 'good', 'KEY_UNVERIFIABLE', 'KEY_UNVERIFIABLE', 'KEY_UNVERIFIABLE', 'good'];

  test.for<[string, Cell, readonly string[]]>([
    ['a user’s key', {}, served],
    ['a user’s key for this gateway alone', { grant: { gateways: [self] } }, served],
    ['a strict key', { grant: { strict: true } }, unforgiving],
    ['a key of a strict account', { facts: strictAccount }, unforgiving],
    ['an operator’s key', { grant: { ...admin, role: 'operator' } }, unforgiving],
    ['an admin’s key', { grant: admin }, unforgiving],
  ])('%s, by the age of what is known', ([, cell, verdicts], { expect }) => {
    expect(ages.map((ageMs) => verdictOf({ ...cell, ageMs }))).toEqual(verdicts);
  });
});

test('a refusal names how old the knowledge is only where that is the reason', ({ expect }) => {
  const stale = judgeKey(factsOf({ ageMs: endMs + 1 }), self, policy);
  const gone = judgeKey(factsOf({ facts: revoked(0) }), self, policy);
  const keyId = '00000000000000aa' as KeyId;
  const details = [stale, gone].map((verdict) => verdict.kind === 'refused' && refusalError(verdict, keyId).details);
  expect(details).toEqual([{ staleSeconds: 87_000, keyId }, { keyId }]);
});

test('what a key may do are the terms that an entry set, all of them, and the limits of its account', ({ expect }) => {
  const facts = factsOf({
    grant: { ...expires(nowMs + 5), preferences: { prefer: 'price' } },
    facts: { ...terms(), account: { limits: { tpm: 7 }, strict: true } },
  });
  const { expiresMs: _, preferences: _wishes, ...rest } = facts.grant;
  expect(accessOf(facts, 601)).toEqual({
    ...rest,
    models: [],
    limits: {},
    strict: true,
    accountLimits: { tpm: 7 },
    staleSeconds: 601,
  });
  expect(accessOf(factsOf({ grant: expires(nowMs + 5) }), 0)).toEqual({ ...grant, ...expires(nowMs + 5) });
  const wishes = { preferences: { region: 'eu', nodes: { deny: [other] } } };
  expect(accessOf(factsOf({ grant: wishes }), 0)).toEqual({ ...grant, ...wishes });
  const set = { standing: { terms: { models: [], limits: {}, preferences: { prefer: 'price' as const } } } };
  expect(accessOf(factsOf({ grant: wishes, facts: set }), 0).preferences).toEqual({ prefer: 'price' });
});
