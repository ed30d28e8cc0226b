/** Prices: the most specific newest rule of an issuer is in force, whatever order rules were heard in. */

import fc from 'fast-check';
import { test } from 'vitest';
import type { Entry } from '../../ledger/entry.ts';
import type { EntryPlace, HeldEntry } from '../../ledger/feeds.ts';
import type { PriceEntry } from '../../ledger/money.ts';
import { freePrice, type PriceQuery } from '../../ledger/price.ts';
import { createPrices, rulesPerAuthorMax } from '../../ledger/prices.ts';
import type { AuthorId, EpochId, PeerId, PriceId } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';
import { peer } from '../protocol/mesh-fixture.ts';
import '../support/seed.ts';

type Told = Pick<HeldEntry, 'entry' | 'place'>;

const [ann, bob, gateway] = ['a1', 'b2', 'c3'].map((two) => two.repeat(32) as AuthorId) as [
  AuthorId,
  AuthorId,
  AuthorId,
];
const isIssuer = (author: AuthorId): boolean => author !== gateway;
const epoch = '0a'.repeat(16) as EpochId;
const nora = peer('Nora');
const noah = peer('Noah');
const idOf = (number: number): PriceId => number.toString(16).padStart(16, '0') as PriceId;

function told(number: number, rule: Partial<PriceEntry>, place: Partial<EntryPlace> = {}): Told {
  return {
    entry: {
      kind: 'price',
      id: idOf(number),
      model: '*',
      prompt: 1_000 + number,
      cached: 100,
      completion: 2_000 + number,
      fromMs: unixMs(0),
      ...rule,
    },
    place: { author: ann, epoch, generation: 0, number, index: 0, timeMs: 0, isAfterFork: false, ...place },
  };
}

function heard(all: readonly Told[]) {
  const prices = createPrices(isIssuer);
  for (const held of all) prices.apply(held);
  return prices;
}

const query = (atMs: number, model = 'm', node: PeerId = nora): PriceQuery => ({ model, node, atMs: unixMs(atMs) });

test('the most specific rule is in force', ({ expect }) => {
  const prices = heard([
    told(1, { model: '*' }),
    told(2, { model: '*', node: nora }),
    told(3, { model: 'm' }),
    told(4, { model: 'm', node: nora }),
  ]);
  const ids = [query(9), query(9, 'm', noah), query(9, 'n'), query(9, 'n', noah)].map(
    (asked) => prices.inForce(asked)?.id,
  );
  expect(ids).toEqual([4, 3, 2, 1].map(idOf));
});

test('a rule counts from its moment on, and never from before it was signed', ({ expect }) => {
  const prices = heard([
    told(1, { fromMs: unixMs(100) }),
    told(2, { fromMs: unixMs(200) }),
    told(3, { fromMs: unixMs(0) }, { timeMs: 300 }),
  ]);
  const ids = [99, 100, 199, 200, 299, 300].map((atMs) => prices.inForce(query(atMs))?.id);
  expect(ids).toEqual([undefined, idOf(1), idOf(1), idOf(2), idOf(2), idOf(3)]);
});

test('a gateway sets no prices', ({ expect }) => {
  const author: Entry = { kind: 'author', role: 'gateway', peer: nora, certificate: '', membership: '' };
  const first = { entry: author, place: told(0, {}, { author: gateway }).place };
  const prices = heard([told(1, {}, { author: gateway }), first, told(2, {}, { author: gateway })]);
  expect([prices.inForce(query(9)), prices.byId(idOf(1)), prices.list()]).toEqual([undefined, undefined, []]);
});

test('what an author says first under an id is what the id means', ({ expect }) => {
  const prices = heard([told(1, { id: idOf(7) }, { number: 2 }), told(2, { id: idOf(7) }, { number: 1 })]);
  expect(prices.list().map(({ prompt }) => prompt)).toEqual([1_002]);
});

test('a superseded price is allowed for a minute, the one before any price too', ({ expect }) => {
  const prices = heard([told(1, { fromMs: unixMs(100_000) }), told(2, { fromMs: unixMs(500_000) })]);
  const [old, next] = [prices.byId(idOf(1)), prices.byId(idOf(2))];
  if (old === undefined || next === undefined) throw new Error('a rule is missing');
  const allowed = (price: typeof old | typeof freePrice, atMs: number) => prices.allows(price, query(atMs));
  expect({
    ends: [prices.supersededMs(old, query(499_999)), prices.supersededMs(old, query(700_000))],
    never: prices.supersededMs(next, query(499_999)),
    old: [99_999, 100_000, 500_000, 560_000, 560_001].map((atMs) => allowed(old, atMs)),
    next: [499_999, 500_000].map((atMs) => allowed(next, atMs)),
    free: [99_999, 159_999, 160_000].map((atMs) => allowed(freePrice, atMs)),
    cheaper: allowed({ ...old, prompt: 1 }, 200_000),
    notFree: allowed({ ...freePrice, prompt: 1 }, 1),
  }).toEqual({
    ends: [undefined, 500_000],
    never: 0,
    old: [false, true, true, true, false],
    next: [false, true],
    free: [true, true, false],
    cheaper: false,
    notFree: false,
  });
});

