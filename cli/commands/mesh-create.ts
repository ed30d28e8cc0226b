/** `helixflow mesh create`: a new mesh whose issuer is this directory's gateway. */

import { systemClock } from '../../protocol/adapters/clock.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { NetworkKind } from '../../protocol/grants.ts';
import { createMesh, issuerOf, type NewMesh, sealRootRecord } from '../../protocol/mesh.ts';
import { noteAudit } from '../audit-note.ts';
import type { RunCommand } from '../command.ts';
import type { meshCreateOptions } from '../config/mesh-tables.ts';
import { type DataDir, openDataDir } from '../data-dir.ts';
import { readMesh, writeNewMesh } from '../mesh-files.ts';
import { openCosts } from '../open-mesh.ts';
import { hasPassphrase, readPassphrase } from '../passphrase.ts';
import { rootPassphraseOf, rootPassphraseUse } from '../root-key.ts';

export interface MeshWish {
  readonly name: string;
  readonly network: NetworkKind;
  readonly isOpen?: boolean;
  /** Encrypts the root key. */
  readonly passphrase?: string | undefined;
}

/** Makes a mesh in a directory that belongs to none. @throws HelixFlowError MESH_EXISTS; DATA_DIR_UNUSABLE */
export async function createMeshIn(dir: DataDir, wish: MeshWish): Promise<NewMesh> {
  await refuseSecond(dir);
  const { passphrase, ...options } = wish;
  const random = systemRandom();
  const made = await createMesh({ tokens: createJoseTokens(), random, clock: systemClock() }, options);
  const root = passphrase === undefined ? undefined : sealRootRecord(made.root, passphrase, random);
  await writeNewMesh(dir, made, root);
  return made;
}

async function refuseSecond(dir: DataDir): Promise<void> {
  const known = await readMesh(dir);
  if (known !== undefined) throw new HelixFlowError('MESH_EXISTS', { meshId: known.mesh.meshId });
}

export const runMeshCreate: RunCommand<typeof meshCreateOptions> = async (config, context) => {
  const { common, output } = context;
  const dir = await openDataDir(common.dataDir, 'write');
  await refuseSecond(dir);
  const given = rootPassphraseOf(config);
  const isSealed = config.passphrase || hasPassphrase(given);
  const passphrase = isSealed ? await readPassphrase(given, context, { ...rootPassphraseUse, isNew: true }) : undefined;
  const { mesh, issuer } = await createMeshIn(dir, {
    name: config.name,
    network: config.network,
    isOpen: config.open,
    passphrase,
  });
  const { meshId, name, network, isOpen } = mesh;
  const issuerId = issuerOf(issuer).issuer;
  await noteAudit(dir, {
    action: 'mesh.create',
    actor: 'local',
    object: `mesh:${meshId}`,
    outcome: 'done',
    reason: '',
  });
  const shown = { meshId, name, network, open: isOpen, issuer: issuerId, rootEncrypted: isSealed, dataDir: dir.path };
  output.data(shown, meshId);
  output.note(
    [
      ...(isOpen ? openCosts : []),
      `Mesh ${name} (${network}) is in ${dir.path}. Keep a copy of its keys somewhere safe (helixflow mesh backup): they are the mesh.`,
      'Next: helixflow gateway, then helixflow mesh invite --role node',
    ].join('\n'),
  );
  return 0;
};
