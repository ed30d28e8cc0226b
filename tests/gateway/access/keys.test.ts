/** Keys at the gateway's door: remembered once checked, and never trusted longer than they hold. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeEach, describe, test } from 'vitest';
import type { KeyLedger } from '../../../gateway/access/key-ledger.ts';
import { createKeyChecker, type KeyChecker } from '../../../gateway/access/keys.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { type KeyGrant, signKey } from '../../../protocol/grants.ts';
import type { AccountId, IssuerId, KeyId } from '../../../protocol/ids.ts';
import { issuerOf } from '../../../protocol/mesh.ts';
import type { Tokens } from '../../../protocol/ports.ts';
import { ms, type UnixMs, unixMs } from '../../../protocol/units.ts';
import { failure, newMesh, peer, startMs, tokens } from '../../protocol/mesh-fixture.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const mesh = await newMesh('ours');
const other = await newMesh('theirs');
const issuer = issuerOf(mesh.issuer);

const grant: KeyGrant = {
  keyId: '0123456789abcdef' as KeyId,
  issuer: issuer.issuer,
  account: 'team-a' as AccountId,
  role: 'user',
  models: ['helix*'],
  limits: {},
  gateways: [],
  strict: false,
};
const { keyId } = grant;
const make = (changes: Partial<KeyGrant> = {}, by = mesh): Promise<string> =>
  signKey({ ...grant, issuer: issuerOf(by.issuer).issuer, meshId: by.mesh.meshId, ...changes }, by.issuer.key, {
    tokens,
    nowMs: startMs,
  });

let clock: ManualClock;
let issuers: Map<typeof issuer.issuer, typeof issuer>;
let verified: number;
let ledger: FakeLedger;
let checker: KeyChecker;

/** What is known of keys, in the test's hands. */
class FakeLedger implements KeyLedger {
  known: ReturnType<KeyLedger['key']>;
  team: ReturnType<KeyLedger['account']>;
  heardMs: UnixMs | undefined = startMs;

  key(key: KeyId, by: IssuerId): ReturnType<KeyLedger['key']> {
    return key === grant.keyId && by === grant.issuer ? this.known : undefined;
  }

  account(account: AccountId, by: IssuerId): ReturnType<KeyLedger['account']> {
    return account === grant.account && by === grant.issuer ? this.team : undefined;
  }

  asOfMs(): UnixMs | undefined {
    return this.heardMs;
  }
}

const open = (by: Tokens): KeyChecker =>
  createKeyChecker(
    { tokens: by, clock, ledger },
    {
      meshId: mesh.mesh.meshId,
      issuers,
      self: peer('here'),
      maxStaleMs: ms(600_000),
      staleGraceMs: ms(86_400_000),
    },
  );

beforeEach(() => {
  clock = new ManualClock();
  issuers = new Map([[issuer.issuer, issuer]]);
  verified = 0;
  ledger = new FakeLedger();
  const counting: Tokens = {
    ...tokens,
    verify: (...call) => {
      verified += 1;
      return tokens.verify(...call);
    },
  };
  checker = open(counting);
});

test('a key is verified once, and known at once from then on', async ({ expect }) => {
  const text = await make();
  const first = checker.check(text);
  expect(first).toBeInstanceOf(Promise);
  expect(await first).toEqual(grant);
  expect(checker.check(text)).toEqual(grant);
  expect(verified).toBe(1);
});

test('a key that was good at the door is judged anew when its body is there, without being looked up', async ({
  expect,
}) => {
  const access = await checker.check(await make());
  expect(checker.check('whatever', access)).toBe(access);
  ledger.known = { revoked: { fromMs: startMs, cut: false } };
  expect(await failure(() => checker.check('whatever', access))).toEqual({ code: 'KEY_REVOKED', keyId });
  expect(await failure(() => checker.check('whatever', { ...access }))).toEqual({ code: 'KEY_INVALID' });
});

test('many requests with one new key verify it once', async ({ expect }) => {
  const text = await make();
  const all = await Promise.all(Array.from({ length: 50 }, () => checker.check(text)));
  expect(all).toEqual(Array.from({ length: 50 }, () => grant));
  expect(verified).toBe(1);
});

test('a known key stops counting when it expires', async ({ expect }) => {
  const expiresMs = unixMs(startMs + 60_000);
  const text = await make({ expiresMs });
  expect(await checker.check(text)).toEqual({ ...grant, expiresMs });
  await clock.advance(59_999);
  expect(checker.check(text)).toEqual({ ...grant, expiresMs });
  await clock.advance(1);
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_EXPIRED', keyId });
});

