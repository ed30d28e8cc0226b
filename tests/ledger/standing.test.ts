/** How everyone stands: the same whatever order entries came in, and nothing given back that should not be. */

import fc from 'fast-check';
import { test } from 'vitest';
import { type Entry, encodeEntry } from '../../ledger/entry.ts';
import type { EntryPlace, HeldEntry } from '../../ledger/feeds.ts';
import { narrowTerms } from '../../ledger/narrow.ts';
import { createStanding, type Standing, termsOf } from '../../ledger/standing.ts';
import { allowsModel, type KeyGrant, type KeyTerms, type Succession } from '../../protocol/grants.ts';
import type { AccountId, AuthorId, EpochId, IssuerId, KeyId, OwnerId, PeerId } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';
import { peer } from '../protocol/mesh-fixture.ts';
import { expectedOf, stateOf } from './standing-model.ts';

const authors = ['a1', 'b2', 'c3'].map((two) => two.repeat(32) as AuthorId);
const [ann, bob] = authors as [AuthorId, AuthorId, AuthorId];
type Epoch = Pick<EntryPlace, 'epoch' | 'generation'>;
/** Two of one generation, as after a restored backup. */
const epochs: readonly [Epoch, Epoch, Epoch, Epoch] = [
  { epoch: '0a'.repeat(16) as EpochId, generation: 0 },
  { epoch: 'f0'.repeat(16) as EpochId, generation: 1 },
  { epoch: '0b'.repeat(16) as EpochId, generation: 1 },
  { epoch: '0c'.repeat(16) as EpochId, generation: 2 },
];

const key = '11'.repeat(8) as KeyId;
const mallory = peer('Mallory');
const ban = 'ba'.repeat(16);

function at(number: number, changes: Partial<EntryPlace> = {}): EntryPlace {
  const place = { author: ann, ...epochs[0], number, index: 0, isAfterFork: false, ...changes };
  return { ...place, timeMs: 1_000 * place.generation + 10 * place.number + place.index };
}

const terms = (limits: KeyTerms['limits'], models: readonly string[] = []): KeyTerms => ({ models, limits });
const termsEntry = (said: KeyTerms): Entry => ({ kind: 'terms', key, terms: said });
const madeEntry = (said: KeyTerms): Entry => ({
  kind: 'key',
  key,
  account: 'acct' as AccountId,
  role: 'user',
  gateways: [],
  terms: said,
});
const banEntry = (id = ban): Entry => ({ kind: 'ban', peer: mallory, ban: id });
const unbanEntry = (...bans: readonly string[]): Entry => ({ kind: 'unban', peer: mallory, bans });

const all = (): boolean => true;

/** A standing that has heard this. */
function heard(told: readonly (readonly [Entry, EntryPlace])[], standing: Standing = createStanding(all)): Standing {
  for (const [entry, place] of told) standing.apply({ entry, place });
  return standing;
}

const pick = <T>(...values: readonly T[]) => fc.constantFrom(...values);
const someKey = pick('11'.repeat(8) as KeyId, '22'.repeat(8) as KeyId);
const somePeer = pick(peer('Nora'), mallory);
const someBan = pick(ban, 'bb'.repeat(16), 'bc'.repeat(16));
const rate = fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined });
const given = <T extends object>(fields: T): T =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
const someLimits = fc
  .record({ rpm: rate, tpm: rate, concurrency: rate })
  .map((limits) => given(limits) as KeyTerms['limits']);
const someTerms = fc
  .record({
    models: fc.uniqueArray(pick('*', 'qwen*', 'qwen3-*', 'llama', '*-chat'), { maxLength: 3 }),
    limits: someLimits,
    expiresMs: fc.option(fc.integer({ min: 1, max: 9 }).map(unixMs), { nil: undefined }),
  })
  .map((said) => given(said) as KeyTerms);

