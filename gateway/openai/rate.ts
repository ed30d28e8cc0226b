/** What a key has left, in the headers that OpenAI's clients read. */

import type { Ms } from '../../protocol/units.ts';
import type { Allowance, Rate } from '../access/subject.ts';

/** As OpenAI writes them: `0s`, `12ms`, `1.5s`, `6m0s`. */
export function printDuration(durationMs: Ms): string {
  const whole = Math.ceil(durationMs);
  if (whole > 0 && whole < 1_000) return `${whole}ms`;
  const minutes = Math.floor(whole / 60_000);
  const rest = `${(whole % 60_000) / 1_000}s`;
  return minutes === 0 ? rest : `${minutes}m${rest}`;
}

function put(headers: Record<string, string>, what: 'requests' | 'tokens', allowance: Allowance): void {
  headers[`x-ratelimit-limit-${what}`] = String(allowance.limit);
  headers[`x-ratelimit-remaining-${what}`] = String(allowance.remaining);
  headers[`x-ratelimit-reset-${what}`] = printDuration(allowance.resetMs);
}

/** Adds the headers of the limits that there are. OpenAI has none for requests under way at a time. */
export function rateHeaders({ requests, tokens }: Rate, headers: Record<string, string>): void {
  if (requests !== undefined) put(headers, 'requests', requests);
  if (tokens !== undefined) put(headers, 'tokens', tokens);
}
