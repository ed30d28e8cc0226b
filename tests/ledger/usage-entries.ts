/** Arbitrary entries about usage and money, for property tests. */

import fc from 'fast-check';
import { type LineOutcome, lineOutcomes, lineTokensMax, type UsageLine } from '../../ledger/line.ts';
import { type Budget, budgetMaxMicro, budgetPeriods, type MoneyEntry } from '../../ledger/money.ts';
import { freePrice, maxPriceMicro, type Price } from '../../ledger/price.ts';
import { type Progress, refusalReasons, type StatementEntry, type UsageEntry } from '../../ledger/statement.ts';
import { toHex } from '../../protocol/crypto.ts';
import type {
  AccountId,
  EpochId,
  LeaseId,
  ModelDigest,
  PeerId,
  PriceId,
  ProcessId,
  RequestId,
  Tag,
} from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { ms, unixMs } from '../../protocol/units.ts';

const exactly = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const hex = (length: number) => exactly(length).map(toHex);
const peer = fc.stringMatching(/^[1-9A-HJ-NP-Za-km-z]{8,64}$/).map((text) => text as PeerId);
const account = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/).map((text) => text as AccountId);
const model = fc.string({ maxLength: limits.modelNameMaxChars });
const micro = fc.oneof(fc.nat(100), fc.integer({ min: 0, max: maxPriceMicro }));
const moment = fc.integer({ min: 0, max: 4_000_000_000_000 }).map(unixMs);
const tokens = fc.oneof(fc.nat(2_000), fc.integer({ min: 0, max: lineTokensMax }));
const serial = fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }));
const few = <T>(drawn: fc.Arbitrary<T>, count: number): fc.Arbitrary<readonly T[]> =>
  fc.array(drawn, { minLength: 1, maxLength: count });

const prices: fc.Arbitrary<Price> = fc.oneof(
  fc.constant(freePrice),
  fc.record({ id: hex(8) as fc.Arbitrary<PriceId>, prompt: micro, cached: micro, completion: micro }),
);
const callers = fc.record({
  day: fc.nat(100_000),
  account: hex(8) as fc.Arbitrary<Tag>,
  key: hex(8) as fc.Arbitrary<Tag>,
});

/** What lines of one statement draw from, so that they share some of it. */
const shared = fc.record({
  runs: few(hex(16), 3),
  models: few(fc.record({ model, digest: hex(32) as fc.Arbitrary<ModelDigest> }), 3),
  prices: few(prices, 3),
  callers: few(callers, 4),
  leases: few(hex(8), 3),
});
const from = <T>(drawn: readonly T[], at: number): T => drawn[at % drawn.length] as T;

const ended = lineOutcomes.filter((outcome): outcome is Exclude<LineOutcome, 'running'> => outcome !== 'running');
const counts = fc.record({
  serial,
  back: fc.nat(3),
  request: hex(16) as fc.Arbitrary<RequestId>,
  at: fc.nat(1_000),
  hasLease: fc.boolean(),
  payer: fc.constantFrom('account' as const, 'gateway' as const),
  startMs: moment,
  firstMs: fc.nat(100_000).map(ms),
  durationMs: fc.nat(10_000_000).map(ms),
  promptTokens: tokens,
  cachedShare: fc.double({ min: 0, max: 1, noNaN: true }),
  completionTokens: tokens,
  nodeTokens: fc.option(tokens, { nil: undefined }),
  outcome: fc.constantFrom(...ended),
});

/** Lines of one gateway, each attempt once. */
export const someLines = (maxLength: number): fc.Arbitrary<readonly UsageLine[]> =>
  fc.tuple(shared, fc.uniqueArray(counts, { maxLength, selector: ({ serial }) => serial })).map(([of, drawn]) =>
    drawn.map(
      ({ back, at, hasLease, cachedShare, nodeTokens, ...line }): UsageLine => ({
        ...line,
        ...from(of.models, at),
        run: from(of.runs, at) as ProcessId,
        first: Math.max(1, line.serial - back),
        caller: from(of.callers, at),
        price: from(of.prices, at),
        ...(hasLease ? { lease: from(of.leases, at) as Tag } : {}),
        cachedTokens: Math.floor(line.promptTokens * cachedShare),
        ...(nodeTokens === undefined ? {} : { nodeTokens }),
      }),
    ),
  );

