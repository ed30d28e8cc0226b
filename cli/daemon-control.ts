/** What a daemon's parts answer on the control socket, once they have started. */

import { z } from 'zod';
import type { AdminContext } from '../gateway/admin/operation.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import { limits } from '../protocol/limits.ts';
import type { Roots } from '../protocol/peer/roots.ts';
import type { Contact } from '../protocol/ports.ts';
import type { ControlRoutes } from './control.ts';

/** The part of a daemon that a command may talk to. */
export interface Controlled {
  readonly admin: AdminContext;
  readonly roots: Roots;
  /** Gateways that others could find the mesh by. */
  contacts(): readonly Contact[];
}

const rootTokens = z
  .array(
    z.strictObject({
      kind: z.enum(['issuer', 'revocation', 'lift']),
      token: z.string().min(1).max(limits.tokenMaxChars),
    }),
  )
  .max(64);

async function takeRoots(roots: Roots, body: unknown): Promise<{ readonly taken: number }> {
  const parsed = rootTokens.safeParse(body);
  if (!parsed.success) throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'These are no tokens of a root.' });
  let taken = 0;
  for (const said of parsed.data) taken += (await roots.take(said)) ? 1 : 0;
  return { taken };
}

/** @param part Undefined while it is starting: what needs it is refused with LEDGER_UNREADY. */
export function controlRoutes(part: () => Controlled | undefined): ControlRoutes {
  const started = (): Controlled => {
    const controlled = part();
    if (controlled === undefined) throw new HelixFlowError('LEDGER_UNREADY', { reason: 'it is starting' });
    return controlled;
  };
  return {
    'GET /contacts': () => started().contacts(),
    'POST /roots': (body) => takeRoots(started().roots, body),
    admin: () => started().admin,
  };
}
