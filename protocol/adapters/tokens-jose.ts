/** Signed tokens as JWTs, by jose: EdDSA only, the kind pinned as `typ`, the signer as `kid`. */

import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, jwtVerify, SignJWT } from 'jose';
import { toBase64Url } from '../crypto.ts';
import { HelixFlowError } from '../errors.ts';
import { limits } from '../limits.ts';
import type { SigningKey, TokenClaims, TokenKind, Tokens } from '../ports.ts';

const typ: Readonly<Record<TokenKind, string>> = {
  issuer: 'hx-issuer+jwt',
  membership: 'hx-member+jwt',
  invite: 'hx-invite+jwt',
  key: 'hx-key+jwt',
  revocation: 'hx-revocation+jwt',
  lift: 'hx-lift+jwt',
};

/**
 * Three base64url segments, the last one the 64 bytes of an Ed25519 signature with its spare bits zero: jose's
 * decoder skips spaces and spare bits, and a token must have exactly one text (caches and bans name it by that text).
 */
const shape = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{85}[AQgw]$/;

const hasShape = (token: string): boolean => token.length <= limits.tokenMaxChars && shape.test(token);

const publicKey = (raw: Uint8Array): KeyObject =>
  createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: toBase64Url(raw) }, format: 'jwk' });

const privateKey = (key: SigningKey): KeyObject =>
  createPrivateKey({
    key: { kty: 'OKP', crv: 'Ed25519', x: toBase64Url(key.publicKey), d: toBase64Url(key.seed) },
    format: 'jwk',
  });

const invalid = (reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('TOKEN_INVALID', { reason }, { cause });

/** jose's codes, in words that may cross the wire. */
function reasonOf(cause: unknown): string {
  if (cause instanceof errors.JWTClaimValidationFailed) return `${cause.claim} does not fit`;
  if (cause instanceof errors.JWSSignatureVerificationFailed) return 'the signature does not fit';
  if (cause instanceof errors.JOSEAlgNotAllowed) return 'the algorithm is not EdDSA';
  return 'it is no token';
}

function checkIssuedAt(claims: JWTPayload, nowMs: number): void {
  const { iat } = claims;
  if (!Number.isSafeInteger(iat)) throw invalid('iat does not fit');
  if ((iat as number) * 1_000 > nowMs + limits.clockSkewMaxMs) throw invalid('it is not valid yet');
}

/** Anything that jose or node:crypto throws is the token's fault: the expected values are checked by their types. */
async function verify(
  kind: TokenKind,
  token: string,
  expected: Parameters<Tokens['verify']>[2],
): Promise<{ claims: JWTPayload; isExpired: boolean }> {
  try {
    if (decodeProtectedHeader(token).kid !== expected.iss) throw invalid('kid does not fit');
    const { payload } = await jwtVerify(token, publicKey(expected.publicKey), {
      algorithms: ['EdDSA'],
      typ: typ[kind],
      issuer: expected.iss,
      audience: expected.aud,
      currentDate: new Date(expected.nowMs),
      requiredClaims: ['sub', 'iat'],
    });
    return { claims: payload, isExpired: false };
  } catch (cause) {
    if (cause instanceof HelixFlowError) throw cause;
    if (!(cause instanceof errors.JWTExpired)) throw invalid(reasonOf(cause), cause);
    return { claims: cause.payload, isExpired: true };
  }
}

/** The real `Tokens`. */
export const createJoseTokens = (): Tokens => ({
  sign: async (kind, claims, key) =>
    new SignJWT(claims).setProtectedHeader({ alg: 'EdDSA', typ: typ[kind], kid: claims.iss }).sign(privateKey(key)),

  peekIssuer(kind, token) {
    if (!hasShape(token)) return undefined;
    try {
      if (decodeProtectedHeader(token).typ !== typ[kind]) return undefined;
      const { iss } = decodeJwt(token);
      return typeof iss === 'string' ? iss : undefined;
    } catch (error) {
      // Both decoders have no other way to say that the text is no token.
      if (error instanceof TypeError || error instanceof errors.JOSEError) return undefined;
      throw error;
    }
  },

  async verify(kind, token, expected) {
    if (!hasShape(token)) throw invalid(token.length > limits.tokenMaxChars ? 'it is too long' : 'it is no token');
    const { claims, isExpired } = await verify(kind, token, expected);
    checkIssuedAt(claims, expected.nowMs);
    if (typeof claims.aud !== 'string') throw invalid('aud does not fit');
    if (typeof claims.sub !== 'string') throw invalid('sub does not fit');
    if (claims.exp !== undefined && !Number.isSafeInteger(claims.exp)) throw invalid('exp does not fit');
    if (isExpired && expected.ignoresExpiry !== true) throw invalid('expired');
    return claims as TokenClaims;
  },
});
