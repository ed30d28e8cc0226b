/** What an issuer's desk accepts: every field within its bounds, before anything is signed or written. */

import { HelixFlowError } from '../protocol/errors.ts';
import {
  type KeyTerms,
  keyGatewaysMax,
  keyModelsMax,
  type RateLimits,
  rateLimitsShape,
  secondsOf,
} from '../protocol/grants.ts';
import { isOwnerId, isPeerId } from '../protocol/ids.ts';
import { inviteGatewaysMax, inviteUsesMax } from '../protocol/invites.ts';
import { limits } from '../protocol/limits.ts';
import { keyNodesMax, type Preferences, preferencesShape } from '../protocol/preferences.ts';
import { type Ms, type UnixMs, unixMs } from '../protocol/units.ts';
import { utf8Length } from '../protocol/utf8.ts';
import { printMicro } from './amounts.ts';
import type { InviteRequest, KeyRequest, PriceRequest } from './desk.ts';
import { type Budget, budgetMaxMicro, budgetPeriods } from './money.ts';
import { maxPriceMicro } from './price.ts';

const nameMaxChars = 64;
/** All patterns of a key together, so that its terms always fit an entry. */
const patternsMaxBytes = 15_360;
/** The last moment that a date can tell. */
const lastMs = 8_640_000_000_000_000;

/** What is wrong with a request; the admin API answers with 400. */
export const invalid = (reason: string): HelixFlowError => new HelixFlowError('CONFIG_INVALID', { reason });

/** Characters that nobody sees, or that no text may hold, would garble or fake every list they are shown in. */
const isVisible = (text: string): boolean => /^\P{C}+$/u.test(text);

export function checkName(name: string): void {
  if (name.length > nameMaxChars || !isVisible(name)) {
    throw invalid(`a name has 1 to ${nameMaxChars} characters, all of them visible`);
  }
}

export function checkRates(rates: RateLimits): RateLimits {
  const parsed = rateLimitsShape.safeParse(rates);
  if (!parsed.success) throw invalid('rpm, tpm and concurrency are integers from 1');
  return parsed.data;
}

const isAmount = (value: number, maxMicro: number): boolean =>
  Number.isSafeInteger(value) && value >= 0 && value <= maxMicro;

export function checkBudget({ amountMicro, period }: Budget): Budget {
  if (!isAmount(amountMicro, budgetMaxMicro) || !budgetPeriods.includes(period)) {
    throw invalid(`a budget is 0 to ${budgetMaxMicro} micro-credits for each ${budgetPeriods.join(', ')}`);
  }
  return { amountMicro, period };
}

/** @param maxMicro What was lent. */
export function checkSpent(spentMicro: number, maxMicro: number): number {
  if (!isAmount(spentMicro, maxMicro)) {
    throw invalid(`of this lease 0 to ${printMicro(maxMicro)} credits (${maxMicro} micro-credits) can have been spent`);
  }
  return spentMicro;
}

/** @returns the price, and when it begins. */
export function checkPrice(
  request: PriceRequest,
  nowMs: UnixMs,
): Omit<PriceRequest, 'fromMs'> & { readonly fromMs: UnixMs } {
  const { model, node, prompt, cached, completion, fromMs = nowMs } = request;
  const isName = model.length <= limits.modelNameMaxChars && isVisible(model);
  if (model !== '*' && (!isName || model.includes('*'))) {
    throw invalid('a price is for one model by its whole name, or for every model (*)');
  }
  if (node !== undefined && !isPeerId(node)) throw invalid('a price names a node by its peer id');
  if (![prompt, cached, completion].every((value) => isAmount(value, maxPriceMicro))) {
    throw invalid(`a million tokens cost 0 to ${maxPriceMicro} micro-credits`);
  }
  if (!isMoment(fromMs) || fromMs < nowMs - limits.clockSkewMaxMs) {
    throw invalid('a price counts from now on, or from a moment to come: nobody sets one for work that was done');
  }
  return { model, ...(node === undefined ? {} : { node }), prompt, cached, completion, fromMs };
}

