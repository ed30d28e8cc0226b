/** Rows of usage put together by what tells them apart: the sums that people and programs read. */

import { printMicro } from '../../ledger/amounts.ts';
import {
  addCounts,
  noCounts,
  type UsageCounts,
  type UsageDimension,
  type UsageKey,
  type UsageRow,
} from '../../ledger/usage.ts';
import { fromHex } from '../../protocol/crypto.ts';
import type { AccountId, KeyId, PeerId, Tag } from '../../protocol/ids.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import { dayMs, type UnixMs, unixMs } from '../../protocol/units.ts';
import type { Owners } from './owners.ts';

/** Sums as they are shown; integers, but for `cost`. */
export interface UsageSums {
  /** Requests that were billed. */
  readonly requests: number;
  readonly attempts: number;
  readonly promptTokens: number;
  /** Of these, not computed again. */
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** What accounts owe, in micro-credits. */
  readonly costMicro: number;
  /** The same in credits, as a decimal number. */
  readonly cost: string;
  /** What gateways owe themselves: hedges that lost, work outside a lease. */
  readonly gatewayMicro: number;
  /** Attempts that a node refused, and those that settled at the lower of two counts. */
  readonly refused: number;
  readonly lower: number;
}

/** One row; of what tells rows apart only what was asked for is there. */
export interface UsageView extends UsageSums {
  /** Names the row within its list. */
  readonly id: string;
  /** When the day begins, by UTC. */
  readonly dayMs?: UnixMs;
  /** Where it can be told; otherwise only `accountTag` is there. */
  readonly account?: AccountId;
  readonly accountTag?: Tag;
  readonly accountName?: string;
  readonly key?: KeyId;
  readonly keyTag?: Tag;
  readonly keyName?: string;
  readonly model?: string;
  readonly node?: PeerId;
  readonly gateway?: PeerId;
}

export function sumsOf({ accountMicro, ...counts }: UsageCounts): UsageSums {
  const { requests, attempts, promptTokens, cachedTokens, completionTokens, gatewayMicro, refused, lower } = counts;
  return {
    ...{ requests, attempts, promptTokens, cachedTokens, completionTokens },
    ...{ costMicro: accountMicro, cost: printMicro(accountMicro), gatewayMicro, refused, lower },
  };
}

type Labels = Omit<UsageView, keyof UsageSums | 'id' | 'accountName' | 'keyName'>;

function labelOf(dimension: UsageDimension, key: UsageKey, owners: Owners): Labels {
  switch (dimension) {
    case 'day':
      return { dayMs: unixMs(key.day * dayMs) };
    case 'account': {
      const account = owners.accountOf(key);
      return account === undefined ? { accountTag: key.account } : { account };
    }
    case 'key': {
      const owner = owners.keyOf(key);
      return owner === undefined ? { keyTag: key.key } : { key: owner };
    }
    case 'model':
      return { model: key.model };
    case 'node':
      return { node: key.node };
    case 'gateway':
      return { gateway: peerIdOf(fromHex(key.gateway)) };
  }
}

/** What tells rows apart in a list; a tag is told apart from an id that looks like one. */
const idOf = (labels: Labels): string =>
  Object.entries(labels)
    .map(([name, value]) => encodeURIComponent(name.endsWith('Tag') ? `(${value})` : String(value)))
    .join('/');

interface Group {
  readonly labels: Labels;
  counts: UsageCounts;
}

/**
 * Sums rows up by `by`, in the order in which `by` names it.
 * @returns them by their ids in the order of code units, so days come in their order; and the sum of all.
 */
export function groupUsage(
  rows: readonly UsageRow[],
  by: readonly UsageDimension[],
  owners: Owners,
): { readonly rows: readonly UsageView[]; readonly total: UsageSums } {
  const groups = new Map<string, Group>();
  /** Labels are the same for many rows; what they come to is remembered by the raw values. */
  const idByRaw = new Map<string, string>();
  let total = noCounts;
  for (const [key, counts] of rows) {
    total = addCounts(total, counts);
    const raw = rawOf(key, by);
    let id = idByRaw.get(raw);
    if (id === undefined) {
      const labels: Labels = Object.assign({}, ...by.map((dimension) => labelOf(dimension, key, owners)));
      id = idOf(labels);
      idByRaw.set(raw, id);
      if (!groups.has(id)) groups.set(id, { labels, counts: noCounts });
    }
    const group = groups.get(id) as Group;
    group.counts = addCounts(group.counts, counts);
  }
  const views = [...groups].map(([id, { labels, counts }]): UsageView => ({ id, ...labels, ...sumsOf(counts) }));
  views.sort((a, b) => (a.id < b.id ? -1 : 1));
  return { rows: by.length === 0 ? [] : views, total: sumsOf(total) };
}

/** A tag says more with its day and gateway. */
function rawOf(key: UsageKey, by: readonly UsageDimension[]): string {
  let raw = '';
  for (const dimension of by) {
    raw += `${key[dimension]}\n`;
    if (dimension === 'account' || dimension === 'key') raw += `${key.tagDay} ${key.gateway}\n`;
  }
  return raw;
}
