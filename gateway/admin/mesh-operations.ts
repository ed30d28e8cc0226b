/** The mesh as this gateway knows it: peers, members, bans, invites, the ledger and the audit log. */

import { z } from 'zod';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { Role } from '../../protocol/grants.ts';
import type { OwnerId, PeerId } from '../../protocol/ids.ts';
import { inviteGatewaysMax, inviteLifetimeMs, inviteUsesMax } from '../../protocol/invites.ts';
import { limits } from '../../protocol/limits.ts';
import type { ConnectionPath } from '../../protocol/ports.ts';
import type { UnixMs } from '../../protocol/units.ts';
import { unsupported } from '../openai/refuse.ts';
import { countField, durationField, noInput, ownerField, peerField } from './fields.ts';
import { pageInput, pageOf } from './lists.ts';
import { actorOf, admins, deskFor, operation, watchers } from './operation.ts';

/** An admitted connection. */
export interface PeerView {
  readonly peer: PeerId;
  readonly role: Role;
  readonly owner: OwnerId;
  readonly direction: 'inbound' | 'outbound';
  readonly path: ConnectionPath;
  /** The other side's, in text form; shown here, kept nowhere. */
  readonly address: string;
}

/** A peer that an issuer has admitted at some time; its membership may have expired. */
export interface MemberView {
  readonly peer: PeerId;
  readonly role: Role;
  readonly owner: OwnerId;
  readonly admittedMs: UnixMs;
  readonly expiresMs: UnixMs;
  readonly banned: boolean;
}

export interface BanView {
  readonly peer: PeerId;
  /** What the bans in force are called in the ledger. */
  readonly bans: readonly string[];
}

/** An invite just made: the only time that its text is shown. */
export interface InviteView {
  /** `hx-invite-…`, a secret until it is used up. */
  readonly token: string;
  readonly invite: string;
  readonly role: Role;
  readonly uses: number;
  readonly expiresMs: UnixMs;
}

const contactField = z.strictObject({
  peer: peerField,
  addresses: z.array(z.string().min(1).max(limits.addressMaxChars)).min(1).max(limits.peerAddressesMax),
});

/** A peer that several issuers have admitted, as the one did that admitted it last. */
function newestEach<Member extends { readonly peer: PeerId; readonly admittedMs: UnixMs }>(
  members: readonly Member[],
): readonly Member[] {
  const byPeer = new Map<PeerId, Member>();
  for (const member of members) {
    const known = byPeer.get(member.peer);
    if (known === undefined || known.admittedMs <= member.admittedMs) byPeer.set(member.peer, member);
  }
  return [...byPeer.values()];
}

export const meshOperations = {
  status: operation({
    method: 'GET',
    path: 'status',
    roles: watchers,
    about: 'Shows what helixflow status shows.',
    input: noInput,
    run: ({ status }) => status(),
  }),
  'ledger.status': operation({
    method: 'GET',
    path: 'ledger',
    roles: watchers,
    about: 'Shows which feeds are held, how fresh each issuer is, and what was found damaged or forked.',
    input: noInput,
    run: ({ ledger }) => ledger.status(),
  }),
  'peers.list': operation({
    method: 'GET',
    path: 'peers',
    roles: watchers,
    about: 'Lists the peers that are connected to this gateway, with their addresses.',
    input: pageInput,
    run: ({ member }, page) => {
      const peers = member.admitted().map(
        ([{ peer, direction, path, remoteAddress }, { membership }]): PeerView => ({
          peer,
          role: membership.role,
          owner: membership.owner,
          direction,
          path,
          address: remoteAddress,
        }),
      );
      return pageOf(peers, ({ peer }) => peer, page);
    },
  }),
  'members.list': operation({
    method: 'GET',
    path: 'members',
    roles: watchers,
    about: 'Lists every peer that was admitted to the mesh, as far as this gateway has heard.',
    input: pageInput,
    run: ({ ledger: { standing } }, page) => {
      const { data, hasMore } = pageOf(newestEach(standing.members()), ({ peer }) => peer, page);
      const view = ({ peer, role, owner, admittedMs, expiresMs }: (typeof data)[number]): MemberView => ({
        peer,
        role,
        owner,
        admittedMs,
        expiresMs,
        banned: standing.isBanned(peer),
      });
      return { data: data.map(view), hasMore };
    },
  }),
  'bans.list': operation({
    method: 'GET',
    path: 'bans',
    roles: watchers,
    about: 'Lists the bans in force.',
    input: pageInput,
    run: ({ ledger }, page) => {
      const bans = [...ledger.standing.bans()].map(([peer, ids]): BanView => ({ peer, bans: ids }));
      return pageOf(bans, ({ peer }) => peer, page);
    },
  }),
  'bans.create': operation({
    method: 'POST',
    path: 'bans',
    roles: watchers,
    about: 'Bans a peer from the whole mesh; its connections close everywhere.',
    input: z.strictObject({ peer: peerField }),
    run: async (context, { peer }, caller) => {
      const desk = deskFor(context, caller);
      if (peer === context.self) throw unsupported('peer', 'this gateway cannot ban itself.');
      await desk.ban(peer, actorOf(caller));
      return { peer, banned: true };
    },
  }),
  'bans.remove': operation({
    method: 'DELETE',
    path: 'bans/:peer',
    roles: watchers,
    about: 'Takes back every ban of a peer that this gateway knows of.',
    input: z.strictObject({ peer: peerField }),
    run: async (context, { peer }, caller) => {
      const desk = deskFor(context, caller);
      const isBanned = context.ledger.standing.isBanned(peer);
      if (!isBanned) throw new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'ban of', id: peer });
      await desk.unban(peer, actorOf(caller));
      return { peer, banned: context.ledger.standing.isBanned(peer) };
    },
  }),
  'invites.create': operation({
    method: 'POST',
    path: 'invites',
    roles: admins,
    about: 'Makes an invite. Its text is in this answer and nowhere else.',
    input: z.strictObject({
      role: z.enum(['node', 'gateway']),
      owner: ownerField.optional(),
      uses: z.int().min(0).max(inviteUsesMax).default(1),
      ttlMs: durationField(60_000, 365).default(inviteLifetimeMs),
      gateways: z.array(contactField).min(1).max(inviteGatewaysMax).optional(),
    }),
    run: async (context, { role, owner, uses, ttlMs, gateways }, caller): Promise<InviteView> => {
      const { network } = context;
      const request = { role, owner, uses, ttl: ttlMs, network, gateways: gateways ?? context.contacts() };
      const { token, inviteId, expiresMs } = await deskFor(context, caller).createInvite(request, actorOf(caller));
      return { token, invite: inviteId, role, uses, expiresMs };
    },
  }),
  'audit.tail': operation({
    method: 'GET',
    path: 'audit',
    roles: watchers,
    about: 'Shows the newest lines of this gateway’s audit log, oldest first.',
    input: z.strictObject({ lines: countField(1, 10_000).default(100) }),
    run: async ({ audit }, { lines }) => ({ data: await audit.tail(lines) }),
  }),
  'audit.verify': operation({
    method: 'GET',
    path: 'audit/verify',
    roles: watchers,
    about: 'Follows the chain of the audit log and says where it breaks.',
    input: noInput,
    run: ({ audit }) => audit.verify(),
  }),
};
