/** Nodes as routing looks at them, and what requests ask of them, for tables. */

import type { Needs } from '../../../gateway/route/candidates.ts';
import type { Question } from '../../../gateway/route/plan.ts';
import type { RoutedNode } from '../../../gateway/route/score.ts';
import type { ModelDigest, PeerId } from '../../../protocol/ids.ts';

export const peerId = (name: string): PeerId => name as PeerId;
export const digestOf = (letter: string): ModelDigest => letter.repeat(64) as ModelDigest;

/** A healthy idle node whose times are known. */
export const routedNode = (peer: string, change: Partial<RoutedNode> = {}): RoutedNode => ({
  peer: peerId(peer),
  digest: digestOf('d'),
  region: '',
  contextTokens: 4_096,
  continuation: 'tokens',
  slots: 4,
  active: 0,
  queued: 0,
  roundTripMs: 10,
  overheadMs: 40,
  prefillMsPerByte: 0.1,
  tokenMs: 10,
  answerMeanMs: 1_000,
  lastHeardMs: 0,
  isDraining: false,
  bodyMaxBytes: 1_000_000,
  isResponsive: true,
  isAllowed: true,
  warmth: 1,
  ...change,
});

/** A request that any such node may take. */
export const someNeeds = (change: Partial<Needs> = {}): Needs => ({
  tried: new Set(),
  bodyBytes: 1_000,
  preferences: {},
  contextTokens: 0,
  continues: undefined,
  queueMax: 2,
  ...change,
});

export const question = (
  group: readonly RoutedNode[],
  change: Partial<Question<RoutedNode>> = {},
): Question<RoutedNode> => ({
  group,
  needs: someNeeds(),
  held: new Map(),
  priceOf: () => 1,
  hasLostNode: false,
  ...change,
});
