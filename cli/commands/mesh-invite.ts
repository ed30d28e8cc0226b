/** `helixflow mesh invite`: a token by which another process finds the mesh and becomes a member. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { toHex } from '../../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import { type Invite, type NetworkKind, signInvite } from '../../protocol/grants.ts';
import type { OwnerId, PeerId } from '../../protocol/ids.ts';
import { issuerOf } from '../../protocol/mesh.ts';
import { checkAddress, filterAddresses } from '../../protocol/peer/address.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { Contact } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import type { RunCommand } from '../command.ts';
import type { meshInviteOptions } from '../config/tables.ts';
import { callDaemon } from '../control.ts';
import { type DataDir, openDataDir } from '../data-dir.ts';
import { readMeshOrFail } from '../mesh-files.ts';
import { readIdentity, readSettings } from '../peer-files.ts';

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

/** This directory's own gateway: as it runs now, else as it ran last. */
async function ownGateway(dir: DataDir): Promise<Contact | undefined> {
  try {
    const { gateway } = await callDaemon(dir.socket, 'GET /status');
    if (gateway !== undefined) return { peer: gateway.peerId as PeerId, addresses: gateway.addresses };
  } catch (error) {
    if (!isHelixFlowError(error, 'DAEMON_UNREACHABLE') && !isHelixFlowError(error, 'ROUTE_NOT_FOUND')) throw error;
  }
  const paths = dir.peer('gateway');
  const identity = await readIdentity(paths);
  if (identity === undefined) return undefined;
  return { peer: peerIdOf(identity.publicKey), addresses: (await readSettings(paths)).addresses };
}

async function findGateways(dir: DataDir, given: readonly string[], network: NetworkKind): Promise<Contact[]> {
  if (given.length > 0) return contactsOf(given, network);
  const own = await ownGateway(dir);
  const addresses = filterAddresses(own?.addresses ?? [], network);
  if (own === undefined || addresses.length === 0) throw new HelixFlowError('GATEWAY_UNKNOWN', {});
  return [{ peer: own.peer, addresses }];
}

export const runMeshInvite: RunCommand<typeof meshInviteOptions> = async (config, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const { mesh, issuer } = await readMeshOrFail(dir);
  const { meshId, rootPublicKey, network } = mesh;
  if (issuer === undefined) throw new HelixFlowError('ISSUER_MISSING', { meshId });
  const nowMs = systemClock().wallMs();
  const invite: Invite = {
    meshId,
    rootPublicKey,
    network,
    issuer: issuerOf(issuer).issuer,
    certificate: issuer.certificate,
    inviteId: toHex(systemRandom().bytes(16)),
    role: config.role,
    owner: config.owner as OwnerId,
    gateways: await findGateways(dir, config.gateway, network),
    expiresMs: unixMs(nowMs + config.ttl),
  };
  const token = await signInvite(invite, issuer.key, { tokens: createJoseTokens(), nowMs });
  const { inviteId, role, owner, gateways } = invite;
  const expires = new Date(invite.expiresMs).toISOString();
  output.data({ token, inviteId, meshId, role, owner, expires, gateways }, token);
  output.note(
    `Good until ${expires}, for a ${role}. Use: helixflow ${role} --join - (and paste it), or HELIXFLOW_JOIN=…`,
  );
  return 0;
};
