/** How this directory's peer is, or becomes, a member of its mesh. */

import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import {
  type Checking,
  type Credentials,
  checkCredentials,
  type Membership,
  membershipLifetimeMs,
  type Role,
} from '../protocol/grants.ts';
import type { OwnerId, PeerId } from '../protocol/ids.ts';
import { checkInvite, type Invite, ownerBy } from '../protocol/invites.ts';
import type { MeshRecord } from '../protocol/mesh.ts';
import type { Clock, Contact, Log, Tokens } from '../protocol/ports.ts';
import type { DataDir } from './data-dir.ts';
import { type KnownMesh, readMesh } from './mesh-files.ts';
import { readMembership, readSettings } from './peer-files.ts';

/** Who answers for the peers that an issuer's own directory admits. */
export const ownOwner = 'local' as OwnerId;

/** The membership that `credentials` prove; undefined when they prove none (any more). */
export async function judgeMembership(
  credentials: Credentials,
  checking: Checking & { readonly peer: PeerId },
): Promise<Membership | undefined> {
  try {
    return await checkCredentials(credentials, checking);
  } catch (error) {
    if (isHelixFlowError(error, 'MEMBERSHIP_INVALID')) return undefined;
    throw error;
  }
}

export interface MembershipDeps {
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly log: Log;
}

/** Everything that decides how a peer enters its mesh. */
export interface Entry {
  /** Written to the directory already, or what the invite tells. */
  readonly mesh: Pick<MeshRecord, 'meshId' | 'rootPublicKey' | 'network' | 'isOpen'>;
  readonly issuer: KnownMesh['issuer'];
  readonly owner: OwnerId;
  /** Undefined while the invite has not been exchanged, or the issuer of this directory has not admitted its peer. */
  readonly credentials: Credentials | undefined;
  readonly expiresMs: number | undefined;
  /** Still to be exchanged at one of its gateways. */
  readonly invite: { readonly text: string; readonly content: Invite } | undefined;
  readonly bootstrap: readonly Contact[];
}

interface Wish {
  readonly role: Role;
  readonly peer: PeerId;
  /** Text of an invite. */
  readonly join: string | undefined;
}

/** An own membership is renewed once less than this is left of it. */
export const renewBelowMs = membershipLifetimeMs / 3;

/** Reads an invite for this role and mesh. @throws HelixFlowError INVITE_INVALID; MESH_MISMATCH */
async function readInvite(
  deps: MembershipDeps,
  text: string,
  role: Role,
  known: KnownMesh | undefined,
): Promise<Invite> {
  const invite = await checkInvite(text, { tokens: deps.tokens, nowMs: deps.clock.wallMs() });
  const ours = known?.mesh.meshId;
  if (ours !== undefined && ours !== invite.meshId) {
    throw new HelixFlowError('MESH_MISMATCH', { theirs: invite.meshId, ours });
  }
  if (invite.role !== role) {
    throw new HelixFlowError('INVITE_INVALID', { reason: `it admits a ${invite.role}, this is a ${role}` });
  }
  return invite;
}

/** A member needs no invite, so only one into another mesh is worth stopping for. */
async function checkUnusedInvite(deps: MembershipDeps, { join, role }: Wish, known: KnownMesh): Promise<void> {
  if (join === undefined) return;
  try {
    await readInvite(deps, join, role, known);
  } catch (error) {
    if (!isHelixFlowError(error, 'INVITE_INVALID')) throw error;
    deps.log.info('join.ignored', { reason: 'the membership is valid' });
  }
}

async function enterKnown(
  deps: MembershipDeps,
  dir: DataDir,
  wish: Wish,
  known: KnownMesh,
): Promise<Entry | undefined> {
  const { role, peer } = wish;
  const { mesh, issuer } = known;
  const { tokens, clock } = deps;
  const { meshId } = mesh;
  const nowMs = clock.wallMs();
  const paths = dir.peer(role);
  const kept = await readMembership(paths);
  const judged = kept && (await judgeMembership(kept, { tokens, meshId, nowMs, peer }));
  const membership = judged?.role === role ? judged : undefined;
  if (issuer === undefined && membership === undefined) return undefined;
  await checkUnusedInvite(deps, wish, known);
  const { bootstrap } = await readSettings(paths);
  return {
    mesh,
    issuer,
    owner: membership?.owner ?? ownOwner,
    credentials: membership === undefined ? undefined : kept,
    expiresMs: membership?.expiresMs,
    invite: undefined,
    bootstrap,
  };
}

/**
 * Decides how the peer of `wish.role` enters its mesh. Asks nobody but the disk.
 * @throws HelixFlowError MESH_MISSING without mesh and invite; MEMBERSHIP_INVALID when it lapsed and no invite replaces
 *   it; INVITE_INVALID; MESH_MISMATCH
 */
export async function enterMesh(deps: MembershipDeps, dir: DataDir, wish: Wish): Promise<Entry> {
  const known = await readMesh(dir);
  const entered = known === undefined ? undefined : await enterKnown(deps, dir, wish, known);
  if (entered !== undefined) return entered;
  const { join, role, peer } = wish;
  if (join === undefined) {
    if (known === undefined) throw new HelixFlowError('MESH_MISSING', {});
    const had = (await readMembership(dir.peer(role))) !== undefined;
    const reason = had ? 'it has expired' : `this directory holds none for a ${role}`;
    throw new HelixFlowError('MEMBERSHIP_INVALID', { reason });
  }
  const content = await readInvite(deps, join, role, known);
  const { meshId, rootPublicKey, network, gateways } = content;
  return {
    mesh: known?.mesh ?? { meshId, rootPublicKey, network, isOpen: false },
    issuer: undefined,
    owner: ownerBy(content, peer),
    credentials: undefined,
    expiresMs: undefined,
    invite: { text: join, content },
    bootstrap: gateways,
  };
}
