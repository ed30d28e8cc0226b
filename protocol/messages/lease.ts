/** The frames of `/helixflow/lease/1`: what a gateway may spend and use, and the keys of tags, asked of whoever keeps them. */

import { decodeValue, encodeValue, type Value } from '../codec.ts';
import { fromHex, toHex } from '../crypto.ts';
import { HelixFlowError } from '../errors.ts';
import { type AccountId, type EpochId, type IssuerId, isAccountId, isKeyId, type KeyId, type LeaseId } from '../ids.ts';
import { Reader } from '../reader.ts';

/** Between gateways. Whoever asks opens it, one channel for each pair and direction; answers come in any order. */
export const LEASE_PROTOCOL = '/helixflow/lease/1';

/** Asks for a lease, or for more of it. Repeated, as after a lost answer, it is answered with what was given before. */
export interface MoneyAsk {
  readonly type: 'ask';
  /** Drawn by the asker; the answer repeats it. */
  readonly id: number;
  /** Whose account it is. */
  readonly issuer: IssuerId;
  readonly account: AccountId;
  /** Must never be overspent. */
  readonly isStrict: boolean;
  /** Of the asker's own feed: the only one that may spend it. */
  readonly epoch: EpochId;
  /** Drawn by the asker, who has one for each account and period. */
  readonly lease: LeaseId;
  /** What the asker knows it to be; 0 for a new one. */
  readonly knownMicro: number;
  /** With less than this nothing is won. */
  readonly leastMicro: number;
  /** What waits for it now, together. */
  readonly needMicro: number;
  /** What the asker expects to spend soon. */
  readonly wantMicro: number;
}
/** A lease, as it is now. Its entry is on the giver's disk. */
export interface MoneyGrant {
  readonly type: 'grant';
  readonly id: number;
  readonly lease: LeaseId;
  readonly period: number;
  /** All of it, what was given before included. */
  readonly amountMicro: number;
  /** What the budget has left after that. */
  readonly leftMicro: number;
}

/**
 * `exhausted`: less than `leastMicro` is left; `unready`: this gateway does not know yet what others hold; `unknown`: it
 * does not keep this account's budget; `over`: this lease has ended, or its period has, so draw another.
 */
export const moneyRefusals = ['exhausted', 'unready', 'unknown', 'over'] as const;
/** Nothing was given. */
export interface MoneyRefusal {
  readonly type: 'refusal';
  readonly id: number;
  readonly reason: (typeof moneyRefusals)[number];
  readonly leftMicro: number;
}
/** A lease that the sender holds. */
export interface Holding {
  readonly lease: LeaseId;
  readonly account: AccountId;
  readonly epoch: EpochId;
  readonly period: number;
  readonly amountMicro: number;
}
/** Everything that the sender holds of accounts that the receiver keeps as this issuer, which it takes to be in office. */
export interface HoldingsReport {
  readonly type: 'report';
  readonly issuer: IssuerId;
  readonly isLast: boolean;
  readonly leases: readonly Holding[];
}
/** Others lack what is left of this lease: close it now, with what is held counted as spent until that is settled. */
export interface Recall {
  readonly type: 'recall';
  readonly lease: LeaseId;
}

/** Limits that all gateways share. */
export const sharedLimits = ['rpm', 'tpm', 'concurrency'] as const;
/** Whose limit it is, and which. */
export interface ShareSubject {
  readonly issuer: IssuerId;
  /** A key, or a whole account. */
  readonly subject:
    | { readonly kind: 'key'; readonly key: KeyId }
    | { readonly kind: 'account'; readonly account: AccountId };
  readonly limit: (typeof sharedLimits)[number];
}
/** What the asker has of a limit, uses of it, and wants. */
export interface ShareRow extends ShareSubject {
  /** Of all gateways together. */
  readonly total: number;
  readonly share: number;
  /** The answer that the share is of; 0 where there is none. Answers before it count no more. */
  readonly answer: number;
  /** For how much longer the share counts; 0 where there is none. */
  readonly forMs: number;
  /** In the last minute and held, or at this moment. */
  readonly used: number;
  readonly wanted: number;
}
/** Asks for shares of limits. */
export interface ShareAsk {
  readonly type: 'shareAsk';
  readonly id: number;
  /** All shares that the asker has were told on this channel. */
  readonly isWhole: boolean;
  readonly rows: readonly ShareRow[];
}
/** Shares, in the order of the ask's rows. */
export interface Shares {
  readonly type: 'shares';
  readonly id: number;
  readonly rows: readonly { readonly share: number; readonly forMs: number }[];
}
/** Others want some of these limits: ask again now. */
export interface Poke {
  readonly type: 'poke';
  readonly subjects: readonly ShareSubject[];
}
/** The key of one day's tags. */
export interface TagKeyRow {
  /** Days since 1970 (UTC). */
  readonly day: number;
  /** 32 bytes. */
  readonly key: Uint8Array;
}
/** Asks for the keys of tags of these days, and tells those that the asker holds: whoever keeps them may have lost them. */
export interface TagKeysAsk {
  readonly type: 'keysAsk';
  readonly id: number;
  readonly issuer: IssuerId;
  readonly days: readonly number[];
  readonly held: readonly TagKeyRow[];
}
/** Those of the keys that there are. */
export interface TagKeysTold {
  readonly type: 'keys';
  readonly id: number;
  readonly keys: readonly TagKeyRow[];
}

