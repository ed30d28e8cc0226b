/** Slots go to those who wait, in order, and none is lost when somebody leaves. */

import type { LlamaContextSequence } from 'node-llama-cpp';
import { describe, test } from 'vitest';
import { createSlotPool } from '../../../../node/engines/llama/slots.ts';

const never = new AbortController().signal;
const sequence = { compareContextTokens: () => ({ firstDifferentIndex: 0 }) } as unknown as LlamaContextSequence;

describe('a pool of slots', () => {
  test('hands a slot that comes back to who has waited longest', async ({ expect }) => {
    const pool = createSlotPool([sequence]);
    const slot = await pool.take([], never);
    const order: string[] = [];
    const first = pool.take([], never).then(() => order.push('first'));
    const second = pool.take([], never).then(() => order.push('second'));
    pool.giveBack(slot);
    // Who comes now does not overtake.
    const third = pool.take([], never).then(() => order.push('third'));
    await first;
    expect(order).toEqual(['first']);
    pool.giveBack(slot);
    await second;
    pool.giveBack(slot);
    await third;
    expect(order).toEqual(['first', 'second', 'third']);
  });

  test('loses none to somebody who leaves, also in the moment of getting it', async ({ expect }) => {
    const pool = createSlotPool([sequence]);
    const slot = await pool.take([], never);
    const abort = new AbortController();
    const leaving = pool.take([], abort.signal);
    const late = new AbortController();
    const tooLate = pool.take([], late.signal);
    const last = pool.take([], never);
    abort.abort(new Error('left'));
    await expect(leaving).rejects.toThrow('left');
    pool.giveBack(slot);
    late.abort(new Error('left, but it had the slot'));
    pool.giveBack(await tooLate);
    expect(await last).toBe(slot);
    pool.giveBack(slot);
    expect(await pool.take([], never)).toBe(slot);
    await expect(pool.take([], AbortSignal.abort(new Error('gone before')))).rejects.toThrow('gone before');
  });
});
