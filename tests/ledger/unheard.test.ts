/** What an issuer says again when a block of its feed is lost: nothing that takes away may be heard less of than before. */

import { test } from 'vitest';
import type { Entry } from '../../ledger/entry.ts';
import type { HeldEntry } from '../../ledger/feeds.ts';
import { createStanding } from '../../ledger/standing.ts';
import { Unheard } from '../../ledger/unheard.ts';
import type { AccountId, AuthorId, EpochId, KeyId, LeaseId, OwnerId, PriceId } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';
import { peer } from '../protocol/mesh-fixture.ts';

const author = 'a1'.repeat(32) as AuthorId;
const account = 'acct-1' as AccountId;
const key = '0a'.repeat(8) as KeyId;
const place = (number: number, by = author) => ({
  author: by,
  epoch: 'e0'.repeat(16) as EpochId,
  generation: 0,
  number,
  index: 0,
  timeMs: 10 * number,
  isAfterFork: false,
});

function saidAgain(entries: readonly Entry[]): readonly Entry[] {
  const standing = createStanding(() => true);
  const unheard = new Unheard(author);
  for (const [at, entry] of entries.entries()) {
    const held = { entry, bytes: new Uint8Array(), place: place(at + 5) } as HeldEntry;
    standing.apply(held);
    unheard.found(held);
  }
  const feeds = { headOf: () => ({ ...place(3), head: {} as never }) };
  unheard.opened(feeds);
  return unheard.take(feeds, standing);
}

test('budgets, erasures, terms, revocations and limits are said as they count now, each once', ({ expect }) => {
  const budget = { amountMicro: 10, period: 'month' } as const;
  const open = { kind: 'account', account, limits: { rpm: 5 }, strict: false } as const;
  const revoke = { kind: 'revoke', key, fromMs: unixMs(5), cut: true } as const;
  const erase = { kind: 'erase', account } as const;
  const strict = { ...open, strict: true, budget };
  expect(saidAgain([open, { ...open, budget }, strict, revoke, revoke, erase])).toEqual([strict, revoke, erase]);
});

test('prices and leases are said as they were; bans that were lifted, and members, are not', ({ expect }) => {
  const numbers = { model: '*', prompt: 1, cached: 1, completion: 1, fromMs: unixMs(0) };
  const price = { kind: 'price', id: 'ac'.repeat(8) as PriceId, ...numbers } as const;
  const holder = peer('gateway');
  const epoch = 'e1'.repeat(16) as EpochId;
  const named = { lease: '1e'.repeat(16) as LeaseId, epoch };
  const lease = { kind: 'lease', ...named, account, holder, period: 0, amountMicro: 5 } as const;
  const writeOff = { kind: 'writeoff', ...named, spentMicro: 1 } as const;
  const ban = { kind: 'ban', peer: holder, ban: '01'.repeat(16) } as const;
  const unban = { kind: 'unban', peer: holder, bans: [ban.ban] } as const;
  const owner = 'o' as OwnerId;
  const member = { kind: 'member', invite: '', peer: holder, role: 'node', owner, expiresMs: unixMs(9) } as const;
  expect(saidAgain([price, lease, writeOff, ban, unban, member])).toEqual([price, lease, writeOff]);
});