test('a key that has expired before it is first seen is refused as expired, each time', async ({ expect }) => {
  const text = await make({ expiresMs: startMs });
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_EXPIRED', keyId });
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_EXPIRED', keyId });
  expect(verified).toBe(1);
});

test('a known key stops counting with its issuer', async ({ expect }) => {
  const text = await make();
  await checker.check(text);
  issuers.clear();
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_INVALID' });
});

test('an issuer that becomes known counts in the same turn', async ({ expect }) => {
  const text = await make();
  issuers.clear();
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_INVALID' });
  expect(verified).toBe(0);
  issuers.set(issuer.issuer, issuer);
  expect(await checker.check(text)).toEqual(grant);
});

test('a forged key is remembered for a minute, no longer', async ({ expect }) => {
  const text = await make();
  const forged = `${text.slice(0, -40)}${'A'.repeat(40)}`;
  for (let time = 0; time < 3; time += 1) {
    expect(await failure(() => checker.check(forged))).toEqual({ code: 'KEY_INVALID' });
  }
  expect(verified).toBe(1);
  await clock.advance(60_000);
  await failure(() => checker.check(forged));
  expect(verified).toBe(2);
});

describe('what the ledger says', () => {
  test('of a key counts with its next request, and no signature is checked for it again', async ({ expect }) => {
    const text = await make();
    await checker.check(text);
    ledger.known = { revoked: { fromMs: unixMs(clock.wallMs() + 1), cut: false } };
    expect(checker.check(text)).toEqual(grant);
    ledger.known = { revoked: { fromMs: clock.wallMs(), cut: false } };
    expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_REVOKED', keyId });
    expect(verified).toBe(1);
  });

  test('takes effect when its time comes', async ({ expect }) => {
    const text = await make();
    await checker.check(text);
    ledger.known = { revoked: { fromMs: unixMs(clock.wallMs() + 5_000), cut: false } };
    await clock.advance(4_999);
    expect(checker.check(text)).toEqual(grant);
    await clock.advance(1);
    expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_REVOKED', keyId });
  });

  test('of its terms stands in place of those in the token, until other ones come', async ({ expect }) => {
    const text = await make();
    await checker.check(text);
    ledger.known = { terms: { models: ['other'], limits: { rpm: 3 } } };
    expect(checker.check(text)).toEqual({ ...grant, models: ['other'], limits: { rpm: 3 } });
    ledger.known = { terms: { models: [], limits: {} } };
    expect(checker.check(text)).toEqual({ ...grant, models: [] });
  });

  test('of terms lets a key live on that has expired by its token, also where it is new', async ({ expect }) => {
    const text = await make({ expiresMs: startMs });
    ledger.known = { terms: { models: [], limits: {}, expiresMs: unixMs(startMs + 1_000) } };
    expect(await checker.check(text)).toMatchObject({ expiresMs: startMs + 1_000 });
    await clock.advance(1_000);
    expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_EXPIRED', keyId });
  });

  test('of the account goes along', async ({ expect }) => {
    const text = await make();
    ledger.team = { limits: { tpm: 5 }, strict: false };
    expect(await checker.check(text)).toEqual({ ...grant, accountLimits: { tpm: 5 } });
    ledger.team = { limits: { tpm: 5 }, strict: true };
    expect(checker.check(text)).toEqual({ ...grant, strict: true, accountLimits: { tpm: 5 } });
    ledger.team = { limits: { tpm: 4 }, strict: true };
    expect(checker.check(text)).toEqual({ ...grant, strict: true, accountLimits: { tpm: 4 } });
    // As a change of `strict` alone would look, were its limits the same object.
    ledger.team = { limits: ledger.team.limits, strict: false };
    expect(checker.check(text)).toEqual({ ...grant, accountLimits: { tpm: 4 } });
  });

  test('is the same object until something changes', async ({ expect }) => {
    const text = await make();
    const first = await checker.check(text);
    expect(checker.check(text)).toBe(first);
    ledger.known = { terms: { models: [], limits: {} } };
    const second = checker.check(text);
    expect(second).not.toBe(first);
    expect(checker.check(text)).toBe(second);
  });
});

