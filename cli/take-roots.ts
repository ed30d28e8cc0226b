/** What the root has signed: taken on behalf of whoever may use the data directory, or from peers; the audit log is told. */

import type { Audit, AuditAction } from '../ledger/audit.ts';
import { fromBase64Url } from '../protocol/crypto.ts';
import type { Roots, RootToken } from '../protocol/peer/roots.ts';

/** New words of the root, on their way into the audit log. */
export interface RootTaker extends Disposable {
  /** From a command. @returns how many of them were new. @throws HelixFlowError TOKEN_INVALID at the first that is not the root's. */
  take(tokens: readonly RootToken[]): Promise<number>;
}

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

/** Notes whatever is new to `roots` from now on: what this directory knew before is no news. */
export function createRootTaker(roots: Roots, audit: Audit): RootTaker {
  const fromHere = new Set<string>();
  const cancel = roots.onChange((said) => {
    const actor = fromHere.has(said.token) ? 'local' : 'none';
    audit.note({ action: actions[said.kind], actor, object: objectOf(said), outcome: 'done', reason: '' });
  });
  return {
    take: async (tokens) => {
      let taken = 0;
      for (const said of tokens) {
        fromHere.add(said.token);
        try {
          if (await roots.take(said)) taken += 1;
        } finally {
          fromHere.delete(said.token);
        }
      }
      return taken;
    },
    [Symbol.dispose]: cancel,
  };
}
