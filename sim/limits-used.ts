/** How much of a limit that all gateways share was used at a time, by what really went to nodes. */

import type { RequestId } from '../protocol/ids.ts';
import type { Caller } from './accounts.ts';
import type { WatchedRequest } from './checkers.ts';
import type { Violate } from './money-checks.ts';
import type { TrueAttempt } from './truth.ts';

/** The most that was ever used of a key's limits. */
export interface LimitsUsed {
  /** Requests in any 60 seconds in which no gateway started again, and in all others. */
  readonly rpm: number;
  readonly rpmAfterRestarts: number;
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

const most = (counts: readonly number[]): number => Math.max(0, ...counts);

/** How many are under way, or begin, where each of them begins. */
const countAt = (spans: readonly Span[], isInside: (span: Span, atMs: number) => boolean): number[] =>
  spans.map(({ startMs }) => spans.filter((span) => isInside(span, startMs)).length);

/** What was really done with a key. */
export interface KeyUse {
  readonly requests: readonly WatchedRequest[];
  readonly attempts: readonly TrueAttempt[];
  /** When gateways began to run again: what each had counted in the minute before is gone. */
  readonly restartsMs: readonly number[];
}

/** A strict key's limits hold over all gateways together. */
export function checkLimits({ keyId, limits }: Caller, use: KeyUse, violate: Violate): LimitsUsed {
  const { requests, attempts, restartsMs } = use;
  const byRequest = Map.groupBy<RequestId, TrueAttempt>(attempts, ({ request }) => request);
  const spans = requests.flatMap((request): Span[] => {
    const own = request.facts.key === keyId ? (byRequest.get(request.facts.id) ?? []) : [];
    return own.length === 0 ? [] : [spanOf(request, own)];
  });
  const perMinute = countAt(spans, ({ startMs }, atMs) => startMs >= atMs && startMs < atMs + minuteMs);
  const atOnce = most(countAt(spans, ({ startMs, endMs }, atMs) => startMs <= atMs && endMs > atMs));
  const forgotten = spans.map(
    ({ startMs }) => restartsMs.filter((atMs) => atMs >= startMs && atMs < startMs + minuteMs).length,
  );
  for (const [at, used] of perMinute.entries()) {
    // Whoever starts again may use its share again.
    const bound = (limits.rpm ?? Number.POSITIVE_INFINITY) * (1 + (forgotten[at] ?? 0));
    if (used > bound) violate('shared limits hold', `${used} requests in a minute, of ${bound}`);
  }
  if (atOnce > (limits.concurrency ?? Number.POSITIVE_INFINITY)) {
    violate('shared limits hold', `${atOnce} requests at a time, of ${limits.concurrency}`);
  }
  const whole = perMinute.filter((_, at) => forgotten[at] === 0);
  return { rpm: most(whole), rpmAfterRestarts: most(perMinute), concurrency: atOnce, requests: spans.length };
}
