/** The frames of `/helixflow/ledger/1`: who holds what of which feed, and what of it is asked for and given. */

import { decodeValue, encodeValue, type Value } from '../codec.ts';
import { fromHex, toHex } from '../crypto.ts';
import { HelixFlowError } from '../errors.ts';
import { type AuthorId, type EpochId, isPeerId, type PeerId } from '../ids.ts';
import { limits } from '../limits.ts';
import { Reader } from '../reader.ts';
import { type UnixMs, unixMs } from '../units.ts';

/** One stream per pair of gateways, and of a gateway and a node; the dialler of the connection opens it (design §6). */
export const LEDGER_PROTOCOL = '/helixflow/ledger/1';

/** The kinds of token that the root signs. */
const rootKinds = ['issuer', 'revocation', 'lift'] as const;

/** What the root has said: all of it at the start, and whatever is new. */
export interface Tokens {
  readonly type: 'tokens';
  readonly tokens: readonly { readonly kind: (typeof rootKinds)[number]; readonly token: string }[];
}
/** How far the sender holds an epoch. */
export interface HaveCount {
  /** Blocks from the first on, without a hole. */
  readonly count: number;
  /** First 16 bytes of the hash of the last of them: tells the branches of a fork apart. */
  readonly hash: Uint8Array;
}
/** An epoch that the sender had not named before on this stream; it gets the next index, from 0. */
export interface HaveNew extends HaveCount {
  readonly author: AuthorId;
  readonly epoch: EpochId;
}
/** What the sender holds: epochs that it names for the first time, and those whose count has changed. */
export interface Have {
  readonly type: 'have';
  /** True for the first, and for the first after `again`: what was named before counts no more, indexes begin at 0. */
  readonly isStart: boolean;
  /** True once everything that was held when the stream began has been named. */
  readonly isWhole: boolean;
  readonly news: readonly HaveNew[];
  readonly changes: readonly (HaveCount & { readonly index: number })[];
}
/** Asks for blocks of an epoch. Those asked for and not yet given must stay within `limits.ledgerWindowBytes`. */
export interface Want {
  readonly type: 'want';
  readonly author: AuthorId;
  readonly epoch: EpochId;
  readonly from: number;
  /** From `wantMinBytes`; one block is given even if it alone is larger. */
  readonly maxBytes: number;
}
/** A header and its signature, neither of them read yet. */
export interface WireHead {
  readonly header: Uint8Array;
  readonly signature: Uint8Array;
}
/** A block as gateways exchange it. */
export interface WireBlock extends WireHead {
  readonly entries: readonly Uint8Array[];
}
/** A block as nodes get it: an entry that is not open is shown by its leaf in the Merkle tree alone. */
export interface WireOpenBlock extends WireHead {
  readonly slots: readonly WireSlot[];
}
/** One entry's place in an open block. */
export type WireSlot = { readonly entry: Uint8Array } | { readonly leaf: Uint8Array };
/** Answers the oldest `want` that is not yet answered, in one or more frames. */
export interface Blocks {
  readonly type: 'blocks';
  readonly isLast: boolean;
  readonly blocks: readonly WireBlock[];
}
/** As `blocks`, to a node. */
export interface OpenBlocks {
  readonly type: 'open';
  readonly isLast: boolean;
  readonly blocks: readonly WireOpenBlock[];
}
/** A block that has just come about, unasked. Only gateways send it, and only to gateways. */
export interface Push {
  readonly type: 'push';
  readonly block: WireBlock;
}
/** Two headers of one place: their author has forked. */
export interface Proof {
  readonly type: 'proof';
  readonly a: WireHead;
  readonly b: WireHead;
}
/** An issuer vouches for the end of its feed; passed on as it was signed. */
export interface HeartbeatFrame {
  readonly type: 'heartbeat';
  /** As `encodeHeartbeat` made them. */
  readonly bytes: Uint8Array;
  readonly signature: Uint8Array;
}
/** What the sender has named so far, in two numbers; sent rarely, so that a state that got lost is noticed. */
export interface Tally {
  readonly type: 'tally';
  readonly epochs: number;
  /** Of all their counts, modulo 2^48. */
  readonly blocks: number;
}
/** The tally is not what the sender of this has counted: name everything again, from index 0. */
export interface Again {
  readonly type: 'again';
}

/** Everything that is said there. */
export type LedgerFrame = Tokens | Have | Want | Blocks | OpenBlocks | Push | Proof | HeartbeatFrame | Tally | Again;

