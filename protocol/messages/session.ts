/** The frames of `/helixflow/session/1`: their fields, their bounds, their bytes. */

import { decodeValue, encodeValue, type Value } from '../codec.ts';
import { fromHex, toHex } from '../crypto.ts';
import { type ErrorCode, type HelixFlowError, isErrorCode } from '../errors.ts';
import type { ModelDigest, PriceId, ProcessId, RequestId, Tag } from '../ids.ts';
import { limits } from '../limits.ts';
import type { Contact, EngineModel } from '../ports.ts';
import { Reader } from '../reader.ts';
import { type Ms, ms } from '../units.ts';
import { errorFields, readError } from './error.ts';
import {
  finishes,
  modelFields,
  operations,
  pick,
  readContact,
  readModel,
  readPriceId,
  regionMaxChars,
  startHoldsMax,
  textMaxChars,
  uint32,
  wireCount,
  wireMs,
} from './session-fields.ts';
import { type TabFrame, tabFields, tabParsers } from './tab.ts';

/** One stream per pair of a gateway and a node (design §4). */
export const SESSION_PROTOCOL = '/helixflow/session/1';

/** First frame of each side: who runs here. Nothing else is sent before both are read. */
export interface Start {
  readonly type: 'start';
  readonly process: ProcessId;
  /** Grows with each `start` that this process sends to anyone: tells in which order a peer's were sent. */
  readonly serial: number;
  /** Serials of the sender's starts on the other sessions it holds with the receiver; ones silent for `sessionStaleMs` are left out. */
  readonly holds: readonly number[];
}
/** What a node serves; sent whole, again on every change. Only nodes send it. */
export interface Offer {
  readonly type: 'offer';
  /** Grows by one with each offer of a session; echoed by `offered`. */
  readonly revision: number;
  readonly models: readonly EngineModel[];
  readonly slots: number;
  /** For people: `NVIDIA RTX 4090 24 GB`, `CPU, 2 cores`. */
  readonly hardware: string;
  /** Who answers for the node. */
  readonly owner: string;
  /** Where it stands, as its operator calls it; empty where nothing is told. */
  readonly region: string;
}
/** The gateway holds the offer. */
export interface Offered {
  readonly type: 'offered';
  readonly revision: number;
}
/** Other gateways that the sender is connected with; sent whole, again on every change. Only gateways send it. */
export interface Gateways {
  readonly type: 'gateways';
  readonly contacts: readonly Contact[];
}
/** What a node is doing now. Only nodes send it. */
export interface Load {
  readonly type: 'load';
  readonly active: number;
  readonly queued: number;
  readonly freeSlots: number;
  /** Decoding speed lately, over all answers; 0 while unknown. */
  readonly tokensPerSecond: number;
  readonly draining: boolean;
  /** As `EngineStats.progress`, over all engines, sent at least each second while anything runs; 0 while nobody can tell. */
  readonly progress: number;
}
/** Starts an attempt. Only gateways send it. */
export interface Open {
  readonly type: 'open';
  /** Names the attempt on this session; never used twice. */
  readonly attempt: number;
  readonly request: RequestId;
  readonly model: string;
  readonly digest: ModelDigest;
  readonly operation: 'chat';
  /** From the node’s receipt of the whole body to the end of the answer. */
  readonly deadlineMs: Ms;
  /** Length of the whole body; `body` frames bring what `piece` does not hold. */
  readonly bodyBytes: number;
  readonly piece: Uint8Array;
  /** Of the attempt, among all of the gateway's process; what its line will be found by. */
  readonly serial: number;
  /** Stands for the account, so that a node can treat accounts alike. */
  readonly account: Tag;
  /** What the node will be paid by; empty where nothing has a price. */
  readonly price: PriceId | '';
  /** So many of the body's last bytes are a `Resume` (`resume.ts`), which the answer goes on from; 0 for a new answer. */
  readonly resumeBytes: number;
}
/** More of a request body, in order. */
export interface Body {
  readonly type: 'body';
  readonly attempt: number;
  readonly piece: Uint8Array;
}
/** A piece of the answer. */
export interface Delta {
  readonly type: 'delta';
  readonly attempt: number;
  /** 0, 1, 2 … without a gap. */
  readonly sequence: number;
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** As `EngineDelta.isOpaque`. */
  readonly isOpaque?: boolean;
}
/** The answer is whole. */
export interface Done {
  readonly type: 'done';
  readonly attempt: number;
  readonly finish: 'stop' | 'length';
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  /** Waiting for a slot, then to the first token, then to the last. */
  readonly queueMs: number;
  readonly prefillMs: number;
  readonly decodeMs: number;
}
/** The attempt failed; nothing follows. */
export interface Fail {
  readonly type: 'fail';
  readonly attempt: number;
  readonly error: HelixFlowError;
}
/** The gateway wants no more of this attempt. */
export interface CancelFrame {
  readonly type: 'cancel';
  readonly attempt: number;
  /** Every delta below this sequence number has been received. */
  readonly acknowledged: number;
}
/** The engine has stopped and the slot is free; nothing follows. Answers `cancel`, unless `done` or `fail` was under way. */
export interface Cancelled {
  readonly type: 'cancelled';
  readonly attempt: number;
  /** Tokens generated for the attempt. */
  readonly completionTokens: number;
  /** Of the prompt, as far as the engine has counted it; 0 before. */
  readonly promptTokens: number;
}
/** The gateway has passed on what it received, and more may be sent. */
export interface Credit {
  readonly type: 'credit';
  readonly attempt: number;
  /** Further delta bytes the node may send. */
  readonly bytes: number;
  /** Every delta below this sequence number has been received. */
  readonly acknowledged: number;
}
/** Are you there? */
export interface Ping {
  readonly type: 'ping';
  readonly nonce: number;
}
/** I am. */
export interface Pong {
  readonly type: 'pong';
  readonly nonce: number;
}
/** No new attempts on this session; it ends when those under way have ended. */
export interface Goodbye {
  readonly type: 'goodbye';
  readonly code: ErrorCode;
}

