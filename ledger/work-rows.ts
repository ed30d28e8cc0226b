/** How a node's tabs lie in the store: work that is not covered, statements that were countersigned, what each gateway has shown. */

import type { Value } from '../protocol/codec.ts';
import type { Counted } from '../protocol/counting.ts';
import { fromHex, isSameBytes, sha256, toHex } from '../protocol/crypto.ts';
import { HelixFlowError } from '../protocol/errors.ts';
import {
  type EpochId,
  isPeerId,
  type ModelDigest,
  type PeerId,
  type PriceId,
  type ProcessId,
  type RequestId,
} from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { Reader } from '../protocol/reader.ts';
import { type UnixMs, unixMs } from '../protocol/units.ts';
import { headerMaxBytes, parseHeader, type SignedHeader } from './block.ts';
import { lineTokensMax } from './line.ts';
import { readSealedRow, sealRow } from './sealed-rows.ts';
import { type RefusalReason, refusalReasons, type TabTotals } from './statement.ts';
import type { WorkEnd } from './work.ts';
import { pieceBytes, type SeenPiece } from './work-seen.ts';

/** Every key of a node's tabs. */
export const workKeys = { gte: Uint8Array.of(0x77, 0x2f), lt: Uint8Array.of(0x77, 0x30) };
/** The kinds of row, by the byte behind `w/`; a gateway's own comes before all else of it. */
export const workRowKinds = { gateway: 0x67, kept: 0x6b, seen: 0x73, work: 0x77 } as const;
export type WorkRowKind = keyof typeof workRowKinds;

const peerAt = workKeys.gte.length + 1;
const idAt = peerAt + 32;
const numberAt = idAt + 16;

function keyOf(kind: WorkRowKind, peer: Uint8Array, id?: string, number?: number): Uint8Array {
  const key = new Uint8Array(id === undefined ? idAt : numberAt + 8);
  key.set(workKeys.gte);
  key[peerAt - 1] = workRowKinds[kind];
  key.set(peer, peerAt);
  if (id === undefined) return key;
  key.set(fromHex(id), idAt);
  new DataView(key.buffer).setBigUint64(numberAt, BigInt(number ?? 0));
  return key;
}

/** What stands for a gateway in keys; 32 bytes. */
export const peerKey = (gateway: PeerId): Uint8Array => sha256(gateway);

export const gatewayKey = (peer: Uint8Array): Uint8Array => keyOf('gateway', peer);
export const workKey = (peer: Uint8Array, { run, serial }: { readonly run: ProcessId; readonly serial: number }) =>
  keyOf('work', peer, run, serial);
export const keptKey = (peer: Uint8Array, { epoch, number }: { readonly epoch: EpochId; readonly number: number }) =>
  keyOf('kept', peer, epoch, number);
export const seenKey = (peer: Uint8Array, { run, number }: Pick<SeenPiece, 'run' | 'number'>): Uint8Array =>
  keyOf('seen', peer, run, number);

/** What a key says; undefined for one that no version wrote. */
export function readWorkKey(key: Uint8Array) {
  const kind = (Object.keys(workRowKinds) as WorkRowKind[]).find((name) => workRowKinds[name] === key[peerAt - 1]);
  if (kind === undefined || key.length !== (kind === 'gateway' ? idAt : numberAt + 8)) return undefined;
  const peer = toHex(key.subarray(peerAt, idAt));
  if (kind === 'gateway') return { kind, peer, id: '', number: 0 };
  const number = Number(new DataView(key.buffer, key.byteOffset).getBigUint64(numberAt));
  return Number.isSafeInteger(number) ? { kind, peer, id: toHex(key.subarray(idAt, numberAt)), number } : undefined;
}

const damaged = (reason: string): HelixFlowError => new HelixFlowError('FRAME_MALFORMED', { reason: `row: ${reason}` });

/** The newest statement of an epoch that was countersigned. */
export interface TabHead {
  readonly epoch: EpochId;
  readonly number: number;
  readonly hash: Uint8Array;
  readonly totals: TabTotals;
  /** Statements up to, and with, this number are no longer kept; -1 while all are. */
  readonly forgotten: number;
}

