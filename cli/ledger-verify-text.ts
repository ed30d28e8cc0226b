/** What `ledger verify` prints for people. */

import type { Verdict } from '../ledger/verify.ts';
import { printable } from './output.ts';

const count = (number: number, what: string): string => `${number} ${what}`;

/** One line for what was read, and one for each problem. */
export function verdictText({ ok, entries, lines, requests, pruned, problems }: Verdict): string {
  const read = [count(entries, 'entries'), count(lines, 'lines'), count(requests, 'requests')].join(', ');
  return [
    `read     ${read}`,
    ...(pruned === undefined ? [] : [`pruned   ${pruned} blocks, whose settled statements are not here`]),
    ...problems.map(({ place, what }) => printable(`wrong    ${place}${place === '' ? '' : ': '}${what}`)),
    `found    ${ok ? 'nothing wrong' : count(problems.length, problems.length === 1 ? 'problem' : 'problems')}`,
  ].join('\n');
}