const someEntry: fc.Arbitrary<Entry> = fc.oneof(
  fc.record({ kind: fc.constant('terms' as const), key: someKey, terms: someTerms }),
  fc.record({
    kind: fc.constant('revoke' as const),
    key: someKey,
    fromMs: fc.integer({ min: 1, max: 5 }).map(unixMs),
    cut: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('key' as const),
    key: someKey,
    account: pick('x' as AccountId, 'y' as AccountId),
    role: pick('user' as const, 'admin' as const),
    gateways: fc.constant([]),
    terms: someTerms,
  }),
  fc.record(
    {
      kind: fc.constant('account' as const),
      account: pick('x' as AccountId, 'y' as AccountId),
      limits: someLimits,
      strict: fc.boolean(),
      budget: fc.record({
        amountMicro: fc.integer({ min: 0, max: 3 }),
        period: pick('day' as const, 'month' as const, 'total' as const),
      }),
    },
    { requiredKeys: ['kind', 'account', 'limits', 'strict'] },
  ),
  fc.record({ kind: fc.constant('erase' as const), account: pick('x' as AccountId, 'y' as AccountId) }),
  fc.record({ kind: fc.constant('ban' as const), peer: somePeer, ban: someBan }),
  fc.record({
    kind: fc.constant('unban' as const),
    peer: somePeer,
    bans: fc.uniqueArray(someBan, { minLength: 1, maxLength: 2 }),
  }),
  fc.record({
    kind: fc.constant('member' as const),
    invite: pick('', '1a'.repeat(16), '2a'.repeat(16)),
    peer: somePeer,
    role: pick('node' as const, 'gateway' as const),
    owner: pick('o' as OwnerId, 'p' as OwnerId),
    expiresMs: fc.integer({ min: 1, max: 5 }).map(unixMs),
  }),
);

const somePlace = fc
  .record({
    author: pick(...authors),
    epoch: pick(...epochs),
    number: fc.integer({ min: 0, max: 4 }),
    index: fc.integer({ min: 0, max: 1 }),
    isAfterFork: fc.boolean(),
  })
  .map(({ epoch, ...place }) => at(place.number, { ...epoch, ...place }));

/** Some of it told twice, some of that only then as after a fork; two entries in one place are two branches. */
const someHistory = fc
  .array(fc.tuple(someEntry, somePlace, fc.boolean(), fc.boolean()), { maxLength: 40 })
  .map((told) =>
    told.flatMap(([entry, place, isTwice, isForked]): HeldEntry[] => {
      const held = { entry, bytes: encodeEntry(entry), place };
      return isTwice ? [held, { ...held, place: { ...place, isAfterFork: place.isAfterFork || isForked } }] : [held];
    }),
  );
const someOrder = someHistory.chain((told) =>
  fc.tuple(fc.constant(told), fc.shuffledSubarray(told, { minLength: told.length, maxLength: told.length })),
);

const someEnd: fc.Arbitrary<Succession | undefined> = fc
  .option(
    fc.record({
      issuer: fc.constant('ee'.repeat(16) as IssuerId),
      last: fc.option(fc.record({ epoch: pick(...epochs).map(({ epoch }) => epoch), number: fc.nat(3) }), {
        nil: undefined,
      }),
    }),
    { nil: undefined },
  )
  .map((end) => end && (given(end) as Succession));
const someRules = fc.record({ counting: fc.subarray(authors), ends: fc.tuple(someEnd, someEnd, someEnd) });

test('every order of entries, duplicates among them, comes to what the rules say of all of them', ({ expect }) => {
  fc.assert(
    fc.property(someOrder, someRules, someRules, ([told, order], before, after) => {
      let rules = before;
      const counts = (author: AuthorId): boolean => rules.counting.includes(author);
      const endOf = (author: AuthorId): Succession | undefined => rules.ends[authors.indexOf(author)];
      const standing = createStanding(counts, endOf);
      for (const held of order) standing.apply(held);
      expect(stateOf(standing, told)).toEqual(expectedOf(told, { counts, endOf }));
      // What the root says may come after the entries, too.
      rules = after;
      expect(stateOf(standing, told)).toEqual(expectedOf(told, { counts, endOf }));
    }),
    { numRuns: 300 },
  );
});

test('look-ups in between change nothing', ({ expect }) => {
  fc.assert(
    fc.property(someOrder, someEnd, ([told, order], end) => {
      const [asked, unasked] = [createStanding(all, () => end), createStanding(all, () => end)];
      for (const held of order) {
        asked.apply(held);
        stateOf(asked, told);
        unasked.apply(held);
      }
      expect(stateOf(asked, told)).toEqual(stateOf(unasked, told));
    }),
    { numRuns: 50 },
  );
});

