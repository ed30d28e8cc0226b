/** `helixflow mesh show`: the mesh that a data directory belongs to, and its peers there. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { createLog } from '../../protocol/adapters/log.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { Role } from '../../protocol/grants.ts';
import { issuerOf, type MeshRecord } from '../../protocol/mesh.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { RunCommand } from '../command.ts';
import { callDaemon } from '../control-client.ts';
import { type DataDir, openDataDir } from '../data-dir.ts';
import { fileExists } from '../files.ts';
import { holdDataDir } from '../holder.ts';
import { ageText, type IssuerStatus } from '../ledger-text.ts';
import { judgeMembership } from '../membership.ts';
import { type KnownMesh, readMeshOrFail } from '../mesh-files.ts';
import { openRoots, recallRoots } from '../open-roots.ts';
import { readIdentity, readMembership } from '../peer-files.ts';

interface ShownPeer {
  readonly role: Role;
  readonly peerId: string;
  readonly membership: 'valid' | 'lapsed' | 'taken back' | 'none';
  readonly expires?: string;
}

interface Shown {
  readonly dir: DataDir;
  readonly known: KnownMesh;
  readonly issuers: readonly IssuerStatus[];
}

async function showPeer(role: Role, { dir, known: { mesh }, issuers }: Shown): Promise<ShownPeer[]> {
  const paths = dir.peer(role);
  const identity = await readIdentity(paths);
  if (identity === undefined) return [];
  const peer = peerIdOf(identity.publicKey);
  const credentials = await readMembership(paths);
  if (credentials === undefined) return [{ role, peerId: peer, membership: 'none' }];
  const checking = { tokens: createJoseTokens(), nowMs: systemClock().wallMs() };
  const judged = await judgeMembership(credentials, { ...checking, meshId: mesh.meshId, peer });
  if (judged === undefined) return [{ role, peerId: peer, membership: 'lapsed' }];
  const isTakenBack = issuers.some(({ issuer, state }) => issuer === judged.issuer && state === 'revoked');
  if (isTakenBack) return [{ role, peerId: peer, membership: 'taken back' }];
  return [{ role, peerId: peer, membership: 'valid', expires: new Date(judged.expiresMs).toISOString() }];
}

/** Only the issuer whose key is here, and what an earlier run has heard the root say of it. */
async function issuersOnDisk(dir: DataDir, { mesh, issuer: record }: KnownMesh): Promise<readonly IssuerStatus[]> {
  if (record === undefined) return [];
  const { issuer } = issuerOf(record);
  const roots = await openRoots(createJoseTokens(), { mesh, issuer: record, credentials: undefined });
  try {
    await using _hold = await holdDataDir(dir, 'mesh show');
    const log = createLog({ level: 'warn', destination: 'stderr' });
    await recallRoots({ log }, dir.peer('gateway').store, roots);
  } catch (error) {
    // Another command is at work; the files tell the rest.
    if (!isHelixFlowError(error, 'DATA_DIR_HELD')) throw error;
  }
  const heir = roots.successorsOf(issuer).at(-1)?.issuer;
  const state = roots.isRevoked(issuer) ? 'revoked' : heir === undefined ? 'here' : 'succeeded';
  return [{ issuer, state, ...(heir === undefined ? {} : { succeededBy: heir }) }];
}

/** The issuers that are known: from the daemon with their freshness, else from the files alone. */
async function issuersOf(dir: DataDir, known: KnownMesh): Promise<readonly IssuerStatus[]> {
  try {
    const { gateway, node } = await callDaemon(dir.socket, 'GET /status');
    const ledger = gateway?.ledger ?? node?.ledger;
    if (ledger !== undefined) return ledger.issuers;
  } catch (error) {
    if (!isHelixFlowError(error, 'DAEMON_UNREACHABLE') && !isHelixFlowError(error, 'ROUTE_NOT_FOUND')) throw error;
  }
  return issuersOnDisk(dir, known);
}

function standingOf({ state, succeededBy }: IssuerStatus): string {
  if (state === 'here') return 'its key is in this directory';
  const heir = succeededBy === undefined ? [] : [`succeeded by ${succeededBy}`];
  return [...(state === 'revoked' ? ['revoked'] : []), ...heir].join(', ') || state;
}

function issuerLine(status: IssuerStatus): string {
  const { issuer, state, holder, succeededBy } = status;
  const hasHolder = holder !== undefined && (state !== 'revoked' || succeededBy !== undefined);
  const age = ageText(status);
  return [
    `issuer   ${issuer}  ${standingOf(status)}`,
    hasHolder ? `, held by ${holder}` : '',
    age === '' ? '' : `, heard of ${age}`,
  ].join('');
}

function opennessOf({ isOpen }: MeshRecord): string {
  if (isOpen === undefined) return 'open or private: unknown';
  return isOpen ? 'open' : 'private';
}

export const runMeshShow: RunCommand<Record<never, never>> = async (_config, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const known = await readMeshOrFail(dir);
  const { meshId, name, network, isOpen } = known.mesh;
  const issuer = known.issuer === undefined ? undefined : issuerOf(known.issuer).issuer;
  const issuers = await issuersOf(dir, known);
  const shownOf = { dir, known, issuers };
  const hasRoot = await fileExists(dir.rootFile);
  const peers = [...(await showPeer('gateway', shownOf)), ...(await showPeer('node', shownOf))];
  const lines = [
    `mesh     ${name ?? 'unknown'} (${network}, ${opennessOf(known.mesh)})`,
    `mesh id  ${meshId}`,
    `root     its key is ${hasRoot ? 'in this directory' : 'elsewhere'}`,
    ...(issuers.length === 0 ? ['issuer   elsewhere; its gateways tell while a daemon runs here'] : []),
    ...issuers.map(issuerLine),
    ...peers.map(
      ({ role, peerId, membership, expires }) =>
        `${role.padEnd(8)} ${peerId}  membership ${membership}${expires === undefined ? '' : ` until ${expires}`}`,
    ),
  ];
  const shown = { meshId, name, network, open: isOpen, ...(issuer === undefined ? {} : { issuer }), issuers, hasRoot };
  output.data({ ...shown, peers }, lines.join('\n'));
  return 0;
};
