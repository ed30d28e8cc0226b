/** How soon a node should show content, and how fast it goes on: a pure estimate from what the gateway knows of it. */

import type { ModelDigest, PeerId } from '../../protocol/ids.ts';
import type { EngineModel } from '../../protocol/ports.ts';

/** One model at one node, as routing looks at it. All times are this gateway's own measurements; 0 is unknown. */
export interface RoutedNode {
  readonly peer: PeerId;
  readonly digest: ModelDigest;
  /** As its offer names it; empty where it tells none. */
  readonly region: string;
  readonly contextTokens: number;
  readonly continuation: EngineModel['continuation'];
  /** Answers it generates at the same time. */
  readonly slots: number;
  /** Answers under way there, ours that it has not reported yet included. */
  readonly active: number;
  readonly queued: number;
  readonly roundTripMs: number;
  /** From the end of queue and prefill to first content here, beside the round trip. */
  readonly overheadMs: number;
  /** To compute one byte of a prompt. */
  readonly prefillMsPerByte: number;
  /** From one token of an answer to the next. */
  readonly tokenMs: number;
  /** How long one answer holds its slot. */
  readonly answerMeanMs: number;
  /** When anything last came from it, on the monotonic clock. */
  readonly lastHeardMs: number;
  readonly isDraining: boolean;
  /** The longest request body it takes. */
  readonly bodyMaxBytes: number;
  readonly isResponsive: boolean;
  /** Its breaker lets an attempt pass; as in `ServingHealth`. */
  readonly isAllowed: boolean;
  /** From above 0 to 1: the share of its slots that a newcomer is trusted with, until it has shown what it does. */
  readonly warmth: number;
}

/** What of the request a score depends on. */
export interface ScoredRequest {
  readonly bodyBytes: number;
  /** Bytes of the body's beginning that the node has computed before and should still hold. */
  readonly cachedBytes: number;
}

/** Expected milliseconds, part by part; shown to operators. */
export interface Score {
  readonly waitMs: number;
  readonly prefillMs: number;
  readonly roundTripMs: number;
  readonly overheadMs: number;
  /** The sum of those above: to first content. */
  readonly firstMs: number;
  /** To the `speedTokens`th token: what nodes are compared by. */
  readonly totalMs: number;
}

/** How much of an answer its speed is judged by: first content comes first, and then speed. */
export const speedTokens = 32;

type Measure = 'roundTripMs' | 'overheadMs' | 'prefillMsPerByte' | 'tokenMs' | 'answerMeanMs';

/** Where nothing is known of any node. A prompt must not look free, or who holds its beginning would not matter. */
const guesses: Readonly<Record<Measure, number>> = {
  roundTripMs: 0,
  overheadMs: 0,
  prefillMsPerByte: 0.05,
  tokenMs: 0,
  answerMeanMs: 1_000,
};

/** What a node is assumed to take where nothing is known of it: as little as the best of those known, so that it is tried. */
function assumed(key: Measure, nodes: readonly RoutedNode[]): number {
  let least = Number.POSITIVE_INFINITY;
  for (const node of nodes) {
    const value = node[key];
    if (value > 0 && value < least) least = value;
  }
  return least === Number.POSITIVE_INFINITY ? guesses[key] : least;
}

/** What no clock can have measured makes a node the last one to be chosen. */
function measureOf(key: Measure, node: RoutedNode, others: readonly RoutedNode[]): number {
  const value = node[key];
  if (value === 0) return assumed(key, others);
  return value > 0 ? value : Number.POSITIVE_INFINITY;
}

/** Slots that count as free for the taking; a newcomer has few of them at first. */
export const trustedSlots = ({ slots, warmth }: Pick<RoutedNode, 'slots' | 'warmth'>): number =>
  Math.max(1, Math.floor(slots * warmth));

/**
 * @param others Nodes that it is compared with; what is unknown of it is taken from them.
 * @returns what serving the request there should take. Lower is better; Infinity where a number is absurd.
 */
export function scoreNode(node: RoutedNode, request: ScoredRequest, others: readonly RoutedNode[]): Score {
  const slots = trustedSlots(node);
  const ahead = node.active + node.queued + 1 - slots;
  const waitMs = ahead <= 0 ? 0 : (ahead * measureOf('answerMeanMs', node, others)) / slots;
  const freshBytes = request.bodyBytes - request.cachedBytes;
  const prefillMs = freshBytes <= 0 ? 0 : freshBytes * measureOf('prefillMsPerByte', node, others);
  const roundTripMs = measureOf('roundTripMs', node, others);
  const overheadMs = measureOf('overheadMs', node, others);
  const firstMs = waitMs + prefillMs + roundTripMs + overheadMs;
  const sumMs = firstMs + speedTokens * measureOf('tokenMs', node, others);
  const totalMs = sumMs >= 0 ? sumMs : Number.POSITIVE_INFINITY;
  return { waitMs, prefillMs, roundTripMs, overheadMs, firstMs, totalMs };
}

/** Share of its slots that would be in use with one more answer; of a newcomer, too, or it would never be the less used one. */
export const utilisation = ({ slots, active, queued }: Pick<RoutedNode, 'slots' | 'active' | 'queued'>): number =>
  (active + queued + 1) / slots;