test('an entry that is told again is no news, unless it turns out to stand after a fork', ({ expect }) => {
  const standing = createStanding(all);
  const told = { entry: termsEntry(terms({ rpm: 1 })), place: at(1) };
  const change = { kind: 'key', key, by: ann };
  const forked = { ...told, place: at(1, { isAfterFork: true }) };
  expect([told, told, forked, forked, told].map((held) => standing.apply(held))).toEqual([
    change,
    undefined,
    change,
    undefined,
    undefined,
  ]);
});

test('the terms of the highest place count: generation, then epoch, number and index', ({ expect }) => {
  const places = [
    at(9),
    at(0, epochs[2]),
    at(0, epochs[1]),
    at(1, epochs[1]),
    at(1, { ...epochs[1], index: 1 }),
    at(0, epochs[3]),
  ];
  const told = places.map((place, rpm) => [termsEntry(terms({ rpm: rpm + 1 })), place] as const);
  for (const count of told.keys()) {
    const standing = heard(told.slice(0, count + 1).toReversed());
    expect(standing.key(key, ann)?.terms).toEqual(terms({ rpm: count + 1 }));
  }
});

test('entries count only while their author is an issuer that the root stands by', ({ expect }) => {
  const issuers = new Set<AuthorId>();
  const standing = createStanding((author) => issuers.has(author));
  heard(
    [
      [banEntry(), at(0)],
      [termsEntry(terms({})), at(1)],
      [unbanEntry(ban), at(0, { author: bob })],
    ],
    standing,
  );
  const seen = () => [standing.isBanned(mallory), standing.key(key, ann) !== undefined];
  expect(seen()).toEqual([false, false]);
  issuers.add(ann);
  expect(seen()).toEqual([true, true]);
  issuers.add(bob);
  expect(seen()).toEqual([false, true]);
  issuers.delete(ann);
  expect(seen()).toEqual([false, false]);
});

test('what a gateway writes about keys and peers is not kept', ({ expect }) => {
  let counts = false;
  const standing = createStanding(() => counts);
  const entry: Entry = { kind: 'author', role: 'gateway', peer: mallory, certificate: '', membership: '' };
  expect(standing.apply({ entry, place: at(0) })).toBeUndefined();
  expect(standing.apply({ entry: banEntry(), place: at(1) })).toBeUndefined();
  counts = true;
  expect([standing.isBanned(mallory), [...standing.bans()]]).toEqual([false, []]);
});

test('an issuer that calls itself a gateway somewhere counts in any order', ({ expect }) => {
  const entry: Entry = { kind: 'author', role: 'gateway', peer: mallory, certificate: '', membership: '' };
  const told = [[entry, at(1)] as const, [banEntry(), at(2)] as const];
  expect([told, told.toReversed()].map((order) => heard(order).isBanned(mallory))).toEqual([true, true]);
});

test('the earliest revocation counts, a cut sticks, and no terms take it back', ({ expect }) => {
  const revoke = (fromMs: number, cut: boolean): Entry => ({ kind: 'revoke', key, fromMs: unixMs(fromMs), cut });
  const standing = heard([
    [revoke(500, false), at(1)],
    [revoke(900, true), at(2)],
    [termsEntry(terms({ rpm: 9 })), at(3)],
  ]);
  expect(standing.key(key, ann)).toEqual({
    key,
    by: ann,
    terms: terms({ rpm: 9 }),
    revoked: { fromMs: 500, cut: true },
  });
});

test('an unban lifts the bans that it names, by whomever, and no others', ({ expect }) => {
  const other = 'bb'.repeat(16);
  const standing = heard([
    [unbanEntry(ban), at(0)],
    [banEntry(), at(0, { author: bob })],
  ]);
  expect(standing.isBanned(mallory)).toBe(false);
  heard([[banEntry(other), at(1, { author: bob })]], standing);
  expect([standing.isBanned(mallory), standing.isBanned(mallory, bob), standing.isBanned(mallory, ann)]).toEqual([
    true,
    true,
    false,
  ]);
  expect(standing.bans()).toEqual(new Map([[mallory, [other]]]));
});