/** What is remembered of a gateway; moments in connected time. */
export interface GatewayRecord {
  readonly gateway: PeerId;
  readonly connectedMs: number;
  readonly run: ProcessId | undefined;
  /** Since when this has been its process; undefined for the first that was seen. */
  readonly runSinceMs: number | undefined;
  /** How often work was given up, and when lately. */
  readonly losses: number;
  readonly lossMs: number;
  /** Tokens: the most that were done for it in one window of time, those that it did not pay, and those that it covered. */
  readonly windowTokens: number;
  readonly shortTokens: number;
  readonly coveredTokens: number;
  readonly statements: number;
  readonly lines: number;
  readonly refused: number;
  readonly claimed: number;
  /** Oldest first. */
  readonly heads: readonly TabHead[];
}

/** Epochs of one gateway whose chains are followed: one for each of its last processes. */
export const headsMax = 16;

const writeHead = ({ epoch, number, hash, totals, forgotten }: TabHead): Value => {
  const { lines, promptTokens, completionTokens } = totals;
  return [fromHex(epoch), number, hash, lines, promptTokens, completionTokens, forgotten + 1];
};

const readHead = (r: Reader): TabHead => ({
  epoch: toHex(r.bytes(16, 16)) as EpochId,
  number: r.int(),
  hash: r.bytes(32, 32),
  totals: { lines: r.int(), promptTokens: r.int(), completionTokens: r.int() },
  forgotten: r.int() - 1,
});

const rowsOf = (r: Reader, max: number): Reader[] => {
  const row = r.row();
  const rows: Reader[] = [];
  while (row.hasMore) {
    if (rows.length === max) throw damaged('too many');
    rows.push(row.row());
  }
  return rows;
};

export const writeGateway = (key: Uint8Array, record: GatewayRecord): Uint8Array =>
  sealRow(key, [
    record.gateway,
    Math.round(record.connectedMs),
    record.run === undefined ? null : fromHex(record.run),
    record.runSinceMs === undefined ? null : Math.round(record.runSinceMs),
    record.losses,
    Math.round(record.lossMs),
    record.windowTokens,
    record.shortTokens,
    record.coveredTokens,
    record.statements,
    record.lines,
    record.refused,
    record.claimed,
    record.heads.map(writeHead),
  ]);

function readPeer(r: Reader, key: Uint8Array): PeerId {
  const peer = r.text(64);
  if (!isPeerId(peer) || !isSameBytes(gatewayKey(peerKey(peer)), key)) throw damaged('another place');
  return peer;
}

/** What `writeGateway` wrote; undefined where a byte has changed. */
export const readGateway = (key: Uint8Array, row: Uint8Array): GatewayRecord | undefined =>
  readSealedRow(key, row, (r) => ({
    gateway: readPeer(r, key),
    connectedMs: r.int(),
    run: r.optional((one) => toHex(one.bytes(16, 16)) as ProcessId),
    runSinceMs: r.optional((one) => one.int()),
    losses: r.int(),
    lossMs: r.int(),
    windowTokens: r.int(),
    shortTokens: r.int(),
    coveredTokens: r.int(),
    statements: r.int(),
    lines: r.int(),
    refused: r.int(),
    claimed: r.int(),
    heads: rowsOf(r, headsMax).map(readHead),
  }));

/** An attempt that has ended and that no statement covers. */
export interface WorkRecord {
  readonly run: ProcessId;
  readonly serial: number;
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest;
  readonly price: PriceId | '';
  readonly bodyBytes: number;
  readonly startMs: UnixMs;
  readonly sent: Counted;
  readonly acknowledgedTokens: number;
  /** The highest running count that was stated; -1 where none was. */
  readonly statedTokens: number;
  /** In connected time: all that was done before is covered. */
  readonly sinceMs: number;
  readonly endedMs: number;
  readonly end: WorkEnd;
  readonly refused: RefusalReason | undefined;
  /** How often it was claimed. */
  readonly claims: number;
}

const endKinds = ['done', 'cancelled', 'failed'] as const;

