/** `helixflow audit tail`: the newest lines of the audit log, from its files, whether or not a daemon writes them. */

import { followAudit } from '../../ledger/adapters/audit-follow.ts';
import { readAuditTail } from '../../ledger/adapters/audit-read.ts';
import type { AuditLine } from '../../ledger/audit.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { auditLineText, auditLineValue, noAuditLog } from '../audit-text.ts';
import type { CommandContext, RunCommand } from '../command.ts';
import type { auditTailOptions } from '../config/tables.ts';
import { openDataDir } from '../data-dir.ts';
import { printable } from '../output.ts';
import { watchSignals } from '../signals.ts';

/** Whoever changed the files may have written what steers a terminal. */
const show = ({ output }: CommandContext, line: AuditLine): void =>
  output.data(auditLineValue(line), printable(auditLineText(line)));

export const runAuditTail: RunCommand<typeof auditTailOptions> = async ({ lines: count, follow }, context) => {
  const dir = await openDataDir(context.common.dataDir, 'read');
  const lines = await readAuditTail(dir.audit, count);
  if (lines === undefined) throw noAuditLog(dir);
  for (const line of lines) show(context, line);
  if (!follow) return 0;
  const { signal } = watchSignals();
  // The clock's timers keep no process alive.
  const alive = setInterval(() => {}, 60_000);
  try {
    const next = (lines.at(-1)?.number ?? -1) + 1;
    for await (const line of followAudit(dir.audit, next, { clock: systemClock(), signal })) show(context, line);
    return 0;
  } finally {
    clearInterval(alive);
  }
};