/** First position of every frame. Numbers are never used again. */
const number = {
  tokens: 0,
  have: 1,
  want: 2,
  blocks: 3,
  open: 4,
  push: 5,
  proof: 6,
  heartbeat: 7,
  tally: 8,
  again: 9,
} as const;

/** New epochs, and changed ones, of one frame, so that any fits: more go into several. */
export const haveItemsMax = 512;
/** Of the hash in a `have`: too long for an author to make two branches look like one. */
export const haveHashBytes = 16;
/** Bytes of token text that one frame carries. */
export const tokensFrameBytes = 49_152;
/** Bounds the number of wants under way, with the window. */
export const wantMinBytes = 16_384;
/** Of a header, as its author signed it. */
export const wireHeaderMaxBytes = 256;
/** The largest sum in a tally, and one. */
export const tallyModulus = 2 ** 48;
/** Heads that one heartbeat names. */
export const heartbeatHeadsMax = 8;
const heartbeatMaxBytes = 1_024;
const blocksPerFrameMax = 1_024;

const headFields = ({ header, signature }: WireHead): [Value, Value] => [header, signature];
const blockFields = (block: WireBlock): Value => [...headFields(block), block.entries];
const slotFields = (slot: WireSlot): Value => ('entry' in slot ? [slot.entry] : slot.leaf);

/** The bytes of a frame. */
export function encodeLedgerFrame(frame: LedgerFrame): Uint8Array {
  switch (frame.type) {
    case 'tokens':
      return encodeValue([
        number.tokens,
        frame.tokens.map(({ kind, token }): Value => [rootKinds.indexOf(kind), token]),
      ]);
    case 'have':
      return encodeValue([
        number.have,
        frame.isStart,
        frame.isWhole,
        frame.news.map(({ author, epoch, count, hash }): Value => [fromHex(author), fromHex(epoch), count, hash]),
        frame.changes.map(({ index, count, hash }): Value => [index, count, hash]),
      ]);
    case 'want':
      return encodeValue([number.want, fromHex(frame.author), fromHex(frame.epoch), frame.from, frame.maxBytes]);
    case 'blocks':
      return encodeValue([number.blocks, frame.isLast, frame.blocks.map(blockFields)]);
    case 'open':
      return encodeValue([
        number.open,
        frame.isLast,
        frame.blocks.map((block): Value => [...headFields(block), block.slots.map(slotFields)]),
      ]);
    case 'push':
      return encodeValue([number.push, ...headFields(frame.block), frame.block.entries]);
    case 'proof':
      return encodeValue([number.proof, ...headFields(frame.a), ...headFields(frame.b)]);
    case 'heartbeat':
      return encodeValue([number.heartbeat, frame.bytes, frame.signature]);
    case 'tally':
      return encodeValue([number.tally, frame.epochs, frame.blocks]);
    case 'again':
      return encodeValue([number.again]);
  }
}

const malformed = (reason: string): HelixFlowError => new HelixFlowError('FRAME_MALFORMED', { reason });
const readAuthor = (r: Reader): AuthorId => toHex(r.bytes(32, 32)) as AuthorId;
const readEpoch = (r: Reader): EpochId => toHex(r.bytes(16, 16)) as EpochId;
const readHead = (r: Reader): WireHead => ({ header: r.bytes(wireHeaderMaxBytes), signature: r.bytes(64, 64) });

function readEntry(value: Value): Uint8Array {
  if (value instanceof Uint8Array && value.length <= limits.entryMaxBytes) return value;
  throw malformed('block: no entry');
}

function readSlot(value: Value): WireSlot {
  if (value instanceof Uint8Array && value.length === 32) return { leaf: value };
  const row = new Reader(value, 'slot');
  return { entry: row.bytes(limits.entryMaxBytes) };
}

function readBlock(r: Reader): WireBlock {
  return { ...readHead(r), entries: r.list(limits.blockEntriesMax, readEntry) };
}

const readWhole = (value: Value): WireBlock => readBlock(new Reader(value, 'block'));
const readOpen = (value: Value): WireOpenBlock => {
  const r = new Reader(value, 'block');
  return { ...readHead(r), slots: r.list(limits.blockEntriesMax, readSlot) };
};

function readToken(value: Value): Tokens['tokens'][number] {
  const r = new Reader(value, 'token');
  const kind = rootKinds[r.int(rootKinds.length - 1)] as (typeof rootKinds)[number];
  return { kind, token: r.text(limits.tokenMaxChars) };
}

