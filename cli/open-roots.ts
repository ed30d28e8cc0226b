/** What a directory knows of the root's words: by its files, and by its store. */

import { openLevelStore } from '../ledger/adapters/store-level.ts';
import { createRootStore } from '../ledger/root-store.ts';
import type { Credentials } from '../protocol/grants.ts';
import type { IssuerRecord, MeshRecord } from '../protocol/mesh.ts';
import { createRoots } from '../protocol/peer/create-roots.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import type { Log, Tokens } from '../protocol/ports.ts';
import { fileExists } from './files.ts';

interface Known {
  readonly mesh: Pick<MeshRecord, 'meshId' | 'rootPublicKey'>;
  readonly issuer: IssuerRecord | undefined;
  readonly credentials: Credentials | undefined;
  /** Of an invite that is still to be exchanged. */
  readonly certificate?: string | undefined;
}

/** @throws HelixFlowError TOKEN_INVALID when a certificate in the directory is not by the root of its mesh. */
export async function openRoots(tokens: Tokens, { mesh, issuer, credentials, certificate }: Known): Promise<Roots> {
  const { meshId, rootPublicKey } = mesh;
  const roots = createRoots({ tokens }, { meshId, rootPublicKey });
  for (const token of [issuer?.certificate, credentials?.certificate, certificate]) {
    if (token !== undefined) await roots.take({ kind: 'issuer', token });
  }
  return roots;
}

/**
 * Tells `roots` what a peer's store holds of the root's words; its process must not run.
 * @param path Of the store; one that is not there yet holds none.
 * @throws HelixFlowError STORE_FAILED
 */
export async function recallRoots({ log }: { readonly log: Log }, path: string, roots: Roots): Promise<void> {
  if (!(await fileExists(path))) return;
  const store = await openLevelStore(path);
  try {
    await createRootStore({ store, log }).load(roots);
  } finally {
    await store.close();
  }
}
