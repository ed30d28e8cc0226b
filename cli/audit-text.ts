/** The audit log for people: a line of it, and what a check of it came to. */

import type { AuditVerdict } from '../ledger/adapters/audit-read.ts';
import type { AuditLine } from '../ledger/audit.ts';
import type { Finding } from '../ledger/audit-verify.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import type { DataDir } from './data-dir.ts';
import { isoOf, moment } from './lists.ts';

/** One line of a terminal. */
export const auditLineText = ({ time, outcome, action, actor, object, reason, count }: AuditLine): string =>
  [
    moment(time),
    outcome.padEnd(7),
    action.padEnd(16),
    `${actor} → ${object}`,
    ...(reason === '' ? [] : [reason]),
    ...(count === undefined ? [] : [`× ${count}`]),
  ].join('  ');

/** As `--json` has it. */
export const auditLineValue = ({ time, ...line }: AuditLine): object => ({ ...line, time: isoOf(time) });

const placeText = ({ place }: Finding): string => (place === undefined ? '' : ` (${place.file}:${place.line})`);

/** What is wrong, and where. */
export function findingText(finding: Finding): string {
  const { fault, number, upTo = number } = finding;
  const place = placeText(finding);
  switch (fault) {
    case 'changed':
      return `line ${number}${place} is not as it was written`;
    case 'malformed':
      return `what stands in the place of line ${number}${place} is no line of the log`;
    case 'misplaced':
      return `line ${number}${place} was inserted, repeated or moved`;
    case 'missing':
      return `${upTo === number ? `line ${number} is` : `lines ${number} to ${upTo} are`} gone${place === '' ? ', at the end' : `, before${place}`}`;
    case 'headless':
      return `head.json is gone, so nothing tells whether lines after ${number} are missing`;
  }
}

/** As `--json` has it. */
export const verdictValue = ({ lines, first, last, isTorn, finding }: AuditVerdict): object => ({
  ok: finding === undefined,
  lines,
  first,
  last,
  torn: isTorn === true,
  finding,
});

export function verdictText({ lines, first, last, isTorn, finding }: AuditVerdict): string {
  const newest = last === undefined ? 'none' : `${last.number}:${last.hash}`;
  return [
    `lines    ${lines}${lines > 0 && first !== undefined && last !== undefined ? `, from ${first} to ${last.number}` : ''}`,
    `newest   ${newest}`,
    ...(isTorn === true ? ['torn     one more line has no end: it is being written, or a crash cut it off'] : []),
    `found    ${finding === undefined ? 'nothing wrong' : findingText(finding)}`,
  ].join('\n');
}

export const noAuditLog = (dir: DataDir): HelixFlowError =>
  new HelixFlowError('SUBJECT_UNKNOWN', { kind: 'audit log', id: dir.audit });