/** What the opener of a channel sends. */
export type LeaseQuestion = MoneyAsk | HoldingsReport | ShareAsk | TagKeysAsk;
/** What comes back. */
export type LeaseAnswer = MoneyGrant | MoneyRefusal | Recall | Shares | Poke | TagKeysTold;
/** Everything that is said there. */
export type LeaseFrame = LeaseQuestion | LeaseAnswer;

/** First position of every frame. Numbers are never used again. */
const number = {
  ask: 0,
  grant: 1,
  refusal: 2,
  report: 3,
  recall: 4,
  shareAsk: 5,
  shares: 6,
  poke: 7,
  keysAsk: 8,
  keys: 9,
} as const;

/** Leases of one report, and limits of one ask: more go into several. */
export const leaseRowsMax = 256;
/** Days of one question for keys, and keys of one frame. */
export const tagDaysMax = 64;
/** No frame of 256 rows is longer. */
export const leaseFrameMaxBytes = 65_536;
const amountMax = 1_000_000_000_000_000;
const shareMax = 1_000_000_000_000;
const forMaxMs = 3_600_000;
const dayMax = 1_000_000;

const subjectFields = ({ issuer, subject, limit }: ShareSubject): readonly Value[] => [
  fromHex(issuer),
  subject.kind === 'key' ? 0 : 1,
  subject.kind === 'key' ? fromHex(subject.key) : subject.account,
  sharedLimits.indexOf(limit),
];

const keyFields = ({ day, key }: TagKeyRow): Value => [day, key];

function encodeQuestion(frame: LeaseQuestion): Value {
  switch (frame.type) {
    case 'ask': {
      const { id, issuer, account, isStrict, epoch, lease, knownMicro, leastMicro, needMicro, wantMicro } = frame;
      const amounts = [knownMicro, leastMicro, needMicro, wantMicro];
      return [number.ask, id, fromHex(issuer), account, isStrict, fromHex(epoch), fromHex(lease), ...amounts];
    }
    case 'report':
      return [
        number.report,
        fromHex(frame.issuer),
        frame.isLast,
        frame.leases.map(({ lease, account, epoch, period, amountMicro }): Value => {
          return [fromHex(lease), account, fromHex(epoch), period, amountMicro];
        }),
      ];
    case 'shareAsk':
      return [
        number.shareAsk,
        frame.id,
        frame.isWhole,
        frame.rows.map((row): Value => {
          const { total, share, answer, forMs, used, wanted } = row;
          return [...subjectFields(row), total, share, answer, forMs, used, wanted];
        }),
      ];
    case 'keysAsk':
      return [number.keysAsk, frame.id, fromHex(frame.issuer), frame.days, frame.held.map(keyFields)];
  }
}

function encodeAnswer(frame: LeaseAnswer): Value {
  switch (frame.type) {
    case 'grant':
      return [number.grant, frame.id, fromHex(frame.lease), frame.period, frame.amountMicro, frame.leftMicro];
    case 'refusal':
      return [number.refusal, frame.id, moneyRefusals.indexOf(frame.reason), frame.leftMicro];
    case 'recall':
      return [number.recall, fromHex(frame.lease)];
    case 'shares':
      return [number.shares, frame.id, frame.rows.map(({ share, forMs }): Value => [share, forMs])];
    case 'poke':
      return [number.poke, frame.subjects.map((row): Value => [...subjectFields(row)])];
    case 'keys':
      return [number.keys, frame.id, frame.keys.map(keyFields)];
  }
}

const isAnswer = (frame: LeaseFrame): frame is LeaseAnswer =>
  frame.type !== 'ask' && frame.type !== 'report' && frame.type !== 'shareAsk' && frame.type !== 'keysAsk';

/** The bytes of a frame. */
export const encodeLeaseFrame = (frame: LeaseFrame): Uint8Array =>
  encodeValue(isAnswer(frame) ? encodeAnswer(frame) : encodeQuestion(frame));

const malformed = (reason: string): HelixFlowError => new HelixFlowError('FRAME_MALFORMED', { reason });

