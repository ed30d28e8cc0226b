/** `helixflow mesh backup`: the keys of a mesh in one file that nobody can read without its passphrase. */

import { systemRandom } from '../../protocol/adapters/random.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { noteDeed } from '../audit-note.ts';
import { type Backup, encodeBackup } from '../backup.ts';
import type { RunCommand } from '../command.ts';
import type { meshBackupOptions } from '../config/mesh-tables.ts';
import { knownGateways } from '../contacts.ts';
import { type DataDir, openDataDir } from '../data-dir.ts';
import { readFileIfAny, writeNewFile } from '../files.ts';
import { readMeshOrFail } from '../mesh-files.ts';
import { readPassphrase } from '../passphrase.ts';

async function collect(dir: DataDir): Promise<Backup> {
  const { mesh } = await readMeshOrFail(dir);
  const files = {
    'mesh.json': (await readFileIfAny(dir.meshFile)) ?? '',
    'root.key': await readFileIfAny(dir.rootFile),
    'issuer.key': await readFileIfAny(dir.issuerFile),
  };
  if (files['root.key'] === undefined && files['issuer.key'] === undefined) {
    throw new HelixFlowError('ROOT_MISSING', { meshId: mesh.meshId });
  }
  return { meshId: mesh.meshId, files, gateways: await knownGateways(dir) };
}

export const runMeshBackup: RunCommand<typeof meshBackupOptions> = async (config, context) => {
  const { common, output } = context;
  const dir = await openDataDir(common.dataDir, 'read');
  const backup = await collect(dir);
  const { passphraseFile, backupPassphrase: passphrase } = config;
  const use = { of: 'backup', env: 'HELIXFLOW_BACKUP_PASSPHRASE', isNew: true };
  const secret = config.plain ? undefined : await readPassphrase({ passphraseFile, passphrase }, context, use);
  await writeNewFile(config.out, encodeBackup(backup, secret, systemRandom()), '--out');
  const holds = Object.entries(backup.files).flatMap(([name, text]) => (text === undefined ? [] : [name]));
  const { meshId } = backup;
  await noteDeed(dir, { action: 'mesh.backup', object: `mesh:${meshId}` }, 'mesh backup');
  output.data({ meshId, out: config.out, encrypted: !config.plain, holds }, config.out);
  output.note(
    config.plain
      ? `${config.out} holds ${holds.join(', ')} as they are: whoever reads it has the mesh.`
      : `${config.out} holds ${holds.join(', ')}. Without its passphrase nobody can use it, you neither.`,
  );
  return 0;
};
