/** Who waits for something gets it in order, and who leaves is passed over. */

import { describe, test } from 'vitest';
import { createQueue } from '../../../node/engines/queue.ts';

const never = new AbortController().signal;

describe('a queue', () => {
  test('serves those who came first, and says when nobody waits', async ({ expect }) => {
    const queue = createQueue<string>();
    expect(queue.hand('too early')).toBe(false);
    const waiting = [queue.wait(never), queue.wait(never)];
    expect([queue.hand('a'), queue.hand('b'), queue.hand('c')]).toEqual([true, true, false]);
    expect(await Promise.all(waiting)).toEqual(['a', 'b']);
  });

  test('lets each leave, and nobody come who has left before', async ({ expect }) => {
    const queue = createQueue<string>();
    const abort = new AbortController();
    const leaving = queue.wait(abort.signal);
    const staying = queue.wait(never);
    abort.abort(new Error('left'));
    await expect(leaving).rejects.toThrow('left');
    await expect(queue.wait(abort.signal)).rejects.toThrow('left');
    expect(queue.hand('a')).toBe(true);
    expect(await staying).toBe('a');
    expect(queue.hand('b')).toBe(false);
  });

  test('has forgotten those who were served', async ({ expect }) => {
    const queue = createQueue<string>();
    const abort = new AbortController();
    const served = queue.wait(abort.signal);
    queue.hand('a');
    abort.abort(new Error('too late'));
    expect(await served).toBe('a');
  });
});
