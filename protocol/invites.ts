/** Invites: a bearer's right to become a member, as one line of text that also says what the mesh is and where. */

import { z } from 'zod';
import { toBase64Url } from './crypto.ts';
import { HelixFlowError } from './errors.ts';
import {
  bytes32Text,
  type Checking,
  checkCertificate,
  issuerIdOf,
  meshIdOf,
  momentOf,
  type NetworkKind,
  parseClaims,
  type Role,
  reasonOf,
  roles,
  type Signing,
  secondsClaim,
  secondsOf,
} from './grants.ts';
import { type IssuerId, isOwnerId, isPeerId, type MeshId, type OwnerId, type PeerId } from './ids.ts';
import { assert } from './invariant.ts';
import { limits } from './limits.ts';
import type { Contact, SigningKey } from './ports.ts';
import { type Ms, ms, type UnixMs } from './units.ts';

/** A bearer's right to become a member, and what it takes to find and trust the mesh. */
export interface Invite {
  readonly meshId: MeshId;
  readonly issuer: IssuerId;
  /** 32 hex characters. */
  readonly inviteId: string;
  readonly role: Role;
  /** Who answers for the peers that it admits; undefined: each of them for itself (an open mesh). */
  readonly owner?: OwnerId;
  /** Peers that it may admit; 0 is any number of them, an open mesh's. */
  readonly uses: number;
  readonly network: NetworkKind;
  /** What the mesh calls itself; absent in invites of versions that did not tell. */
  readonly meshName?: string;
  /** Whether it is open, as `MeshRecord.isOpen`. */
  readonly isOpen?: boolean;
  /** Gateways to dial first. */
  readonly gateways: readonly Contact[];
  readonly rootPublicKey: Uint8Array;
  readonly certificate: string;
  readonly expiresMs: UnixMs;
}

/** Who answers for a peer that comes with this invite: on an open mesh it itself. */
export const ownerBy = (invite: Pick<Invite, 'owner'>, joiner: PeerId): OwnerId =>
  invite.owner ?? (joiner as string as OwnerId);

/** How long an invite is good for unless its maker says otherwise. */
export const inviteLifetimeMs: Ms = ms(86_400_000);
/** Gateways that one invite may name. */
export const inviteGatewaysMax = 8;
/** Peers that one invite may admit, but for an open mesh's. */
export const inviteUsesMax = 10_000;

const INVITE_PREFIX = 'hx-invite-';
const networks = ['lan', 'public'] as const;

const address = z.string().min(1).max(limits.addressMaxChars);
const contact = z
  .tuple([z.custom<PeerId>(isPeerId), z.array(address).min(1).max(limits.peerAddressesMax)])
  .transform(([peer, addresses]): Contact => ({ peer, addresses }));

const inviteClaims = z.object({
  sub: z.string().regex(/^[0-9a-f]{32}$/),
  exp: secondsClaim,
  role: z.enum(roles),
  owner: z.custom<OwnerId>(isOwnerId).optional(),
  uses: z.int().min(0).max(inviteUsesMax).default(1),
  network: z.enum(networks),
  name: z.string().min(1).max(64).optional(),
  open: z.boolean().optional(),
  gateways: z.array(contact).min(1).max(inviteGatewaysMax),
});

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
    ...(invite.owner === undefined ? {} : { owner: invite.owner }),
    uses: invite.uses,
    network: invite.network,
    ...(invite.meshName === undefined ? {} : { name: invite.meshName }),
    ...(invite.isOpen === undefined ? {} : { open: invite.isOpen }),
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
    const { sub: inviteId, exp, owner, name: meshName, open, ...rest } = claims;
    // Only an open mesh admits any number.
    const isOpen = open ?? (rest.uses === 0 ? true : undefined);
    const told = {
      ...(owner === undefined ? {} : { owner }),
      ...(meshName === undefined ? {} : { meshName }),
      ...(isOpen === undefined ? {} : { isOpen }),
    };
    return { meshId, issuer, rootPublicKey, certificate, inviteId, ...rest, ...told, expiresMs: momentOf(exp) };
  } catch (cause) {
    throw new HelixFlowError('INVITE_INVALID', { reason: reasonOf(cause) }, { cause });
  }
}
