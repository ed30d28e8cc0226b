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

/** Assumed for a node that has not answered yet when others wait there: it must not look free of cost. */
const answerGuessMs = 1_000;
/** How much of an answer its speed is judged by: first content comes first, and then speed. */
export const speedTokens = 32;

/** Slots that count as free for the taking; a newcomer has few of them at first. */
export const trustedSlots = ({ slots, warmth }: Pick<RoutedNode, 'slots' | 'warmth'>): number =>
  Math.max(1, Math.floor(slots * warmth));

/** @returns what serving the request there should take. Lower is better. */
export function scoreNode(node: RoutedNode, { bodyBytes, cachedBytes }: ScoredRequest): Score {
  const slots = trustedSlots(node);
  const ahead = Math.max(0, node.active + node.queued + 1 - slots);
  const answerMs = node.answerMeanMs > 0 ? node.answerMeanMs : answerGuessMs;
  const waitMs = (ahead * answerMs) / slots;
  const prefillMs = Math.max(0, bodyBytes - cachedBytes) * node.prefillMsPerByte;
  const { roundTripMs, overheadMs } = node;
  const firstMs = waitMs + prefillMs + roundTripMs + overheadMs;
  return { waitMs, prefillMs, roundTripMs, overheadMs, firstMs, totalMs: firstMs + speedTokens * node.tokenMs };
}

/** Share of its slots in use; breaks ties between nodes that would both start at once. */
export const utilisation = (node: Pick<RoutedNode, 'slots' | 'active' | 'warmth'>): number =>
  node.active / trustedSlots(node);
