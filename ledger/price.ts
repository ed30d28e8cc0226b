/** Prices, and what tokens cost: integers only, so that every peer comes to the same amount. */

import type { AuthorId, PeerId, PriceId } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';

/** What tokens cost, in micro-credits for a million of them (1 credit = 1,000,000 micro-credits). */
export interface Price {
  /** The entry it comes from; empty where nothing has a price. */
  readonly id: PriceId | '';
  readonly prompt: number;
  /** For prompt tokens that the node did not compute again. */
  readonly cached: number;
  readonly completion: number;
}

/** Above a thousand credits for a million tokens nothing is believed. */
export const maxPriceMicro = 1_000_000_000;

/** Where nobody has set a price. */
export const freePrice: Price = { id: '', prompt: 0, cached: 0, completion: 0 };

/** Tokens of one attempt, or the most it may take. */
export interface TokenCounts {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
}

const million = 1_000_000n;

/** What tokens cost, in micro-credits, rounded up once for all of them: an attempt is never free by rounding. */
export function costMicro(price: Price, { promptTokens, cachedTokens, completionTokens }: TokenCounts): number {
  const fresh = promptTokens - cachedTokens;
  const total = fresh * price.prompt + cachedTokens * price.cached + completionTokens * price.completion;
  if (total <= Number.MAX_SAFE_INTEGER) return Math.ceil(total / 1_000_000);
  const exact =
    BigInt(fresh) * BigInt(price.prompt) +
    BigInt(cachedTokens) * BigInt(price.cached) +
    BigInt(completionTokens) * BigInt(price.completion);
  return Number((exact + million - 1n) / million);
}

/** A price as an issuer's entry sets it. */
export interface PriceRule extends Price {
  readonly id: PriceId;
  readonly by: AuthorId;
  /** A model's name, or `*` for every model that has no rule of its own. */
  readonly model: string;
  /** Only at this node; undefined: at every node that has no rule of its own. */
  readonly node?: PeerId;
  /** It counts from this moment on. */
  readonly fromMs: UnixMs;
}

/** What a price is asked for. */
export interface PriceQuery {
  readonly model: string;
  readonly node: PeerId;
  readonly atMs: UnixMs;
}
