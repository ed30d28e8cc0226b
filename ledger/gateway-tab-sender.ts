/** Sends the statements of one tab to its node, those that it has not countersigned first, a window of them at a time. */

import { encodeValue } from '../protocol/codec.ts';
import { isSameBytes, toHex } from '../protocol/crypto.ts';
import { HelixFlowError, isHelixFlowError } from '../protocol/errors.ts';
import type { AuthorId, EpochId, PeerId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { merkleLeaf, merklePaths } from '../protocol/merkle.ts';
import type { Clock, Log } from '../protocol/ports.ts';
import type { Ms } from '../protocol/units.ts';
import type { Block, OpenBlock } from './block.ts';
import type { EntryPlace } from './feeds.ts';
import { type WaitingStatement, WaitingStatements } from './gateway-tab-waiting.ts';
import type { Ledger } from './ledger.ts';
import {
  type CountersignEntry,
  isCountersigned,
  parseUsage,
  type SignedFor,
  statementHash,
  usageKinds,
} from './statement.ts';
import type { TabLink } from './tabs.ts';

/** Blocks that are read back at a time. */
const readBytes = 262_144;
/** Statements of earlier epochs that may wait for an answer beside those of this one. */
const olderInFlightMax = limits.statementsInFlightMax / 2;
/** Blocks that are looked for one by one behind a hole, before the rest of an epoch waits for the next session. */
const holesMax = 256;

export interface SenderDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: Pick<Ledger, 'read'>;
  readonly author: AuthorId;
  readonly signed: SignedFor;
  /** False while there are enough countersignatures that wait for the disk. */
  readonly mayAsk: () => boolean;
}

/** A statement that the node has, and has not answered in this session. */
interface Sent {
  readonly lane: Lane;
  readonly epoch: EpochId;
  readonly number: number;
  readonly hash: Uint8Array;
  readonly lines: number;
  readonly atMs: Ms;
}

/**
 * Statements that follow one another. Those of the epoch that is written now do not wait for those of earlier epochs,
 * which their node may have forgotten.
 */
interface Lane {
  readonly waiting: WaitingStatements;
  readonly inFlightMax: number;
  inFlight: number;
  /** Up to where statements were sent in this session. */
  cursor: Omit<WaitingStatement, 'fromBlock'> | undefined;
  /** Where the statement behind the cursor is looked for. */
  position: { readonly epoch: EpochId; block: number; holes: number } | undefined;
}

const createLane = (inFlightMax: number): Lane => ({
  waiting: new WaitingStatements(),
  inFlightMax,
  inFlight: 0,
  cursor: undefined,
  position: undefined,
});

const nameOf = (epoch: EpochId, number: number): string => `${epoch}/${number}`;
const violation = (reason: string): HelixFlowError =>
  new HelixFlowError('PROTOCOL_VIOLATION', { reason: `countersign: ${reason}` });
const sayingOf = ({ statement, refused }: CountersignEntry): string => `${toHex(statement)} ${JSON.stringify(refused)}`;

/** Proves each of a block's entries; the tree is made once, when the first is asked for. */
function createProofs(block: Block): (index: number) => readonly Uint8Array[] {
  let paths: readonly (readonly Uint8Array[])[] | undefined;
  return (index) => {
    paths ??= merklePaths(block.entries.map(merkleLeaf)).paths;
    return paths[index] ?? [];
  };
}

/** A block, ready to be sent in parts. */
export interface ProvenBlock {
  readonly block: Block;
  readonly pathOf: (index: number) => readonly Uint8Array[];
}

export const proveBlock = (block: Block): ProvenBlock => ({ block, pathOf: createProofs(block) });

/** Behind a hole others may stand; an epoch that has too many waits for the next session. */
function skip(lane: Lane, position: NonNullable<Lane['position']>, { epoch, generation }: WaitingStatement): void {
  position.block += 1;
  position.holes += 1;
  if (position.holes > holesMax) lane.cursor = { epoch, generation, number: Number.MAX_SAFE_INTEGER };
}

