/** `helixflow audit verify`: whether the audit log is as it was written, and else the line where it is not. */

import { type AuditVerdict, verifyAudit } from '../../ledger/adapters/audit-read.ts';
import type { Finding } from '../../ledger/audit-verify.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import type { RunCommand } from '../command.ts';
import type { auditVerifyOptions } from '../config/audit-tables.ts';
import { openDataDir } from '../data-dir.ts';

const faults: Readonly<Record<Finding['fault'], string>> = {
  changed: 'is not as it was written',
  malformed: 'is no line of the log',
  missing: 'is gone',
  misplaced: 'does not belong there: it was put in, repeated or moved',
  headless: 'is the newest, but head.json is gone or damaged: whether lines are missing after it cannot be told',
};

function describe({ fault, number, upTo, place }: Finding): string {
  const where = place === undefined ? '' : ` (${place.file}, line ${place.line})`;
  const isRange = upTo !== undefined && upTo !== number;
  return isRange ? `lines ${number} to ${upTo} are gone${where}` : `line ${number}${where} ${faults[fault]}`;
}

/** Good to be written down elsewhere. */
const notedOf = ({ last }: AuditVerdict): string => (last === undefined ? '' : `${last.number}:${last.hash}`);

function textOf(verdict: AuditVerdict): string {
  const { lines, first, isTorn, finding } = verdict;
  if (finding !== undefined) return `broken: ${describe(finding)}`;
  return [
    lines === 0 ? 'whole: no lines yet' : `whole: ${lines} lines from ${first}`,
    ...(isTorn === true ? ['after them stands a line that is being written now, or was cut off by a crash'] : []),
    ...(lines === 0 ? [] : [`newest   ${notedOf(verdict)}`]),
  ].join('\n');
}

export const runAuditVerify: RunCommand<typeof auditVerifyOptions> = async ({ noted }, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const verdict = await verifyAudit(dir.audit, noted);
  if (verdict === undefined)
    throw new HelixFlowError('CHECK_FAILED', { reason: `there is no audit log in ${dir.path}` });
  const { lines, first, finding } = verdict;
  const newest = notedOf(verdict);
  const shown = { whole: finding === undefined, lines, first, ...(newest === '' ? {} : { newest }), finding };
  output.data(shown, textOf(verdict));
  if (finding === undefined) return 0;
  throw new HelixFlowError('CHECK_FAILED', { reason: `${dir.audit}: ${describe(finding)}` });
};
