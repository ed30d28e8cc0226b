/** The root key of a mesh, where its directory holds it. */

import { HelixFlowError } from '../protocol/errors.ts';
import type { MeshId } from '../protocol/ids.ts';
import { parseRootRecord, type RootRecord } from '../protocol/mesh.ts';
import type { CommandContext } from './command.ts';
import type { DataDir } from './data-dir.ts';
import { readFileIfAny } from './files.ts';
import { type PassphraseConfig, readPassphrase } from './passphrase.ts';

/** How the options of commands that use the root key name its passphrase. */
export interface RootConfig {
  readonly passphraseFile: string | undefined;
  readonly rootPassphrase: string | undefined;
}

export const rootPassphraseOf = ({ passphraseFile, rootPassphrase }: RootConfig): PassphraseConfig => ({
  passphraseFile,
  passphrase: rootPassphrase,
});

/** How people are asked for it. */
export const rootPassphraseUse = { of: 'root key', env: 'HELIXFLOW_ROOT_PASSPHRASE' } as const;

/**
 * Reads the root key, asking for its passphrase if it has one.
 * @throws HelixFlowError ROOT_MISSING; PASSPHRASE_WRONG; CONFIG_INVALID; DATA_DIR_UNUSABLE; FORMAT_TOO_NEW
 */
export async function openRoot(
  dir: DataDir,
  meshId: MeshId,
  config: RootConfig,
  context: Pick<CommandContext, 'readSecret'>,
): Promise<RootRecord> {
  const text = await readFileIfAny(dir.rootFile);
  if (text === undefined) throw new HelixFlowError('ROOT_MISSING', { meshId });
  const locked = parseRootRecord(text, dir.rootFile);
  if (locked.meshId !== meshId) {
    throw new HelixFlowError('DATA_DIR_UNUSABLE', { path: dir.rootFile, reason: 'it is the key of another mesh' });
  }
  if (!locked.isSealed) return locked.open('');
  return locked.open(await readPassphrase(rootPassphraseOf(config), context, { ...rootPassphraseUse, isNew: false }));
}
