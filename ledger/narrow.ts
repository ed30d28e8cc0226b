/** The narrowest of several terms: what counts when the branches of a forked issuer say different things. */

import type { KeyTerms, RateLimits } from '../protocol/grants.ts';

/** A pattern that fits no model: names of models have no control characters. An empty list would allow every model. */
const noModel = '\u0000';

const least = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined || b === undefined ? (a ?? b) : Math.min(a, b);

/** Of each rate the smaller. */
export function narrowLimits(a: RateLimits, b: RateLimits): RateLimits {
  const [rpm, tpm, concurrency] = [least(a.rpm, b.rpm), least(a.tpm, b.tpm), least(a.concurrency, b.concurrency)];
  return {
    ...(rpm === undefined ? {} : { rpm }),
    ...(tpm === undefined ? {} : { tpm }),
    ...(concurrency === undefined ? {} : { concurrency }),
  };
}

/** Patterns that both lists name; a list that is empty names all. */
function narrowModels(a: readonly string[], b: readonly string[]): readonly string[] {
  if (a.length === 0 || b.length === 0) return a.length === 0 ? b : a;
  const both = a.filter((pattern) => b.includes(pattern)).sort();
  return both.length === 0 ? [noModel] : both;
}

/** Terms that allow only what both allow: the smaller rates, the earlier end, the models that both lists name. */
export function narrowTerms(a: KeyTerms, b: KeyTerms): KeyTerms {
  const expiresMs = least(a.expiresMs, b.expiresMs) as KeyTerms['expiresMs'];
  return {
    models: narrowModels(a.models, b.models),
    limits: narrowLimits(a.limits, b.limits),
    ...(expiresMs === undefined ? {} : { expiresMs }),
  };
}
