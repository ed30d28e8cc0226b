/** What a signed token grants, once verified: an issuer's certificate, a membership, an API key; invites have a file of their own. */

import { z } from 'zod';
import { fromBase64Url, sha256Hex, toBase64Url } from './crypto.ts';
import { HelixFlowError, isHelixFlowError } from './errors.ts';
import {
  type AccountId,
  type AuthorId,
  type EpochId,
  type IssuerId,
  isAccountId,
  isEpochId,
  isIssuerId,
  isKeyId,
  isOwnerId,
  isPeerId,
  type KeyId,
  type MeshId,
  type OwnerId,
  type PeerId,
} from './ids.ts';
import { assert } from './invariant.ts';
import { limits } from './limits.ts';
import { parseModelReference } from './model-reference.ts';
import { matchesPattern } from './patterns.ts';
import type { SigningKey, TokenClaims, TokenKind, Tokens } from './ports.ts';
import { keyNodesMax, type Preferences, preferencesShape } from './preferences.ts';
import { type Ms, ms, type UnixMs, unixMs } from './units.ts';

/** What a member may be. */
export type Role = 'node' | 'gateway';

/** Which addresses peers of a mesh may dial: `lan` allows loopback and private ones, `public` does not. */
export type NetworkKind = 'lan' | 'public';

/** The root named this issuer. */
export interface IssuerCertificate {
  readonly meshId: MeshId;
  readonly issuer: IssuerId;
  /** 32 bytes, Ed25519. */
  readonly publicKey: Uint8Array;
  /** The issuer whose authority this one took over, by a handover. */
  readonly succeeds?: Succession;
}

/** What a handover names: whom, and the last block of its feed that counts. */
export interface Succession {
  readonly issuer: IssuerId;
  /** Undefined when its feed was empty, or nothing of it is known. */
  readonly last?: { readonly epoch: EpochId; readonly number: number };
}

/** The root takes an issuer back: its certificate, and every membership, invite and key by it, count no more. */
export interface IssuerRevocation {
  readonly meshId: MeshId;
  readonly issuer: IssuerId;
}

/** The root lets an author that forked write again. */
export interface FreezeLift {
  readonly meshId: MeshId;
  readonly author: AuthorId;
  /** The epoch that forked; it stays closed, and a new one may be opened. */
  readonly epoch: EpochId;
}

/** The issuer admitted this peer. */
export interface Membership {
  readonly meshId: MeshId;
  readonly issuer: IssuerId;
  readonly peer: PeerId;
  readonly role: Role;
  readonly owner: OwnerId;
  readonly expiresMs: UnixMs;
}

/** What a peer shows in its hello, so that it can be checked from the mesh id alone. */
export interface Credentials {
  /** 32 bytes; its sha256 is the mesh id. */
  readonly rootPublicKey: Uint8Array;
  /** Token of kind `issuer`, signed by the root. */
  readonly certificate: string;
  /** Token of kind `membership`, signed by the issuer. */
  readonly membership: string;
}

/** How much may be used at one gateway; absent is unbounded. All are integers from 1 to 2^31 - 1. */
export interface RateLimits {
  /** Requests in any 60 s. */
  readonly rpm?: number;
  /** Prompt and completion tokens in any 60 s. */
  readonly tpm?: number;
  /** Requests under way at a time. */
  readonly concurrency?: number;
}

/** What a key may be used for; a `terms` entry of its issuer replaces all of it. */
export interface KeyTerms {
  /** Model name patterns with `*`; empty allows every model. */
  readonly models: readonly string[];
  readonly limits: RateLimits;
  readonly expiresMs?: UnixMs;
  /** What it asks of nodes; absent: nothing. */
  readonly preferences?: Preferences;
}

/** `user`: the OpenAI API. `operator`: watches and bans. `admin`: everything, keys included. */
export type KeyRole = 'user' | 'operator' | 'admin';

/** A client's right to use the service. */
export interface KeyGrant extends KeyTerms {
  readonly keyId: KeyId;
  readonly issuer: IssuerId;
  readonly account: AccountId;
  readonly role: KeyRole;
  /** The only gateways that it is good at; empty is all of them. Exactly one for an operator or admin. */
  readonly gateways: readonly PeerId[];
  /** Refused by a gateway that does not know the newest of its issuer. */
  readonly strict: boolean;
}

