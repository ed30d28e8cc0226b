/** What every `Tokens` keeps to, attackers included. */

import { createHmac, createPrivateKey, sign } from 'node:crypto';
import fc from 'fast-check';
import { describe, test } from 'vitest';
import { keyFromSeed, toBase64Url } from '../../protocol/crypto.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import { issuerIdOf, meshIdOf } from '../../protocol/grants.ts';
import { limits } from '../../protocol/limits.ts';
import type { SigningKey, TokenClaims, TokenKind, Tokens } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';

const kinds: readonly TokenKind[] = ['issuer', 'membership', 'invite', 'key'];
const types = ['hx-issuer+jwt', 'hx-member+jwt', 'hx-invite+jwt', 'hx-key+jwt'];

const seeded = (byte: number): SigningKey => keyFromSeed(new Uint8Array(32).fill(byte));
const issuer = seeded(1);
const attacker = seeded(2);
const meshId = meshIdOf(seeded(3).publicKey);
const nowMs = unixMs(1_800_000_000_000);
const claims: TokenClaims = {
  iss: issuerIdOf(issuer.publicKey),
  aud: meshId,
  sub: 'somebody',
  iat: 1_800_000_000,
  exp: 1_800_000_600,
  list: ['ü', 1, null, { nested: true }],
};
const expected = { publicKey: issuer.publicKey, iss: claims.iss, aud: meshId, nowMs };

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token that somebody else made, with any header. */
function forge(header: object, body: object, key: SigningKey): string {
  const input = `${encode(header)}.${encode(body)}`;
  const d = toBase64Url(key.seed);
  const x = toBase64Url(key.publicKey);
  const privateKey = createPrivateKey({ key: { kty: 'OKP', crv: 'Ed25519', d, x }, format: 'jwk' });
  return `${input}.${sign(null, Buffer.from(input), privateKey).toString('base64url')}`;
}

/** The reason of the one error that `verify` may throw; anything else, acceptance too, comes out as a sentence. */
async function refusal(
  tokens: Tokens,
  token: string,
  more: Partial<typeof expected & { ignoresExpiry: boolean }> = {},
  kind: TokenKind = 'key',
) {
  try {
    await tokens.verify(kind, token, { ...expected, ...more });
    return 'NOT REFUSED';
  } catch (error) {
    return isHelixFlowError(error, 'TOKEN_INVALID') ? error.details.reason : `NOT TYPED: ${error}`;
  }
}

const isRefusal = (reason: string): boolean => !reason.startsWith('NOT ') && reason.length > 0;

