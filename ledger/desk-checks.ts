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
import { type Ms, type UnixMs, unixMs } from '../protocol/units.ts';
import type { InviteRequest, KeyRequest } from './desk.ts';

const nameMaxChars = 64;
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

const isMoment = (value: number): boolean => Number.isSafeInteger(value) && value >= 0 && value <= lastMs;

/** Times are cut to whole seconds, as tokens tell them. */
const wholeSeconds = (moment: UnixMs): UnixMs => unixMs(secondsOf(moment) * 1_000);

export function checkTerms({ models, limits: rates, expiresMs }: KeyTerms): KeyTerms {
  const fits = (model: string): boolean => model.length <= limits.modelNameMaxChars && isVisible(model);
  if (models.length > keyModelsMax || !models.every(fits)) {
    throw invalid(`a key names at most ${keyModelsMax} model patterns of 1 to ${limits.modelNameMaxChars} characters`);
  }
  if (expiresMs !== undefined && !isMoment(expiresMs)) throw invalid('a key ends at a time in milliseconds');
  return {
    models: [...models],
    limits: checkRates(rates),
    ...(expiresMs === undefined ? {} : { expiresMs: wholeSeconds(expiresMs) }),
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