/** How long a membership is good for; renewed in its last third. */
export const membershipLifetimeMs: Ms = ms(30 * 86_400_000);
/** Model patterns that one key may carry. */
export const keyModelsMax = 64;
/** Gateways that one key may name. */
export const keyGatewaysMax = 16;
/** The largest rate or count that a limit may name. */
export const rateMax = 2_147_483_647;

const KEY_PREFIX = 'sk-hx-';

/** The mesh that a root key makes. */
export const meshIdOf = (rootPublicKey: Uint8Array): MeshId => sha256Hex(rootPublicKey) as MeshId;
/** The name of an issuer with this public key. */
export const issuerIdOf = (publicKey: Uint8Array): IssuerId => sha256Hex(publicKey).slice(0, 32) as IssuerId;

/** What signing takes beside the grant and the key. */
export interface Signing {
  readonly tokens: Tokens;
  readonly nowMs: UnixMs;
}
/** What checking takes beside the token. */
export interface Checking {
  readonly tokens: Tokens;
  readonly meshId: MeshId;
  /** Wall time to judge expiry by. */
  readonly nowMs: UnixMs;
}

/** Every role, as claims name them. */
export const roles = ['node', 'gateway'] as const;
const keyRoles = ['user', 'operator', 'admin'] as const;

/** 32 bytes as 43 characters of base64url. */
export const bytes32Text = z
  .string()
  .regex(/^[A-Za-z0-9_-]{43}$/)
  .transform(fromBase64Url);

/** A moment as claims tell it. */
export const secondsClaim = z.int().min(0).max(8_640_000_000_000);
const succession = z
  .object({
    issuer: z.custom<IssuerId>(isIssuerId),
    last: z.object({ epoch: z.custom<EpochId>(isEpochId), number: z.int().min(0) }).optional(),
  })
  .transform(({ issuer, last }): Succession => ({ issuer, ...(last === undefined ? {} : { last }) }));
const certificateClaims = z.object({
  sub: z.custom<IssuerId>(isIssuerId),
  key: bytes32Text,
  succeeds: succession.optional(),
});
const membershipClaims = z.object({
  sub: z.custom<PeerId>(isPeerId),
  exp: secondsClaim,
  role: z.enum(roles),
  owner: z.custom<OwnerId>(isOwnerId),
});
/** What some say of each limit; what is absent or undefined is not said. */
export interface Rates<Rate> {
  readonly rpm?: Rate;
  readonly tpm?: Rate;
  readonly concurrency?: Rate;
}

/** Only what was given, so that nothing is there and undefined. */
export const givenRates = <Rate>({
  rpm,
  tpm,
  concurrency,
}: { readonly [Name in keyof Rates<Rate>]?: Rate | undefined }): Rates<Rate> => ({
  ...(rpm === undefined ? {} : { rpm }),
  ...(tpm === undefined ? {} : { tpm }),
  ...(concurrency === undefined ? {} : { concurrency }),
});

const rate = z.int().min(1).max(rateMax).optional();
/** The shape of `RateLimits`, for claims and for whoever reads them from people. */
export const rateLimitsShape = z
  .strictObject({ rpm: rate, tpm: rate, concurrency: rate })
  .transform((rates): RateLimits => givenRates(rates));
const keyShape = z.object({
  sub: z.custom<KeyId>(isKeyId),
  exp: secondsClaim.optional(),
  account: z.custom<AccountId>(isAccountId),
  role: z.enum(keyRoles),
  models: z.array(z.string().min(1).max(limits.modelNameMaxChars)).max(keyModelsMax),
  limits: rateLimitsShape.default({}),
  gateways: z.array(z.custom<PeerId>(isPeerId)).max(keyGatewaysMax).default([]),
  strict: z.boolean().default(false),
  preferences: preferencesShape(keyNodesMax).optional(),
});
const keyClaims = keyShape.refine(({ role, gateways }) => role === 'user' || gateways.length === 1);

/** The whole seconds that a token's times are told in. */
export const secondsOf = (moment: UnixMs): number => Math.floor(moment / 1_000);
/** The moment behind a claim. */
export const momentOf = (seconds: number): UnixMs => unixMs(seconds * 1_000);

