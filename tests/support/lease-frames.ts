/** Arbitrary frames of the wire of leases, for property tests. */

import fc from 'fast-check';
import { toHex } from '../../protocol/crypto.ts';
import type { AccountId, EpochId, IssuerId, KeyId, LeaseId } from '../../protocol/ids.ts';
import {
  type LeaseFrame,
  leaseRowsMax,
  moneyRefusals,
  type ShareRow,
  type ShareSubject,
  sharedLimits,
  tagDaysMax,
} from '../../protocol/messages/lease.ts';

const exactly = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const hex = <T extends string>(length: number) => exactly(length).map((bytes) => toHex(bytes) as T);
const ids = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const amounts = fc.oneof(fc.nat(1_000), fc.integer({ min: 0, max: 1_000_000_000_000_000 }));
const shares = fc.oneof(fc.nat(100), fc.integer({ min: 0, max: 1_000_000_000_000 }));
const forMs = fc.integer({ min: 0, max: 3_600_000 });
const issuer = hex<IssuerId>(16);
const account = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/).map((text) => text as AccountId);
const lease = hex<LeaseId>(16);
const epoch = hex<EpochId>(16);
const period = fc.nat(100_000);

const subject: fc.Arbitrary<ShareSubject> = fc.record({
  issuer,
  subject: fc.oneof(
    fc.record({ kind: fc.constant('key' as const), key: hex<KeyId>(8) }),
    fc.record({ kind: fc.constant('account' as const), account }),
  ),
  limit: fc.constantFrom(...sharedLimits),
});
const row: fc.Arbitrary<ShareRow> = fc
  .tuple(
    subject,
    fc.record({ total: shares, share: shares, answer: fc.maxSafeNat(), forMs, used: shares, wanted: shares }),
  )
  .map(([of, counts]) => ({ ...of, ...counts }));
const keys = fc.array(fc.record({ day: fc.nat(1_000_000), key: exactly(32) }), { maxLength: 4 });

/** One arbitrary for each type of frame. */
export const leaseFramesByType = {
  ask: fc.record({
    type: fc.constant('ask'),
    id: ids,
    issuer,
    account,
    isStrict: fc.boolean(),
    epoch,
    lease,
    knownMicro: amounts,
    leastMicro: amounts,
    needMicro: amounts,
    wantMicro: amounts,
  }),
  grant: fc.record({
    type: fc.constant('grant'),
    id: ids,
    lease,
    period,
    amountMicro: amounts.map((amount) => Math.max(1, amount)),
    leftMicro: amounts,
  }),
  refusal: fc.record({
    type: fc.constant('refusal'),
    id: ids,
    reason: fc.constantFrom(...moneyRefusals),
    leftMicro: amounts,
  }),
  report: fc.record({
    type: fc.constant('report'),
    issuer,
    isLast: fc.boolean(),
    leases: fc.array(
      fc.record({ lease, account, epoch, period, amountMicro: amounts.map((amount) => Math.max(1, amount)) }),
      { maxLength: 4 },
    ),
  }),
  recall: fc.record({ type: fc.constant('recall'), lease }),
  shareAsk: fc.record({
    type: fc.constant('shareAsk'),
    id: ids,
    isWhole: fc.boolean(),
    rows: fc.array(row, { maxLength: 4 }),
  }),
  shares: fc.record({
    type: fc.constant('shares'),
    id: ids,
    rows: fc.array(fc.record({ share: shares, forMs }), { maxLength: 4 }),
  }),
  poke: fc.record({ type: fc.constant('poke'), subjects: fc.array(subject, { maxLength: 4 }) }),
  keysAsk: fc.record({
    type: fc.constant('keysAsk'),
    id: ids,
    issuer,
    days: fc.array(fc.nat(1_000_000), { maxLength: 6 }),
    held: keys,
  }),
  keys: fc.record({ type: fc.constant('keys'), id: ids, keys }),
} as const satisfies { readonly [Type in LeaseFrame['type']]: fc.Arbitrary<LeaseFrame & { readonly type: Type }> };

export const leaseFrames: fc.Arbitrary<LeaseFrame> = fc.oneof(...Object.values(leaseFramesByType));

const most = 1_000_000_000_000_000;
const of = 'ff'.repeat(16);
const widest = {
  issuer: of as IssuerId,
  subject: { kind: 'account', account: 'a'.repeat(64) as AccountId },
  limit: 'concurrency',
} as const;

/** The largest of each that a sender may have to send. */
export const largestLeaseFrames: readonly LeaseFrame[] = [
  {
    type: 'report',
    issuer: of as IssuerId,
    isLast: true,
    leases: Array.from({ length: leaseRowsMax }, () => ({
      lease: of as LeaseId,
      account: 'a'.repeat(64) as AccountId,
      epoch: of as EpochId,
      period: Number.MAX_SAFE_INTEGER,
      amountMicro: most,
    })),
  },
  {
    type: 'shareAsk',
    id: Number.MAX_SAFE_INTEGER,
    isWhole: true,
    rows: Array.from({ length: leaseRowsMax }, () => ({
      ...widest,
      total: 1_000_000_000_000,
      share: 1_000_000_000_000,
      answer: Number.MAX_SAFE_INTEGER,
      forMs: 3_600_000,
      used: 1_000_000_000_000,
      wanted: 1_000_000_000_000,
    })),
  },
  { type: 'poke', subjects: Array.from({ length: leaseRowsMax }, () => widest) },
  {
    type: 'keysAsk',
    id: Number.MAX_SAFE_INTEGER,
    issuer: of as IssuerId,
    days: Array.from({ length: tagDaysMax }, () => 1_000_000),
    held: Array.from({ length: tagDaysMax }, () => ({ day: 1_000_000, key: new Uint8Array(32) })),
  },
];
