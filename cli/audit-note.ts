/** Lines in the audit log of a directory: of commands that hold it, and of those for which its daemon writes. */

import { z } from 'zod';
import { openAuditLog } from '../ledger/adapters/audit-files.ts';
import type { Audit, AuditRecord } from '../ledger/audit.ts';
import { systemClock } from '../protocol/adapters/clock.ts';
import { createLog } from '../protocol/adapters/log.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import { callDaemon } from './control-client.ts';
import type { DataDir } from './data-dir.ts';
import { holdDataDir } from './holder.ts';

const deed = z.strictObject({
  action: z.enum(['mesh.backup', 'handover.prepare']),
  object: z.string().regex(/^(?:mesh|issuer):[0-9a-f]{32,64}$/),
});

/** What a command did beside a daemon that may run. */
export type Deed = z.output<typeof deed>;

const recordOf = ({ action, object }: Deed): AuditRecord => ({
  ...{ action, object },
  ...{ actor: 'local', outcome: 'done', reason: '' },
});

/** The caller holds the directory, or has just made it. @throws HelixFlowError DATA_DIR_UNUSABLE, FORMAT_TOO_NEW */
export async function noteAudit(dir: DataDir, record: AuditRecord): Promise<void> {
  const log = createLog({ level: 'warn', destination: 'stderr' });
  await using audit = await openAuditLog(dir.audit, { clock: systemClock(), log });
  audit.note(record);
}

/** What a daemon was told by a command. @throws HelixFlowError REQUEST_MALFORMED */
export function noteTold(audit: Audit, body: unknown): { readonly noted: true } {
  const parsed = deed.safeParse(body);
  if (!parsed.success) throw new HelixFlowError('REQUEST_MALFORMED', { reason: 'This is nothing that commands do.' });
  audit.note(recordOf(parsed.data));
  return { noted: true };
}

/**
 * Notes it through the daemon that holds the directory, or here where none does.
 * @param command For whoever wants the directory meanwhile.
 * @throws HelixFlowError DATA_DIR_HELD, DATA_DIR_UNUSABLE, FORMAT_TOO_NEW; what the daemon answers
 */
export async function noteDeed(dir: DataDir, did: Deed, command: string): Promise<void> {
  try {
    await callDaemon(dir.socket, 'POST /notes', { body: did });
  } catch (error) {
    if (!isHelixFlowError(error, 'DAEMON_UNREACHABLE')) throw error;
    await using _hold = await holdDataDir(dir, command);
    await noteAudit(dir, recordOf(did));
  }
}