/** What a token's claims say, by their shape. @throws HelixFlowError TOKEN_INVALID */
export function parseClaims<T>(schema: z.ZodType<T>, claims: TokenClaims): T {
  const parsed = schema.safeParse(claims);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues[0]?.path.join('.');
  throw new HelixFlowError('TOKEN_INVALID', { reason: `${where} does not fit` }, { cause: parsed.error });
}

/** Why a token did not check. @throws whatever is no fault of the token. */
export const reasonOf = (error: unknown): string => {
  if (isHelixFlowError(error, 'TOKEN_INVALID')) return error.details.reason;
  throw error;
};

/** The root names an issuer. @param rootKey Hashes to the certificate's mesh id. */
export async function signCertificate(
  grant: IssuerCertificate,
  rootKey: SigningKey,
  signing: Signing,
): Promise<string> {
  assert(meshIdOf(rootKey.publicKey) === grant.meshId, 'a certificate is signed by the root of its mesh');
  assert(issuerIdOf(grant.publicKey) === grant.issuer, 'an issuer is named after its key');
  const claims = {
    iss: grant.meshId,
    aud: grant.meshId,
    sub: grant.issuer,
    iat: secondsOf(signing.nowMs),
    key: toBase64Url(grant.publicKey),
    ...(grant.succeeds === undefined ? {} : { succeeds: grant.succeeds }),
  };
  return signing.tokens.sign('issuer', claims, rootKey);
}

/**
 * The claims of a token that the root of the mesh signed.
 * @throws HelixFlowError TOKEN_INVALID, also when `rootPublicKey` is not the root of `checking.meshId`.
 */
export async function verifyByRoot(
  kind: TokenKind,
  token: string,
  rootPublicKey: Uint8Array,
  { tokens, meshId, nowMs }: Checking,
): Promise<TokenClaims> {
  if (meshIdOf(rootPublicKey) !== meshId) {
    throw new HelixFlowError('TOKEN_INVALID', { reason: 'the root key is not that of the mesh' });
  }
  return tokens.verify(kind, token, { publicKey: rootPublicKey, iss: meshId, aud: meshId, nowMs });
}

/**
 * Checks that the root of the mesh named this issuer.
 * @throws HelixFlowError TOKEN_INVALID, also when `rootPublicKey` is not the root of `checking.meshId`.
 */
export async function checkCertificate(
  token: string,
  rootPublicKey: Uint8Array,
  checking: Checking,
): Promise<IssuerCertificate> {
  const { meshId } = checking;
  const claims = parseClaims(certificateClaims, await verifyByRoot('issuer', token, rootPublicKey, checking));
  const { sub: issuer, key: publicKey, succeeds } = claims;
  if (issuerIdOf(publicKey) !== issuer) {
    throw new HelixFlowError('TOKEN_INVALID', { reason: 'the issuer is not named after its key' });
  }
  if (succeeds?.issuer === issuer) {
    throw new HelixFlowError('TOKEN_INVALID', { reason: 'the issuer succeeds itself' });
  }
  return { meshId, issuer, publicKey, ...(succeeds === undefined ? {} : { succeeds }) };
}

/** The issuer admits a peer. Expiry is cut to whole seconds. */
export async function signMembership(grant: Membership, issuerKey: SigningKey, signing: Signing): Promise<string> {
  assert(issuerIdOf(issuerKey.publicKey) === grant.issuer, 'a membership is signed by its issuer');
  const claims = {
    iss: grant.issuer,
    aud: grant.meshId,
    sub: grant.peer,
    iat: secondsOf(signing.nowMs),
    exp: secondsOf(grant.expiresMs),
    role: grant.role,
    owner: grant.owner,
  };
  return signing.tokens.sign('membership', claims, issuerKey);
}

/**
 * Checks what `peer` shows: the root key makes the mesh, the root named the issuer, the issuer admitted this peer.
 * @param checking.peer Whom the connection has authenticated.
 * @throws HelixFlowError MEMBERSHIP_INVALID, with reason `expired` when that is the only fault.
 */
