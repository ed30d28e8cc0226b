/** What the HTTP skin takes: its collaborators and its limits. */

import type { Clock, Log, Random } from '../../protocol/ports.ts';
import { type Ms, seconds } from '../../protocol/units.ts';
import type { KeyChecker } from '../access/keys.ts';
import type { Idempotency } from '../idempotency.ts';
import type { GatewayService } from '../service.ts';
import type { RequestObserver } from './exchange.ts';
import type { FailureLimits } from './failures.ts';
import type { StreamOptions } from './stream.ts';
import type { Tls } from './tls.ts';
import type { UsageSource } from './usage.ts';

export interface GatewayAppDeps {
  readonly service: GatewayService;
  readonly idempotency: Pick<Idempotency, 'claim'>;
  readonly keys: KeyChecker;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Where usage is read from; without it nothing was used. */
  readonly records?: UsageSource;
  /** Told of every request: request log, metrics. */
  readonly observers?: readonly RequestObserver[];
  /** Speaks HTTPS with this certificate; plain HTTP without. */
  readonly tls?: Tls;
}

export interface GatewayAppOptions extends StreamOptions {
  /** A larger body is answered with 413; stays below what a session carries. */
  readonly bodyMaxBytes: number;
  readonly headersMaxBytes: number;
  /** From a connection's first byte, or its last response, to the end of the headers. */
  readonly headersTimeoutMs: Ms;
  /** From the first byte of a request to the last of its body. */
  readonly requestTimeoutMs: Ms;
  /** From a request's arrival to the end of its answer. */
  readonly answerTimeoutMs: Ms;
  /** A client that has taken nothing for this long while data waits is cut. */
  readonly stallMs: Ms;
  /** An idle connection is kept this long. */
  readonly idleTimeoutMs: Ms;
  readonly connectionsMax: number;
  /** Keys that no issuer has signed, by the address they come from; the rest of them are told to wait, good ones never. */
  readonly failures: FailureLimits;
  /** Origins of the web pages that may use the door from a browser; `*` is all. */
  readonly pageOrigins: readonly string[];
  /** Answers name their nodes, attempts and times, in headers and at their end. */
  readonly tellsProvenance: boolean;
}

export const gatewayAppDefaults: GatewayAppOptions = {
  bodyMaxBytes: 20_971_520,
  headersMaxBytes: 16_384,
  headersTimeoutMs: seconds(10),
  requestTimeoutMs: seconds(60),
  answerTimeoutMs: seconds(600),
  headersAfterMs: seconds(10),
  keepAliveMs: seconds(15),
  keepAlive: 'comment',
  stallMs: seconds(30),
  idleTimeoutMs: seconds(72),
  connectionsMax: 10_000,
  failures: { failuresMax: 100, windowMs: seconds(60), addressesMax: 4_096 },
  pageOrigins: [],
  tellsProvenance: true,
};
