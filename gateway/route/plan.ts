/** What to do next with a request: which node to try, and whether to try again. Pure but for the given chance. */

import type { HelixFlowError } from '../../protocol/errors.ts';
import { errorRow } from '../../protocol/errors.ts';
import type { Random } from '../../protocol/ports.ts';
import { better, type RoutedNode } from './score.ts';

/** Attempts per request before first content. */
export const attemptsMax = 3;

/** Power of two choices: the better of two random candidates, so that gateways that know the same do not stampede. */
export function chooseNode<Node extends RoutedNode>(candidates: readonly Node[], random: Random): Node | undefined {
  if (candidates.length < 2) return candidates[0];
  const first = random.int(candidates.length);
  const second = (first + 1 + random.int(candidates.length - 1)) % candidates.length;
  return better(candidates[first] as Node, candidates[second] as Node);
}

/**
 * After a node was lost: the candidate that was heard last. What took one node away may have taken others of which this
 * gateway does not know yet, so a proof of life beats any estimate.
 */
export const chooseLiveliest = <Node extends RoutedNode>(candidates: readonly Node[]): Node | undefined =>
  candidates.reduce<Node | undefined>(
    (best, node) => (best === undefined || node.lastHeardMs > best.lastHeardMs ? node : best),
    undefined,
  );

/** True when another node may still serve the request: the error is not the request's own fault, and nothing was shown. */
export const mayRetry = (error: HelixFlowError, attempts: number, isCommitted: boolean): boolean =>
  !isCommitted && attempts < attemptsMax && errorRow(error.code).retry !== 'never';
