/** How soon a node should show first content: a pure estimate from what the gateway knows of it. */

import type { PeerId } from '../../protocol/ids.ts';

/** What routing looks at. */
export interface RoutedNode {
  readonly peer: PeerId;
  /** Answers it generates at the same time. */
  readonly slots: number;
  /** Answers under way there, ours that it has not reported yet included. */
  readonly active: number;
  readonly queued: number;
  readonly roundTripMs: number;
  readonly firstContentMeanMs: number;
  readonly answerMeanMs: number;
  /** When anything last came from it, on the monotonic clock. */
  readonly lastHeardMs: number;
  readonly isDraining: boolean;
  /** The longest request body it takes. */
  readonly bodyMaxBytes: number;
  readonly isResponsive: boolean;
}

/** Assumed for a node that has not answered yet when others wait there: it must not look free of cost. */
const answerGuessMs = 1_000;

/**
 * Expected milliseconds to first content: round trip, the node's usual time to it, and the answers that must end
 * before a slot is free. Lower is better.
 */
export function expectedFirstContentMs(node: RoutedNode): number {
  const ahead = Math.max(0, node.active + node.queued + 1 - node.slots);
  const answerMs = node.answerMeanMs > 0 ? node.answerMeanMs : answerGuessMs;
  return node.roundTripMs + node.firstContentMeanMs + (ahead * answerMs) / Math.max(1, node.slots);
}

/** Share of its slots in use; breaks ties between nodes that would both start at once. */
export const utilisation = (node: RoutedNode): number => node.active / Math.max(1, node.slots);

/** The better of two: sooner first content by more than a millisecond, else the less used. */
export function better<Node extends RoutedNode>(a: Node, b: Node): Node {
  const difference = expectedFirstContentMs(a) - expectedFirstContentMs(b);
  if (Math.abs(difference) > 1) return difference < 0 ? a : b;
  return utilisation(a) <= utilisation(b) ? a : b;
}
