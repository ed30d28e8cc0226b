/** What `ledger verify` prints for people. */

import type { Verdict } from '../ledger/verify.ts';
import { counted } from './lists.ts';
import { printable } from './output.ts';

/** One line for what was read, and one for each problem. */
export function verdictText({ ok, entries, lines, requests, pruned, problems }: Verdict): string {
  const read = [
    entries === 1 ? '1 entry' : `${entries} entries`,
    counted(lines, 'line'),
    counted(requests, 'request'),
  ].join(', ');
  return [
    `read     ${read}`,
    ...(pruned === undefined ? [] : [`pruned   ${counted(pruned, 'block')}, whose settled statements are not here`]),
    ...problems.map(({ place, what }) => printable(`wrong    ${place}${place === '' ? '' : ': '}${what}`)),
    `found    ${ok ? 'nothing wrong' : counted(problems.length, 'problem')}`,
  ].join('\n');
}
