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
  readonly epoch: EpochId;
  readonly generation: number;
  readonly number: number;
  readonly block: number;
  readonly hash: Uint8Array;
  readonly lines: number;
  readonly atMs: Ms;
}

type Cursor = Omit<WaitingStatement, 'fromBlock'>;

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

export class TabSender {
  readonly waiting = new WaitingStatements();
  readonly #node: PeerId;
  /** How the bytes of each of its statements begin, behind the first. */
  readonly #mark: Uint8Array;
  readonly #deps: SenderDeps;
  #link: TabLink | undefined;
  readonly #sent = new Map<string, Sent>();
  /** What the node said last, to tell a repetition from a contradiction. */
  readonly #said = new Map<string, string>();
  /** Up to where statements were sent in this session. */
  #cursor: Cursor | undefined;
  /** Where the statement behind the cursor is looked for. */
  #position: { readonly epoch: EpochId; block: number; holes: number } | undefined;
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

  /** Something waits to be sent over a session that is there. */
  get isBehind(): boolean {
    return this.#link !== undefined && this.waiting.next(this.#cursor) !== undefined;
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
    this.#cursor = undefined;
    this.#position = undefined;
    this.#isBlocked = false;
  }

  /** A statement was found in the feed that was not known: as when others gave back what was lost. */
  found(place: EntryPlace, number: number): void {
    if (!this.waiting.add({ ...place, block: place.number }, number)) return;
    // It may lie before what was sent already.
    this.#cursor = undefined;
    this.#position = undefined;
  }

  /** A statement has just been written; sent at once unless others come first. */
  wrote(place: EntryPlace, number: number, proven: ProvenBlock): void {
    const isNext = this.#link !== undefined && this.#hasRoom() && this.waiting.next(this.#cursor) === undefined;
    this.waiting.add({ ...place, block: place.number }, number);
    if (isNext && this.#pumping === undefined) this.#send(proven, place.index);
  }

  #hasRoom(): boolean {
    return this.#sent.size < limits.statementsInFlightMax && !this.#isBlocked && this.#deps.mayAsk();
  }

  /** Goes on sending, where there is anything to send and room for it. */
  pump(): void {
    this.#expire();
    const link = this.#link;
    if (this.#pumping !== undefined || !this.isBehind || !this.#hasRoom()) return;
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

  /** What was not answered for long makes room for others; an answer is still welcome in the next session. */
  #expire(): void {
    const oldestMs = this.#deps.clock.nowMs() - limits.attestWaitMs;
    for (const [name, { atMs }] of this.#sent) {
      if (atMs > oldestMs) return;
      this.#sent.delete(name);
    }
  }

  async #sendWaiting(): Promise<void> {
    try {
      for (const link = this.#link; link !== undefined && link === this.#link && this.#hasRoom(); ) {
        const next = this.waiting.next(this.#cursor);
        if (next === undefined) return;
        const { epoch } = next;
        if (this.#position?.epoch !== epoch) this.#position = { epoch, block: next.fromBlock, holes: 0 };
        const position = this.#position;
        position.block = Math.max(position.block, next.fromBlock);
        const blocks = await this.#deps.ledger.read(this.#deps.author, epoch, position.block, readBytes);
        if (this.#link !== link || this.#position !== position) continue;
        if (blocks.length === 0) this.#skip(next, position);
        for (const block of blocks) {
          if (!this.#sendOf(block)) break;
          position.block += 1;
          position.holes = 0;
        }
      }
    } catch (error) {
      // The store is gone, and this process with it; what waits is sent by the next one.
      if (!isHelixFlowError(error)) throw error;
      this.#deps.log.warn('tab.unsent', { node: this.#node, code: error.code });
      this.#isBlocked = true;
    }
  }

  #skip({ epoch, generation }: WaitingStatement, position: { block: number; holes: number }): void {
    position.block += 1;
    position.holes += 1;
    if (position.holes > holesMax) this.#cursor = { epoch, generation, number: Number.MAX_SAFE_INTEGER };
  }

  /** @returns false when there was no room for all that waits in the block. */
  #sendOf(block: Block | OpenBlock): boolean {
    if (!('entries' in block)) return true;
    const proven = proveBlock(block);
    for (const [index, bytes] of block.entries.entries()) {
      if (!this.#isOfNode(bytes)) continue;
      if (!this.#hasRoom()) return false;
      this.#send(proven, index);
    }
    return true;
  }

  /** Looks at kind and node alone, behind the head of the array. */
  #isOfNode(bytes: Uint8Array): boolean {
    return isSameBytes(bytes.subarray(1, 1 + this.#mark.length), this.#mark);
  }

  #send({ block, pathOf }: ProvenBlock, index: number): void {
    const bytes = block.entries[index];
    const entry = bytes && parseUsage(bytes);
    if (bytes === undefined || entry?.kind !== 'statement') return;
    const { epoch, generation, number: blockNumber } = block.head.header;
    const { number } = entry;
    const isSent = this.#cursor?.epoch === epoch && this.#cursor.number >= number;
    if (isSent || !this.waiting.has(epoch, number)) return;
    this.#cursor = { epoch, generation, number };
    const name = nameOf(epoch, number);
    if (this.#sent.has(name)) return;
    const [hash, atMs] = [statementHash(bytes), this.#deps.clock.nowMs()];
    this.#sent.set(name, { epoch, generation, number, block: blockNumber, hash, lines: entry.lines.length, atMs });
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
    if (sent === undefined || before !== undefined) return false;
    if (!isSameBytes(sent.hash, entry.statement)) throw violation('of another statement');
    if (entry.refused.some(({ index }) => index >= sent.lines)) throw violation('refuses a line that is not there');
    if (!isCountersigned(entry, this.#deps.signed)) throw violation('its signature does not check');
    this.#sent.delete(name);
    this.#said.set(name, sayingOf(entry));
    for (const [oldest] of this.#said) {
      if (this.#said.size <= limits.statementsInFlightMax) break;
      this.#said.delete(oldest);
    }
    this.waiting.delete(sent.epoch, sent.number, sent.block);
    this.#isBlocked = false;
    return true;
  }
}
