/** `helixflow mesh invite`: a token by which other processes find the mesh and become members. */

import { isLoopback } from '../../gateway/http/listen.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { NetworkKind } from '../../protocol/grants.ts';
import type { OwnerId, PeerId } from '../../protocol/ids.ts';
import { checkInvite, inviteUsesMax } from '../../protocol/invites.ts';
import type { MeshRecord } from '../../protocol/mesh.ts';
import { checkAddress } from '../../protocol/peer/address.ts';
import type { Contact } from '../../protocol/ports.ts';
import { openAdmin } from '../admin.ts';
import type { RunCommand } from '../command.ts';
import type { meshInviteOptions } from '../config/mesh-tables.ts';
import type { ConfigOf } from '../config/option.ts';
import { isoOf, moment } from '../lists.ts';

type InviteConfig = ConfigOf<typeof meshInviteOptions>;

/** `/ip4/…/tcp/…/p2p/12D3…` by peer. @throws HelixFlowError ADDRESS_REFUSED */
function contactsOf(multiaddrs: readonly string[], network: NetworkKind): Contact[] {
  const byPeer = new Map<string, string[]>();
  for (const text of multiaddrs) {
    const [address = '', peer = ''] = text.split('/p2p/');
    const verdict = checkAddress(address, network);
    if (!verdict.ok) throw new HelixFlowError('ADDRESS_REFUSED', { address, reason: verdict.reason });
    byPeer.set(peer, [...(byPeer.get(peer) ?? []), address]);
  }
  return [...byPeer].map(([peer, addresses]) => ({ peer: peer as PeerId, addresses }));
}

/** Invites for whoever comes are an open mesh's, and never for gateways: those see prompts and keys. */
function checkUses({ uses, role }: InviteConfig, { isOpen }: MeshRecord): void {
  if (uses > 0) return;
  const reason = isOpen ? 'unlimited invites are for nodes only' : 'unlimited invites take an open mesh';
  const shown = `${reason}: name a number from 1 to ${inviteUsesMax}`;
  if (!isOpen || role !== 'node') throw new HelixFlowError('CONFIG_INVALID', { reason: `--uses: ${shown}` });
}

/** On an open mesh each peer answers for itself, unless somebody does by name. */
const ownerOf = ({ owner, role }: InviteConfig, { isOpen }: MeshRecord): OwnerId | undefined =>
  owner === undefined ? (isOpen && role === 'node' ? undefined : ('local' as OwnerId)) : (owner as OwnerId);

/** Only peers on this machine reach it. */
const isLocal = ({ addresses }: Contact): boolean =>
  addresses.every((address) => isLoopback(address.split('/')[2] ?? ''));

export const runMeshInvite: RunCommand<typeof meshInviteOptions> = async (config, { common, output }) => {
  await using admin = await openAdmin(common.dataDir, 'mesh invite');
  const { mesh, issuer } = admin.known;
  const { meshId, network } = mesh;
  if (issuer === undefined) throw new HelixFlowError('ISSUER_MISSING', { meshId });
  checkUses(config, mesh);
  const { role, uses } = config;
  const owner = ownerOf(config, mesh);
  const given = contactsOf(config.gateway, network);
  const made = await admin.call('invites.create', {
    role,
    uses,
    ttlMs: config.ttl,
    ...(owner === undefined ? {} : { owner }),
    ...(given.length === 0
      ? {}
      : { gateways: given.map(({ peer, addresses }) => ({ peer, addresses: [...addresses] })) }),
  });
  const { token, invite, expiresMs } = made;
  const { gateways } = await checkInvite(token, { tokens: createJoseTokens(), nowMs: systemClock().wallMs() });
  output.data({ token, inviteId: invite, meshId, role, uses, owner, expires: isoOf(expiresMs), gateways }, token);
  if (gateways.every(isLocal)) {
    output.note(
      'It works on this machine only: no other reaches the gateway before that runs with --p2p-host 0.0.0.0.',
    );
  }
  const whom = uses === 0 ? `any number of ${role}s` : uses === 1 ? `one ${role}` : `${uses} ${role}s`;
  output.note(
    `Good until ${moment(expiresMs)}, for ${whom}. Use: helixflow ${role} --join - (and paste it), or HELIXFLOW_JOIN=…`,
  );
  return 0;
};
