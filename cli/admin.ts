/** Operations of the admin API for commands: asked of the daemon that holds a directory, run here when none does. */

import type { AdminApi, OperationName } from '../gateway/admin/operations.ts';
import type { RootToken } from '../protocol/peer/roots.ts';
import { callDaemon, callOperation, isSocketAlive } from './control-client.ts';
import { type DataDir, openDataDir } from './data-dir.ts';
import { type KnownMesh, readMeshOrFail } from './mesh-files.ts';

/** Where a command's operations are run. */
export interface Admin extends AsyncDisposable {
  readonly dir: DataDir;
  readonly known: KnownMesh;
  /** @throws HelixFlowError what the operation throws; DAEMON_UNREACHABLE when a daemon does not answer. */
  call<Name extends OperationName>(name: Name, request: AdminApi[Name]['request']): Promise<AdminApi[Name]['response']>;
  /** Keeps what the root has signed, and lets it spread: now where a daemon runs, else at its next start. */
  takeRoots(tokens: readonly RootToken[]): Promise<number>;
}

const viaDaemon = (dir: DataDir, known: KnownMesh): Admin => ({
  dir,
  known,
  call: (name, request) => callOperation(dir.socket, name, request),
  takeRoots: async (tokens) => (await callDaemon(dir.socket, 'POST /roots', { body: tokens })).taken,
  [Symbol.asyncDispose]: () => Promise.resolve(),
});

/**
 * Opens a directory for the operations of a command.
 * @param command For whoever wants the directory meanwhile.
 * @throws HelixFlowError MESH_MISSING; what `openOffline` throws.
 */
export async function openAdmin(dataDir: string | undefined, command: string): Promise<Admin> {
  const dir = await openDataDir(dataDir, 'read');
  const known = await readMeshOrFail(dir);
  if (await isSocketAlive(dir.socket)) return viaDaemon(dir, known);
  const { openOffline } = await import('./offline.ts');
  return openOffline(dir, known, command);
}