function writeEnd(end: WorkEnd): Value {
  const kind = endKinds.indexOf(end.kind);
  if (end.kind === 'failed') return [kind];
  if (end.kind === 'cancelled') return [kind, end.promptTokens, end.completionTokens];
  return [kind, end.promptTokens, end.completionTokens, end.cachedTokens];
}

function readEnd(r: Reader): WorkEnd {
  const kind = endKinds[r.int(endKinds.length - 1)];
  if (kind === 'failed' || kind === undefined) return { kind: 'failed' };
  const promptTokens = r.int(lineTokensMax);
  const completionTokens = r.int(lineTokensMax);
  if (kind === 'cancelled') return { kind, promptTokens, completionTokens };
  return { kind, promptTokens, completionTokens, cachedTokens: r.int(lineTokensMax) };
}

export const writeWork = (key: Uint8Array, work: WorkRecord): Uint8Array =>
  sealRow(key, [
    fromHex(work.request),
    work.model,
    fromHex(work.digest),
    fromHex(work.price),
    work.bodyBytes,
    work.startMs,
    [work.sent.tokens, work.sent.bytes, work.sent.hasIds],
    work.acknowledgedTokens,
    work.statedTokens + 1,
    Math.round(work.sinceMs),
    Math.round(work.endedMs),
    writeEnd(work.end),
    work.refused === undefined ? null : refusalReasons.indexOf(work.refused),
    work.claims,
  ]);

function readPrice(r: Reader): PriceId | '' {
  const id = r.bytes(8);
  if (id.length !== 0 && id.length !== 8) throw damaged('no price');
  return toHex(id) as PriceId;
}

const readCounted = (r: Reader): Counted => ({ tokens: r.int(), bytes: r.int(), hasIds: r.bool() });

/** What `writeWork` wrote under the key of this attempt; undefined where a byte has changed. */
export const readWork = (
  key: Uint8Array,
  row: Uint8Array,
  { run, serial }: Pick<WorkRecord, 'run' | 'serial'>,
): WorkRecord | undefined =>
  readSealedRow(key, row, (r) => ({
    run,
    serial,
    request: toHex(r.bytes(16, 16)) as RequestId,
    model: r.text(limits.modelNameMaxChars),
    digest: toHex(r.bytes(32, 32)) as ModelDigest,
    price: readPrice(r),
    bodyBytes: r.int(),
    startMs: unixMs(r.int()),
    sent: readCounted(r.row()),
    acknowledgedTokens: r.int(),
    statedTokens: r.int() - 1,
    sinceMs: r.int(),
    endedMs: r.int(),
    end: readEnd(r.row()),
    refused: r.optional((one) => refusalReasons[one.int(refusalReasons.length - 1)]),
    claims: r.int(),
  }));

/** A statement that was countersigned, for when it comes again. */
export interface KeptStatement {
  readonly epoch: EpochId;
  readonly number: number;
  /** Grows with every statement of this gateway that was kept. */
  readonly order: number;
  readonly head: SignedHeader;
  /** Of the statement. */
  readonly hash: Uint8Array;
  /** The countersignature's entry. */
  readonly countersign: Uint8Array;
}

export const writeKept = (key: Uint8Array, { order, head, hash, countersign }: KeptStatement): Uint8Array =>
  sealRow(key, [order, head.bytes, head.signature, hash, countersign]);

/** What `writeKept` wrote; undefined where a byte has changed. */
export const readKept = (
  key: Uint8Array,
  row: Uint8Array,
  { epoch, number }: Pick<KeptStatement, 'epoch' | 'number'>,
): KeptStatement | undefined =>
  readSealedRow(key, row, (r) => ({
    epoch,
    number,
    order: r.int(),
    head: parseHeader(r.bytes(headerMaxBytes), r.bytes(64, 64)),
    hash: r.bytes(32, 32),
    countersign: r.bytes(limits.entryMaxBytes),
  }));

export const writeSeen = (key: Uint8Array, { bits }: SeenPiece): Uint8Array => sealRow(key, [bits]);

/** The bits that `writeSeen` wrote; undefined where a byte has changed. */
export const readSeen = (key: Uint8Array, row: Uint8Array): Uint8Array | undefined =>
  readSealedRow(key, row, (r) => r.bytes(pieceBytes, pieceBytes).slice());