describe('a gateway that hears nothing of the issuer', () => {
  test('marks what it serves, and serves it no longer than the grace', async ({ expect }) => {
    const text = await make();
    const strict = await make({ strict: true });
    expect(await checker.check(text)).toEqual(grant);
    expect(await checker.check(strict)).toEqual({ ...grant, strict: true });
    await clock.advance(600_001);
    expect(checker.check(text)).toEqual({ ...grant, staleSeconds: 600 });
    expect(await failure(() => checker.check(strict))).toEqual({ code: 'KEY_UNVERIFIABLE', staleSeconds: 600, keyId });
    await clock.advance(86_400_000);
    expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_UNVERIFIABLE', staleSeconds: 87_000, keyId });
    ledger.heardMs = clock.wallMs();
    expect(checker.check(text)).toEqual(grant);
  });

  test('and never has: it serves, marked from the start, for the grace after its start', async ({ expect }) => {
    ledger.heardMs = undefined;
    const text = await make();
    expect(await checker.check(text)).toEqual({ ...grant, staleSeconds: 600 });
    expect(await failure(async () => checker.check(await make({ strict: true })))).toMatchObject({
      code: 'KEY_UNVERIFIABLE',
    });
    await clock.advance(86_400_000);
    expect(await failure(() => checker.check(text))).toMatchObject({ code: 'KEY_UNVERIFIABLE' });
  });
});

test('a key for other gateways is refused here', async ({ expect }) => {
  expect(await failure(async () => checker.check(await make({ gateways: [peer('there')] })))).toEqual({
    code: 'KEY_NOT_HERE',
    keyId,
  });
  expect(await checker.check(await make({ gateways: [peer('there'), peer('here')] }))).toMatchObject({
    models: grant.models,
  });
});

test('keys of another mesh, changed keys and what is no key are refused', async ({ expect }) => {
  const text = await make();
  await checker.check(text);
  const wrong = [await make({}, other), `${text}x`, text.slice(0, -1), text.toLowerCase(), '', 'sk-', 'x'.repeat(1e6)];
  for (const bad of wrong) expect(await failure(() => checker.check(bad))).toEqual({ code: 'KEY_INVALID' });
});

test('a flood of wrong keys pushes no good one out, and is not verified twice', async ({ expect }) => {
  const text = await make();
  await checker.check(text);
  const forged = await make({ keyId: 'ffffffffffffffff' as KeyId });
  const changed = `${forged.slice(0, -40)}${'A'.repeat(40)}`;
  for (let time = 0; time < 2; time += 1) await failure(() => checker.check(changed));
  expect(verified).toBe(2);
  for (let index = 0; index < 3_000; index += 1) await failure(() => checker.check(`sk-hx-${index}`));
  expect(checker.check(text)).toEqual(grant);
  await failure(() => checker.check(changed));
  expect(verified).toBe(2);
});

test('of more keys than fit, the one used longest ago is forgotten', async ({ expect }) => {
  const fake: Tokens = {
    ...tokens,
    peekIssuer: () => issuer.issuer,
    verify: async () => {
      verified += 1;
      return {
        iss: grant.issuer,
        aud: mesh.mesh.meshId,
        sub: grant.keyId,
        iat: 0,
        account: 'a',
        role: 'user',
        models: [],
      };
    },
  };
  checker = open(fake);
  for (let index = 0; index < 10_000; index += 1) await checker.check(`sk-hx-${index}`);
  await checker.check('sk-hx-0');
  await checker.check('sk-hx-new');
  const before = verified;
  expect(checker.check('sk-hx-0')).not.toBeInstanceOf(Promise);
  expect(checker.check('sk-hx-1')).toBeInstanceOf(Promise);
  expect(verified).toBe(before + 1);
});

test('a flood of forged keys pushes no good one out, and leaves nothing behind', async ({ expect }) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const refusing: Tokens = {
    ...tokens,
    verify: async (kind, token, expected) => {
      if (token.length > 100) return tokens.verify(kind, token, expected);
      throw new HelixFlowError('TOKEN_INVALID', { reason: 'the signature does not fit' });
    },
    peekIssuer: () => issuer.issuer,
  };
  checker = open(refusing);
  const text = await make();
  await checker.check(text);
  const flood = async (second: number): Promise<void> => {
    const forged = Array.from({ length: 10_000 }, (_, index) =>
      failure(() => checker.check(`sk-hx-${second}.${index}`)),
    );
    expect(new Set((await Promise.all(forged)).map((each) => JSON.stringify(each)))).toEqual(
      new Set(['{"code":"KEY_INVALID"}']),
    );
    expect(checker.check(text)).toEqual(grant);
  };
  const heapAfter = async (second: number): Promise<number> => {
    await flood(second);
    collect();
    return process.memoryUsage().heapUsed;
  };
  await heapAfter(0);
  const before = await heapAfter(1);
  for (let second = 2; second < 6; second += 1) await flood(second);
  expect((await heapAfter(6)) - before).toBeLessThan(2_000_000);
});
