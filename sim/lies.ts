/** Lies about work, as pure changes of what honest code would say. */

import type { UsageLine } from '../ledger/line.ts';
import { addTotals, noTotals, type StatementEntry, type TabTotals } from '../ledger/statement.ts';
import { ms } from '../protocol/units.ts';

/**
 * What a node may say: `inflate` more tokens than it made, `prompt` a longer prompt, `pad` more token ids than the text
 * has, `claim` work that it never did, `refuse` lines that are right.
 */
export const nodeLies = ['inflate', 'prompt', 'pad', 'claim', 'refuse'] as const;
export type NodeLie = (typeof nodeLies)[number];

/**
 * What a gateway may state: `shave` half of the tokens, `cheap` a lower count as the node's, `price` another price,
 * `omit` nothing, `running` that it still runs, `repeat` earlier lines once more with less, `cancel` that its client had
 * left before anything came, `hedge` that another was faster.
 */
export const gatewayLies = ['shave', 'cheap', 'price', 'omit', 'running', 'repeat', 'cancel', 'hedge'] as const;
/** `faces`: as `shave`, but the nodes are shown an honest feed, and sign that. Nobody compares the two yet. */
export type GatewayLie = (typeof gatewayLies)[number] | 'faces';

/** The last statement of a chain. */
export interface Tip {
  readonly hash: Uint8Array;
  readonly totals: TabTotals;
}

export interface Restating {
  readonly lie: GatewayLie;
  /** Whether this attempt is lied about. */
  readonly isLied: (attempt: Pick<UsageLine, 'run' | 'serial'>) => boolean;
  /** Lines of earlier statements to the same node, to be repeated. */
  readonly earlier: readonly UsageLine[];
  readonly tip: Tip | undefined;
}

const nothing = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };

/** Leaves attempts of which nothing came alone: no lie is needed there. */
const isWorth = ({ promptTokens, completionTokens }: UsageLine): boolean => promptTokens + completionTokens > 0;

function lieOf(line: UsageLine, lie: GatewayLie): UsageLine | undefined {
  switch (lie) {
    case 'shave':
    case 'faces':
      return { ...line, completionTokens: Math.floor(line.completionTokens / 2) };
    case 'cheap':
      return { ...line, nodeTokens: 0 };
    case 'price':
      return { ...line, price: line.price.id === '' ? line.price : { ...line.price, prompt: 0, completion: 0 } };
    case 'cancel':
      return { ...line, ...nothing, nodeTokens: 0, outcome: 'cancelled' };
    case 'hedge':
      return { ...line, ...nothing, nodeTokens: 0, outcome: 'hedged' };
    case 'repeat':
      return line;
    case 'omit':
    case 'running':
      return undefined;
  }
}

/** What is stated in place of an honest statement; it follows `tip`, as the honest one followed its own. */
export function restate(entry: StatementEntry, { lie, isLied, earlier, tip }: Restating): StatementEntry {
  const { run } = entry;
  const isTouched = (line: UsageLine): boolean => isWorth(line) && isLied(line);
  const lines = entry.lines.flatMap((line) => (isTouched(line) ? (lieOf(line, lie) ?? []) : [line]));
  if (lie === 'repeat') lines.push(...earlier.map((line) => ({ ...line, ...nothing, nodeTokens: 0 })));
  // What is told of a running attempt counts, so that nothing is told of one that will be lied about.
  const running = entry.running.map((line) => (isLied(line) ? { ...line, completionTokens: 0 } : line));
  if (lie === 'running')
    running.push(...entry.lines.filter((line) => isTouched(line) && line.run === run).map(asRunning));
  return {
    ...entry,
    previous: tip?.hash ?? new Uint8Array(32),
    lines,
    running,
    progress: entry.progress.filter(({ serial }) => !isLied({ run, serial })),
    totals: addTotals(tip?.totals ?? noTotals, lines),
  };
}

function asRunning({ nodeTokens: _, ...line }: UsageLine): UsageLine {
  return { ...line, ...nothing, firstMs: ms(0), outcome: 'running' };
}
