/** `helixflow audit tail`: the newest lines of the audit log, read from its files. */

import { readAuditTail } from '../../ledger/adapters/audit-read.ts';
import type { AuditLine } from '../../ledger/audit.ts';
import type { RunCommand } from '../command.ts';
import type { auditTailOptions } from '../config/audit-tables.ts';
import { openDataDir } from '../data-dir.ts';
import { columns, moment } from '../lists.ts';
import { printable } from '../output.ts';

const timesOf = ({ count }: AuditLine): string => (count === undefined ? '' : `${count} times`);

const tableOf = (lines: readonly AuditLine[]): string =>
  columns(
    ['LINE', 'TIME', 'ACTION', 'ACTOR', 'OBJECT', 'OUTCOME', 'REASON', ''],
    lines.map((line) => [
      String(line.number),
      moment(line.time),
      line.action,
      line.actor,
      line.object,
      line.outcome,
      line.reason,
      timesOf(line),
    ]),
  )
    .split('\n')
    .map(printable)
    .join('\n');

export const runAuditTail: RunCommand<typeof auditTailOptions> = async ({ lines: count }, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  const lines = (await readAuditTail(dir.audit, count)) ?? [];
  output.data({ lines }, lines.length === 0 ? 'no lines' : tableOf(lines));
  return 0;
};
