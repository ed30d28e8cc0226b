/** Usage, prices and a budget of one gateway, for what reads them: real tags and owners over lines made up here. */

import { createOwners } from '../../../gateway/admin/owners.ts';
import type { Records } from '../../../gateway/admin/records.ts';
import type { BudgetSheet } from '../../../ledger/budgets.ts';
import type { PriceRule } from '../../../ledger/price.ts';
import type { Standing } from '../../../ledger/standing.ts';
import { createTags, type TagKeys } from '../../../ledger/tag-keys.ts';
import type { Usage, UsageCounts, UsageFilter, UsageRow } from '../../../ledger/usage.ts';
import { fromHex } from '../../../protocol/crypto.ts';
import { issuerIdOf } from '../../../protocol/grants.ts';
import type { AccountId, AuthorId, IssuerId, KeyId, PriceId } from '../../../protocol/ids.ts';
import { unixMs } from '../../../protocol/units.ts';
import { peer, quietLog, seededRandom } from '../../protocol/mesh-fixture.ts';
import type { ManualClock } from '../../support/manual-clock.ts';
import { MemoryStore } from '../../support/memory-store.ts';

export const dayMs = 86_400_000;
/** The authors of two gateways' feeds; the first is this one's. */
export const gateways = ['0a'.repeat(32) as AuthorId, '0b'.repeat(32) as AuthorId] as const;
export const node = peer('node');

export const counts = (changes: Partial<UsageCounts> = {}): UsageCounts => ({
  requests: 1,
  attempts: 1,
  promptTokens: 10,
  cachedTokens: 4,
  completionTokens: 5,
  accountMicro: 1_500,
  gatewayMicro: 0,
  refused: 0,
  lower: 0,
  ...changes,
});

/** What was used by whom. */
export interface Used {
  readonly account: AccountId;
  readonly key: KeyId;
  /** Days before today. */
  readonly daysAgo?: number;
  readonly model?: string;
  readonly gateway?: AuthorId;
  /** The gateway had no key of the issuer, and used its own. */
  readonly isOwnTag?: boolean;
  readonly counts?: Partial<UsageCounts>;
}

/** Rows as they are, whatever tells them apart: summing up is up to whoever reads them. */
export class FakeUsage implements Pick<Usage, 'rollUp' | 'totals' | 'newestMs'> {
  readonly all: UsageRow[] = [];
  /** Filters that were asked for. */
  readonly asked: UsageFilter[] = [];

  rollUp(filter: UsageFilter): readonly UsageRow[] {
    this.asked.push(filter);
    const { sinceDay = 0, untilDay = Number.POSITIVE_INFINITY, caller, model, node: only } = filter;
    return this.all.filter(
      ([key]) =>
        key.day >= sinceDay &&
        key.day < untilDay &&
        (model === undefined || key.model === model) &&
        (only === undefined || key.node === only) &&
        (caller === undefined || caller(key)),
    );
  }

  totals(): ReturnType<Usage['totals']> {
    return { ...counts(), statements: 3, claims: 0, unattested: 1 };
  }

  newestMs() {
    return this.all.length === 0 ? undefined : unixMs(1_700_000_000_000);
  }
}

const rule: PriceRule = {
  id: 'ac'.repeat(8) as PriceId,
  by: 'a1'.repeat(32) as AuthorId,
  model: 'qwen3',
  prompt: 150_000,
  cached: 75_000,
  completion: 600_000,
  fromMs: unixMs(1_000),
};

export interface RecordsStage {
  readonly records: Records;
  readonly usage: FakeUsage;
  readonly tags: TagKeys;
  /** The issuer of `by`, whose keys of tags are held here. */
  readonly issuer: IssuerId;
  /** Notes that somebody used something. */
  use(used: Used): void;
}

export const sheet = (account: AccountId): BudgetSheet => ({
  account,
  amountMicro: 10_000_000,
  period: 'month',
  spentMicro: 2_000_000,
  leasedMicro: 1_000_000,
  leftMicro: 7_000_000,
  leases: [
    { lease: '1e'.repeat(16) as never, holder: peer('gateway'), amountMicro: 1_000_000, state: 'open', spentMicro: 7 },
  ],
});

/** @param standing Who may own tags. @param by The author of the issuer of all of them. */
export async function recordsStage(
  standing: Pick<Standing, 'accounts' | 'keys'>,
  by: AuthorId,
  clock: ManualClock,
): Promise<RecordsStage> {
  const usage = new FakeUsage();
  const tags = createTags({ store: new MemoryStore(), clock, random: seededRandom('tags'), log: quietLog });
  await tags.open();
  const issuer = issuerIdOf(fromHex(by));
  const today = Math.floor(clock.wallMs() / dayMs);
  await tags.draw(
    issuer,
    Array.from({ length: 40 }, (_, ago) => today - ago),
  );
  const [self] = gateways;
  const records: Records = {
    usage,
    prices: { list: () => [rule] },
    owners: createOwners({ tags, standing, clock, self }),
    sheet: (account) => (account === 'acc-0' ? sheet(account) : undefined),
  };
  const use = ({ account, key, daysAgo = 0, model = 'qwen3', gateway = self, isOwnTag, counts: more }: Used): void => {
    const day = today - daysAgo;
    const tagDay = isOwnTag === true ? 0 : day;
    const accountTag = tags.accountTag(issuer, account, tagDay);
    const keyTag = tags.keyTag(issuer, key, tagDay);
    if (accountTag === undefined || keyTag === undefined) throw new Error(`no key of day ${day} is held`);
    usage.all.push([{ day, tagDay, account: accountTag, key: keyTag, model, node, gateway }, counts(more)]);
  };
  return { records, usage, tags, issuer, use };
}
