/** Keys at the gateway's door: remembered once checked, and never trusted longer than they hold. */

import { beforeEach, test } from 'vitest';
import { createKeyChecker, type KeyChecker } from '../../../gateway/access/keys.ts';
import { type KeyGrant, signKey } from '../../../protocol/grants.ts';
import type { AccountId, KeyId } from '../../../protocol/ids.ts';
import { issuerOf } from '../../../protocol/mesh.ts';
import type { Tokens } from '../../../protocol/ports.ts';
import { unixMs } from '../../../protocol/units.ts';
import { failure, newMesh, startMs, tokens } from '../../protocol/mesh-fixture.ts';
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
const make = (changes: Partial<KeyGrant> = {}, by = mesh): Promise<string> =>
  signKey({ ...grant, issuer: issuerOf(by.issuer).issuer, meshId: by.mesh.meshId, ...changes }, by.issuer.key, {
    tokens,
    nowMs: startMs,
  });

let clock: ManualClock;
let issuers: Map<typeof issuer.issuer, typeof issuer>;
let verified: number;
let checker: KeyChecker;

beforeEach(() => {
  clock = new ManualClock();
  issuers = new Map([[issuer.issuer, issuer]]);
  verified = 0;
  const counting: Tokens = {
    ...tokens,
    verify: (...call) => {
      verified += 1;
      return tokens.verify(...call);
    },
  };
  checker = createKeyChecker({ tokens: counting, clock }, { meshId: mesh.mesh.meshId, issuers });
});

test('a key is verified once, and known at once from then on', async ({ expect }) => {
  const text = await make();
  const first = checker.check(text);
  expect(first).toBeInstanceOf(Promise);
  expect(await first).toEqual(grant);
  expect(checker.check(text)).toEqual(grant);
  expect(verified).toBe(1);
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
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_EXPIRED' });
});

test('a key that has expired before it is first seen is refused as expired, each time', async ({ expect }) => {
  const text = await make({ expiresMs: startMs });
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_EXPIRED' });
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_EXPIRED' });
  expect(verified).toBe(1);
});

test('a known key stops counting with its issuer', async ({ expect }) => {
  const text = await make();
  await checker.check(text);
  issuers.clear();
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_INVALID' });
});

test('a refusal is remembered for a minute, no longer: its issuer may become known', async ({ expect }) => {
  const text = await make();
  issuers.clear();
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_INVALID' });
  issuers.set(issuer.issuer, issuer);
  expect(await failure(() => checker.check(text))).toEqual({ code: 'KEY_INVALID' });
  await clock.advance(60_000);
  expect(await checker.check(text)).toEqual(grant);
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
  expect(verified).toBe(2);
  await failure(() => checker.check(changed));
  expect(verified).toBe(3);
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
  checker = createKeyChecker({ tokens: fake, clock }, { meshId: mesh.mesh.meshId, issuers });
  for (let index = 0; index < 10_000; index += 1) await checker.check(`sk-hx-${index}`);
  await checker.check('sk-hx-0');
  await checker.check('sk-hx-new');
  const before = verified;
  expect(checker.check('sk-hx-0')).not.toBeInstanceOf(Promise);
  expect(checker.check('sk-hx-1')).toBeInstanceOf(Promise);
  expect(verified).toBe(before + 1);
});
