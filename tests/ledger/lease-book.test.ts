/** What is left of budgets: the same whatever order entries came in, with everything that takes counted and nothing given twice. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { authorIdOf } from '../../ledger/block.ts';
import type { Entry } from '../../ledger/entry.ts';
import type { EntryPlace } from '../../ledger/feeds.ts';
import { amountToGive } from '../../ledger/lease-authority.ts';
import { LeaseBook } from '../../ledger/lease-book.ts';
import { keyFromSeed, sha256 } from '../../protocol/crypto.ts';
import type { AccountId, AuthorId, EpochId, LeaseId, PeerId } from '../../protocol/ids.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';

interface Told {
  readonly entry: Entry;
  readonly place: EntryPlace;
}

const keyOf = (name: string) => keyFromSeed(sha256(name));
const authorOf = (name: string): AuthorId => authorIdOf(keyOf(name).publicKey);
const peerOf = (name: string): PeerId => peerIdOf(keyOf(name).publicKey);
const epochOf = (digit: number): EpochId => `${digit}`.repeat(32) as EpochId;
const leaseOf = (digit: number): LeaseId => `${digit}`.repeat(32) as LeaseId;
const account = 'acct-one' as AccountId;
const issuer = authorOf('issuer');
const gateway = authorOf('gateway');

const at = (author: AuthorId, number: number, more: Partial<EntryPlace> = {}): EntryPlace => ({
  author,
  epoch: epochOf(author === issuer ? 1 : 2),
  generation: 0,
  number,
  index: 0,
  timeMs: number,
  isAfterFork: false,
  ...more,
});
const begins = (author: AuthorId, role: 'issuer' | 'gateway'): Told => ({
  entry: { kind: 'author', role, peer: peerOf('gateway'), certificate: '', membership: '' },
  place: at(author, 0),
});
const lease = (digit: number, amountMicro: number, more: Partial<Extract<Entry, { kind: 'lease' }>> = {}): Entry => ({
  ...{ kind: 'lease', lease: leaseOf(digit), account, holder: peerOf('gateway'), epoch: epochOf(2), period: 7 },
  ...{ amountMicro, ...more },
});
const close = (digit: number, spentMicro: number): Entry => ({ kind: 'close', lease: leaseOf(digit), spentMicro });
const writeOff = (digit: number, spentMicro: number): Entry => ({
  ...{ kind: 'writeoff', lease: leaseOf(digit), epoch: epochOf(2), spentMicro },
});

const stranger = authorOf('stranger');

function bookOf(told: readonly Told[], spent: Readonly<Record<string, number>> = {}): LeaseBook {
  const book = new LeaseBook({
    isOurs: (author) => author !== stranger,
    mayGive: ({ author }) => author === issuer,
    isStrict: () => true,
    spentFrom: (of) => spent[of.lease] ?? 0,
  });
  for (const held of told) book.apply(held);
  return book;
}

const start = [begins(issuer, 'issuer'), begins(gateway, 'gateway')];
const takenOf = (told: readonly Told[], spent?: Readonly<Record<string, number>>): number =>
  bookOf([...start, ...told], spent).takenMicro(account, 7);

describe('what a lease takes', () => {
  const given: Told = { entry: lease(1, 100), place: at(issuer, 1) };
  test('is all of it while it is open, and what was spent once it is closed', ({ expect }) => {
    expect(takenOf([given])).toBe(100);
    expect(takenOf([given, { entry: close(1, 30), place: at(gateway, 1) }])).toBe(30);
    expect(takenOf([given, { entry: writeOff(1, 40), place: at(issuer, 2) }])).toBe(40);
  });

  test('is never less than its lines, whatever its holder says', ({ expect }) => {
    expect(takenOf([given, { entry: close(1, 30), place: at(gateway, 1) }], { [leaseOf(1)]: 70 })).toBe(70);
    expect(takenOf([given, { entry: writeOff(1, 0), place: at(issuer, 2) }], { [leaseOf(1)]: 70 })).toBe(70);
  });

  test('is what was said last by its holder, and the most where it was raised', ({ expect }) => {
    const raised: Told = { entry: lease(1, 250), place: at(issuer, 2) };
    expect(takenOf([raised, given])).toBe(250);
    const first: Told = { entry: close(1, 90), place: at(gateway, 1) };
    const second: Told = { entry: close(1, 20), place: at(gateway, 2) };
    expect(takenOf([given, first, second])).toBe(20);
    expect(takenOf([given, second, first])).toBe(20);
  });

  test('is not given back by another gateway, another epoch, a branch after a fork, or a lease of another period', ({
    expect,
  }) => {
    expect(takenOf([given, { entry: close(1, 0), place: at(authorOf('other'), 1) }])).toBe(100);
    expect(takenOf([given, { entry: close(1, 0), place: at(gateway, 1, { epoch: epochOf(3) }) }])).toBe(100);
    expect(takenOf([given, { entry: close(1, 0), place: at(gateway, 1, { isAfterFork: true }) }])).toBe(100);
    expect(takenOf([given, { entry: writeOff(1, 0), place: at(issuer, 2, { isAfterFork: true }) }])).toBe(100);
    expect(takenOf([given, { entry: writeOff(1, 0), place: at(authorOf('old'), 2) }])).toBe(100);
    expect(takenOf([{ entry: lease(1, 100, { period: 8 }), place: at(issuer, 1) }])).toBe(0);
  });

  test('counts also from a branch after a fork, and from every issuer, but not from a gateway', ({ expect }) => {
    expect(takenOf([{ entry: lease(1, 100), place: at(issuer, 1, { isAfterFork: true }) }])).toBe(100);
    const before = authorOf('before');
    const told: Told[] = [begins(before, 'issuer'), { entry: lease(1, 100), place: at(before, 1) }];
    expect(takenOf(told)).toBe(100);
    expect(takenOf(told.toReversed())).toBe(100);
    expect(takenOf([{ entry: lease(1, 100), place: at(gateway, 1) }])).toBe(0);
  });

  test('is never what an issuer of other budgets says, of its own leases or of ours', ({ expect }) => {
    const theirs: Told[] = [
      begins(stranger, 'issuer'),
      { entry: lease(2, 900), place: at(stranger, 1) },
      { entry: lease(1, 900, { account: 'acct-other' as AccountId, period: 8 }), place: at(stranger, 2) },
    ];
    expect(takenOf([given, ...theirs])).toBe(100);
    expect(takenOf([...theirs, given])).toBe(100);
    const book = bookOf([...start, given, ...theirs, { entry: close(1, 30), place: at(gateway, 1) }]);
    expect([book.takenMicro(account, 7), book.leasesOf('acct-other' as AccountId)]).toEqual([30, []]);
  });

  test('is taken again when what gave it back turns out to stand after a fork', ({ expect }) => {
    const returned: Told = { entry: close(1, 10), place: at(gateway, 1) };
    const forked: Told = { entry: close(1, 10), place: at(gateway, 1, { isAfterFork: true }) };
    expect(takenOf([given, returned, forked])).toBe(100);
    expect(takenOf([given, forked, returned])).toBe(100);
  });
});

const someTold = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('lease' as const), digit: fc.nat(3), micro: fc.integer({ min: 1, max: 100 }) }),
    fc.record({ kind: fc.constant('close' as const), digit: fc.nat(3), micro: fc.nat(100) }),
    fc.record({ kind: fc.constant('writeoff' as const), digit: fc.nat(3), micro: fc.nat(100) }),
  ),
  { maxLength: 20 },
);

test('every order of entries comes to the same', ({ expect }) => {
  fc.assert(
    fc.property(
      someTold.chain((all) => {
        const told = all.map(({ kind, digit, micro }, number): Told => {
          if (kind === 'lease') return { entry: lease(digit, micro), place: at(issuer, number + 1) };
          if (kind === 'close') return { entry: close(digit, micro), place: at(gateway, number + 1) };
          return { entry: writeOff(digit, micro), place: at(issuer, number + 1) };
        });
        const whole = [...start, ...told, ...told.slice(0, 3)];
        return fc.tuple(fc.constant(whole), fc.shuffledSubarray(whole, { minLength: whole.length }));
      }),
      ([told, shuffled]) => {
        const facts = (book: LeaseBook) => [...book.leasesOf(account)].sort((a, b) => (a.lease < b.lease ? -1 : 1));
        expect(facts(bookOf(shuffled))).toEqual(facts(bookOf(told)));
      },
    ),
  );
});

test('periods that are over are forgotten once nothing of them is open', ({ expect }) => {
  const book = bookOf([
    ...start,
    { entry: lease(1, 100, { period: 6 }), place: at(issuer, 1) },
    { entry: lease(2, 100, { period: 6 }), place: at(issuer, 2) },
    { entry: lease(3, 100), place: at(issuer, 3) },
    { entry: close(1, 5), place: at(gateway, 1) },
    { entry: close(3, 5), place: at(gateway, 2) },
  ]);
  book.forgetBefore(account, 7, [6]);
  expect(book.leasesOf(account).map((one) => one.lease)).toEqual([leaseOf(1), leaseOf(2), leaseOf(3)]);
  book.forgetBefore(account, 7, [7]);
  expect(book.leasesOf(account).map((one) => one.lease)).toEqual([leaseOf(2), leaseOf(3)]);
  expect(book.open().map((one) => one.lease)).toEqual([leaseOf(2)]);
});

test('an ask gets what it needs where that is there, never more than is left, and leaves half to others', ({
  expect,
}) => {
  const micro = fc.nat(10_000);
  fc.assert(
    fc.property(micro, micro, micro, micro, (leftMicro, leastMicro, more, wantMicro) => {
      const needMicro = leastMicro + more;
      const given = amountToGive({ leftMicro, leastMicro, needMicro, wantMicro });
      expect(given).toBeLessThanOrEqual(leftMicro);
      if (leftMicro >= Math.max(1, leastMicro)) expect(given).toBeGreaterThanOrEqual(Math.max(1, leastMicro));
      else expect(given).toBe(0);
      if (given > Math.max(1, leastMicro)) expect(given).toBeLessThanOrEqual(Math.ceil(leftMicro / 2));
    }),
  );
});
