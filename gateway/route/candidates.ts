/** Which nodes could serve a request now, and why the others could not: a pure filter. */

import type { PeerId } from '../../protocol/ids.ts';
import type { Preferences } from './preferences.ts';
import type { RoutedNode } from './score.ts';

/**
 * Why a node is passed over. A closed list: each reason is shown to operators by this name, and explained in
 * `docs/routing.md`. Of several that hold, the first in this list is told: what never passes comes before what does.
 */
export const refusalReasons = [
  'denied',
  'body-too-large',
  'context-too-short',
  'cannot-continue',
  'no-slots',
  'tried',
  'draining',
  'silent',
  'breaker-open',
  'full',
] as const;
export type RefusalReason = (typeof refusalReasons)[number];

/** Reasons that pass by themselves: a request may wait for such a node. */
const passing: ReadonlySet<RefusalReason> = new Set(['full', 'breaker-open']);

export interface Refusal {
  readonly peer: PeerId;
  readonly reason: RefusalReason;
}

/** What a request asks of a node, beside its model. */
export interface Needs {
  /** Nodes that have failed it. */
  readonly tried: ReadonlySet<PeerId>;
  readonly bodyBytes: number;
  readonly preferences: Preferences;
  /** Prompt and completion, as a node has counted them; 0 while nobody has. */
  readonly contextTokens: number;
  /** From what the answer would have to be carried on; undefined for one that begins. */
  readonly continues: 'tokens' | 'text' | undefined;
  /** Answers that may wait at a node beyond its slots before it counts as full. */
  readonly queueMax: number;
}

const isDenied = ({ peer }: RoutedNode, { nodes }: Preferences): boolean =>
  nodes !== undefined && (nodes.allow?.includes(peer) === false || nodes.deny?.includes(peer) === true);

const cannotContinue = ({ continuation }: RoutedNode, continues: Needs['continues']): boolean =>
  continues !== undefined && (continuation === 'none' || (continues === 'text' && continuation === 'tokens'));

/** Why `node` may not take the request; undefined when it may. */
export function refusalOf(node: RoutedNode, needs: Needs): RefusalReason | undefined {
  const { tried, bodyBytes, preferences, contextTokens, continues, queueMax } = needs;
  if (isDenied(node, preferences)) return 'denied';
  if (bodyBytes > node.bodyMaxBytes) return 'body-too-large';
  if (contextTokens > node.contextTokens) return 'context-too-short';
  if (cannotContinue(node, continues)) return 'cannot-continue';
  if (node.slots === 0) return 'no-slots';
  if (tried.has(node.peer)) return 'tried';
  if (node.isDraining) return 'draining';
  if (!node.isResponsive) return 'silent';
  if (!node.isAllowed) return 'breaker-open';
  if (node.active + node.queued >= node.slots + queueMax) return 'full';
  return undefined;
}

/** True when any of these nodes may be there again soon. */
export const isWorthWaiting = (refusals: readonly Refusal[]): boolean =>
  refusals.some(({ reason }) => passing.has(reason));

/** Reasons that hold for whoever asks. */
const general: ReadonlySet<RefusalReason> = new Set(['no-slots', 'draining', 'silent', 'breaker-open', 'full']);

/** True when another request might have found a place where this one did not. */
export const isOwnDoing = (refusals: readonly Refusal[]): boolean =>
  refusals.some(({ reason }) => !general.has(reason));

/** Reasons that stay, whatever changes in load and health. */
const lasting: ReadonlySet<RefusalReason> = new Set(['denied', 'body-too-large', 'context-too-short']);

/** True when there are nodes, and none of them could ever take the request. */
export const isHopeless = (refusals: readonly Refusal[]): boolean =>
  refusals.length > 0 && refusals.every(({ reason }) => lasting.has(reason));
