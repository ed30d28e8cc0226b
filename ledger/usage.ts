/** Usage as it is asked for: counters over every line known here, rolled up as lines come in. */

import type { AuthorId, PeerId, Tag } from '../protocol/ids.ts';
import type { UnixMs } from '../protocol/units.ts';
import type { HeldEntry } from './feeds.ts';

/** What may tell rows apart. `account` and `key` are tags; only who holds their day's key can name them. */
export const usageDimensions = ['day', 'account', 'key', 'model', 'node', 'gateway'] as const;
export type UsageDimension = (typeof usageDimensions)[number];

/** Sums; integers. */
export interface UsageCounts {
  /** Requests that were billed: with an attempt that ended them, or with anything delivered. */
  readonly requests: number;
  readonly attempts: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Micro-credits that accounts owe, and that gateways owe themselves; together, what nodes are owed. */
  readonly accountMicro: number;
  readonly gatewayMicro: number;
  /** Attempts in each state but `agreed` and `alone`. */
  readonly refused: number;
  readonly lower: number;
}

/** Of nothing. */
export const noCounts: UsageCounts = {
  requests: 0,
  attempts: 0,
  promptTokens: 0,
  cachedTokens: 0,
  completionTokens: 0,
  accountMicro: 0,
  gatewayMicro: 0,
  refused: 0,
  lower: 0,
};

/** Of both. */
export const addCounts = (a: UsageCounts, b: UsageCounts): UsageCounts => ({
  requests: a.requests + b.requests,
  attempts: a.attempts + b.attempts,
  promptTokens: a.promptTokens + b.promptTokens,
  cachedTokens: a.cachedTokens + b.cachedTokens,
  completionTokens: a.completionTokens + b.completionTokens,
  accountMicro: a.accountMicro + b.accountMicro,
  gatewayMicro: a.gatewayMicro + b.gatewayMicro,
  refused: a.refused + b.refused,
  lower: a.lower + b.lower,
});

/** One combination of everything that tells rows apart. */
export interface UsageKey {
  /** Days since 1970 (UTC), of the attempt's start. */
  readonly day: number;
  /** Day of the key of the tags; 0 for tags of the gateway's own. */
  readonly tagDay: number;
  readonly account: Tag;
  readonly key: Tag;
  readonly model: string;
  readonly node: PeerId;
  readonly gateway: AuthorId;
}

export type UsageRow = readonly [UsageKey, UsageCounts];

export interface UsageFilter {
  /** Whole days; `until` is not included. */
  readonly sinceDay?: number;
  readonly untilDay?: number;
  /** Only rows for which it says yes; given each distinct caller once per query. */
  readonly caller?: (caller: Pick<UsageKey, 'tagDay' | 'account' | 'key' | 'gateway'>) => boolean;
  readonly model?: string;
  readonly node?: PeerId;
}

/** Live counters, rebuilt from the feeds at each start. */
export interface Usage {
  /** Takes an entry of any kind, in the order in which feeds tell them; those that are no usage change nothing. */
  apply(held: HeldEntry): void;
  /** Rows with all their dimensions, by day, caller, model and node. There may be millions: ask `rollUp` where sums will do. */
  rows(filter: UsageFilter): readonly UsageRow[];
  /**
   * Sums over the rows that `rows` would give, one for each combination of what `by` names, in the same order. All
   * else is empty in their keys (0 or ''), but what tells a tag: its day, and for day 0 the gateway.
   */
  rollUp(filter: UsageFilter, by: readonly UsageDimension[]): readonly UsageRow[];
  /** What lines have taken from the lease behind this tag in this gateway's feed. */
  spentFrom(gateway: AuthorId, lease: Tag): number;
  /** Of everything known. */
  totals(): UsageCounts & { readonly statements: number; readonly claims: number; readonly unattested: number };
  /** The newest moment of any line. */
  newestMs(): UnixMs | undefined;
}
