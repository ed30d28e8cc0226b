/** Where something stands that is wrong, as `ledger verify` names it. */

import type { BlockPlace } from './block.ts';
import type { UsageLine } from './line.ts';

/** What is wrong, and where: `author/epoch/block`, then `/entry` of the block, then the line of a statement. */
export interface Problem {
  readonly place: string;
  readonly what: string;
}

/** An entry of a block. */
export interface EntrySpot extends BlockPlace {
  readonly index: number;
}

export const blockText = ({ author, epoch, number }: BlockPlace): string => `${author}/${epoch}/${number}`;
export const entryText = (spot: EntrySpot): string => `${blockText(spot)}/${spot.index}`;

/** Lines and running attempts are counted from 0, each among its own. */
export const lineText = (
  spot: EntrySpot,
  list: 'line' | 'running',
  at: number,
  { run, serial }: Pick<UsageLine, 'run' | 'serial'>,
): string => `${entryText(spot)} ${list} ${at} (${run}.${serial})`;

/** Of a ledger that is wrong all over, the first ones tell enough. */
const problemsMax = 1_000;

/** Notes what is wrong, up to a limit. */
export class Problems {
  readonly #told: Problem[] = [];
  #more = 0;

  add(place: string, what: string): void {
    if (this.#told.length < problemsMax) this.#told.push({ place, what });
    else this.#more += 1;
  }

  all(): readonly Problem[] {
    if (this.#more === 0) return this.#told;
    return [...this.#told, { place: '', what: `${this.#more} more problems are not shown` }];
  }
}
