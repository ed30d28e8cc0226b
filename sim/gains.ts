/** What liars gained: what the work between them and others was worth, against what the ledger makes of it. */

import { costMicro } from '../ledger/price.ts';
import { limits } from '../protocol/limits.ts';
import type { GatewayLie, NodeLie } from './lies.ts';
import { type TrueAttempt, type TrueWork, workMicro, worthMicro } from './truth.ts';

/** The most that a liar of one kind gained from one other member. */
export interface Gain {
  readonly lie: GatewayLie | NodeLie;
  readonly micro: number;
  /** What a member may lose before it notices. */
  readonly windowMicro: number;
}

/** Work goes on for so long after it should have been covered: a statement's second, and one to notice. */
const noticeMs = 2_000;
/** What a node lets a gateway leave out in any case, in tokens, and of what it covers; as `toleranceTokens` has it. */
const freeTokens = 1_024;
const coveredShare = 1 / 16;

/** The most that was done between two members before one of them could notice: `uncoveredMaxMs`, and what is under way then. */
function windowOf(attempts: readonly TrueAttempt[], worthOf: (attempt: TrueAttempt) => number): number {
  const within = (fromMs: number): number =>
    attempts.reduce((sum, attempt) => {
      const { startMs, endMs = Number.POSITIVE_INFINITY } = attempt;
      const isInside = endMs >= fromMs && startMs <= fromMs + limits.uncoveredMaxMs + noticeMs;
      return isInside ? sum + worthOf(attempt) : sum;
    }, 0);
  return Math.max(0, ...attempts.flatMap(({ endMs }) => (endMs === undefined ? [] : [within(endMs)])));
}

const sumOf = <T>(items: readonly T[], of: (item: T) => number): number =>
  items.reduce((sum, item) => sum + of(item), 0);

type Measured = Omit<Gain, 'lie'> & {
  /** What the liar may gain at most. */
  readonly boundMicro: number;
};

/** All attempts of a lying gateway at an honest node, and what each has brought the node. */
export function gatewayGain(
  attempts: readonly TrueAttempt[],
  paidMicro: (attempt: TrueAttempt) => number,
  restarts: number,
): Measured {
  const [first] = attempts;
  const free = { promptTokens: 0, cachedTokens: 0, completionTokens: freeTokens };
  const windowMicro = Math.max(windowOf(attempts, worthMicro), first === undefined ? 0 : costMicro(first.price, free));
  const micro = sumOf(attempts, (attempt) => Math.max(0, worthMicro(attempt) - paidMicro(attempt)));
  // A window that it never covers, one more each time that a process has forgotten, and one that it may leave out of
  // attempts that it let go.
  const boundMicro = (2 + restarts) * windowMicro + coveredShare * sumOf(attempts, paidMicro);
  return { micro, windowMicro, boundMicro };
}

/** All attempts of an honest gateway at a lying node. */
export function nodeGain(
  attempts: readonly (readonly [TrueAttempt, TrueWork])[],
  paidMicro: (attempt: TrueAttempt) => number,
): Measured {
  const micro = sumOf(attempts, ([attempt, work]) => Math.max(0, paidMicro(attempt) - workMicro(attempt, work)));
  const worth = new Map(attempts.map(([attempt, work]) => [attempt, workMicro(attempt, work)]));
  const windowMicro = windowOf([...worth.keys()], (attempt) => worth.get(attempt) ?? 0);
  return { micro, windowMicro, boundMicro: windowMicro };
}