export class TabSender {
  readonly #node: PeerId;
  /** How the bytes of each of its statements begin, behind the first. */
  readonly #mark: Uint8Array;
  readonly #deps: SenderDeps;
  #link: TabLink | undefined;
  readonly #sent = new Map<string, Sent>();
  /** What the node said last, to tell a repetition from a contradiction. */
  readonly #said = new Map<string, string>();
  readonly #current = createLane(limits.statementsInFlightMax);
  readonly #older = createLane(olderInFlightMax);
  readonly #lanes: readonly Lane[] = [this.#current, this.#older];
  #answeredMs = Number.NEGATIVE_INFINITY;
  /** The channel is backed up. */
  #isBlocked = false;
  #pumping: Promise<void> | undefined;

  constructor(node: PeerId, deps: SenderDeps) {
    this.#node = node;
    this.#mark = encodeValue([usageKinds.statement, node]).slice(1);
    this.#deps = deps;
  }

  get isConnected(): boolean {
    return this.#link !== undefined;
  }

  /** How many statements lack a countersignature. */
  get waiting(): number {
    return this.#current.waiting.size + this.#older.waiting.size;
  }

  /** Nothing is known that the feed does not say. */
  get isEmpty(): boolean {
    return this.#current.waiting.isEmpty && this.#older.waiting.isEmpty;
  }

  /** Something waits to be sent over a session that is there. */
  get isBehind(): boolean {
    return this.#link !== undefined && this.#lanes.some(({ waiting, cursor }) => waiting.next(cursor) !== undefined);
  }

  ready(link: TabLink): void {
    this.#forget();
    this.#link = link;
    this.pump();
  }

  gone(link: TabLink): void {
    if (this.#link !== link) return;
    this.#forget();
    this.#link = undefined;
  }

  #forget(): void {
    this.#sent.clear();
    this.#isBlocked = false;
    for (const lane of this.#lanes) {
      lane.inFlight = 0;
      lane.cursor = undefined;
      lane.position = undefined;
    }
  }

  /** A statement of an earlier process was found in the feed: on disk, or given back by others. */
  found(place: EntryPlace, number: number): void {
    const lane = this.#older;
    if (!lane.waiting.add({ ...place, block: place.number }, number)) return;
    // It may lie before what was sent already.
    lane.cursor = undefined;
    lane.position = undefined;
  }

  /** The feed holds a countersignature of a statement of an earlier process. */
  foundAnswer(epoch: EpochId, number: number): void {
    this.#older.waiting.delete(epoch, number);
  }

  /** A statement has just been written; sent at once unless others come first. */
  wrote(place: EntryPlace, number: number, proven: ProvenBlock): void {
    const lane = this.#current;
    const isNext = this.#hasRoom(lane) && lane.waiting.next(lane.cursor) === undefined;
    lane.waiting.add({ ...place, block: place.number }, number);
    if (isNext) this.#send(lane, proven, place.index);
  }

