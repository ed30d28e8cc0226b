/** Which nodes could serve a request now, and why the others could not: a pure filter. */

import type { PeerId } from '../../protocol/ids.ts';
import type { RoutedNode } from './score.ts';

/** Why a node is passed over. A closed list: each reason is shown to operators by this name. */
export type RefusalReason = 'draining' | 'silent' | 'tried' | 'no-slots' | 'body-too-large';

export interface Refusal {
  readonly peer: PeerId;
  readonly reason: RefusalReason;
}

/** What a request asks of a node, beside its model. */
export interface Needs {
  /** Nodes that have failed it. */
  readonly tried: ReadonlySet<PeerId>;
  readonly bodyBytes: number;
}

/** Why `node` may not take the request; undefined when it may. */
export function refusalOf(node: RoutedNode, { tried, bodyBytes }: Needs): RefusalReason | undefined {
  if (tried.has(node.peer)) return 'tried';
  if (!node.isResponsive) return 'silent';
  if (node.isDraining) return 'draining';
  if (node.slots === 0) return 'no-slots';
  if (bodyBytes > node.bodyMaxBytes) return 'body-too-large';
  return undefined;
}

/** The nodes of a group that may take the request, in the group's order. */
export const candidatesOf = <Node extends RoutedNode>(group: readonly Node[], needs: Needs): Node[] =>
  group.filter((node) => refusalOf(node, needs) === undefined);

/** The other nodes of the group, each with its reason. */
export const refusalsOf = (group: readonly RoutedNode[], needs: Needs): Refusal[] =>
  group.flatMap((node) => {
    const reason = refusalOf(node, needs);
    return reason === undefined ? [] : [{ peer: node.peer, reason }];
  });
