/** Revocations with a cut: they reach requests under way, at their time, by the issuer's word alone. */

import { test } from 'vitest';
import { followCuts } from '../../../gateway/access/cut.ts';
import type { KeyStanding, StandingChange } from '../../../ledger/standing.ts';
import type { AuthorId, IssuerId, KeyId } from '../../../protocol/ids.ts';
import { unixMs } from '../../../protocol/units.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const key = '0123456789abcdef' as KeyId;
const issuer = '12'.repeat(16) as IssuerId;
const successor = '34'.repeat(16) as IssuerId;
const author = 'ab'.repeat(32) as AuthorId;
const later = 'cd'.repeat(32) as AuthorId;

function follow() {
  const clock = new ManualClock();
  const cuts: string[] = [];
  let listener: (change: StandingChange) => void = () => {};
  let known: KeyStanding['revoked'];
  const authors: Readonly<Record<IssuerId, readonly AuthorId[]>> = { [issuer]: [author, later], [successor]: [later] };
  const stop = followCuts({
    clock,
    cut: (cutKey, of) => cuts.push(`${cutKey} of ${of.slice(0, 2)}`),
    ledger: {
      standing: { key: (_: KeyId, by: AuthorId) => (known === undefined ? undefined : { key, by, revoked: known }) },
      roots: { issuers: new Map([issuer, successor].map((each) => [each, {}])) },
      authorsOf: (of: IssuerId) => authors[of] ?? [],
      onChange: (hear: typeof listener) => {
        listener = hear;
        return () => {
          listener = () => {};
        };
      },
    } as never,
  });
  const hear = (revoked: KeyStanding['revoked'], by = author): void => {
    known = revoked;
    listener({ kind: 'key', key, by });
  };
  return { clock, cuts, hear, stop };
}

const now = (clock: ManualClock, aheadMs = 0) => unixMs(clock.wallMs() + aheadMs);

test('a revocation with a cut ends requests in the same turn', ({ expect }) => {
  const { clock, cuts, hear } = follow();
  hear({ fromMs: now(clock), cut: true });
  expect(cuts).toEqual([`${key} of 12`]);
});

test('one without, and other changes of a key, end nothing', async ({ expect }) => {
  const { clock, cuts, hear } = follow();
  hear(undefined);
  hear({ fromMs: now(clock), cut: false });
  await clock.advance(10_000_000);
  expect([cuts, clock.timers]).toEqual([[], 0]);
});

test('one that lies ahead waits for its time, once, however often it is told', async ({ expect }) => {
  const { clock, cuts, hear } = follow();
  const revoked = { fromMs: now(clock, 5_000_000), cut: true };
  for (let time = 0; time < 3; time += 1) hear(revoked);
  await clock.advance(4_999_999);
  expect([cuts, clock.timers]).toEqual([[], 1]);
  await clock.advance(1);
  expect([cuts, clock.timers]).toEqual([[`${key} of 12`], 0]);
});

test('what a successor revokes ends requests of keys by its predecessor and its own', ({ expect }) => {
  const { clock, cuts, hear } = follow();
  hear({ fromMs: now(clock), cut: true }, later);
  expect(cuts).toEqual([`${key} of 12`, `${key} of 34`]);
});

test('after the end nothing waits', ({ expect }) => {
  const { clock, cuts, hear, stop } = follow();
  hear({ fromMs: now(clock, 1_000), cut: true });
  stop();
  hear({ fromMs: now(clock), cut: true });
  expect([cuts, clock.timers]).toEqual([[], 0]);
});
