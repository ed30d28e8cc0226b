/** The options of the gateway's HTTP door, as the door takes them. */

import { type GatewayAppOptions, gatewayAppDefaults } from '../gateway/http/options.ts';
import type { Ms } from '../protocol/units.ts';

/** What an operator chooses of them. */
export interface DoorChoices {
  /** Origins of web pages; `*` is all. */
  readonly corsOrigin: readonly string[];
  readonly sseKeepalive: GatewayAppOptions['keepAlive'];
  /** Answers tell who made them. */
  readonly provenance: 'on' | 'off';
  /** From a request's arrival to the end of its answer. */
  readonly answerTimeout: Ms;
}

export const doorOptions = ({
  corsOrigin,
  sseKeepalive,
  provenance,
  answerTimeout,
}: DoorChoices): GatewayAppOptions => ({
  ...gatewayAppDefaults,
  pageOrigins: corsOrigin,
  keepAlive: sseKeepalive,
  tellsProvenance: provenance === 'on',
  answerTimeoutMs: answerTimeout,
});