const totals = fc.record({ lines: fc.maxSafeNat(), promptTokens: fc.maxSafeNat(), completionTokens: fc.maxSafeNat() });

/** As a gateway may write them: some lines, some that run, some of which only how far they are. */
export const statements: fc.Arbitrary<StatementEntry> = fc
  .record({
    kind: fc.constant('statement' as const),
    node: peer,
    number: fc.maxSafeNat(),
    previous: exactly(32),
    run: hex(16) as fc.Arbitrary<ProcessId>,
    drawn: someLines(24),
    parts: fc.tuple(fc.nat(24), fc.nat(6), fc.nat(6)),
    totals,
  })
  .map(({ drawn, parts: [ended, starting, going], ...entry }): StatementEntry => {
    const lines = drawn.slice(0, ended);
    const running = drawn.slice(ended, ended + starting);
    const progress = drawn.slice(ended + starting, ended + starting + going);
    return {
      ...entry,
      lines,
      running: running.map((line): UsageLine => ({ ...line, run: entry.run, outcome: 'running' })),
      progress: progress
        .map(({ serial, completionTokens }): Progress => ({ serial, completionTokens }))
        .sort((a, b) => a.serial - b.serial),
    };
  });

/** One arbitrary of each kind about usage. */
export const usageByKind: { readonly [Kind in UsageEntry['kind']]: fc.Arbitrary<UsageEntry & { kind: Kind }> } = {
  statement: statements,
  countersign: fc.record({
    kind: fc.constant('countersign' as const),
    node: peer,
    epoch: hex(16) as fc.Arbitrary<EpochId>,
    number: fc.maxSafeNat(),
    statement: exactly(32),
    refused: fc
      .uniqueArray(
        fc.record({ index: fc.nat(limits.statementLinesMax - 1), reason: fc.constantFrom(...refusalReasons) }),
        { maxLength: 10, selector: ({ index }) => index },
      )
      .map((refused) => refused.sort((a, b) => a.index - b.index)),
    timeMs: moment,
    signature: exactly(64),
  }),
  claim: fc.record({
    kind: fc.constant('claim' as const),
    node: peer,
    gateway: peer,
    attempts: fc.uniqueArray(
      fc.record({
        run: hex(16) as fc.Arbitrary<ProcessId>,
        serial,
        request: hex(16) as fc.Arbitrary<RequestId>,
        startMs: moment,
        promptTokens: tokens,
        completionTokens: tokens,
      }),
      { minLength: 1, maxLength: 8, selector: ({ serial }) => serial },
    ),
    timeMs: moment,
    signature: exactly(64),
  }),
  close: fc.record({
    kind: fc.constant('close' as const),
    lease: hex(16) as fc.Arbitrary<LeaseId>,
    spentMicro: fc.integer({ min: 0, max: budgetMaxMicro }),
  }),
};

/** One arbitrary of each kind about money. */
export const moneyByKind: { readonly [Kind in MoneyEntry['kind']]: fc.Arbitrary<MoneyEntry & { kind: Kind }> } = {
  price: fc.record(
    {
      kind: fc.constant('price' as const),
      id: hex(8) as fc.Arbitrary<PriceId>,
      model,
      node: peer,
      prompt: micro,
      cached: micro,
      completion: micro,
      fromMs: moment,
    },
    { requiredKeys: ['kind', 'id', 'model', 'prompt', 'cached', 'completion', 'fromMs'] },
  ),
  lease: fc.record({
    kind: fc.constant('lease' as const),
    lease: hex(16) as fc.Arbitrary<LeaseId>,
    account,
    holder: peer,
    epoch: hex(16) as fc.Arbitrary<EpochId>,
    period: fc.nat(100_000),
    amountMicro: fc.integer({ min: 1, max: budgetMaxMicro }),
  }),
  writeoff: fc.record({
    kind: fc.constant('writeoff' as const),
    lease: hex(16) as fc.Arbitrary<LeaseId>,
    epoch: hex(16) as fc.Arbitrary<EpochId>,
    spentMicro: fc.integer({ min: 0, max: budgetMaxMicro }),
  }),
};

export const budgets: fc.Arbitrary<Budget> = fc.record({
  amountMicro: fc.integer({ min: 0, max: budgetMaxMicro }),
  period: fc.constantFrom(...budgetPeriods),
});
