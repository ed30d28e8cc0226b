/** The options of the gateway's HTTP door, as the door takes them. */

import { type GatewayAppOptions, gatewayAppDefaults } from '../gateway/http/options.ts';

/** What an operator chooses of them. */
export interface DoorChoices {
  /** Origins of web pages; `*` is all. */
  readonly corsOrigin: readonly string[];
  readonly sseKeepalive: GatewayAppOptions['keepAlive'];
  /** Answers tell who made them. */
  readonly provenance: 'on' | 'off';
}

export const doorOptions = ({ corsOrigin, sseKeepalive, provenance }: DoorChoices): GatewayAppOptions => ({
  ...gatewayAppDefaults,
  pageOrigins: corsOrigin,
  keepAlive: sseKeepalive,
  tellsProvenance: provenance === 'on',
});