const isMoment = (value: number): boolean => Number.isSafeInteger(value) && value >= 0 && value <= lastMs;

/** Times are cut to whole seconds, as tokens tell them. */
const wholeSeconds = (moment: UnixMs): UnixMs => unixMs(secondsOf(moment) * 1_000);

const wishes = preferencesShape(keyNodesMax);

function checkPreferences(preferences: Preferences): Preferences | undefined {
  const parsed = wishes.safeParse(preferences);
  if (parsed.success) return parsed.data;
  throw invalid(`a key names at most ${keyNodesMax} nodes in each list, by their peer ids, and one region`);
}

export function checkTerms({ models, limits: rates, expiresMs, preferences }: KeyTerms): KeyTerms {
  const fits = (model: string): boolean => model.length <= limits.modelNameMaxChars && isVisible(model);
  if (models.length > keyModelsMax || !models.every(fits)) {
    throw invalid(`a key names at most ${keyModelsMax} model patterns of 1 to ${limits.modelNameMaxChars} characters`);
  }
  if (models.reduce((sum, model) => sum + utf8Length(model), 0) > patternsMaxBytes) {
    throw invalid('the model patterns are too long together; name fewer or shorter ones');
  }
  if (expiresMs !== undefined && !isMoment(expiresMs)) throw invalid('a key ends at a time in milliseconds');
  const given = preferences === undefined ? undefined : checkPreferences(preferences);
  return {
    models: [...models],
    limits: checkRates(rates),
    ...(expiresMs === undefined ? {} : { expiresMs: wholeSeconds(expiresMs) }),
    ...(given === undefined ? {} : { preferences: given }),
  };
}

export function checkGateways({ role, gateways }: Pick<KeyRequest, 'role' | 'gateways'>): void {
  if (gateways.length > keyGatewaysMax) throw invalid(`a key names at most ${keyGatewaysMax} gateways`);
  if (!gateways.every(isPeerId)) throw invalid('a key names gateways by their peer ids');
  if (role !== 'user' && gateways.length !== 1) throw invalid(`a key of role ${role} names exactly one gateway`);
}

/** @returns when `span` from now is over. */
export function checkSpan(nowMs: UnixMs, span: Ms, leastMs = 0): UnixMs {
  if (!Number.isSafeInteger(span) || span < leastMs || nowMs + span > lastMs) {
    throw invalid(`a length of time is told in whole milliseconds, from ${leastMs}`);
  }
  return unixMs(nowMs + span);
}

/** @param isOpen The mesh lets in anyone. @returns when it ends. */
export function checkInviteRequest(request: InviteRequest, nowMs: UnixMs, isOpen: boolean): UnixMs {
  const { role, owner, uses, ttl, gateways } = request;
  if (!Number.isSafeInteger(uses) || uses < 0 || uses > inviteUsesMax) {
    throw invalid(`an invite admits 1 to ${inviteUsesMax} peers`);
  }
  if (uses === 0 && !(isOpen && role === 'node')) {
    throw invalid('an invite without a number of uses takes an open mesh (mesh create --open), and is for nodes only');
  }
  if (owner !== undefined && !isOwnerId(owner)) {
    throw invalid('an owner has 1 to 64 letters, digits, dots, dashes or underscores');
  }
  if (gateways.length === 0) throw new HelixFlowError('GATEWAY_UNKNOWN', {});
  const isDialable = ({ peer, addresses }: (typeof gateways)[number]): boolean =>
    isPeerId(peer) && addresses.length > 0 && addresses.length <= limits.peerAddressesMax;
  if (gateways.length > inviteGatewaysMax || !gateways.every(isDialable)) {
    throw invalid(
      `an invite names 1 to ${inviteGatewaysMax} gateways with 1 to ${limits.peerAddressesMax} addresses each`,
    );
  }
  return wholeSeconds(checkSpan(nowMs, ttl, 1_000));
}
