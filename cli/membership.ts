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
import type { IssuerId, OwnerId, PeerId } from '../protocol/ids.ts';
import { checkInvite, type Invite, ownerBy } from '../protocol/invites.ts';
import { issuerOf, type MeshRecord } from '../protocol/mesh.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import type { Clock, Contact, Log, Tokens } from '../protocol/ports.ts';
import type { DataDir } from './data-dir.ts';
import { type KnownMesh, meshBy, readMesh } from './mesh-files.ts';
import { openRoots } from './open-roots.ts';
import { bootstrapMax, readMembership, readSettings } from './peer-files.ts';

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

/** Why this issuer's key admits nobody any more, a peer of its own directory neither; undefined while it does. */
export function retirementOf(issuer: IssuerId, said: Pick<Roots, 'isRevoked' | 'successorsOf'>): string | undefined {
  const heir = said.successorsOf(issuer).at(-1)?.issuer;
  const isRevoked = said.isRevoked(issuer);
  if (!isRevoked && heir === undefined) return undefined;
  const end = isRevoked ? 'was taken back' : 'has handed its authority over';
  return `its issuer ${issuer} ${end}, so an invite of ${heir === undefined ? 'another issuer' : `issuer ${heir}`} is needed`;
}

/** Everything that decides how a peer enters its mesh. */
export interface Entry {
  /** Written to the directory already, or what the invite tells. */
  readonly mesh: Pick<MeshRecord, 'meshId' | 'rootPublicKey' | 'network' | 'name' | 'isOpen'>;
  readonly issuer: KnownMesh['issuer'];
  readonly owner: OwnerId;
  /** Undefined while the invite has not been exchanged, or the issuer of this directory has not admitted its peer. */
  readonly credentials: Credentials | undefined;
  /** Whose membership that is. */
  readonly admittedBy: IssuerId | undefined;
  readonly expiresMs: number | undefined;
  /** Still to be exchanged at one of its gateways. */
  readonly invite: { readonly text: string; readonly content: Invite } | undefined;
  /** The membership that the invite is to replace; good still, as far as is known here. */
  readonly held: Credentials | undefined;
  readonly bootstrap: readonly Contact[];
}

