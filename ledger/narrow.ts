/** The narrowest of several terms: what counts when the branches of a forked issuer say different things. */

import { givenRates, type KeyTerms, type RateLimits } from '../protocol/grants.ts';
import type { PeerId } from '../protocol/ids.ts';
import { matchesPattern } from '../protocol/patterns.ts';
import { givenPreferences, type Preferences } from '../protocol/preferences.ts';
import { type Budget, budgetPeriods } from './money.ts';

/** A pattern that fits no model: names of models have no control characters. An empty list would allow every model. */
const noModel = '\u0000';

const least = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined || b === undefined ? (a ?? b) : Math.min(a, b);

/** Of each rate the smaller. */
export const narrowLimits = (a: RateLimits, b: RateLimits): RateLimits =>
  givenRates({ rpm: least(a.rpm, b.rpm), tpm: least(a.tpm, b.tpm), concurrency: least(a.concurrency, b.concurrency) });

/** Keeps within both, also where their periods differ: the smaller amount, for the longer of the two. */
export function narrowBudget(a: Budget | undefined, b: Budget | undefined): Budget | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  const longer = Math.max(budgetPeriods.indexOf(a.period), budgetPeriods.indexOf(b.period));
  return { amountMicro: Math.min(a.amountMicro, b.amountMicro), period: budgetPeriods[longer] ?? 'total' };
}

/** A `*` of the narrower pattern is then a character like any other, which only a `*` of the wider one fits. */
const isWithin = (narrower: string, wider: readonly string[]): boolean =>
  wider.some((pattern) => matchesPattern(pattern, narrower));

/**
 * Patterns of each list that lie within one of the other; a list that is empty allows all. What only parts of two
 * patterns have in common is left out: never more than both lists allow, and rarely less.
 */
function narrowModels(a: readonly string[], b: readonly string[]): readonly string[] {
  if (a.length === 0 || b.length === 0) return a.length === 0 ? b : a;
  const both = [...a.filter((pattern) => isWithin(pattern, b)), ...b.filter((pattern) => isWithin(pattern, a))];
  const fits = [...new Set(both)].filter((pattern) => pattern !== noModel).sort();
  return fits.length === 0 ? [noModel] : fits;
}

/** Which of two wishes counts is of no matter, as long as it is the same one everywhere. */
const either = <Wish extends string>(a: Wish | undefined, b: Wish | undefined): Wish | undefined =>
  a === undefined || b === undefined ? (a ?? b) : a < b ? a : b;

/** Nodes that both lists name; a list that is absent names all. */
const bothName = (a: readonly PeerId[] | undefined, b: readonly PeerId[] | undefined): readonly PeerId[] | undefined =>
  a === undefined || b === undefined ? (a ?? b) : a.filter((peer) => b.includes(peer)).sort();

function narrowPreferences(a: Preferences | undefined, b: Preferences | undefined): Preferences | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return givenPreferences({
    prefer: either(a.prefer, b.prefer),
    region: either(a.region, b.region),
    allow: bothName(a.nodes?.allow, b.nodes?.allow),
    deny: [...new Set([...(a.nodes?.deny ?? []), ...(b.nodes?.deny ?? [])])].sort(),
  });
}

/** Terms that allow only what both allow: the smaller rates, the earlier end, the models and nodes that both lists name. */
export function narrowTerms(a: KeyTerms, b: KeyTerms): KeyTerms {
  const expiresMs = least(a.expiresMs, b.expiresMs) as KeyTerms['expiresMs'];
  const preferences = narrowPreferences(a.preferences, b.preferences);
  return {
    models: narrowModels(a.models, b.models),
    limits: narrowLimits(a.limits, b.limits),
    ...(expiresMs === undefined ? {} : { expiresMs }),
    ...(preferences === undefined ? {} : { preferences }),
  };
}
