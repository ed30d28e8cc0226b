/** `helixflow mesh restore`: the keys of a backup, put into a directory that is empty or belongs to the same mesh. */

import { readFileSync } from 'node:fs';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import { markRestored } from '../../ledger/lease-roll.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { issuerOf, parseIssuerRecord } from '../../protocol/mesh.ts';
import { noteAudit } from '../audit-note.ts';
import { type Backup, type BackupFiles, type LockedBackup, parseBackup } from '../backup.ts';
import type { CommandContext, RunCommand } from '../command.ts';
import type { meshRestoreOptions } from '../config/mesh-tables.ts';
import type { ConfigOf } from '../config/option.ts';
import { type DataDir, openDataDir } from '../data-dir.ts';
import { makeDirectory, readFileIfAny, systemReason, writeFileAtomic } from '../files.ts';
import { holdDataDir } from '../holder.ts';
import { readMesh, writeMeshFiles } from '../mesh-files.ts';
import { readPassphrase } from '../passphrase.ts';
import { readSettings, writeSettings } from '../peer-files.ts';

function readBackup(path: string): LockedBackup {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new HelixFlowError('BACKUP_INVALID', { path, reason: systemReason(cause) }, { cause });
  }
  return parseBackup(text, path);
}

async function openBackup(config: ConfigOf<typeof meshRestoreOptions>, context: CommandContext): Promise<Backup> {
  const locked = readBackup(config.from);
  if (!locked.isSealed) return locked.open('');
  const { passphraseFile, backupPassphrase: passphrase } = config;
  const use = { of: 'backup', env: 'HELIXFLOW_BACKUP_PASSPHRASE', isNew: false };
  return locked.open(await readPassphrase({ passphraseFile, passphrase }, context, use));
}

/** Another issuer's key is not put in the place of the one that is here. */
async function checkIssuer(dir: DataDir, text: string | undefined): Promise<void> {
  const ours = await readFileIfAny(dir.issuerFile);
  if (ours === undefined || text === undefined) return;
  const [here, there] = [ours, text].map((each) => issuerOf(parseIssuerRecord(each, dir.issuerFile)).issuer);
  if (here === there) return;
  const reason = `${dir.path} holds the key of issuer ${here}, the backup that of ${there}: restore it into another --data-dir`;
  throw new HelixFlowError('CONFIG_INVALID', { reason });
}

/** Writes what is missing; what is there stays. The result is what was written. */
async function addMissing(dir: DataDir, files: BackupFiles): Promise<readonly string[]> {
  const missing = [
    ['root.key', dir.rootFile, files['root.key']],
    ['issuer.key', dir.issuerFile, files['issuer.key']],
  ] as const;
  const written: string[] = [];
  for (const [name, path, text] of missing) {
    if (text === undefined || (await readFileIfAny(path)) !== undefined) continue;
    await writeFileAtomic(path, text);
    written.push(name);
  }
  return written;
}

async function putFiles(dir: DataDir, { meshId, files }: Backup): Promise<readonly string[]> {
  const known = await readMesh(dir);
  if (known === undefined) {
    const given = Object.entries(files).filter((entry): entry is [string, string] => entry[1] !== undefined);
    await writeMeshFiles(dir, Object.fromEntries(given));
    return given.map(([name]) => name);
  }
  if (known.mesh.meshId !== meshId) throw new HelixFlowError('MESH_EXISTS', { meshId: known.mesh.meshId });
  await checkIssuer(dir, files['issuer.key']);
  return addMissing(dir, files);
}

/** Where the restored gateway looks for its mesh. */
async function putContacts(dir: DataDir, { gateways }: Backup): Promise<void> {
  const paths = dir.peer('gateway');
  await makeDirectory(paths.path, true);
  const settings = await readSettings(paths);
  const known = new Set(settings.bootstrap.map(({ peer }) => peer));
  const added = gateways.filter(({ peer }) => !known.has(peer));
  await writeSettings(paths, { ...settings, bootstrap: [...settings.bootstrap, ...added].slice(0, 64) });
}

/** What was leased with the issuer's key since the backup others have to tell first. */
async function noteRestored(dir: DataDir): Promise<void> {
  const store = await openLevelStore(dir.peer('gateway').store);
  try {
    await markRestored(store);
  } finally {
    await store.close();
  }
}

export const runMeshRestore: RunCommand<typeof meshRestoreOptions> = async (config, context) => {
  const { common, output } = context;
  const dir = await openDataDir(common.dataDir, 'write');
  const backup = await openBackup(config, context);
  await using _hold = await holdDataDir(dir, 'mesh restore');
  const restored = await putFiles(dir, backup);
  await putContacts(dir, backup);
  if (restored.includes('issuer.key')) await noteRestored(dir);
  const { meshId } = backup;
  await noteAudit(dir, {
    action: 'mesh.restore',
    actor: 'local',
    object: `mesh:${meshId}`,
    outcome: 'done',
    reason: '',
  });
  output.data({ meshId, restored, dataDir: dir.path }, meshId);
  output.note(
    [
      `Restored ${restored.join(', ') || 'nothing that was not here already'} of mesh ${meshId} into ${dir.path}.`,
      'Start helixflow gateway: what the mesh has written meanwhile comes back from its other peers.',
    ].join('\n'),
  );
  return 0;
};
