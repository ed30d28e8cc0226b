/** What a request and its key together ask of the nodes that serve it. */

import type { PeerId } from '../../protocol/ids.ts';
import { givenPreferences, type Preferences } from '../../protocol/preferences.ts';

export type { Preferences };

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
  const wishes = {
    prefer: request.prefer ?? key.prefer,
    region: request.region ?? key.region,
    allow: bothAllow(key.nodes?.allow, request.nodes?.allow),
    deny: [...(key.nodes?.deny ?? []), ...(request.nodes?.deny ?? [])],
  };
  return givenPreferences(wishes) ?? noPreferences;
}
