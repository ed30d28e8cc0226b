/** The options of routing, as the gateway takes them. */

import type { GatewayOptions } from '../gateway/gateway.ts';
import type { Routing } from '../gateway/route/plan.ts';
import type { Ms } from '../protocol/units.ts';

/** What an operator chooses of them. */
export interface RouteChoices {
  readonly routing: Routing;
  readonly sharePrefixes: boolean;
  readonly hedgeShare: number;
  readonly waitingMax: number;
  readonly waitTimeout: Ms;
  readonly firstTokenTimeout: Ms;
  readonly gapTimeout: Ms;
}

export const routeOptionsOf = (
  choices: RouteChoices,
): Required<Pick<GatewayOptions, 'policy' | 'sharesPrefixes' | 'waitingMax'>> => ({
  waitingMax: choices.waitingMax,
  sharesPrefixes: choices.sharePrefixes,
  policy: {
    routing: choices.routing,
    hedgeShare: choices.hedgeShare,
    waitMs: choices.waitTimeout,
    firstContentMs: choices.firstTokenTimeout,
    gapMs: choices.gapTimeout,
  },
});
