/** Statements, countersignatures and claims: what a gateway and a node sign of the work between them (design §6). */

import { decodeValue, encodeValue, type Value } from '../protocol/codec.ts';
import { fromHex, isSameBytes, sha256, sha256Hex, signBytes, toHex, verifyBytes } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import {
  type EpochId,
  isPeerId,
  type LeaseId,
  type MeshId,
  type PeerId,
  type ProcessId,
  type RequestId,
} from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { publicKeyOf } from '../protocol/peer/identity.ts';
import type { SigningKey } from '../protocol/ports.ts';
import { Reader } from '../protocol/reader.ts';
import { Memory } from '../protocol/tables.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import { attemptName, bytesOf, inBounds, lineTokensMax, momentMaxMs, type UsageLine } from './line.ts';
import { budgetMaxMicro } from './money.ts';
import { readStatement, writeStatement } from './statement-rows.ts';

/** What the lines of a tab come to, from the first statement of its epoch on. */
export interface TabTotals {
  readonly lines: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** How far a running attempt has come. */
export interface Progress {
  readonly serial: number;
  readonly completionTokens: number;
}

/**
 * A gateway's account of its work with one node. Statements of a tab form a chain within an epoch of the gateway's
 * feed: `number` counts from 0, `previous` is the hash of the one before.
 */
export interface StatementEntry {
  readonly kind: 'statement';
  readonly node: PeerId;
  readonly number: number;
  /** sha256 of the bytes of the statement before; 32 zero bytes for the first. */
  readonly previous: Uint8Array;
  /** The process that states it; attempts in `running` and `progress` are its own. */
  readonly run: ProcessId;
  /** Attempts that have ended, in the order in which they did. */
  readonly lines: readonly UsageLine[];
  /** Attempts that have run for a while and are told for the first time in this epoch; outcome `running`. */
  readonly running: readonly UsageLine[];
  /** Those told before that have come further, by serial. */
  readonly progress: readonly Progress[];
  /** With the lines of this statement. */
  readonly totals: TabTotals;
}

/**
 * Why a node refuses a line: `unknown` (it did no such work), `count` (too few tokens, or another count than it
 * told), `price` (none that counted then), `outcome` (it ended otherwise), `repeated` (it was stated before).
 */
export const refusalReasons = ['unknown', 'count', 'price', 'outcome', 'repeated'] as const;
export type RefusalReason = (typeof refusalReasons)[number];

export interface RefusedLine {
  /** Of `StatementEntry.lines`. */
  readonly index: number;
  readonly reason: RefusalReason;
}

/** A node's word on a statement, which the gateway keeps in its own feed. */
export interface CountersignEntry {
  readonly kind: 'countersign';
  readonly node: PeerId;
  /** Where the statement stands in the gateway's feed. */
  readonly epoch: EpochId;
  readonly number: number;
  /** `statementHash` of what was signed. */
  readonly statement: Uint8Array;
  /** In the order of the lines; empty: all of it is right. */
  readonly refused: readonly RefusedLine[];
  /** By the node's clock. */
  readonly timeMs: UnixMs;
  readonly signature: Uint8Array;
}

/** Work that a node did and no statement covers. */
export interface ClaimedAttempt {
  readonly run: ProcessId;
  readonly serial: number;
  readonly request: RequestId;
  readonly startMs: UnixMs;
  readonly promptTokens: number;
  /** What it had sent. */
  readonly completionTokens: number;
}

/** A node's word on work that a gateway does not cover; moves no money (design §6). */
export interface ClaimEntry {
  readonly kind: 'claim';
  readonly node: PeerId;
  /** Whom it is about; whoever appends it may be another. */
  readonly gateway: PeerId;
  readonly attempts: readonly ClaimedAttempt[];
  readonly timeMs: UnixMs;
  readonly signature: Uint8Array;
}

/** A gateway gives back what is left of a money lease, and closes it. */
export interface CloseEntry {
  readonly kind: 'close';
  readonly lease: LeaseId;
  /** Micro-credits that were spent from it; the rest is free again. */
  readonly spentMicro: number;
}

export type UsageEntry = StatementEntry | CountersignEntry | ClaimEntry | CloseEntry;

/** Kinds of entries that only gateways write, and only gateways get. */
export const usageKinds = { statement: 128, countersign: 129, claim: 130, close: 131 } as const;

/** Claimed attempts in one claim. */
export const claimAttemptsMax = 64;
/** A statement's entry stays below this, so that a block may hold it beside others. */
export const statementMaxBytes = 30_720;

/** The hash that a countersignature and the next statement name: sha256 of the entry's bytes as they stand in the feed. */
export const statementHash = (entryBytes: Uint8Array): Uint8Array => sha256(entryBytes);

const malformed = (reason: string): HelixFlowError =>
  new HelixFlowError('FRAME_MALFORMED', { reason: `usage: ${reason}` });

function writeRefused(refused: readonly RefusedLine[]): Value {
  checkOrder(refused);
  const indexMax = limits.statementLinesMax - 1;
  return refused.map(({ index, reason }): Value => [inBounds(index, indexMax), refusalReasons.indexOf(reason)]);
}

function checkOrder(refused: readonly RefusedLine[]): void {
  if (refused.some(({ index }, at) => at > 0 && index <= (refused[at - 1]?.index ?? 0))) throw malformed('no order');
}

function writeAttempts(attempts: readonly ClaimedAttempt[]): Value {
  checkClaimed(attempts);
  return attempts.map(({ run, serial, request, startMs, promptTokens, completionTokens }): Value => {
    const counts = [promptTokens, completionTokens].map((count) => inBounds(count, lineTokensMax));
    const name = [bytesOf(run, 16), inBounds(serial, Number.MAX_SAFE_INTEGER, 1), bytesOf(request, 16)];
    return [...name, inBounds(startMs, momentMaxMs), ...counts];
  });
}

function checkClaimed(attempts: readonly ClaimedAttempt[]): void {
  if (attempts.length === 0 || attempts.length > claimAttemptsMax) throw malformed('nothing claimed, or too much');
  if (new Set(attempts.map(attemptName)).size < attempts.length) throw malformed('an attempt twice');
}

function exactly(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length === length) return bytes;
  throw malformed(`no ${length} bytes`);
}

