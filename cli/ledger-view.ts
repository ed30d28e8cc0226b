/** The ledger for people: its authors, and the newest attempts. */

import { peerOf } from '../ledger/authors.ts';
import type { AuthorSummary, LedgerSummary } from '../ledger/verify-summary.ts';
import type { TailLine } from '../ledger/verify-tail.ts';
import { columns, isoOf, moment } from './lists.ts';

const short = (id: string): string => `${id.slice(0, 8)}…`;
const shortPeer = (peer: string): string => `…${peer.slice(-8)}`;
/** What an author is told by: of gateways their peers are known. */
const nameOf = ({ author, role }: AuthorSummary): string => (role === 'gateway' ? peerOf(author) : author);

const numbers = [
  'epochs',
  'blocks',
  'entries',
  'bytes',
  'lines',
  'statements',
  'countersigned',
  'unattested',
  'refused',
  'claims',
] as const;

type Sums = Record<(typeof numbers)[number], number>;

const sumOf = (authors: readonly AuthorSummary[]): Sums =>
  Object.fromEntries(numbers.map((name) => [name, authors.reduce((sum, author) => sum + author[name], 0)])) as Sums;

const newestOf = (authors: readonly AuthorSummary[]): number | undefined =>
  authors.reduce<number | undefined>(
    (newest, { newestMs }) => (newestMs === undefined ? newest : Math.max(newest ?? 0, newestMs)),
    undefined,
  );

/** As `--json` has it. */
export const summaryValue = ({ authors, forks, holes }: LedgerSummary): object => ({
  ...sumOf(authors),
  newest: isoOf(newestOf(authors)),
  authors: authors.map(({ newestMs, ...author }) => ({ ...author, newest: isoOf(newestMs) })),
  forks: forks.map(({ place, isLifted }) => ({ place, lifted: isLifted })),
  holes,
});

export function summaryText({ authors, forks, holes }: LedgerSummary): string {
  const cells = (row: Sums): string[] => numbers.map((name) => String(row[name]));
  const rows = authors.map((author) => [nameOf(author), author.role, ...cells(author), moment(author.newestMs)]);
  const all = ['all', '', ...cells(sumOf(authors)), moment(newestOf(authors))];
  return [
    columns(['author', 'role', ...numbers, 'newest'], [...rows, all]),
    ...forks.map(({ place, isLifted }) => `FORK     ${place}${isLifted ? ' (lifted)' : ': helixflow mesh unfreeze'}`),
    ...holes.map(({ place, reason }) => `HOLE     ${place}: ${reason}`),
  ].join('\n');
}

/** As `--json` has it. */
export function tailValue({ place, statedMs, node, author, line, state, refused }: TailLine): object {
  const { startMs, caller, price, lease, ...rest } = line;
  return {
    place,
    stated: isoOf(statedMs),
    gateway: peerOf(author),
    node,
    state,
    ...(refused === undefined ? {} : { refused }),
    start: isoOf(startMs),
    ...rest,
    price: price.id,
  };
}

/** One line of a terminal. */
export function tailText({ statedMs, node, author, line, state, refused }: TailLine): string {
  const { model, promptTokens, completionTokens, nodeTokens, outcome, durationMs } = line;
  const counts = nodeTokens === undefined || nodeTokens === completionTokens ? '' : ` (node ${nodeTokens})`;
  const parts = [
    moment(statedMs),
    `${shortPeer(peerOf(author))} → ${shortPeer(node)}`,
    model,
    `${promptTokens}+${completionTokens}${counts} tokens`,
    `${(durationMs / 1_000).toFixed(1)} s`,
    outcome,
    refused === undefined ? state : `refused: ${refused}`,
    `${short(line.run)}.${line.serial}`,
  ];
  return parts.join('  ');
}
