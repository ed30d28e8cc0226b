/** What a daemon's parts answer on the control socket, once they have started. */

import { z } from 'zod';
import type { AdminContext } from '../gateway/admin/operation.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import { limits } from '../protocol/limits.ts';
import type { RootToken } from '../protocol/peer/roots.ts';
import type { Contact } from '../protocol/ports.ts';
import { type Ms, ms } from '../protocol/units.ts';
import type { ControlRoutes } from './control.ts';
import { graceMaxMs } from './ending.ts';
import type { RootTaker } from './take-roots.ts';

/** The part of a daemon that a command may talk to. */
export interface Controlled {
  readonly admin: AdminContext;
  readonly roots: RootTaker;
  /** Gateways that others could find the mesh by. */
  contacts(): readonly Contact[];
}

const drainAsk = z.strictObject({ graceMs: z.number().min(0).max(graceMaxMs).optional() });

/** How long answers under way may go on; undefined where the daemon's own time is meant. @throws HelixFlowError REQUEST_MALFORMED */
export function readGrace(body: unknown): Ms | undefined {
  const parsed = drainAsk.safeParse(body ?? {});
  if (!parsed.success) throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'This is no time to wait for.' });
  const { graceMs } = parsed.data;
  return graceMs === undefined ? undefined : ms(graceMs);
}

const rootTokens = z
  .array(
    z.strictObject({
      kind: z.enum(['issuer', 'revocation', 'lift']),
      token: z.string().min(1).max(limits.tokenMaxChars),
    }),
  )
  .max(64);

function readTokens(body: unknown): readonly RootToken[] {
  const parsed = rootTokens.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'These are no tokens of a root.' });
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
    'POST /roots': async (body) => ({ taken: await started().roots.take(readTokens(body)) }),
    admin: () => started().admin,
  };
}
