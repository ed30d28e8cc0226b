/** Numbers drawn from 32 random bits at a time: the same behind every source of chance. */

import { assert } from './invariant.ts';

/** `Random.int` over `uint32`: every result is equally likely. */
export function drawInt(exclusiveMax: number, uint32: () => number): number {
  assert(
    Number.isInteger(exclusiveMax) && exclusiveMax >= 1 && exclusiveMax <= 2 ** 32,
    'a range is from 1 to 2^32 long',
  );
  // Draws above the last whole multiple would make small results more likely.
  const fair = 2 ** 32 - (2 ** 32 % exclusiveMax);
  let value: number;
  do value = uint32();
  while (value >= fair);
  return value % exclusiveMax;
}

/** `Random.float` over `uint32`: 53 bits, all that a double holds below 1. */
export const drawFloat = (uint32: () => number): number => ((uint32() >>> 5) * 2 ** 26 + (uint32() >>> 6)) / 2 ** 53;
