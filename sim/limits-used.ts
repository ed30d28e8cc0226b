/** How much of a limit that all gateways share was used at a time, by what really went to nodes. */

import type { RequestId } from '../protocol/ids.ts';
import type { Caller } from './accounts.ts';
import type { WatchedRequest } from './checkers.ts';
import type { Violate } from './money-checks.ts';
import type { TrueAttempt } from './truth.ts';

/** The most that was ever used of a key's limits. */
export interface LimitsUsed {
  /** Requests in any 60 seconds. */
  readonly rpm: number;
  /** Requests at a time. */
  readonly concurrency: number;
  readonly requests: number;
}

interface Span {
  readonly startMs: number;
  readonly endMs: number;
}

const minuteMs = 60_000;

/** From when its first attempt left until its client, its gateway or its last attempt was gone. */
function spanOf({ endMs: clientMs }: WatchedRequest, attempts: readonly TrueAttempt[]): Span {
  const startMs = Math.min(...attempts.map((attempt) => attempt.startMs));
  const ends = attempts.map(({ endMs = Number.POSITIVE_INFINITY }) => endMs);
  return { startMs, endMs: Math.min(clientMs ?? Number.POSITIVE_INFINITY, Math.max(...ends)) };
}

function most(spans: readonly Span[], isInside: (span: Span, atMs: number) => boolean): number {
  return Math.max(0, ...spans.map(({ startMs }) => spans.filter((span) => isInside(span, startMs)).length));
}

/** A strict key's limits hold over all gateways together. */
export function checkLimits(
  { keyId, limits }: Caller,
  { requests, attempts }: { readonly requests: readonly WatchedRequest[]; readonly attempts: readonly TrueAttempt[] },
  violate: Violate,
): LimitsUsed {
  const byRequest = Map.groupBy<RequestId, TrueAttempt>(attempts, ({ request }) => request);
  const spans = requests.flatMap((request): Span[] => {
    const own = request.facts.key === keyId ? (byRequest.get(request.facts.id) ?? []) : [];
    return own.length === 0 ? [] : [spanOf(request, own)];
  });
  const used: LimitsUsed = {
    rpm: most(spans, ({ startMs }, atMs) => startMs >= atMs && startMs < atMs + minuteMs),
    concurrency: most(spans, ({ startMs, endMs }, atMs) => startMs <= atMs && endMs > atMs),
    requests: spans.length,
  };
  for (const unit of ['rpm', 'concurrency'] as const) {
    const limit = limits[unit];
    if (limit !== undefined && used[unit] > limit) violate('shared limits hold', `${unit}: ${used[unit]} of ${limit}`);
  }
  return used;
}