/** Everything that is said there. */
export type SessionFrame =
  | Start
  | Offer
  | Offered
  | Gateways
  | Load
  | Open
  | Body
  | Delta
  | Done
  | Fail
  | CancelFrame
  | Cancelled
  | Credit
  | Ping
  | Pong
  | Goodbye
  | TabFrame;

/** First position of every frame. Numbers are never used again; 16 to 19 belong to tabs (`tab.ts`). */
const number = {
  start: 0,
  offer: 1,
  offered: 2,
  load: 3,
  open: 4,
  body: 5,
  delta: 6,
  done: 7,
  fail: 8,
  cancel: 9,
  cancelled: 10,
  credit: 11,
  ping: 12,
  pong: 13,
  goodbye: 14,
  gateways: 15,
} as const;

const marks = ({ isOpaque }: Delta): readonly true[] => (isOpaque === true ? [true] : []);

/** The bytes of a frame. */
export function encodeSessionFrame(frame: SessionFrame): Uint8Array {
  switch (frame.type) {
    case 'delta':
      return encodeValue([number.delta, frame.attempt, frame.sequence, frame.text, frame.tokenIds, ...marks(frame)]);
    case 'credit':
      return encodeValue([number.credit, frame.attempt, frame.bytes, frame.acknowledged]);
    case 'open':
      return encodeValue([
        number.open,
        frame.attempt,
        fromHex(frame.request),
        frame.model,
        fromHex(frame.digest),
        operations.indexOf(frame.operation),
        Math.ceil(frame.deadlineMs),
        frame.bodyBytes,
        frame.piece,
        frame.serial,
        fromHex(frame.account),
        fromHex(frame.price),
        frame.resumeBytes,
      ]);
    case 'body':
      return encodeValue([number.body, frame.attempt, frame.piece]);
    case 'done':
      return encodeValue([
        number.done,
        frame.attempt,
        finishes.indexOf(frame.finish),
        wireCount(frame.promptTokens),
        wireCount(frame.cachedTokens),
        wireCount(frame.completionTokens),
        wireMs(frame.queueMs),
        wireMs(frame.prefillMs),
        wireMs(frame.decodeMs),
      ]);
    case 'fail':
      return encodeValue([number.fail, frame.attempt, ...errorFields(frame.error)]);
    case 'cancel':
      return encodeValue([number.cancel, frame.attempt, frame.acknowledged]);
    case 'cancelled':
      return encodeValue([
        number.cancelled,
        frame.attempt,
        wireCount(frame.completionTokens),
        wireCount(frame.promptTokens),
      ]);
    case 'ping':
      return encodeValue([number.ping, frame.nonce]);
    case 'pong':
      return encodeValue([number.pong, frame.nonce]);
    case 'start':
      return encodeValue([number.start, fromHex(frame.process), frame.serial, frame.holds.slice(-startHoldsMax)]);
    case 'offer':
      return encodeValue([
        number.offer,
        frame.revision,
        frame.models.map(modelFields),
        frame.slots,
        frame.hardware.slice(0, textMaxChars),
        frame.owner,
        frame.region,
      ]);
    case 'gateways':
      return encodeValue([number.gateways, frame.contacts.map(({ peer, addresses }): Value => [peer, addresses])]);
    case 'offered':
      return encodeValue([number.offered, frame.revision]);
    case 'load':
      return encodeValue([
        number.load,
        frame.active,
        frame.queued,
        frame.freeSlots,
        Math.round(frame.tokensPerSecond),
        frame.draining,
        wireMs(frame.progress),
      ]);
    case 'goodbye':
      return encodeValue([number.goodbye, frame.code]);
    default:
      return encodeValue(tabFields(frame));
  }
}

