/** `helixflow mesh create`: a new mesh whose issuer is this directory's gateway. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { NetworkKind } from '../../protocol/grants.ts';
import { createMesh, issuerOf } from '../../protocol/mesh.ts';
import type { RunCommand } from '../command.ts';
import type { meshCreateOptions } from '../config/tables.ts';
import { type DataDir, openDataDir } from '../data-dir.ts';
import { type KnownMesh, readMesh, writeNewMesh } from '../mesh-files.ts';

/** Makes a mesh in a directory that belongs to none. @throws HelixFlowError MESH_EXISTS; DATA_DIR_UNUSABLE */
export async function createMeshIn(
  dir: DataDir,
  options: { readonly name: string; readonly network: NetworkKind },
): Promise<KnownMesh> {
  const known = await readMesh(dir);
  if (known !== undefined) throw new HelixFlowError('MESH_EXISTS', { meshId: known.mesh.meshId });
  const made = await createMesh({ tokens: createJoseTokens(), random: systemRandom(), clock: systemClock() }, options);
  await writeNewMesh(dir, made);
  return made;
}

export const runMeshCreate: RunCommand<typeof meshCreateOptions> = async (config, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'write');
  const { mesh, issuer } = await createMeshIn(dir, config);
  const { meshId, name, network } = mesh;
  const issuerId = issuer === undefined ? undefined : issuerOf(issuer).issuer;
  output.data({ meshId, name, network, issuer: issuerId, dataDir: dir.path }, meshId);
  output.note(
    [
      `Mesh ${name} (${network}) is in ${dir.path}. Keep a copy of ${dir.rootFile} somewhere safe: it is the mesh.`,
      'Next: helixflow gateway, then helixflow mesh invite --role node',
    ].join('\n'),
  );
  return 0;
};
