/** The statements of a tab that its node has not countersigned, of every epoch: what to send again, and where it lies. */

import type { EpochId } from '../protocol/ids.ts';
import type { EntryPlace } from './feeds.ts';
import { Ranges } from './gateway-tab-ranges.ts';

/** A statement by its place in the chain of its tab, and a block at or before the one that holds it. */
export interface WaitingStatement {
  readonly epoch: EpochId;
  readonly generation: number;
  readonly number: number;
  readonly fromBlock: number;
}

export type StatementPlace = Pick<EntryPlace, 'epoch' | 'generation'> & { readonly block: number };

interface OfEpoch {
  readonly epoch: EpochId;
  /** Not known before the first statement is. */
  generation: number;
  readonly waiting: Ranges;
  /** Countersigned before the statement itself became known, as when epochs are told in another order. */
  readonly early: Ranges;
  /** Some of the statements with their blocks, in order: where to begin to read. */
  readonly marks: { readonly number: number; readonly block: number }[];
}

/** Statements from one mark to the next. */
const markEvery = 64;
/** Gaps of one tab: a node that countersigns every other statement shall fill nobody's memory. */
const rangesMax = 1_024;
const epochsMax = 4_096;

const isBefore = (a: Omit<WaitingStatement, 'fromBlock'>, b: Omit<WaitingStatement, 'fromBlock'>): boolean => {
  if (a.generation !== b.generation) return a.generation < b.generation;
  return a.epoch === b.epoch ? a.number < b.number : a.epoch < b.epoch;
};

type Marks = OfEpoch['marks'];

/** Later statements of an epoch never lie in earlier blocks. */
function mark(marks: Marks, one: Marks[0]): void {
  const [first, last] = [marks[0], marks.at(-1)];
  if (first === undefined || last === undefined || one.number >= last.number + markEvery) marks.push(one);
  else if (one.number < first.number) marks.unshift(one);
}

/** The block of the last mark that is not behind the statement. */
function blockFor(marks: Marks, number: number): number {
  let low = 0;
  let high = marks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((marks[middle]?.number ?? 0) <= number) low = middle;
    else high = middle - 1;
  }
  return marks[low]?.block ?? 0;
}

export class WaitingStatements {
  /** By generation, then epoch. */
  #epochs: OfEpoch[] = [];
  #size = 0;
  #forgotten = 0;

  /** How many there are, with those that are no longer kept apart. */
  get size(): number {
    return this.#size + this.#forgotten;
  }

  /** Nothing is known that the feed does not say. */
  get isEmpty(): boolean {
    return this.#epochs.length === 0;
  }

  #of(epoch: EpochId): OfEpoch {
    const known = this.#epochs.find((one) => one.epoch === epoch);
    if (known !== undefined) return known;
    const fresh: OfEpoch = { epoch, generation: 0, waiting: new Ranges(), early: new Ranges(), marks: [] };
    this.#epochs.push(fresh);
    return fresh;
  }

  /** A statement stands in the feed. @returns false when it is countersigned already, or was known. */
  add(place: StatementPlace, number: number): boolean {
    const of = this.#of(place.epoch);
    if (of.early.delete(number)) {
      this.#drop(of);
      return false;
    }
    const isFirst = of.waiting.size === 0;
    if (!of.waiting.add(number)) return false;
    if (isFirst) {
      of.generation = place.generation;
      of.marks.length = 0;
      this.#epochs.sort((a, b) => (isBefore({ ...a, number: 0 }, { ...b, number: 0 }) ? -1 : 1));
    }
    mark(of.marks, { number, block: place.block });
    this.#size += 1;
    this.#trim(of);
    return true;
  }

  /** Of a tab whose gaps are too many the oldest statements stand alone for good. */
  #trim(of: OfEpoch): void {
    if (of.waiting.count <= rangesMax && this.#epochs.length <= epochsMax) return;
    const oldest = this.#epochs.find(({ waiting }) => waiting.size > 0) ?? of;
    const gone = oldest.waiting.deleteLowest();
    this.#size -= gone;
    this.#forgotten += gone;
    this.#drop(oldest);
  }

  /** Its countersignature is known. */
  delete(epoch: EpochId, number: number): void {
    const of = this.#of(epoch);
    if (!of.waiting.delete(number)) {
      of.early.add(number);
      if (of.early.count > rangesMax) of.early.deleteLowest();
      return;
    }
    this.#size -= 1;
    this.#drop(of);
  }

  #drop(of: OfEpoch): void {
    const { lowest } = of.waiting;
    while (lowest !== undefined && (of.marks[1]?.number ?? Number.POSITIVE_INFINITY) <= lowest) of.marks.shift();
    if (of.waiting.size === 0 && of.early.size === 0) this.#epochs = this.#epochs.filter((one) => one !== of);
  }

  has(epoch: EpochId, number: number): boolean {
    return this.#epochs.find((one) => one.epoch === epoch)?.waiting.has(number) ?? false;
  }

  /** The one behind `after` in the order of epochs and numbers; the first of all without it. */
  next(after?: Omit<WaitingStatement, 'fromBlock'>): WaitingStatement | undefined {
    for (const { epoch, generation, waiting, marks } of this.#epochs) {
      const least = { epoch, generation, number: waiting.lowest ?? 0 };
      if (waiting.lowest === undefined) continue;
      if (after === undefined || isBefore(after, least)) return { ...least, fromBlock: blockFor(marks, least.number) };
      if (after.epoch !== epoch) continue;
      const number = waiting.above(after.number);
      if (number !== undefined) return { epoch, generation, number, fromBlock: blockFor(marks, number) };
    }
    return undefined;
  }
}
