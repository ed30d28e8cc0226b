/** What a request, or its key, asks of the nodes that serve it: whom it allows, and what it would rather have. */

import type { PeerId } from '../../protocol/ids.ts';

/** Wishes of a request or a key. `nodes` binds; the others are kept to as far as there is a choice. */
export interface Preferences {
  /** `price`: the cheapest of the nodes that are not much later than the best. Absent: the soonest. */
  readonly prefer?: 'latency' | 'price';
  /** Only these, and none of those. An absent list says nothing; an empty `allow` allows nobody. */
  readonly nodes?: { readonly allow?: readonly PeerId[]; readonly deny?: readonly PeerId[] };
  /** Nodes whose offer names it, while any of them may take the request. */
  readonly region?: string;
}

/** No wishes at all. */
export const noPreferences: Preferences = {};

/** Of two lists of which each must hold: what both allow. */
function bothAllow(a: readonly PeerId[] | undefined, b: readonly PeerId[] | undefined): readonly PeerId[] | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return a.filter((peer) => b.includes(peer));
}

/** What holds for a request: its own word before its key's, but it may use no node that its key does not allow. */
export function mergePreferences(key: Preferences | undefined, request: Preferences | undefined): Preferences {
  if (key === undefined || request === undefined) return request ?? key ?? noPreferences;
  const prefer = request.prefer ?? key.prefer;
  const region = request.region ?? key.region;
  const allow = bothAllow(key.nodes?.allow, request.nodes?.allow);
  const deny = [...(key.nodes?.deny ?? []), ...(request.nodes?.deny ?? [])];
  return {
    ...(prefer === undefined ? {} : { prefer }),
    ...(region === undefined ? {} : { region }),
    ...(allow === undefined && deny.length === 0
      ? {}
      : { nodes: { ...(allow === undefined ? {} : { allow }), ...(deny.length === 0 ? {} : { deny }) } }),
  };
}
