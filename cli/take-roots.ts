/** Takes what the root has signed, on behalf of whoever may use the data directory, and tells the audit log. */

import type { Audit, AuditAction } from '../ledger/audit.ts';
import { fromBase64Url } from '../protocol/crypto.ts';
import type { Roots, RootToken } from '../protocol/peer/roots.ts';

const actions: Readonly<Record<RootToken['kind'], AuditAction>> = {
  issuer: 'mesh.handover',
  revocation: 'issuer.revoke',
  lift: 'feed.unfreeze',
};

/** Whom a token that has been checked is about. */
function objectOf({ kind, token }: RootToken): string {
  const payload = new TextDecoder().decode(fromBase64Url(token.split('.')[1] ?? ''));
  const { sub } = JSON.parse(payload) as { readonly sub: string };
  return kind === 'lift' ? `author:${sub}` : `issuer:${sub}`;
}

/** @returns how many of them were new. @throws HelixFlowError TOKEN_INVALID at the first that is not the root's. */
export async function takeRoots(roots: Roots, audit: Audit, tokens: readonly RootToken[]): Promise<number> {
  let taken = 0;
  for (const said of tokens) {
    if (!(await roots.take(said))) continue;
    taken += 1;
    audit.note({ action: actions[said.kind], actor: 'local', object: objectOf(said), outcome: 'done', reason: '' });
  }
  return taken;
}