test('an unban that turns out to stand after a fork is told as a ban, for it is in force again', ({ expect }) => {
  const standing = heard([
    [banEntry(), at(0)],
    [unbanEntry(ban), at(1)],
  ]);
  expect(standing.isBanned(mallory)).toBe(false);
  const change = standing.apply({ entry: unbanEntry(ban), place: at(1, { isAfterFork: true }) });
  expect([change, standing.isBanned(mallory)]).toEqual([{ kind: 'ban', peer: mallory }, true]);
});

test('after a fork terms only narrow, whatever each branch says and in whatever order', ({ expect }) => {
  const told: (readonly [Entry, EntryPlace])[] = [
    [madeEntry(terms({ rpm: 99 })), at(0)],
    [termsEntry(terms({ rpm: 10, tpm: 500 }, ['qwen*'])), at(1)],
    [termsEntry(terms({ rpm: 1_000 }, ['qwen3-*', 'llama'])), at(2, { isAfterFork: true })],
    [termsEntry(terms({ rpm: 5, concurrency: 2 }, ['*'])), at(2, { isAfterFork: true })],
  ];
  const narrow = terms({ rpm: 5, tpm: 500, concurrency: 2 }, ['qwen3-*']);
  expect(heard(told).key(key, ann)?.terms).toEqual(narrow);
  expect(heard(told.toReversed()).key(key, ann)?.terms).toEqual(narrow);
});

test('of two branches that nobody has proven yet, both narrow', ({ expect }) => {
  const branches = [terms({ rpm: 1, tpm: 9 }), terms({ rpm: 9, tpm: 1 })].map(
    (said) => [termsEntry(said), at(1)] as const,
  );
  for (const told of [branches, branches.toReversed()]) {
    expect(heard(told).key(key, ann)?.terms).toEqual(terms({ rpm: 1, tpm: 1 }));
  }
});

test('a key without earlier terms keeps those it was made with when its issuer forks', ({ expect }) => {
  const standing = heard([
    [madeEntry(terms({ rpm: 10 })), at(0)],
    [termsEntry(terms({ rpm: 1_000, tpm: 7 })), at(1, { isAfterFork: true })],
  ]);
  const grant = { ...terms({ rpm: 10 }), keyId: key } as KeyGrant;
  expect(termsOf(grant, standing.key(key, ann))).toEqual(terms({ rpm: 10, tpm: 7 }));
});

test('once the freeze is lifted, terms in a new epoch widen again', ({ expect }) => {
  const standing = heard([
    [termsEntry(terms({ rpm: 1 })), at(2, { isAfterFork: true })],
    [termsEntry(terms({ rpm: 50 })), at(0, epochs[1])],
  ]);
  expect(standing.key(key, ann)?.terms).toEqual(terms({ rpm: 50 }));
});

test('limits of an account narrow after a fork, and strict stays strict', ({ expect }) => {
  const account = 'acct' as AccountId;
  const entry = (limits: KeyTerms['limits'], strict: boolean): Entry => ({ kind: 'account', account, limits, strict });
  const standing = heard([
    [entry({ rpm: 10 }, true), at(1)],
    [entry({ rpm: 500, tpm: 3 }, false), at(2, { isAfterFork: true })],
  ]);
  const stands = { account, by: ann, limits: { rpm: 10, tpm: 3 }, strict: true, createdMs: 10 };
  expect(standing.account(account, ann)).toEqual(stands);
  heard([[entry({}, false), at(0, epochs[3])]], standing);
  expect(standing.account(account, ann)).toEqual({ ...stands, limits: {}, strict: false });
});

test('after a handover the old issuer takes away as before, and gives nothing back', ({ expect }) => {
  let end: Succession | undefined;
  const standing = createStanding(all, (author) => (author === ann ? end : undefined));
  const [before, later] = ['bb'.repeat(16), 'bc'.repeat(16)];
  heard(
    [
      [madeEntry(terms({ rpm: 5 })), at(0)],
      [banEntry(), at(1)],
      [banEntry(before), at(1)],
      [unbanEntry(before), at(2)],
      [unbanEntry(ban), at(3)],
      [banEntry(later), at(3)],
      [termsEntry(terms({ rpm: 500, tpm: 8 })), at(0, epochs[1])],
    ],
    standing,
  );
  const seen = () => [standing.bans().get(mallory), standing.key(key, ann)?.terms];
  expect(seen()).toEqual([[later], terms({ rpm: 500, tpm: 8 })]);
  const issuer = 'ee'.repeat(16) as IssuerId;
  end = { issuer, last: { epoch: epochs[0].epoch, number: 2 } };
  expect(seen()).toEqual([[ban, later], terms({ rpm: 5, tpm: 8 })]);
  end = { issuer, last: { epoch: epochs[1].epoch, number: 0 } };
  expect(seen()).toEqual([[later], terms({ rpm: 500, tpm: 8 })]);
  end = { issuer };
  expect(seen()).toEqual([[ban, before, later], terms({ rpm: 5, tpm: 8 })]);
});

