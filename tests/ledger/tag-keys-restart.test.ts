/** Keys of tags over a restart: those on disk are found before any is drawn, or a day's usage could be told no more. */

import { test } from 'vitest';
import { createTags } from '../../ledger/tag-keys.ts';
import type { AccountId, IssuerId } from '../../protocol/ids.ts';
import { quietLog, seededRandom } from '../protocol/mesh-fixture.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { MemoryStore } from '../support/memory-store.ts';

const issuer = '12'.repeat(16) as IssuerId;
const account = 'acct-1' as AccountId;

test('a key that is drawn before the disk was read is the one on disk', async ({ expect }) => {
  const store = new MemoryStore();
  const clock = new ManualClock();
  const today = Math.floor(clock.wallMs() / 86_400_000);
  const start = (seed: string) => createTags({ store, clock, random: seededRandom(seed), log: quietLog });
  const before = start('first');
  await before.open();
  await before.draw(issuer, [today]);
  const tag = before.accountTag(issuer, account, today);
  const own = before.accountTag(issuer, account, 0);
  await before.close();

  const after = start('second');
  const early = [after.draw(issuer, [today, today + 1]), after.take(issuer, [{ day: today, key: new Uint8Array(32) }])];
  await after.open();
  await Promise.all(early);
  expect(tag).toBeDefined();
  expect(after.accountTag(issuer, account, today)).toBe(tag);
  expect(after.accountTag(issuer, account, 0)).toBe(own);
  expect(after.accountTag(issuer, account, today + 1)).toBeDefined();
  await after.close();

  const last = start('third');
  await last.open();
  expect(last.accountTag(issuer, account, today)).toBe(tag);
  await last.close();
});
