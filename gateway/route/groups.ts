/** Which digest a model name stands for: a pure rule, so that a name never means two models within one answer (design §5). */

import type { ModelDigest } from '../../protocol/ids.ts';
import { type Ms, ms } from '../../protocol/units.ts';

/** The group that a gateway serves a name from. */
export interface HeldGroup {
  readonly digest: ModelDigest;
  /** Since when it has had no node; undefined while it has. */
  readonly emptySinceMs: Ms | undefined;
}

/** How many distinct owners and nodes stand behind one digest of a name. */
export interface GroupSize {
  readonly digest: ModelDigest;
  readonly owners: number;
  readonly nodes: number;
}

/** A held group is given up when it has been empty for this long. */
export const groupHoldMs = ms(60_000);

/**
 * Stays with the held group until it has been empty for `groupHoldMs`; else takes the one with the most distinct
 * owners, then the most nodes, then the smallest digest.
 */
export function chooseGroup(
  sizes: readonly GroupSize[],
  held: HeldGroup | undefined,
  nowMs: Ms,
): HeldGroup | undefined {
  if (held !== undefined) {
    if (sizes.some(({ digest }) => digest === held.digest)) return { digest: held.digest, emptySinceMs: undefined };
    const emptySinceMs = held.emptySinceMs ?? nowMs;
    if (nowMs - emptySinceMs < groupHoldMs) return { digest: held.digest, emptySinceMs };
  }
  const [best] = [...sizes].sort((a, b) => b.owners - a.owners || b.nodes - a.nodes || (a.digest < b.digest ? -1 : 1));
  return best === undefined ? undefined : { digest: best.digest, emptySinceMs: undefined };
}