test('an end that names an epoch not yet heard of holds everything back until it is', ({ expect }) => {
  const last = { epoch: epochs[3].epoch, number: 0 };
  const end = { issuer: 'ee'.repeat(16) as IssuerId, last };
  const standing = createStanding(all, () => end);
  heard(
    [
      [madeEntry(terms({ rpm: 5 })), at(0)],
      [banEntry(), at(0)],
      [unbanEntry(ban), at(1)],
      [termsEntry(terms({ rpm: 50 })), at(1)],
    ],
    standing,
  );
  const seen = () => [standing.isBanned(mallory), standing.key(key, ann)?.terms];
  expect(seen()).toEqual([true, terms({ rpm: 5 })]);
  const entry: Entry = { kind: 'author', role: 'issuer', peer: mallory, certificate: '', membership: '' };
  standing.apply({ entry, place: at(0, epochs[3]) });
  expect(seen()).toEqual([false, terms({ rpm: 50 })]);
});

test('an invite names its peers in the order in which it admitted each first', ({ expect }) => {
  const invite = '1a'.repeat(16);
  const member = (name: string): Entry => ({
    kind: 'member',
    invite,
    peer: peer(name),
    role: 'node',
    owner: 'o' as OwnerId,
    expiresMs: unixMs(9),
  });
  const told: (readonly [Entry, EntryPlace])[] = [
    [member('Zed'), at(1)],
    [member('Abe'), at(2)],
    [member('Zed'), at(3)],
    [member('Mia'), at(0, epochs[1])],
  ];
  const order = ['Zed', 'Abe', 'Mia'].map(peer);
  expect(heard(told).admittedBy(invite, ann)).toEqual(order);
  expect(heard(told.toReversed()).admittedBy(invite, ann)).toEqual(order);
  expect(heard(told).admittedBy(invite, bob)).toEqual([]);
  expect(heard(told).member(peer('Zed'), ann)).toMatchObject({ peer: peer('Zed'), admittedMs: 10, expiresMs: 9 });
});

test('narrowed terms allow no model that one of the two does not', ({ expect }) => {
  const name = pick('qwen', 'qwen3-4b', 'qwen3-4b-chat', 'llama', 'llama-chat', 'phi');
  fc.assert(
    fc.property(someTerms, someTerms, someTerms, name, (a, b, c, model) => {
      const both = narrowTerms(narrowTerms(a, b), c);
      const allowed = [a, b, c].every((one) => allowsModel(one, model));
      expect(allowed || !allowsModel(both, model)).toBe(true);
    }),
  );
  const [wide, narrow] = [terms({}, ['qwen*', 'llama']), terms({}, ['qwen3-*', 'phi'])];
  expect(narrowTerms(wide, narrow).models).toEqual(['qwen3-*']);
  const none = narrowTerms(terms({}, ['phi']), terms({}, ['llama']));
  expect(['phi', 'llama', 'x'].map((model) => allowsModel(none, model))).toEqual([false, false, false]);
});

test('a peer that nobody banned costs one look-up, however many authors and bans there are', ({ expect }) => {
  let asked = 0;
  const standing = createStanding(() => {
    asked += 1;
    return true;
  });
  const banned = Array.from({ length: 500 }, (_, at) => peer(`Peer${at}`) as PeerId);
  for (const [number, banned_] of banned.entries()) {
    const author = number.toString(16).padStart(64, '0') as AuthorId;
    standing.apply({ entry: { kind: 'ban', peer: banned_, ban }, place: at(0, { author }) });
  }
  expect([standing.isBanned(mallory), asked]).toEqual([false, 0]);
  expect([standing.isBanned(banned[3] as PeerId), asked]).toEqual([true, 1]);
});