  #hasRoom(lane: Lane): boolean {
    const isFull = this.#sent.size >= limits.statementsInFlightMax || lane.inFlight >= lane.inFlightMax;
    return this.#link !== undefined && !isFull && !this.#isBlocked && this.#deps.mayAsk();
  }

  /** The lane that goes on, and its next statement. */
  #next(): readonly [Lane, WaitingStatement] | undefined {
    for (const lane of this.#lanes) {
      const next = this.#hasRoom(lane) ? lane.waiting.next(lane.cursor) : undefined;
      if (next !== undefined) return [lane, next];
    }
    return undefined;
  }

  /** Goes on sending, where there is anything to send and room for it. */
  pump(): void {
    this.#expire();
    const link = this.#link;
    if (this.#pumping !== undefined || this.#next() === undefined) return;
    this.#pumping = this.#sendWaiting().finally(() => {
      this.#pumping = undefined;
      if (this.#link !== link) this.pump();
    });
  }

  /** Once in a while: a channel that was full may have emptied. */
  tick(): void {
    this.#isBlocked = false;
    this.pump();
  }

  /** What a node that answers others has left unanswered for long makes room. */
  #expire(): void {
    const oldestMs = this.#deps.clock.nowMs() - limits.attestWaitMs;
    for (const sent of this.#sent.values()) {
      if (sent.atMs > oldestMs) return;
      if (sent.atMs < this.#answeredMs) this.#over(sent);
    }
  }

  #over(sent: Sent): void {
    this.#sent.delete(nameOf(sent.epoch, sent.number));
    sent.lane.inFlight -= 1;
  }

  async #sendWaiting(): Promise<void> {
    try {
      for (let next = this.#next(); next !== undefined; next = this.#next()) await this.#sendSome(...next);
    } catch (error) {
      // The store is gone, and this process with it; what waits is sent by the next one.
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.warn('tab.unsent', { node: this.#node, code: error.code });
      this.#isBlocked = true;
    }
  }

  async #sendSome(lane: Lane, next: WaitingStatement): Promise<void> {
    const { epoch, fromBlock } = next;
    if (lane.position?.epoch !== epoch) lane.position = { epoch, block: fromBlock, holes: 0 };
    const { position } = lane;
    position.block = Math.max(position.block, fromBlock);
    const blocks = await this.#deps.ledger.read(this.#deps.author, epoch, position.block, readBytes);
    if (this.#link === undefined || lane.position !== position) return;
    if (blocks.length === 0) skip(lane, position, next);
    for (const block of blocks) {
      if (!this.#sendOf(lane, block)) break;
      position.block += 1;
      position.holes = 0;
    }
  }

  /** @returns false when there was no room for all that waits in the block. */
  #sendOf(lane: Lane, block: Block | OpenBlock): boolean {
    if (!('entries' in block)) return true;
    const proven = proveBlock(block);
    for (const [index, bytes] of block.entries.entries()) {
      if (!this.#isOfNode(bytes)) continue;
      if (!this.#hasRoom(lane)) return false;
      this.#send(lane, proven, index);
    }
    return true;
  }

  /** Looks at kind and node alone, behind the head of the array. */
  #isOfNode(bytes: Uint8Array): boolean {
    return isSameBytes(bytes.subarray(1, 1 + this.#mark.length), this.#mark);
  }

  #send(lane: Lane, { block, pathOf }: ProvenBlock, index: number): void {
    const bytes = block.entries[index];
    const entry = bytes && parseUsage(bytes);
    if (bytes === undefined || entry?.kind !== 'statement') return;
    const { epoch, generation } = block.head.header;
    const { number } = entry;
    const isSent = lane.cursor?.epoch === epoch && lane.cursor.number >= number;
    if (isSent || !lane.waiting.has(epoch, number)) return;
    lane.cursor = { epoch, generation, number };
    const name = nameOf(epoch, number);
    if (this.#sent.has(name)) return;
    const [hash, atMs] = [statementHash(bytes), this.#deps.clock.nowMs()];
    this.#sent.set(name, { lane, epoch, number, hash, lines: entry.lines.length, atMs });
    lane.inFlight += 1;
    const { bytes: header, signature } = block.head;
    const frame = { type: 'statement', header, signature, index, entry: bytes, path: pathOf(index) } as const;
    if (this.#link?.sendTab(frame) === false) this.#isBlocked = true;
  }

  /**
   * What a node said of a statement. @returns false when it is not waited for, which is harmless.
   * @throws HelixFlowError PROTOCOL_VIOLATION
   */
  answered(entry: CountersignEntry): boolean {
    const name = nameOf(entry.epoch, entry.number);
    const sent = this.#sent.get(name);
    const before = this.#said.get(name);
    if (before !== undefined && before !== sayingOf(entry)) throw violation('it says something else than before');
    if (sent === undefined) return false;
    if (!isSameBytes(sent.hash, entry.statement)) throw violation('of another statement');
    if (entry.refused.some(({ index }) => index >= sent.lines)) throw violation('refuses a line that is not there');
    if (!isCountersigned(entry, this.#deps.signed)) throw violation('its signature does not check');
    this.#over(sent);
    this.#answeredMs = this.#deps.clock.nowMs();
    this.#said.set(name, sayingOf(entry));
    for (const [oldest] of this.#said) {
      if (this.#said.size <= limits.statementsInFlightMax) break;
      this.#said.delete(oldest);
    }
    sent.lane.waiting.delete(sent.epoch, sent.number);
    this.#isBlocked = false;
    return true;
  }
}
