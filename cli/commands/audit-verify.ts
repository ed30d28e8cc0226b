/** `helixflow audit verify`: whether the audit log is as it was written, and else the line where it is not. */

import { verifyAudit } from '../../ledger/adapters/audit-read.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { findingText, noAuditLog, verdictText, verdictValue } from '../audit-text.ts';
import type { RunCommand } from '../command.ts';
import type { auditVerifyOptions } from '../config/tables.ts';
import { openDataDir } from '../data-dir.ts';

export const runAuditVerify: RunCommand<typeof auditVerifyOptions> = async ({ anchor }, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const verdict = await verifyAudit(dir.audit, anchor === undefined ? [] : [anchor]);
  if (verdict === undefined) throw noAuditLog(dir);
  output.data(verdictValue(verdict), verdictText(verdict));
  if (verdict.finding === undefined) return 0;
  throw new HelixFlowError('CHECK_FAILED', { reason: `${dir.audit}: ${findingText(verdict.finding)}` });
};
