/** What a signed token grants, once verified: an issuer's certificate, a membership, an invite, an API key. */

import { z } from 'zod';
import { fromBase64Url, sha256Hex, toBase64Url } from './crypto.ts';
import { HelixFlowError, isHelixFlowError } from './errors.ts';
import {
  type AccountId,
  type IssuerId,
  isAccountId,
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
import type { Contact, SigningKey, TokenClaims, Tokens } from './ports.ts';
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

/** A bearer's right to become a member, and what it takes to find and trust the mesh. */
export interface Invite {
  readonly meshId: MeshId;
  readonly issuer: IssuerId;
  /** 32 hex characters. */
  readonly inviteId: string;
  readonly role: Role;
  readonly owner: OwnerId;
  readonly network: NetworkKind;
  /** Gateways to dial first. */
  readonly gateways: readonly Contact[];
  readonly rootPublicKey: Uint8Array;
  readonly certificate: string;
  readonly expiresMs: UnixMs;
}

/** A client's right to use the service. */
export interface KeyGrant {
  readonly keyId: KeyId;
  readonly issuer: IssuerId;
  readonly account: AccountId;
  readonly role: 'user' | 'operator' | 'admin';
  /** Model name patterns with `*`; empty allows every model. */
  readonly models: readonly string[];
  readonly expiresMs?: UnixMs;
}

/** How long a membership is good for; renewed in its last third. */
export const membershipLifetimeMs: Ms = ms(30 * 86_400_000);
/** How long an invite is good for unless its maker says otherwise. */
export const inviteLifetimeMs: Ms = ms(86_400_000);
/** Gateways that one invite may name. */
export const inviteGatewaysMax = 8;
/** Model patterns that one key may carry. */
export const keyModelsMax = 64;

const INVITE_PREFIX = 'hx-invite-';
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

const roles = ['node', 'gateway'] as const;
const networks = ['lan', 'public'] as const;
const keyRoles = ['user', 'operator', 'admin'] as const;

/** 32 bytes as 43 characters of base64url. */
export const bytes32Text = z
  .string()
  .regex(/^[A-Za-z0-9_-]{43}$/)
  .transform(fromBase64Url);

const secondsClaim = z.int().min(0).max(8_640_000_000_000);
const address = z.string().min(1).max(limits.addressMaxChars);
const contact = z
  .tuple([z.custom<PeerId>(isPeerId), z.array(address).min(1).max(limits.peerAddressesMax)])
  .transform(([peer, addresses]): Contact => ({ peer, addresses }));

const certificateClaims = z.object({ sub: z.custom<IssuerId>(isIssuerId), key: bytes32Text });
const membershipClaims = z.object({
  sub: z.custom<PeerId>(isPeerId),
  exp: secondsClaim,
  role: z.enum(roles),
  owner: z.custom<OwnerId>(isOwnerId),
});
const inviteClaims = z.object({
  sub: z.string().regex(/^[0-9a-f]{32}$/),
  exp: secondsClaim,
  role: z.enum(roles),
  owner: z.custom<OwnerId>(isOwnerId),
  network: z.enum(networks),
  gateways: z.array(contact).min(1).max(inviteGatewaysMax),
});
const keyClaims = z.object({
  sub: z.custom<KeyId>(isKeyId),
  exp: secondsClaim.optional(),
  account: z.custom<AccountId>(isAccountId),
  role: z.enum(keyRoles),
  models: z.array(z.string().min(1).max(limits.modelNameMaxChars)).max(keyModelsMax),
});

const secondsOf = (moment: UnixMs): number => Math.floor(moment / 1_000);
const momentOf = (seconds: number): UnixMs => unixMs(seconds * 1_000);

function parseClaims<T>(schema: z.ZodType<T>, claims: TokenClaims): T {
  const parsed = schema.safeParse(claims);
  if (parsed.success) return parsed.data;
  const where = parsed.error.issues[0]?.path.join('.');
  throw new HelixFlowError('TOKEN_INVALID', { reason: `${where} does not fit` }, { cause: parsed.error });
}

const reasonOf = (error: unknown): string => {
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
  };
  return signing.tokens.sign('issuer', claims, rootKey);
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
  const { tokens, meshId, nowMs } = checking;
  if (meshIdOf(rootPublicKey) !== meshId) {
    throw new HelixFlowError('TOKEN_INVALID', { reason: 'the root key is not that of the mesh' });
  }
  const expected = { publicKey: rootPublicKey, iss: meshId, aud: meshId, nowMs };
  const { sub: issuer, key: publicKey } = parseClaims(
    certificateClaims,
    await tokens.verify('issuer', token, expected),
  );
  if (issuerIdOf(publicKey) !== issuer) {
    throw new HelixFlowError('TOKEN_INVALID', { reason: 'the issuer is not named after its key' });
  }
  return { meshId, issuer, publicKey };
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

/**
 * Makes the text of an invite: `hx-invite-`, then root public key, certificate and invite token, joined by dots.
 * One line of `A–Z a–z 0–9 . _ -`.
 * @throws HelixFlowError INVITE_INVALID when it would be longer than `limits.tokenMaxChars`.
 */
export async function signInvite(invite: Invite, issuerKey: SigningKey, signing: Signing): Promise<string> {
  assert(issuerIdOf(issuerKey.publicKey) === invite.issuer, 'an invite is signed by its issuer');
  assert(meshIdOf(invite.rootPublicKey) === invite.meshId, 'an invite carries the root key of its mesh');
  const claims = {
    iss: invite.issuer,
    aud: invite.meshId,
    sub: invite.inviteId,
    iat: secondsOf(signing.nowMs),
    exp: secondsOf(invite.expiresMs),
    role: invite.role,
    owner: invite.owner,
    network: invite.network,
    gateways: invite.gateways.map(({ peer, addresses }) => [peer, addresses]),
  };
  const token = await signing.tokens.sign('invite', claims, issuerKey);
  const text = `${INVITE_PREFIX}${toBase64Url(invite.rootPublicKey)}.${invite.certificate}.${token}`;
  if (text.length > limits.tokenMaxChars) {
    throw new HelixFlowError('INVITE_INVALID', { reason: 'it names too many addresses' });
  }
  return text;
}

/** Root key, certificate and token of an invite's text, unverified. */
function splitInvite(text: string): readonly [rootPublicKey: Uint8Array, certificate: string, token: string] {
  const fits = text.length <= limits.tokenMaxChars && text.startsWith(INVITE_PREFIX);
  const [root = '', ...parts] = fits ? text.slice(INVITE_PREFIX.length).split('.') : [];
  const rootPublicKey = bytes32Text.safeParse(root);
  if (parts.length !== 6 || !rootPublicKey.success || toBase64Url(rootPublicKey.data) !== root) {
    throw new HelixFlowError('TOKEN_INVALID', { reason: 'it is no invite' });
  }
  return [rootPublicKey.data, parts.slice(0, 3).join('.'), parts.slice(3).join('.')];
}

/**
 * Reads an invite and checks that it is one piece: the root key it carries named the issuer that signed it. That this
 * root is the right one is what its bearer trusts; everything after is checked against the mesh id.
 * @throws HelixFlowError INVITE_INVALID, with reason `expired` when that is the only fault.
 */
export async function checkInvite(text: string, checking: Omit<Checking, 'meshId'>): Promise<Invite> {
  const { tokens, nowMs } = checking;
  try {
    const [rootPublicKey, certificate, token] = splitInvite(text);
    const meshId = meshIdOf(rootPublicKey);
    const { issuer, publicKey } = await checkCertificate(certificate, rootPublicKey, { tokens, meshId, nowMs });
    const expected = { publicKey, iss: issuer, aud: meshId, nowMs };
    const claims = parseClaims(inviteClaims, await tokens.verify('invite', token, expected));
    const { sub: inviteId, exp, role, owner, network, gateways } = claims;
    const grant = { inviteId, role, owner, network, gateways, expiresMs: momentOf(exp) };
    return { meshId, issuer, rootPublicKey, certificate, ...grant };
  } catch (cause) {
    throw new HelixFlowError('INVITE_INVALID', { reason: reasonOf(cause) }, { cause });
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
  };
  return `${KEY_PREFIX}${await signing.tokens.sign('key', claims, issuerKey)}`;
}

/**
 * Checks an API key offline.
 * @param checking.issuers Those whose keys count, by their ids.
 * @throws HelixFlowError KEY_EXPIRED when that is the only fault; KEY_INVALID otherwise.
 */
export async function checkKey(
  text: string,
  checking: Checking & { readonly issuers: ReadonlyMap<IssuerId, IssuerCertificate> },
): Promise<KeyGrant> {
  const { tokens, meshId, nowMs, issuers } = checking;
  const token = text.startsWith(KEY_PREFIX) ? text.slice(KEY_PREFIX.length) : '';
  const issuer = issuers.get(tokens.peekIssuer('key', token) as IssuerId);
  if (issuer === undefined) throw new HelixFlowError('KEY_INVALID', {});
  try {
    const expected = { publicKey: issuer.publicKey, iss: issuer.issuer, aud: meshId, nowMs };
    const { sub: keyId, exp, ...rest } = parseClaims(keyClaims, await tokens.verify('key', token, expected));
    return { keyId, issuer: issuer.issuer, ...rest, ...(exp === undefined ? {} : { expiresMs: momentOf(exp) }) };
  } catch (cause) {
    throw new HelixFlowError(reasonOf(cause) === 'expired' ? 'KEY_EXPIRED' : 'KEY_INVALID', {}, { cause });
  }
}

/** True when the key may use the model. @param name As the client wrote it; a digest pinned at its end does not matter. */
export function allowsModel(grant: Pick<KeyGrant, 'models'>, name: string): boolean {
  const bare = parseModelReference(name).name;
  return grant.models.length === 0 || grant.models.some((pattern) => matchesPattern(pattern, bare));
}
