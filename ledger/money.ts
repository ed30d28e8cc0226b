/** Entries about money: prices, budgets and the leases on them (design §6). */

import type { Value } from '../protocol/codec.ts';
import { fromHex, sha256, toHex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import {
  type AccountId,
  type EpochId,
  isAccountId,
  isPeerId,
  type LeaseId,
  type PeerId,
  type PriceId,
  type Tag,
} from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { Reader } from '../protocol/reader.ts';
import { dayMs, type UnixMs, unixMs } from '../protocol/units.ts';
import { momentMaxMs } from './line.ts';
import { maxPriceMicro } from './price.ts';

/** How often a budget is there anew, by UTC; `total` never. */
export const budgetPeriods = ['day', 'month', 'total'] as const;
export type BudgetPeriod = (typeof budgetPeriods)[number];

/** What an account may spend. */
export interface Budget {
  readonly amountMicro: number;
  readonly period: BudgetPeriod;
}

/** Nobody's budget is more than a billion credits. */
export const budgetMaxMicro = 1_000_000_000_000_000;

/** What tokens cost from `fromMs` on; open, so that nodes can check what they are told. */
export interface PriceEntry {
  readonly kind: 'price';
  readonly id: PriceId;
  /** A model's name, or `*`. */
  readonly model: string;
  readonly node?: PeerId;
  /** Micro-credits for a million tokens. */
  readonly prompt: number;
  readonly cached: number;
  readonly completion: number;
  readonly fromMs: UnixMs;
}

/** The account's authority gives a gateway an amount to spend. A later entry of the same lease raises it: the largest counts. */
export interface LeaseEntry {
  readonly kind: 'lease';
  readonly lease: LeaseId;
  readonly account: AccountId;
  readonly holder: PeerId;
  /** The run of the holder's writing that may spend it; with it the lease ends. */
  readonly epoch: EpochId;
  /** Which one: `periodOf` the budget's period. */
  readonly period: number;
  readonly amountMicro: number;
}

/** The operator gives up on a lease that its holder never closed: all of it but `spentMicro` is free again. */
export interface WriteOffEntry {
  readonly kind: 'writeoff';
  readonly lease: LeaseId;
  readonly epoch: EpochId;
  readonly spentMicro: number;
}

export type MoneyEntry = PriceEntry | LeaseEntry | WriteOffEntry;

/** Prices are open; the others only gateways get. */
export const moneyKinds = { price: 4, lease: 68, writeoff: 69 } as const;

/** What lines name a lease by: only gateways hold the entries that say whose it is. */
export const leaseTag = (lease: LeaseId): Tag =>
  toHex(sha256('helixflow/lease/1', fromHex(lease)).subarray(0, 8)) as Tag;

/** Which day, month or whole this moment belongs to. */
export function periodOf(period: BudgetPeriod, atMs: UnixMs): number {
  if (period === 'total') return 0;
  if (period === 'day') return Math.floor(atMs / dayMs);
  const { year, month } = monthOf(atMs);
  return year * 12 + month - 1;
}

/** Civil date of a day count; Howard Hinnant, chrono-Compatible Low-Level Date Algorithms, `civil_from_days`. */
function monthOf(atMs: UnixMs): { readonly year: number; readonly month: number } {
  const day = Math.floor(atMs / dayMs) + 719_468;
  const era = Math.floor(day / 146_097);
  const ofEra = day - era * 146_097;
  const yearOfEra = Math.floor(
    (ofEra - Math.floor(ofEra / 1_460) + Math.floor(ofEra / 36_524) - Math.floor(ofEra / 146_096)) / 365,
  );
  const ofYear = ofEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const shifted = Math.floor((5 * ofYear + 2) / 153);
  const month = shifted < 10 ? shifted + 3 : shifted - 9;
  return { year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month };
}

/** The positions of an entry, for `encodeEntry`. */
export function writeMoney(entry: MoneyEntry): Value {
  switch (entry.kind) {
    case 'price': {
      const { id, model, node, prompt, cached, completion, fromMs } = entry;
      return [moneyKinds.price, fromHex(id), model, node ?? null, prompt, cached, completion, fromMs];
    }
    case 'lease': {
      const { lease, account, holder, epoch, period, amountMicro } = entry;
      return [moneyKinds.lease, fromHex(lease), account, holder, fromHex(epoch), period, amountMicro];
    }
    case 'writeoff':
      return [moneyKinds.writeoff, fromHex(entry.lease), fromHex(entry.epoch), entry.spentMicro];
  }
}

const malformed = (reason: string): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `entry: ${reason}` });

function checked<T extends string>(text: string, isIt: (text: unknown) => text is T, what: string): T {
  if (!isIt(text)) throw malformed(`no ${what}`);
  return text;
}

const readEpoch = (r: Reader): EpochId => toHex(r.bytes(16, 16)) as EpochId;
const readLease = (r: Reader): LeaseId => toHex(r.bytes(16, 16)) as LeaseId;

function readPrice(r: Reader): PriceEntry {
  const id = toHex(r.bytes(8, 8)) as PriceId;
  const model = r.text(limits.modelNameMaxChars);
  const node = r.optional((row) => checked(row.text(64), isPeerId, 'peer id'));
  return {
    kind: 'price',
    id,
    model,
    ...(node === undefined ? {} : { node }),
    prompt: r.int(maxPriceMicro),
    cached: r.int(maxPriceMicro),
    completion: r.int(maxPriceMicro),
    fromMs: unixMs(r.int(momentMaxMs)),
  };
}

/** Reads what follows the kind of an entry. @throws HelixFlowError FRAME_MALFORMED */
export const moneyParsers: Readonly<Record<number, (r: Reader) => MoneyEntry>> = {
  [moneyKinds.price]: readPrice,
  [moneyKinds.lease]: (r) => ({
    kind: 'lease',
    lease: readLease(r),
    account: checked(r.text(64), isAccountId, 'account'),
    holder: checked(r.text(64), isPeerId, 'peer id'),
    epoch: readEpoch(r),
    period: r.int(),
    amountMicro: r.int(budgetMaxMicro, 1),
  }),
  [moneyKinds.writeoff]: (r) => ({
    kind: 'writeoff',
    lease: readLease(r),
    epoch: readEpoch(r),
    spentMicro: r.int(budgetMaxMicro),
  }),
};

export const writeBudget = ({ amountMicro, period }: Budget): Value => [amountMicro, budgetPeriods.indexOf(period)];

/** What `writeBudget` wrote, where anything was written. */
export function readBudget(r: Reader): Budget | undefined {
  if (!r.hasMore) return undefined;
  const row = r.row();
  const amountMicro = row.int(budgetMaxMicro);
  return { amountMicro, period: budgetPeriods[row.int(budgetPeriods.length - 1)] as BudgetPeriod };
}
