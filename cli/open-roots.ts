/** What a directory knows of the root's words at its start; the ledger adds what its store holds. */

import type { Credentials } from '../protocol/grants.ts';
import type { IssuerRecord, MeshRecord } from '../protocol/mesh.ts';
import { createRoots } from '../protocol/peer/create-roots.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import type { Tokens } from '../protocol/ports.ts';

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