/** Runs the suite. @param open Makes the adapter under test. */
export function tokensContract(name: string, open: () => Tokens): void {
  const tokens = open();
  const signed = tokens.sign('key', claims, issuer);

  describe(`${name} keeps the contract of Tokens`, () => {
    test('a token gives back its claims', async ({ expect }) => {
      for (const kind of kinds) {
        const token = await tokens.sign(kind, claims, issuer);
        expect(await tokens.verify(kind, token, expected)).toEqual(claims);
        expect(tokens.peekIssuer(kind, token)).toBe(claims.iss);
      }
    });

    test('a token without end never expires', async ({ expect }) => {
      const { exp: _, ...endless } = claims;
      const token = await tokens.sign('issuer', endless, issuer);
      const muchLater = { ...expected, nowMs: unixMs(nowMs + 1e12) };
      expect(await tokens.verify('issuer', token, muchLater)).toEqual(endless);
    });

    test('a token is one line of URL-safe characters', async ({ expect }) => {
      expect(await signed).toMatch(/^[A-Za-z0-9_.-]+$/);
    });

    test('a token of one kind is none of another', async ({ expect }) => {
      for (const made of kinds) {
        const token = await tokens.sign(made, claims, issuer);
        for (const asked of kinds.filter((kind) => kind !== made)) {
          expect(await refusal(tokens, token, {}, asked)).toSatisfy(isRefusal);
          expect(tokens.peekIssuer(asked, token)).toBeUndefined();
        }
      }
    });

    test('expiry counts to the second, and is named when it is the only fault', async ({ expect }) => {
      const at = async (when: number) => refusal(tokens, await signed, { nowMs: unixMs(when) });
      expect(await at(1_800_000_600_000 - 1)).toBe('NOT REFUSED');
      expect(await at(1_800_000_600_000)).toBe('expired');
      expect(await at(1_800_000_600_000 + 1e12)).toBe('expired');
    });

    test('expiry does not count for a caller who judges it alone, everything else does', async ({ expect }) => {
      const late = { ignoresExpiry: true, nowMs: unixMs(1_900_000_000_000) };
      expect(await refusal(tokens, await signed, late)).toBe('NOT REFUSED');
      expect(await refusal(tokens, await signed, { ...late, publicKey: attacker.publicKey })).toSatisfy(isRefusal);
      expect(await refusal(tokens, await signed, { ...late, aud: meshIdOf(attacker.publicKey) })).toSatisfy(isRefusal);
    });

    test('expiry is not named when there is another fault', async ({ expect }) => {
      const late = { nowMs: unixMs(nowMs + 1e9) };
      const faults = [
        await refusal(tokens, await signed, { ...late, publicKey: attacker.publicKey }),
        await refusal(tokens, await signed, { ...late, aud: meshIdOf(attacker.publicKey) }),
        await refusal(tokens, await signed, { ...late, iss: issuerIdOf(attacker.publicKey) }),
        await refusal(tokens, await signed, late, 'membership'),
      ];
      for (const reason of faults) expect(reason).toSatisfy((text: string) => isRefusal(text) && text !== 'expired');
    });

    test('a clock that is up to a minute behind the signer is tolerated, more is not', async ({ expect }) => {
      const skew = limits.clockSkewMaxMs;
      expect(await refusal(tokens, await signed, { nowMs: unixMs(nowMs - skew) })).toBe('NOT REFUSED');
      expect(await refusal(tokens, await signed, { nowMs: unixMs(nowMs - skew - 1_000) })).toSatisfy(isRefusal);
    });

    test('another signer, another mesh or another key is refused', async ({ expect }) => {
      const foreign = { ...claims, iss: issuerIdOf(attacker.publicKey) };
      const reasons = [
        await refusal(tokens, await signed, { publicKey: attacker.publicKey }),
        await refusal(tokens, await signed, { aud: meshIdOf(attacker.publicKey) }),
        await refusal(tokens, await signed, { iss: issuerIdOf(attacker.publicKey) }),
        await refusal(tokens, await tokens.sign('key', claims, attacker)),
        await refusal(tokens, await tokens.sign('key', foreign, attacker)),
        await refusal(tokens, await tokens.sign('key', foreign, issuer)),
      ];
      for (const reason of reasons) expect(reason).toSatisfy(isRefusal);
    });

    test('no change of a single bit is accepted', { timeout: 120_000 }, async ({ expect }) => {
      const bytes = Buffer.from(await signed, 'latin1');
      for (let at = 0; at < bytes.length; at += 1) {
        for (let bit = 0; bit < 8; bit += 1) {
          const changed = Buffer.from(bytes);
          changed[at] = (changed[at] ?? 0) ^ (1 << bit);
          const token = changed.toString('latin1');
          expect(await refusal(tokens, token), `byte ${at} bit ${bit}`).toSatisfy(isRefusal);
        }
      }
    });

    test('no other text of the same token is accepted', async ({ expect }) => {
      const token = await signed;
      const spare = token.slice(0, -1) + String.fromCharCode(token.charCodeAt(token.length - 1) + 1);
      const texts = [
        ` ${token}`,
        `${token} `,
        `${token}\n`,
        `${token}=`,
        `${token}==`,
        `${token}.`,
        `.${token}`,
        spare,
      ];
      const split = token.split('.');
      texts.push(split.join('. '), split.map((part) => `${part}=`).join('.'), token.toUpperCase());
      for (const text of texts) expect(await refusal(tokens, text)).toSatisfy(isRefusal);
    });

    test('every truncation is refused', async ({ expect }) => {
      const token = await signed;
      for (let length = 0; length < token.length; length += 1) {
        expect(await refusal(tokens, token.slice(0, length))).toSatisfy(isRefusal);
      }
    });

    test('the header cannot choose how it is checked', async ({ expect }) => {
      const header = { alg: 'EdDSA', typ: 'hx-key+jwt', kid: claims.iss };
      const jwk = { kty: 'OKP', crv: 'Ed25519', x: toBase64Url(attacker.publicKey) };
      const unsigned = `${encode({ ...header, alg: 'none' })}.${encode(claims)}`;
      const mac = (alg: string, secret: string | Uint8Array) => {
        const input = `${encode({ ...header, alg })}.${encode(claims)}`;
        return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
      };
      const attacks = {
        none: `${unsigned}.`,
        'none, with bytes for a signature': `${unsigned}.${'A'.repeat(86)}`,
        'none, in capitals': `${encode({ ...header, alg: 'NONE' })}.${encode(claims)}.`,
        'HS256 with the public key': mac('HS256', issuer.publicKey),
        'HS256 with the public key as text': mac('HS256', toBase64Url(issuer.publicKey)),
        'another name for EdDSA': forge({ ...header, alg: 'Ed25519' }, claims, issuer),
        'ES256 in name': forge({ ...header, alg: 'ES256' }, claims, issuer),
        'its own jwk': forge({ ...header, jwk }, claims, attacker),
        'a jku': forge({ ...header, jku: 'https://attacker.example/keys' }, claims, attacker),
        'an x5u': forge({ ...header, x5u: 'https://attacker.example/cert' }, claims, attacker),
        'a kid that is a path': forge({ ...header, kid: '../../etc/passwd' }, claims, issuer),
        'no kid': forge({ alg: 'EdDSA', typ: header.typ }, claims, issuer),
        'no typ': forge({ alg: 'EdDSA', kid: header.kid }, claims, issuer),
        'an unknown crit': forge({ ...header, crit: ['new'], new: 1 }, claims, issuer),
        'an unencoded payload': forge({ ...header, b64: false, crit: ['b64'] }, claims, issuer),
        'a header that is an array': forge([], claims, issuer),
        'claims that are an array': forge(header, [], issuer),
      };
      for (const [attack, token] of Object.entries(attacks)) {
        expect(await refusal(tokens, token), attack).toSatisfy(isRefusal);
      }
    });

    test('claims of the wrong type are refused, even well signed', async ({ expect }) => {
      const header = { alg: 'EdDSA', typ: 'hx-key+jwt', kid: claims.iss };
      const wrong: Record<string, unknown>[] = [
        { iss: undefined },
        { iss: [claims.iss] },
        { aud: undefined },
        { aud: [meshId] },
        { aud: [meshId, 'other'] },
        { sub: undefined },
        { sub: 7 },
        { iat: undefined },
        { iat: '1800000000' },
        { iat: claims.iat - 0.5 },
        { exp: '1800000600' },
        { exp: null },
        { exp: 1.5 + claims.iat },
        { exp: 1e300 },
        { nbf: claims.iat + 3_600 },
      ];
      for (const fault of wrong) {
        const token = forge(header, { ...claims, ...fault }, issuer);
        expect(await refusal(tokens, token), JSON.stringify(fault)).toSatisfy(isRefusal);
      }
    });

    test('what is huge is refused at once', async ({ expect }) => {
      const padded = await tokens.sign('key', { ...claims, pad: 'x'.repeat(limits.tokenMaxChars) }, issuer);
      expect(await refusal(tokens, padded)).toSatisfy(isRefusal);
      expect(tokens.peekIssuer('key', padded)).toBeUndefined();
      expect(await refusal(tokens, 'x'.repeat(10_000_000))).toSatisfy(isRefusal);
      expect(await refusal(tokens, '.'.repeat(1_000_000))).toSatisfy(isRefusal);
    });

    test('no text whatever is accepted, and nothing else is thrown', async ({ expect }) => {
      const token = await signed;
      const segments = token.split('.');
      const segment = fc.oneof(fc.constantFrom(...segments), fc.base64String(), fc.json().map(encode), fc.string());
      const text = fc.oneof(
        fc.string({ unit: 'binary', maxLength: 300 }),
        fc.array(segment, { maxLength: 5 }).map((parts) => parts.join('.')),
        fc
          .tuple(fc.constantFrom(...types), fc.json())
          .map(([typ, body]) => `${encode({ alg: 'EdDSA', typ })}.${body}.`),
      );
      await fc.assert(
        fc.asyncProperty(
          text.filter((made) => made !== token),
          async (made) => {
            for (const kind of kinds) {
              tokens.peekIssuer(kind, made);
              expect(await refusal(tokens, made, {}, kind)).toSatisfy(isRefusal);
            }
          },
        ),
        { numRuns: 500 },
      );
    });

    test('any claims survive the way', async ({ expect }) => {
      await fc.assert(
        fc.asyncProperty(fc.dictionary(fc.string(), fc.json({ maxDepth: 2 })), fc.string(), async (more, sub) => {
          const { __proto__: _, ...safe } = more as Record<string, unknown>;
          const made = { ...safe, ...claims, sub };
          const token = await tokens.sign('key', made, issuer);
          const fits = token.length <= limits.tokenMaxChars && !('nbf' in safe);
          if (fits) expect(await tokens.verify('key', token, expected)).toEqual(made);
        }),
        { numRuns: 100 },
      );
    });
  });
}