test('a rule that is more specific elsewhere supersedes nothing here', ({ expect }) => {
  const prices = heard([
    told(1, {}),
    told(2, { fromMs: unixMs(50), node: noah }),
    told(3, { fromMs: unixMs(50), model: 'n' }),
  ]);
  const rule = prices.byId(idOf(1));
  expect(rule && prices.supersededMs(rule, query(90))).toBe(undefined);
});

test('of more rules than are remembered the newest stay', ({ expect }) => {
  const all = Array.from({ length: 2 * rulesPerAuthorMax + 5 }, (_, number) =>
    told(number, { fromMs: unixMs(number) }),
  );
  const expected = heard(all).list();
  expect([expected.length, expected[0]?.id]).toEqual([rulesPerAuthorMax, idOf(rulesPerAuthorMax + 5)]);
  expect(heard(all.toReversed()).list()).toEqual(expected);
});

const someTold: fc.Arbitrary<Told> = fc
  .record({
    id: fc.nat(5),
    author: fc.constantFrom(ann, bob, gateway),
    model: fc.constantFrom('*', 'm', 'n'),
    node: fc.constantFrom(undefined, nora, noah),
    fromMs: fc.nat(6),
    timeMs: fc.nat(3),
    number: fc.nat(3),
    prompt: fc.nat(2),
  })
  .map(({ id, author, model, node, fromMs, timeMs, number, prompt }) => ({
    entry: {
      kind: 'price' as const,
      id: idOf(id),
      model,
      ...(node === undefined ? {} : { node }),
      prompt,
      cached: 0,
      completion: 0,
      fromMs: unixMs(fromMs),
    },
    place: { author, epoch, generation: 0, number, index: 0, timeMs, isAfterFork: false },
  }));

const answers = (all: readonly Told[]) => {
  const prices = heard(all);
  const asked = [0, 2, 4, 6].flatMap((atMs) =>
    ['m', 'n', 'o'].flatMap((model) => [nora, noah].map((node) => query(atMs, model, node))),
  );
  const rules = prices.list();
  return {
    rules,
    inForce: asked.map((each) => prices.inForce(each)),
    ends: asked.map((each) => rules.map((rule) => prices.supersededMs(rule, each))),
  };
};

test('neither order nor repetition changes an answer', ({ expect }) => {
  const shuffled = fc
    .array(someTold, { maxLength: 12 })
    .chain((all) => fc.tuple(fc.constant(all), fc.shuffledSubarray([...all, ...all], { minLength: 2 * all.length })));
  fc.assert(
    fc.property(shuffled, ([all, again]) => {
      expect(answers(again)).toEqual(answers(all));
    }),
  );
});

test('the rule in force is the best of those that have begun', ({ expect }) => {
  fc.assert(
    fc.property(fc.array(someTold, { maxLength: 12 }), fc.nat(6), (all, atMs) => {
      const prices = heard(all);
      const specific = ({ model, node }: { model: string; node?: PeerId }) => (model === 'm' ? 2 : 0) + (node ? 1 : 0);
      const [best] = prices
        .list()
        .filter(
          ({ model, node, fromMs }) => (model === 'm' || model === '*') && (node ?? nora) === nora && fromMs <= atMs,
        )
        .sort((a, b) => specific(b) - specific(a) || b.fromMs - a.fromMs || (a.by + a.id < b.by + b.id ? -1 : 1));
      const rule = prices.inForce(query(atMs));
      expect(rule).toEqual(best);
      expect(rule && prices.supersededMs(rule, query(atMs))).toBe(undefined);
    }),
  );
});

test('a price that is long superseded costs no look at all that came since', ({ expect }) => {
  let looks = 0;
  const prices = createPrices(() => {
    looks += 1;
    return true;
  });
  const dayMs = 86_400_000;
  for (let day = 0; day < 1_000; day += 1) prices.apply(told(day, { fromMs: unixMs(day * dayMs) }));
  const old = prices.byId(idOf(1)) ?? freePrice;
  looks = 0;
  expect([prices.allows(old, query(999 * dayMs)), looks < 20]).toEqual([false, true]);
});
