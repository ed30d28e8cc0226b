/** Simulated tokens: the checks of the real ones over synchronous signatures, or over keyed hashes where thousands of peers sign. */

import { fromBase64Url, isSameBytes, sha256, signBytes, toBase64Url, verifyBytes } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import { limits } from '../protocol/limits.ts';
import type { SigningKey, TokenClaims, TokenKind, Tokens } from '../protocol/ports.ts';

const DOMAIN = 'helixflow-sim/token';
const types: Readonly<Record<TokenKind, string>> = {
  issuer: 'hx-issuer+jwt',
  membership: 'hx-member+jwt',
  invite: 'hx-invite+jwt',
  key: 'hx-key+jwt',
  revocation: 'hx-revocation+jwt',
  lift: 'hx-lift+jwt',
};

export interface SimTokensOptions {
  /** `fast` proves nothing to an attacker; no peer of the simulator is one. */
  readonly mode: 'real' | 'fast';
  /** What signing and checking take; nothing by default. */
  readonly delay?: () => Promise<void>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });
const invalid = (reason: string): HelixFlowError => new HelixFlowError('TOKEN_INVALID', { reason });

const fastSignature = (input: Uint8Array, publicKey: Uint8Array): Uint8Array => {
  const half = sha256(DOMAIN, publicKey, input);
  return Uint8Array.of(...half, ...sha256(half));
};

/** Header, claims and signature of a token in its one canonical text. */
function split(
  token: string,
): readonly [input: string, header: string, claims: string, signature: Uint8Array] | undefined {
  if (token.length > limits.tokenMaxChars) return undefined;
  const [header = '', claims = '', signature = '', ...rest] = token.split('.');
  const parts = [header, claims, signature];
  if (rest.length > 0 || parts.some((part) => part === '' || toBase64Url(fromBase64Url(part)) !== part))
    return undefined;
  return [`${header}.${claims}`, header, claims, fromBase64Url(signature)];
}

function parse(segment: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(decoder.decode(fromBase64Url(segment)));
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject ? (value as Readonly<Record<string, unknown>>) : undefined;
  } catch (error) {
    // Neither JSON nor the text of it: no token.
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined;
    throw error;
  }
}

const headerOf = (kind: TokenKind, iss: string): string => JSON.stringify({ alg: 'EdDSA', typ: types[kind], kid: iss });

type Expected = Parameters<Tokens['verify']>[2];

function checkClaims(claims: Readonly<Record<string, unknown>>, expected: Expected): void {
  if (claims['iss'] !== expected.iss) throw invalid('iss does not fit');
  if (claims['aud'] !== expected.aud) throw invalid('aud does not fit');
  if (typeof claims['sub'] !== 'string') throw invalid('sub does not fit');
  const { iat, exp, nbf } = claims as { iat?: unknown; exp?: unknown; nbf?: unknown };
  if (!Number.isSafeInteger(iat)) throw invalid('iat does not fit');
  if ((iat as number) * 1_000 > expected.nowMs + limits.clockSkewMaxMs) throw invalid('it is not valid yet');
  if (nbf !== undefined && !((nbf as number) * 1_000 <= expected.nowMs)) throw invalid('it is not valid yet');
  if (exp === undefined) return;
  if (!Number.isSafeInteger(exp)) throw invalid('exp does not fit');
  if ((exp as number) * 1_000 <= expected.nowMs && expected.ignoresExpiry !== true) throw invalid('expired');
}

export function createSimTokens(options: SimTokensOptions): Tokens {
  const { mode, delay = async () => {} } = options;
  const signature = (input: Uint8Array, key: SigningKey): Uint8Array =>
    mode === 'fast' ? fastSignature(input, key.publicKey) : signBytes(DOMAIN, input, key);
  const fits = (input: Uint8Array, given: Uint8Array, publicKey: Uint8Array): boolean =>
    mode === 'fast'
      ? isSameBytes(given, fastSignature(input, publicKey))
      : verifyBytes(DOMAIN, input, given, publicKey);
  return {
    async sign(kind, claims, key) {
      await delay();
      const segments = [headerOf(kind, claims.iss), JSON.stringify(claims)];
      const input = segments.map((segment) => toBase64Url(encoder.encode(segment))).join('.');
      return `${input}.${toBase64Url(signature(encoder.encode(input), key))}`;
    },

    peekIssuer(kind, token) {
      const parts = split(token);
      if (parts === undefined || parse(parts[1])?.['typ'] !== types[kind]) return undefined;
      const iss = parse(parts[2])?.['iss'];
      return typeof iss === 'string' ? iss : undefined;
    },

    async verify(kind, token, expected) {
      await delay();
      const parts = split(token);
      if (parts === undefined) throw invalid('it is no token');
      const [input, header, body, given] = parts;
      if (header !== toBase64Url(encoder.encode(headerOf(kind, expected.iss))))
        throw invalid('the header does not fit');
      if (!fits(encoder.encode(input), given, expected.publicKey)) throw invalid('the signature does not fit');
      const claims = parse(body);
      if (claims === undefined) throw invalid('it has no claims');
      checkClaims(claims, expected);
      return claims as TokenClaims;
    },
  };
}
