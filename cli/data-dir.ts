/** Where things lie in a data directory, and whether it can be used at all. */

import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import envPaths from 'env-paths';
import { HelixFlowError } from '../protocol/errors.ts';
import type { Role } from '../protocol/grants.ts';
import { makeDirectory, systemCode, systemReason } from './files.ts';

/** Paths inside one data directory. */
export interface DataDir {
  readonly path: string;
  readonly mesh: string;
  readonly meshFile: string;
  readonly rootFile: string;
  readonly issuerFile: string;
  /** The key of an issuer that the root has not named yet: a handover under way. */
  readonly nextIssuerFile: string;
  /** The audit log of the directory's gateway or node. */
  readonly audit: string;
  /** The admin socket; the directory's holder serves it. */
  readonly socket: string;
  peer(role: Role): PeerPaths;
}

/** What a peer of one role keeps. */
export interface PeerPaths {
  readonly path: string;
  readonly identityFile: string;
  readonly membershipFile: string;
  readonly settingsFile: string;
  readonly store: string;
}

/** The path of a Unix socket ends in a fixed field of the kernel; macOS has the shorter one, with a zero at its end. */
const socketPathMaxBytes = process.platform === 'darwin' ? 103 : 107;

const unusable = (path: string, reason: string, cause?: unknown): HelixFlowError =>
  new HelixFlowError('DATA_DIR_UNUSABLE', { path, reason }, { cause });

/** Windows has no sockets in directories; a pipe named after the directory takes their place. */
const socketOf = (path: string): string =>
  process.platform === 'win32'
    ? `\\\\.\\pipe\\helixflow-${path.replaceAll(/[^A-Za-z0-9]/g, '-').slice(-200)}`
    : join(path, 'control.sock');

const peerPaths = (path: string): PeerPaths => ({
  path,
  identityFile: join(path, 'identity.key'),
  membershipFile: join(path, 'membership.json'),
  settingsFile: join(path, 'settings.json'),
  store: join(path, 'store'),
});

/** The layout below `path`, or below the platform's place for application data. Touches nothing. */
export function locateDataDir(option: string | undefined): DataDir {
  const path = resolve(option ?? envPaths('helixflow', { suffix: '' }).data);
  const mesh = join(path, 'mesh');
  return {
    path,
    mesh,
    meshFile: join(mesh, 'mesh.json'),
    rootFile: join(mesh, 'root.key'),
    issuerFile: join(mesh, 'issuer.key'),
    nextIssuerFile: join(mesh, 'issuer-next.key'),
    audit: join(path, 'audit'),
    socket: socketOf(path),
    peer: (role) => peerPaths(join(path, role)),
  };
}

/**
 * Checks what can be known of a data directory before anything is read or written there.
 * @param mode `write` makes the directory if it is missing.
 * @throws HelixFlowError DATA_DIR_UNUSABLE
 */
export async function openDataDir(option: string | undefined, mode: 'read' | 'write'): Promise<DataDir> {
  const dir = locateDataDir(option);
  const { path, socket } = dir;
  if (process.platform !== 'win32' && Buffer.byteLength(socket) > socketPathMaxBytes) {
    throw unusable(
      path,
      `its path is too long: a socket in it would take ${Buffer.byteLength(socket)} bytes, ${socketPathMaxBytes} are allowed`,
    );
  }
  if (mode === 'write') await makeDirectory(path);
  try {
    if (!(await stat(path)).isDirectory()) throw unusable(path, 'it is a file');
    await access(path, mode === 'write' ? constants.W_OK | constants.X_OK : constants.X_OK);
  } catch (cause) {
    if (cause instanceof HelixFlowError) throw cause;
    if (mode === 'read' && systemCode(cause) === 'ENOENT') return dir;
    throw unusable(path, systemReason(cause), cause);
  }
  return dir;
}