interface Wish {
  readonly role: Role;
  readonly peer: PeerId;
  /** Text of an invite. */
  readonly join: string | undefined;
  /** Tells `roots` what the peer's store holds of the root's words. */
  readonly recall?: ((roots: Roots) => Promise<void>) | undefined;
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

/** As `readInvite`, where it may not be needed: only one into another mesh is worth stopping for. */
async function readSpare(deps: MembershipDeps, { join, role }: Wish, known: KnownMesh): Promise<Invite | undefined> {
  if (join === undefined) return undefined;
  try {
    return await readInvite(deps, join, role, known);
  } catch (error) {
    if (!isHelixFlowError(error, 'INVITE_INVALID')) throw error;
    return undefined;
  }
}

interface Standing {
  readonly known: KnownMesh;
  readonly roots: Roots;
  /** Undefined when there is none that counts. */
  readonly membership: Membership | undefined;
  readonly kept: Credentials | undefined;
  /** Why neither membership nor issuer's key is good for anything, where that is more than time or absence. */
  readonly retirement: string | undefined;
  readonly admitsItself: boolean;
  readonly spare: Invite | undefined;
}

/** What is known on this disk, and by the invite, of the peer's membership and of the issuer's key beside it. */
async function readStanding(deps: MembershipDeps, dir: DataDir, wish: Wish, known: KnownMesh): Promise<Standing> {
  const { role, peer, recall } = wish;
  const { mesh, issuer } = known;
  const { tokens, clock } = deps;
  const kept = await readMembership(dir.peer(role));
  const judged = kept && (await judgeMembership(kept, { tokens, meshId: mesh.meshId, nowMs: clock.wallMs(), peer }));
  const membership = judged?.role === role ? judged : undefined;
  const spare = await readSpare(deps, wish, known);
  const credentials = membership === undefined ? undefined : kept;
  const roots = await openRoots(tokens, { mesh, issuer, credentials, certificate: spare?.certificate });
  await recall?.(roots);
  const own = issuer === undefined ? undefined : retirementOf(issuerOf(issuer).issuer, roots);
  const admitsItself = issuer !== undefined && own === undefined;
  const shared = { known, roots, admitsItself, spare };
  if (membership === undefined) return { ...shared, membership, kept, retirement: own };
  if (!roots.isRevoked(membership.issuer)) return { ...shared, membership, kept, retirement: own };
  return { ...shared, membership: undefined, kept, retirement: retirementOf(membership.issuer, roots) };
}

/** An invite of another issuer is there to be used, unless it is the older one of the two. */
function replaces(invite: Invite, { issuer }: Membership, { roots, admitsItself }: Standing): boolean {
  if (admitsItself || invite.issuer === issuer || roots.isRevoked(invite.issuer)) return false;
  return !roots.successorsOf(invite.issuer).some((heir) => heir.issuer === issuer);
}

async function enterByInvite(
  dir: DataDir,
  { role, peer }: Wish,
  known: KnownMesh | undefined,
  { invite, held }: { readonly invite: NonNullable<Entry['invite']>; readonly held: Credentials | undefined },
): Promise<Entry> {
  const { gateways } = invite.content;
  const { bootstrap } = await readSettings(dir.peer(role));
  const others = bootstrap.filter((other) => gateways.every((gateway) => gateway.peer !== other.peer));
  return {
    mesh: known?.mesh ?? meshBy(invite.content),
    issuer: known?.issuer,
    owner: ownerBy(invite.content, peer),
    credentials: undefined,
    admittedBy: undefined,
    expiresMs: undefined,
    invite,
    held,
    bootstrap: [...gateways, ...others].slice(0, bootstrapMax),
  };
}

async function enterKnown(
  deps: MembershipDeps,
  dir: DataDir,
  wish: Wish,
  known: KnownMesh,
): Promise<Entry | undefined> {
  const { role, join } = wish;
  const standing = await readStanding(deps, dir, wish, known);
  const { membership, kept, admitsItself, spare, retirement, roots } = standing;
  if (membership !== undefined && spare !== undefined && join !== undefined && replaces(spare, membership, standing)) {
    deps.log.info('join.replacing', { issuer: membership.issuer, by: spare.issuer });
    return enterByInvite(dir, wish, known, { invite: { text: join, content: spare }, held: kept });
  }
  if (membership === undefined && !admitsItself) {
    if (join === undefined && retirement !== undefined) {
      throw new HelixFlowError('MEMBERSHIP_INVALID', { reason: retirement });
    }
    if (spare !== undefined && roots.isRevoked(spare.issuer)) {
      throw new HelixFlowError('INVITE_INVALID', { reason: `its issuer ${spare.issuer} was taken back` });
    }
    return undefined;
  }
  if (join !== undefined) deps.log.info('join.ignored', { reason: 'the membership is valid' });
  const { bootstrap } = await readSettings(dir.peer(role));
  return {
    mesh: known.mesh,
    issuer: known.issuer,
    owner: membership?.owner ?? ownOwner,
    credentials: membership === undefined ? undefined : kept,
    admittedBy: membership?.issuer,
    expiresMs: membership?.expiresMs,
    invite: undefined,
    held: undefined,
    bootstrap,
  };
}

/**
 * Decides how the peer of `wish.role` enters its mesh. Asks nobody but the disk.
 * @throws HelixFlowError MESH_MISSING without mesh and invite; MEMBERSHIP_INVALID when it lapsed, or is known to be
 *   taken back, and no invite replaces it; INVITE_INVALID; MESH_MISMATCH
 */
export async function enterMesh(deps: MembershipDeps, dir: DataDir, wish: Wish): Promise<Entry> {
  const known = await readMesh(dir);
  const entered = known === undefined ? undefined : await enterKnown(deps, dir, wish, known);
  if (entered !== undefined) return entered;
  const { join, role } = wish;
  if (join === undefined) {
    if (known === undefined) throw new HelixFlowError('MESH_MISSING', {});
    const had = (await readMembership(dir.peer(role))) !== undefined;
    const reason = had ? 'it has expired' : `this directory holds none for a ${role}`;
    throw new HelixFlowError('MEMBERSHIP_INVALID', { reason });
  }
  const content = await readInvite(deps, join, role, known);
  return enterByInvite(dir, wish, known, { invite: { text: join, content }, held: undefined });
}