const readIssuer = (r: Reader): IssuerId => toHex(r.bytes(16, 16)) as IssuerId;
const readLease = (r: Reader): LeaseId => toHex(r.bytes(16, 16)) as LeaseId;
const readEpoch = (r: Reader): EpochId => toHex(r.bytes(16, 16)) as EpochId;
const readId = (r: Reader): number => r.int(Number.MAX_SAFE_INTEGER, 1);
const readAmount = (r: Reader): number => r.int(amountMax);

function readAccount(r: Reader): AccountId {
  const text = r.text(64);
  if (!isAccountId(text)) throw malformed('lease: no account');
  return text;
}

function readKeyId(r: Reader): KeyId {
  const text = toHex(r.bytes(8, 8));
  if (!isKeyId(text)) throw malformed('lease: no key');
  return text;
}

function readSubject(r: Reader): ShareSubject {
  const issuer = readIssuer(r);
  const subject =
    r.int(1) === 0
      ? ({ kind: 'key', key: readKeyId(r) } as const)
      : ({ kind: 'account', account: readAccount(r) } as const);
  return { issuer, subject, limit: sharedLimits[r.int(sharedLimits.length - 1)] ?? 'rpm' };
}

function readTagKey(value: Value): TagKeyRow {
  const r = new Reader(value, 'tag key');
  return { day: r.int(dayMax), key: r.bytes(32, 32).slice() };
}

const readDay = (value: Value): number => new Reader([value], 'day').int(dayMax);

function readAsk(r: Reader): MoneyAsk {
  return {
    type: 'ask',
    id: readId(r),
    issuer: readIssuer(r),
    account: readAccount(r),
    isStrict: r.bool(),
    epoch: readEpoch(r),
    lease: readLease(r),
    knownMicro: readAmount(r),
    leastMicro: readAmount(r),
    needMicro: readAmount(r),
    wantMicro: readAmount(r),
  };
}

function readHolding(value: Value): Holding {
  const r = new Reader(value, 'holding');
  return {
    lease: readLease(r),
    account: readAccount(r),
    epoch: readEpoch(r),
    period: r.int(),
    amountMicro: r.int(amountMax, 1),
  };
}

function readShareRow(value: Value): ShareRow {
  const r = new Reader(value, 'share');
  const subject = readSubject(r);
  return {
    ...subject,
    total: r.int(shareMax),
    share: r.int(shareMax),
    answer: r.int(),
    forMs: r.int(forMaxMs),
    used: r.int(shareMax),
    wanted: r.int(shareMax),
  };
}

const parsers: Readonly<Record<number, (r: Reader) => LeaseFrame>> = {
  [number.ask]: readAsk,
  [number.grant]: (r) => ({
    type: 'grant',
    id: readId(r),
    lease: readLease(r),
    period: r.int(),
    amountMicro: r.int(amountMax, 1),
    leftMicro: readAmount(r),
  }),
  [number.refusal]: (r) => ({
    type: 'refusal',
    id: readId(r),
    reason: moneyRefusals[r.int(moneyRefusals.length - 1)] ?? 'unknown',
    leftMicro: readAmount(r),
  }),
  [number.report]: (r) => ({
    type: 'report',
    issuer: readIssuer(r),
    isLast: r.bool(),
    leases: r.list(leaseRowsMax, readHolding),
  }),
  [number.recall]: (r) => ({ type: 'recall', lease: readLease(r) }),
  [number.shareAsk]: (r) => ({
    type: 'shareAsk',
    id: readId(r),
    isWhole: r.bool(),
    rows: r.list(leaseRowsMax, readShareRow),
  }),
  [number.shares]: (r) => ({
    type: 'shares',
    id: readId(r),
    rows: r.list(leaseRowsMax, (value) => {
      const row = new Reader(value, 'share');
      return { share: row.int(shareMax), forMs: row.int(forMaxMs) };
    }),
  }),
  [number.poke]: (r) => ({
    type: 'poke',
    subjects: r.list(leaseRowsMax, (value) => readSubject(new Reader(value, 'subject'))),
  }),
  [number.keysAsk]: (r) => ({
    type: 'keysAsk',
    id: readId(r),
    issuer: readIssuer(r),
    days: r.list(tagDaysMax, readDay),
    held: r.list(tagDaysMax, readTagKey),
  }),
  [number.keys]: (r) => ({ type: 'keys', id: readId(r), keys: r.list(tagDaysMax, readTagKey) }),
};

/**
 * Reads one frame. Positions after the known ones are ignored, so that a minor version may append some.
 * @returns undefined for a frame type that this version does not know.
 * @throws HelixFlowError FRAME_MALFORMED
 */
export function parseLeaseFrame(bytes: Uint8Array): LeaseFrame | undefined {
  const reader = new Reader(decodeValue(bytes), 'frame');
  return parsers[reader.int(255)]?.(reader);
}
