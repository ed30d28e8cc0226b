/** One line in the audit log of a directory that no daemon holds. */

import { openAuditLog } from '../ledger/adapters/audit-files.ts';
import type { AuditRecord } from '../ledger/audit.ts';
import { systemClock } from '../protocol/adapters/clock.ts';
import { createLog } from '../protocol/adapters/log.ts';
import type { DataDir } from './data-dir.ts';

/** The caller holds the directory, or has just made it. @throws HelixFlowError DATA_DIR_UNUSABLE, FORMAT_TOO_NEW */
export async function noteAudit(dir: DataDir, record: AuditRecord): Promise<void> {
  const log = createLog({ level: 'warn', destination: 'stderr' });
  await using audit = await openAuditLog(dir.audit, { clock: systemClock(), log });
  audit.note(record);
}