const readCount = (r: Reader): HaveCount => ({
  count: r.int(Number.MAX_SAFE_INTEGER, 1),
  hash: r.bytes(haveHashBytes, haveHashBytes),
});

function readNew(value: Value): HaveNew {
  const r = new Reader(value, 'epoch');
  return { author: readAuthor(r), epoch: readEpoch(r), ...readCount(r) };
}

function readChange(value: Value): Have['changes'][number] {
  const r = new Reader(value, 'change');
  return { index: r.int(), ...readCount(r) };
}

const parsers: Readonly<Record<number, (r: Reader) => LedgerFrame>> = {
  [number.tokens]: (r) => ({ type: 'tokens', tokens: r.list(limits.rootTokensMax, readToken) }),
  [number.have]: (r) => ({
    type: 'have',
    isStart: r.bool(),
    isWhole: r.bool(),
    news: r.list(haveItemsMax, readNew),
    changes: r.list(haveItemsMax, readChange),
  }),
  [number.want]: (r) => ({
    type: 'want',
    author: readAuthor(r),
    epoch: readEpoch(r),
    from: r.int(),
    maxBytes: r.int(limits.ledgerWindowBytes, wantMinBytes),
  }),
  [number.blocks]: (r) => ({ type: 'blocks', isLast: r.bool(), blocks: r.list(blocksPerFrameMax, readWhole) }),
  [number.open]: (r) => ({ type: 'open', isLast: r.bool(), blocks: r.list(blocksPerFrameMax, readOpen) }),
  [number.push]: (r) => ({ type: 'push', block: readBlock(r) }),
  [number.proof]: (r) => ({ type: 'proof', a: readHead(r), b: readHead(r) }),
  [number.heartbeat]: (r) => ({ type: 'heartbeat', bytes: r.bytes(heartbeatMaxBytes), signature: r.bytes(64, 64) }),
  [number.tally]: (r) => ({ type: 'tally', epochs: r.int(), blocks: r.int(tallyModulus - 1) }),
  [number.again]: () => ({ type: 'again' }),
};

/**
 * Reads one frame. Positions after the known ones are ignored, so that a minor version may append some.
 * @returns undefined for a frame type that this version does not know.
 * @throws HelixFlowError FRAME_MALFORMED
 */
export function parseLedgerFrame(bytes: Uint8Array): LedgerFrame | undefined {
  const reader = new Reader(decodeValue(bytes), 'frame');
  return parsers[reader.int(255)]?.(reader);
}

/** The end of one epoch. */
export interface HeartbeatHead {
  readonly epoch: EpochId;
  readonly number: number;
  /** Of the header at this place. */
  readonly hash: Uint8Array;
}

/** What an issuer signs every `limits.issuerHeartbeatMs`. */
export interface Heartbeat {
  readonly issuer: AuthorId;
  /** The gateway that holds the issuer's key. */
  readonly holder: PeerId;
  readonly timeMs: UnixMs;
  /** Ends of its feed that no later epoch names as what came before it, the newest first; none before the first block. */
  readonly heads: readonly HeartbeatHead[];
}

const heartbeatVersion = 1;

/** What is signed; never made anew from what was read. */
export const encodeHeartbeat = ({ issuer, holder, timeMs, heads }: Heartbeat): Uint8Array =>
  encodeValue([
    heartbeatVersion,
    fromHex(issuer),
    holder,
    timeMs,
    heads.map(({ epoch, number: at, hash }): Value => [fromHex(epoch), at, hash]),
  ]).slice();

function readHeartbeatHead(value: Value): HeartbeatHead {
  const r = new Reader(value, 'head');
  return { epoch: readEpoch(r), number: r.int(), hash: r.bytes(32, 32) };
}

/** Reads a heartbeat without checking its signature. @throws HelixFlowError FRAME_MALFORMED */
export function parseHeartbeat(bytes: Uint8Array): Heartbeat {
  const r = new Reader(decodeValue(bytes), 'heartbeat');
  r.int(heartbeatVersion, heartbeatVersion);
  const issuer = readAuthor(r);
  const holder = r.text(64);
  if (!isPeerId(holder)) throw malformed('heartbeat: no peer id');
  const heartbeat = { issuer, holder, timeMs: unixMs(r.int()), heads: r.list(heartbeatHeadsMax, readHeartbeatHead) };
  if (r.hasMore) throw malformed('heartbeat: more than a heartbeat');
  return heartbeat;
}
