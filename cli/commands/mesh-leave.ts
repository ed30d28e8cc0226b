/** `helixflow mesh leave`: forgets the mesh of a data directory, with everything that belonged to it there. */

import { randomBytes } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { HelixFlowError } from '../../protocol/errors.ts';
import { noteAudit } from '../audit-note.ts';
import type { RunCommand } from '../command.ts';
import type { meshLeaveOptions } from '../config/mesh-tables.ts';
import { type DataDir, openDataDir } from '../data-dir.ts';
import { fileExists, systemReason } from '../files.ts';
import { holdDataDir } from '../holder.ts';
import { readMeshOrFail } from '../mesh-files.ts';

/** Keys that exist in this directory, and perhaps nowhere else. */
async function secretsIn(dir: DataDir): Promise<readonly string[]> {
  const found = [
    (await fileExists(dir.rootFile)) ? 'the root key of the mesh' : undefined,
    (await fileExists(dir.issuerFile)) ? 'the key of an issuer' : undefined,
  ];
  return found.filter((secret) => secret !== undefined);
}

/** What commands that were killed have left of a mesh folder that they were making or removing; keys may be in it. */
async function leftovers({ path, mesh }: DataDir): Promise<readonly string[]> {
  const isLeft = /^\.[0-9a-f]{8}\.(?:new|gone)$/;
  const names = (await readdir(path)).filter((name) => name.startsWith(basename(mesh)));
  return names.filter((name) => isLeft.test(name.slice(basename(mesh).length))).map((name) => join(path, name));
}

/** Keys go before the mesh's own folder, and that goes last and with one rename: until then the command can be repeated. */
async function removeAll(dir: DataDir): Promise<void> {
  const { path, mesh } = dir;
  const remove = (each: string): Promise<void> => rm(each, { recursive: true, force: true });
  try {
    for (const role of ['gateway', 'node'] as const) await remove(dir.peer(role).path);
    for (const each of await leftovers(dir)) await remove(each);
    for (const name of await readdir(mesh)) if (name.includes('.key')) await remove(join(mesh, name));
    const gone = `${mesh}.${randomBytes(4).toString('hex')}.gone`;
    await rename(mesh, gone);
    await remove(gone);
  } catch (cause) {
    throw new HelixFlowError('DATA_DIR_UNUSABLE', { path, reason: systemReason(cause) }, { cause });
  }
}

export const runMeshLeave: RunCommand<typeof meshLeaveOptions> = async ({ force }, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const { mesh } = await readMeshOrFail(dir);
  await using _hold = await holdDataDir(dir, 'mesh leave');
  const secrets = await secretsIn(dir);
  if (secrets.length > 0 && !force) {
    throw new HelixFlowError('SECRET_AT_STAKE', { path: dir.path, secrets: secrets.join(' and ') });
  }
  const { meshId } = mesh;
  const object = `mesh:${meshId}`;
  // Before it is done: keys that are gone must not lack their line because the process was killed.
  await noteAudit(dir, { action: 'mesh.leave', actor: 'local', object, outcome: 'done', reason: '' });
  await removeAll(dir);
  output.data({ meshId, left: true, destroyed: secrets }, meshId);
  output.note(
    `${dir.path} belongs to no mesh any more. To keep its peer out for good: helixflow mesh ban, at the issuer’s gateway.`,
  );
  return 0;
};
