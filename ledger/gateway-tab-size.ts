/** How many lines fit: what they and the tables they refer to will take at most, added up before anything is written. */

import type { ModelDigest, PeerId, ProcessId, Tag } from '../protocol/ids.ts';
import type { Caller, UsageLine } from './line.ts';
import type { Price } from './price.ts';

/** Bytes of an integer, of either sign. */
function sizeOf(value: number): number {
  const size = Math.abs(value);
  return size < 24 ? 1 : size < 0x100 ? 2 : size < 0x1_0000 ? 3 : size < 0x1_0000_0000 ? 5 : 9;
}

/** What does not depend on the line: a head, the request, references to four tables. */
const rowBytes = 1 + 17 + 4 * 3;
const runBytes = 17;
const modelBytes = 1 + 34 + 3;
/** With a lease, and a day of its own. */
const callerBytes = 26 + 1 + 5;
const priceBytes = 1 + 9 + 3 * 5;
const nodeBytes = 66;
/** Outcome and payer come below it; how far back the request began is counted in units of it. */
const backStep = 16;

export interface LineRoom {
  readonly linesMax: number;
  readonly bytesMax: number;
}

/** Adds up lines that are written together, in their order. What looks different is counted as different: never too little. */
export class LineSize {
  readonly #room: LineRoom;
  readonly #serials = new Map<ProcessId, number>();
  readonly #models = new Map<ModelDigest, string>();
  readonly #callers = new Map<Caller, Tag | undefined>();
  readonly #prices = new Set<Price>();
  readonly #nodes = new Set<PeerId>();
  #startMs = 0;
  #lines = 0;
  #bytes: number;

  /** @param headBytes What is written beside the lines. */
  constructor(room: LineRoom, headBytes: number) {
    this.#room = room;
    this.#bytes = headBytes;
  }

  /** True when this line fits too; it is then counted. One always fits. */
  take(line: UsageLine, node: PeerId): boolean {
    const { run, digest, model, caller, lease, price } = line;
    const isKnownCaller = this.#callers.has(caller) && this.#callers.get(caller) === lease;
    let bytes = this.#bytes + this.#sizeOfRow(line);
    if (!this.#serials.has(run)) bytes += runBytes;
    if (this.#models.get(digest) !== model) bytes += modelBytes + 3 * model.length;
    if (!isKnownCaller) bytes += callerBytes;
    if (!this.#prices.has(price)) bytes += priceBytes;
    if (!this.#nodes.has(node)) bytes += nodeBytes;
    if (this.#lines === this.#room.linesMax || (this.#lines > 0 && bytes > this.#room.bytesMax)) return false;
    this.#lines += 1;
    this.#bytes = bytes;
    this.#startMs = line.startMs;
    this.#serials.set(run, line.serial);
    this.#models.set(digest, model);
    this.#callers.set(caller, lease);
    this.#prices.add(price);
    this.#nodes.add(node);
    return true;
  }

  #sizeOfRow(line: UsageLine): number {
    return (
      rowBytes +
      sizeOf(line.serial - (this.#serials.get(line.run) ?? 0)) +
      sizeOf(line.startMs - this.#startMs) +
      sizeOf((line.serial - line.first + 1) * backStep) +
      sizeOf(line.firstMs) +
      sizeOf(line.durationMs) +
      sizeOf(line.promptTokens) +
      sizeOf(line.cachedTokens) +
      sizeOf(line.completionTokens) +
      sizeOf((line.nodeTokens ?? line.completionTokens) - line.completionTokens)
    );
  }

  /** True when two more integers fit. */
  takePair(a: number, b: number): boolean {
    const bytes = this.#bytes + sizeOf(a) + sizeOf(b);
    if (bytes > this.#room.bytesMax) return false;
    this.#bytes = bytes;
    return true;
  }
}
