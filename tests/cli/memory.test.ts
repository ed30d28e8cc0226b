/** What nothing uses any more goes when a daemon has started. */

import { test } from 'vitest';
import { giveBackMemory } from '../../cli/memory.ts';

test('what was left behind is gone, what is in use is not, and the collector is nobody else’s', async ({ expect }) => {
  const kept = { rows: new Array<number>(1_000_000).fill(1) };
  const left = new WeakRef({ rows: new Array<number>(1_000_000).fill(2) });
  const held = new WeakRef(kept);
  // A reference that was read stays until the end of its turn.
  await new Promise((resolve) => setImmediate(resolve));
  giveBackMemory();
  expect([left.deref(), held.deref(), 'gc' in globalThis]).toEqual([undefined, kept, false]);
});
