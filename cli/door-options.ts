/** The options of the gateway's HTTP door, as the door takes them. */

import { type GatewayAppOptions, gatewayAppDefaults } from '../gateway/http/options.ts';

/** What an operator chooses of them. */
export interface DoorChoices {
  /** Origins of web pages; `*` is all. */
  readonly corsOrigin: readonly string[];
  readonly sseKeepalive: GatewayAppOptions['keepAlive'];
}

export const doorOptions = ({ corsOrigin, sseKeepalive }: DoorChoices): GatewayAppOptions => ({
  ...gatewayAppDefaults,
  pageOrigins: corsOrigin,
  keepAlive: sseKeepalive,
});