export async function checkCredentials(
  credentials: Credentials,
  checking: Checking & { readonly peer: PeerId },
): Promise<Membership> {
  const { tokens, meshId, peer, nowMs } = checking;
  try {
    const { issuer, publicKey } = await checkCertificate(credentials.certificate, credentials.rootPublicKey, checking);
    const expected = { publicKey, iss: issuer, aud: meshId, nowMs };
    const claims = parseClaims(membershipClaims, await tokens.verify('membership', credentials.membership, expected));
    if (claims.sub !== peer) throw new HelixFlowError('TOKEN_INVALID', { reason: 'it is for another peer' });
    return { meshId, issuer, peer, role: claims.role, owner: claims.owner, expiresMs: momentOf(claims.exp) };
  } catch (cause) {
    throw new HelixFlowError('MEMBERSHIP_INVALID', { reason: reasonOf(cause) }, { cause });
  }
}

/** Makes the text of an API key: `sk-hx-`, then the token. A secret: whoever has it may use the service. */
export async function signKey(
  grant: KeyGrant & { readonly meshId: MeshId },
  issuerKey: SigningKey,
  signing: Signing,
): Promise<string> {
  assert(issuerIdOf(issuerKey.publicKey) === grant.issuer, 'a key is signed by its issuer');
  const claims = {
    iss: grant.issuer,
    aud: grant.meshId,
    sub: grant.keyId,
    iat: secondsOf(signing.nowMs),
    ...(grant.expiresMs === undefined ? {} : { exp: secondsOf(grant.expiresMs) }),
    account: grant.account,
    role: grant.role,
    models: grant.models,
    ...(Object.keys(grant.limits).length === 0 ? {} : { limits: grant.limits }),
    ...(grant.gateways.length === 0 ? {} : { gateways: grant.gateways }),
    ...(grant.strict ? { strict: true } : {}),
    ...(grant.preferences === undefined ? {} : { preferences: grant.preferences }),
  };
  return `${KEY_PREFIX}${await signing.tokens.sign('key', claims, issuerKey)}`;
}

const tokenOfKey = (text: string): string => (text.startsWith(KEY_PREFIX) ? text.slice(KEY_PREFIX.length) : '');

/** Who says to have signed an API key, unverified; undefined when the text is no key. Cheap, so it comes first. */
export const peekKeyIssuer = (text: string, tokens: Tokens): IssuerId | undefined =>
  tokens.peekIssuer('key', tokenOfKey(text)) as IssuerId | undefined;

/**
 * Checks an API key offline.
 * @param checking.issuers Those whose keys count, by their ids.
 * @param checking.ignoresExpiry The caller judges expiry: a `terms` entry may have moved it.
 * @throws HelixFlowError KEY_EXPIRED when that is the only fault; KEY_INVALID otherwise.
 */
export async function checkKey(
  text: string,
  checking: Checking & {
    readonly issuers: Pick<ReadonlyMap<IssuerId, IssuerCertificate>, 'get'>;
    readonly ignoresExpiry?: boolean;
  },
): Promise<KeyGrant> {
  const { tokens, meshId, nowMs, issuers, ignoresExpiry = false } = checking;
  const token = tokenOfKey(text);
  const issuer = issuers.get(tokens.peekIssuer('key', token) as IssuerId);
  if (issuer === undefined) throw new HelixFlowError('KEY_INVALID', {});
  try {
    const expected = { publicKey: issuer.publicKey, iss: issuer.issuer, aud: meshId, nowMs, ignoresExpiry };
    const claims = parseClaims(keyClaims, await tokens.verify('key', token, expected));
    const { sub: keyId, exp, preferences, ...rest } = claims;
    return {
      keyId,
      issuer: issuer.issuer,
      ...rest,
      ...(exp === undefined ? {} : { expiresMs: momentOf(exp) }),
      ...(preferences === undefined ? {} : { preferences }),
    };
  } catch (cause) {
    throw new HelixFlowError(reasonOf(cause) === 'expired' ? 'KEY_EXPIRED' : 'KEY_INVALID', {}, { cause });
  }
}

/** True when the key may use the model. @param name As the client wrote it; a digest pinned at its end does not matter. */
export function allowsModel(grant: Pick<KeyGrant, 'models'>, name: string): boolean {
  const bare = parseModelReference(name).name;
  return grant.models.length === 0 || grant.models.some((pattern) => matchesPattern(pattern, bare));
}
