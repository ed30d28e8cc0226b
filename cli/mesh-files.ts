/** The mesh as a data directory remembers it: `mesh/`, which appears whole or not at all. */

import { randomBytes } from 'node:crypto';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { HelixFlowError } from '../protocol/errors.ts';
import type { Invite } from '../protocol/invites.ts';
import {
  checkRecordFormat,
  encodeIssuerRecord,
  encodeMeshRecord,
  encodeRootRecord,
  type IssuerRecord,
  issuerOf,
  type MeshRecord,
  type NewMesh,
  parseIssuerRecord,
  parseMeshRecord,
} from '../protocol/mesh.ts';
import type { DataDir } from './data-dir.ts';
import {
  fileExists,
  makeDirectory,
  readFileIfAny,
  removeFile,
  syncDirectory,
  systemCode,
  systemReason,
  writeFileAtomic,
} from './files.ts';

/** What a directory knows of its mesh. */
export interface KnownMesh {
  readonly mesh: MeshRecord;
  /** Only where this directory's gateway is an issuer. */
  readonly issuer: IssuerRecord | undefined;
}

/**
 * The mesh of this directory; undefined when it belongs to none.
 * @throws HelixFlowError FORMAT_TOO_NEW; DATA_DIR_UNUSABLE when a record is damaged or cannot be read.
 */
export async function readMesh(dir: DataDir): Promise<KnownMesh | undefined> {
  const text = await readFileIfAny(dir.meshFile);
  if (text === undefined) return undefined;
  const mesh = parseMeshRecord(text, dir.meshFile);
  const rootText = await readFileIfAny(dir.rootFile);
  if (rootText !== undefined) checkRecordFormat(rootText, dir.rootFile);
  const issuerText = await readFileIfAny(dir.issuerFile);
  const issuer = issuerText === undefined ? undefined : parseIssuerRecord(issuerText, dir.issuerFile);
  if (issuer !== undefined && issuer.meshId !== mesh.meshId) {
    throw new HelixFlowError('DATA_DIR_UNUSABLE', { path: dir.issuerFile, reason: 'it is the key of another mesh' });
  }
  // Where a mesh was made, and where it was handed over to, it has always been written down when it is open.
  const isAtHome = issuer !== undefined || (await fileExists(dir.rootFile));
  return { mesh: isAtHome ? { isOpen: false, ...mesh } : mesh, issuer };
}

/** @throws HelixFlowError MESH_MISSING */
export async function readMeshOrFail(dir: DataDir): Promise<KnownMesh> {
  const known = await readMesh(dir);
  if (known === undefined) throw new HelixFlowError('MESH_MISSING', {});
  return known;
}

/** Writes all of `files` beside `mesh/`, then puts them in its place with one rename. @throws HelixFlowError MESH_EXISTS; DATA_DIR_UNUSABLE */
export async function writeMeshFiles(dir: DataDir, files: Readonly<Record<string, string>>): Promise<void> {
  const draft = `${dir.mesh}.${randomBytes(4).toString('hex')}.new`;
  await makeDirectory(dir.path);
  await makeDirectory(draft, true);
  try {
    for (const [name, text] of Object.entries(files)) await writeFileAtomic(join(draft, name), text);
    // A directory replaces an empty one only, so an older mesh is never overwritten.
    await rename(draft, dir.mesh);
    await syncDirectory(dir.path);
  } catch (cause) {
    await rm(draft, { recursive: true, force: true });
    if (cause instanceof HelixFlowError) throw cause;
    const code = systemCode(cause);
    const known = code === 'ENOTEMPTY' || code === 'EEXIST' ? await readMesh(dir) : undefined;
    if (known !== undefined) throw new HelixFlowError('MESH_EXISTS', { meshId: known.mesh.meshId }, { cause });
    throw new HelixFlowError('DATA_DIR_UNUSABLE', { path: dir.mesh, reason: systemReason(cause) }, { cause });
  }
}

/**
 * Writes a new mesh with its secrets.
 * @param rootText The text of `root.key`, where a passphrase encrypts it.
 * @throws HelixFlowError MESH_EXISTS; DATA_DIR_UNUSABLE
 */
export async function writeNewMesh(
  dir: DataDir,
  made: NewMesh,
  rootText: string = encodeRootRecord(made.root),
): Promise<void> {
  await writeMeshFiles(dir, {
    'root.key': rootText,
    'issuer.key': encodeIssuerRecord(made.issuer),
    'mesh.json': encodeMeshRecord(made.mesh),
  });
}

/** What an invite tells of the mesh it leads to. */
export const meshBy = ({ meshId, rootPublicKey, network, meshName, isOpen }: Invite): MeshRecord => ({
  ...{ meshId, rootPublicKey, network },
  ...(meshName === undefined ? {} : { name: meshName }),
  ...(isOpen === undefined ? {} : { isOpen }),
});

/**
 * Writes what an invite tells of the mesh it led to; of one that is known here, what was not told before.
 * @throws HelixFlowError MESH_EXISTS; DATA_DIR_UNUSABLE
 */
export async function writeJoinedMesh(dir: DataDir, invite: Invite): Promise<void> {
  const known = (await readMesh(dir))?.mesh;
  if (known === undefined) await writeMeshFiles(dir, { 'mesh.json': encodeMeshRecord(meshBy(invite)) });
  else if (known.isOpen === undefined && invite.isOpen !== undefined) {
    await writeFileAtomic(dir.meshFile, encodeMeshRecord({ ...known, ...meshBy(invite) }));
  }
}

/**
 * Makes this directory's gateway an issuer, by a handover. The key of an issuer that was here before is kept beside it.
 * @throws HelixFlowError DATA_DIR_UNUSABLE
 */
export async function installIssuer(
  dir: DataDir,
  issuer: IssuerRecord,
  learnt: Pick<MeshRecord, 'name' | 'isOpen'>,
): Promise<void> {
  const known = await readMeshOrFail(dir);
  await writeFileAtomic(dir.meshFile, encodeMeshRecord({ ...known.mesh, ...learnt }));
  if (known.issuer !== undefined) {
    const before = join(dir.mesh, `issuer-${issuerOf(known.issuer).issuer}.key`);
    await writeFileAtomic(before, encodeIssuerRecord(known.issuer));
  }
  await writeFileAtomic(dir.issuerFile, encodeIssuerRecord(issuer));
  // Its own gateway is admitted anew, by this issuer: the one before may be taken back.
  await removeFile(dir.peer('gateway').membershipFile);
  // Last, since as long as it is there all of this can be repeated.
  await removeFile(dir.nextIssuerFile);
}