/** The positions of an entry, for `encodeEntry`. */
export function writeUsage(entry: UsageEntry): Value {
  switch (entry.kind) {
    case 'statement':
      return [usageKinds.statement, ...writeStatement(entry)];
    case 'countersign': {
      const { node, epoch, number, statement, refused, timeMs, signature } = entry;
      const place = [bytesOf(epoch, 16), inBounds(number, Number.MAX_SAFE_INTEGER), exactly(statement, 32)];
      const word = [writeRefused(refused), inBounds(timeMs, momentMaxMs), exactly(signature, 64)];
      return [usageKinds.countersign, node, ...place, ...word];
    }
    case 'claim': {
      const { node, gateway, attempts, timeMs, signature } = entry;
      const word = [writeAttempts(attempts), inBounds(timeMs, momentMaxMs), exactly(signature, 64)];
      return [usageKinds.claim, node, gateway, ...word];
    }
    case 'close':
      return [usageKinds.close, bytesOf(entry.lease, 16), inBounds(entry.spentMicro, budgetMaxMicro)];
  }
}

function readPeer(r: Reader): PeerId {
  const peer = r.text(64);
  if (!isPeerId(peer)) throw malformed('no peer id');
  return peer;
}

const readMoment = (r: Reader): UnixMs => unixMs(r.int(momentMaxMs));

function readRefused(r: Reader): RefusedLine[] {
  const refused = r.list(limits.statementLinesMax, (value) => {
    const row = new Reader(value, 'refused');
    const index = row.int(limits.statementLinesMax - 1);
    return { index, reason: refusalReasons[row.int(refusalReasons.length - 1)] as RefusalReason };
  });
  checkOrder(refused);
  return refused;
}

function readCountersign(r: Reader): CountersignEntry {
  return {
    kind: 'countersign',
    node: readPeer(r),
    epoch: toHex(r.bytes(16, 16)) as EpochId,
    number: r.int(),
    statement: r.bytes(32, 32),
    refused: readRefused(r),
    timeMs: readMoment(r),
    signature: r.bytes(64, 64),
  };
}

function readClaim(r: Reader): ClaimEntry {
  const node = readPeer(r);
  const gateway = readPeer(r);
  const attempts = r.list(claimAttemptsMax, readAttempt);
  checkClaimed(attempts);
  return { kind: 'claim', node, gateway, attempts, timeMs: readMoment(r), signature: r.bytes(64, 64) };
}

function readAttempt(value: Value): ClaimedAttempt {
  const r = new Reader(value, 'claimed');
  return {
    run: toHex(r.bytes(16, 16)) as ProcessId,
    serial: r.int(Number.MAX_SAFE_INTEGER, 1),
    request: toHex(r.bytes(16, 16)) as RequestId,
    startMs: readMoment(r),
    promptTokens: r.int(lineTokensMax),
    completionTokens: r.int(lineTokensMax),
  };
}

/** Reads what follows the kind of an entry. @throws HelixFlowError FRAME_MALFORMED */
export const usageParsers: Readonly<Record<number, (r: Reader) => UsageEntry>> = {
  [usageKinds.statement]: (r) => ({ kind: 'statement', node: readPeer(r), ...readStatement(r) }),
  [usageKinds.countersign]: readCountersign,
  [usageKinds.claim]: readClaim,
  [usageKinds.close]: (r) => ({
    kind: 'close',
    lease: toHex(r.bytes(16, 16)) as LeaseId,
    spentMicro: r.int(budgetMaxMicro),
  }),
};