type Parse = (reader: Reader) => SessionFrame;

const parsers: Readonly<Record<number, Parse>> = {
  ...tabParsers,
  [number.start]: (r) => ({
    type: 'start',
    process: toHex(r.bytes(16, 16)) as ProcessId,
    serial: r.int(),
    holds: r.ints(startHoldsMax),
  }),
  [number.offer]: (r) => ({
    type: 'offer',
    revision: r.int(uint32),
    models: r.list(limits.offerModelsMax, readModel),
    slots: r.int(1_000_000),
    hardware: r.text(textMaxChars),
    owner: r.text(64),
    region: r.hasMore ? r.text(regionMaxChars) : '',
  }),
  [number.gateways]: (r) => ({ type: 'gateways', contacts: r.list(limits.sessionsPerNodeMax, readContact) }),
  [number.offered]: (r) => ({ type: 'offered', revision: r.int(uint32) }),
  [number.load]: (r) => ({
    type: 'load',
    active: r.int(uint32),
    queued: r.int(uint32),
    freeSlots: r.int(uint32),
    tokensPerSecond: r.int(uint32),
    draining: r.bool(),
    progress: r.hasMore ? r.int() : 0,
  }),
  [number.open]: (r) => ({
    type: 'open',
    attempt: r.int(uint32),
    request: toHex(r.bytes(16, 16)) as RequestId,
    model: r.text(limits.modelNameMaxChars),
    digest: toHex(r.bytes(32, 32)) as ModelDigest,
    operation: pick(operations, r),
    deadlineMs: ms(r.int(86_400_000, 1)),
    bodyBytes: r.int(limits.requestBodyMaxBytes),
    piece: r.bytes(limits.bodyChunkBytes),
    serial: r.int(Number.MAX_SAFE_INTEGER, 1),
    account: toHex(r.bytes(8, 8)) as Tag,
    price: readPriceId(r),
    resumeBytes: r.hasMore ? r.int(limits.requestBodyMaxBytes) : 0,
  }),
  [number.body]: (r) => ({ type: 'body', attempt: r.int(uint32), piece: r.bytes(limits.bodyChunkBytes) }),
  [number.delta]: (r) => {
    const attempt = r.int(uint32);
    const sequence = r.int(uint32);
    const text = r.text(limits.deltaTextMaxBytes);
    const tokenIds = r.ints(limits.deltaTokensMax);
    return r.hasMore && r.bool()
      ? { type: 'delta', attempt, sequence, text, tokenIds, isOpaque: true }
      : { type: 'delta', attempt, sequence, text, tokenIds };
  },
  [number.done]: (r) => ({
    type: 'done',
    attempt: r.int(uint32),
    finish: pick(finishes, r),
    promptTokens: r.int(uint32),
    cachedTokens: r.int(uint32),
    completionTokens: r.int(uint32),
    queueMs: r.int(),
    prefillMs: r.int(),
    decodeMs: r.int(),
  }),
  [number.fail]: (r) => ({ type: 'fail', attempt: r.int(uint32), error: readError(r) }),
  [number.cancel]: (r) => ({ type: 'cancel', attempt: r.int(uint32), acknowledged: r.int(uint32) }),
  [number.cancelled]: (r) => ({
    type: 'cancelled',
    attempt: r.int(uint32),
    completionTokens: r.int(uint32),
    promptTokens: r.int(uint32),
  }),
  [number.credit]: (r) => ({
    type: 'credit',
    attempt: r.int(uint32),
    bytes: r.int(uint32),
    acknowledged: r.int(uint32),
  }),
  [number.ping]: (r) => ({ type: 'ping', nonce: r.int(uint32) }),
  [number.pong]: (r) => ({ type: 'pong', nonce: r.int(uint32) }),
  [number.goodbye]: (r) => {
    const code = r.text(64);
    return { type: 'goodbye', code: isErrorCode(code) ? code : 'CHANNEL_CLOSED' };
  },
};

/**
 * Reads one frame. Positions after the known ones are ignored, so that a minor version may append some.
 * @returns undefined for a frame type that this version does not know.
 * @throws HelixFlowError FRAME_MALFORMED
 */
export function parseSessionFrame(bytes: Uint8Array): SessionFrame | undefined {
  const reader = new Reader(decodeValue(bytes), 'frame');
  return parsers[reader.int(255)]?.(reader);
}
