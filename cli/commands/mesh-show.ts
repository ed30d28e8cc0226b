/** `helixflow mesh show`: the mesh that a data directory belongs to, and its peers there. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import type { Role } from '../../protocol/grants.ts';
import { issuerOf } from '../../protocol/mesh.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { RunCommand } from '../command.ts';
import { type DataDir, openDataDir } from '../data-dir.ts';
import { judgeMembership } from '../membership.ts';
import { type KnownMesh, readMeshOrFail } from '../mesh-files.ts';
import { readIdentity, readMembership } from '../peer-files.ts';

interface ShownPeer {
  readonly role: Role;
  readonly peerId: string;
  readonly membership: 'valid' | 'lapsed' | 'none';
  readonly expires?: string;
}

async function showPeer(dir: DataDir, role: Role, { mesh }: KnownMesh): Promise<ShownPeer[]> {
  const paths = dir.peer(role);
  const identity = await readIdentity(paths);
  if (identity === undefined) return [];
  const peer = peerIdOf(identity.publicKey);
  const credentials = await readMembership(paths);
  if (credentials === undefined) return [{ role, peerId: peer, membership: 'none' }];
  const checking = { tokens: createJoseTokens(), nowMs: systemClock().wallMs() };
  const judged = await judgeMembership(credentials, { ...checking, meshId: mesh.meshId, peer });
  if (judged === undefined) return [{ role, peerId: peer, membership: 'lapsed' }];
  return [{ role, peerId: peer, membership: 'valid', expires: new Date(judged.expiresMs).toISOString() }];
}

export const runMeshShow: RunCommand<Record<never, never>> = async (_config, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const known = await readMeshOrFail(dir);
  const { meshId, name, network } = known.mesh;
  const issuer = known.issuer === undefined ? undefined : issuerOf(known.issuer).issuer;
  const peers = [...(await showPeer(dir, 'gateway', known)), ...(await showPeer(dir, 'node', known))];
  const lines = [
    `mesh     ${name} (${network})`,
    `mesh id  ${meshId}`,
    `issuer   ${issuer ?? 'elsewhere'}`,
    ...peers.map(
      ({ role, peerId, membership, expires }) =>
        `${role.padEnd(8)} ${peerId}  membership ${membership}${expires === undefined ? '' : ` until ${expires}`}`,
    ),
  ];
  output.data({ meshId, name, network, ...(issuer === undefined ? {} : { issuer }), peers }, lines.join('\n'));
  return 0;
};