const countersignDomain = (meshId: MeshId): string => `helixflow/countersign/1/${meshId}`;
const claimDomain = (meshId: MeshId): string => `helixflow/claim/1/${meshId}`;

type Unsigned<T extends { readonly signature: Uint8Array }> = Omit<T, 'signature'>;

const countersigned = (gateway: PeerId, entry: Unsigned<CountersignEntry>): Uint8Array =>
  encodeValue([
    gateway,
    entry.node,
    fromHex(entry.epoch),
    entry.number,
    entry.statement,
    writeRefused(entry.refused),
    entry.timeMs,
  ]);

const claimed = ({ node, gateway, attempts, timeMs }: Unsigned<ClaimEntry>): Uint8Array =>
  encodeValue([node, gateway, writeAttempts(attempts), timeMs]);

/** What a signature is made for. */
export interface SignedFor {
  readonly meshId: MeshId;
  /** Whose feed the statement stands in. */
  readonly gateway: PeerId;
}

/** Signs with the node's peer key. */
export function signCountersign(
  entry: Unsigned<CountersignEntry>,
  { meshId, gateway }: SignedFor,
  key: SigningKey,
): CountersignEntry {
  return { ...entry, signature: signBytes(countersignDomain(meshId), countersigned(gateway, entry), key) };
}

/** A gateway checks what a node says when it hears it, and again when it stands in its feed: what checked out is known. */
const checkedOut = new Memory<true>(1_024);

/** True when the node it names signed it, for this gateway's statement. About 0.1 ms, the first time. */
export function isCountersigned(entry: CountersignEntry, { meshId, gateway }: SignedFor): boolean {
  const key = publicKeyOf(entry.node);
  if (key === undefined) return false;
  const domain = countersignDomain(meshId);
  const said = countersigned(gateway, entry);
  const name = sha256Hex(encodeValue([domain, entry.node, said, entry.signature]));
  if (checkedOut.get(name) === true) return true;
  const isSigned = verifyBytes(domain, said, entry.signature, key);
  if (isSigned) checkedOut.set(name, true);
  return isSigned;
}

/** Signs with the node's peer key. */
export const signClaim = (entry: Unsigned<ClaimEntry>, meshId: MeshId, key: SigningKey): ClaimEntry => ({
  ...entry,
  signature: signBytes(claimDomain(meshId), claimed(entry), key),
});

/** True when the node it names signed it. */
export function isClaimed(entry: ClaimEntry, meshId: MeshId): boolean {
  const key = publicKeyOf(entry.node);
  return key !== undefined && verifyBytes(claimDomain(meshId), claimed(entry), entry.signature, key);
}

/** True when `next` follows the statement with this hash and number, or begins the tab where there is none. */
export function follows(
  next: StatementEntry,
  before: { readonly number: number; readonly hash: Uint8Array; readonly totals: TabTotals } | undefined,
): boolean {
  const totals = addTotals(before?.totals ?? noTotals, next.lines);
  return (
    next.number === (before === undefined ? 0 : before.number + 1) &&
    isSameBytes(next.previous, before?.hash ?? new Uint8Array(32)) &&
    next.totals.lines === totals.lines &&
    next.totals.promptTokens === totals.promptTokens &&
    next.totals.completionTokens === totals.completionTokens
  );
}

/** Before the first statement. */
export const noTotals: TabTotals = { lines: 0, promptTokens: 0, completionTokens: 0 };

/** The totals with these lines added; they stop at the largest integer that is exact. */
export function addTotals(totals: TabTotals, lines: readonly UsageLine[]): TabTotals {
  let { promptTokens, completionTokens } = totals;
  for (const line of lines) {
    promptTokens += line.promptTokens;
    completionTokens += line.completionTokens;
  }
  return {
    lines: Math.min(totals.lines + lines.length, Number.MAX_SAFE_INTEGER),
    promptTokens: Math.min(promptTokens, Number.MAX_SAFE_INTEGER),
    completionTokens: Math.min(completionTokens, Number.MAX_SAFE_INTEGER),
  };
}

/** A statement, countersignature or claim from its entry's bytes, as a session carries them. @throws HelixFlowError FRAME_MALFORMED */
export function parseUsage(bytes: Uint8Array): UsageEntry {
  if (bytes.length > limits.entryMaxBytes) {
    throw new HelixFlowError('FRAME_TOO_LARGE', { bytes: bytes.length, maxBytes: limits.entryMaxBytes });
  }
  const r = new Reader(decodeValue(bytes), 'usage');
  const read = usageParsers[r.int(65_535)];
  if (read === undefined) throw malformed('no such kind');
  return read(r);
}

/** The bytes of a countersignature or claim on a session: those of its entry. */
export const encodeUsage = (entry: UsageEntry): Uint8Array => encodeValue(writeUsage(entry)).slice();
