/** `ledger verify`: what is right passes, and each lie, hole and flipped byte is named by its place. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { Block } from '../../ledger/block.ts';
import type { Entry } from '../../ledger/entry.ts';
import { type PrunedBlock, prune, writePrunedRow } from '../../ledger/feed-prune.ts';
import { blockKey, liftKey, proofKey, writeBlockRow, writeLiftRow, writeProofRow } from '../../ledger/feed-rows.ts';
import { leaseTag } from '../../ledger/money.ts';
import { signCountersign } from '../../ledger/statement.ts';
import { verifyFeeds } from '../../ledger/verify.ts';
import { rowsInOrder } from '../../ledger/verify-rows.ts';
import { encodeValue } from '../../protocol/codec.ts';
import type { LeaseId, PriceId } from '../../protocol/ids.ts';
import { unixMs } from '../../protocol/units.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { ban, meshId } from './feed-stage.ts';
import {
  audit,
  auditing,
  claimBy,
  costMicro,
  early,
  type FeedMaker,
  fromLease,
  gateway,
  issuer,
  lease,
  line,
  node,
  price,
  priced,
  runNamed,
  startMs,
  storeOf,
} from './verify-stage.ts';
import '../support/seed.ts';

const [alice, bob] = [node('alice'), node('bob')];

/** One gateway with two nodes, in two epochs; the second countersigns what the first had left. */
function honest() {
  const money = issuer();
  const first = gateway();
  money.block([priced(), lease(first, 10 * costMicro)], early);
  const one = first.statement(alice.peer, [line('run', 1, fromLease), line('run', 3, fromLease)]);
  const two = first.statement(bob.peer, [line('run', 2, { price })]);
  first.block([one, two]);
  const three = first.statement(alice.peer, [
    line('run', 5, fromLease),
    line('run', 4, { ...fromLease, first: 1, outcome: 'lost' }),
  ]);
  const last = first.block([first.word(alice.key, one), three, claimBy(alice.key, first.peer, [99])]);
  const second = new (first.constructor as typeof FeedMaker)('gateway', 'gateway', 'later', last);
  const four = second.statement(alice.peer, [line('run 2', 1, { price })]);
  second.block([first.word(bob.key, two, [{ index: 0, reason: 'count' }]), four]);
  return { money, first, second, one, two, three, four };
}

const placesOf = async (...feeds: readonly FeedMaker[]): Promise<readonly string[]> =>
  (await audit(await storeOf(...feeds))).problems.map(({ place, what }) => `${place}: ${what}`);

test('what everybody signed as it was has no problems, whatever is not covered yet', async ({ expect }) => {
  const { money, first, second } = honest();
  const store = await storeOf(money, first, second);
  expect(await audit(store)).toEqual({ ok: true, entries: 12, lines: 6, requests: 5, problems: [] });
});

test('processes of two gateways may go by one name', async ({ expect }) => {
  const feeds = ['one', 'two'].map((name) => {
    const g = gateway(name);
    g.block([g.statement(alice.peer, [line('run', 1)])]);
    return g;
  });
  expect(await audit(await storeOf(...feeds))).toMatchObject({ ok: true, lines: 2, requests: 2 });
});

test('nothing is wrong with nothing', async ({ expect }) => {
  expect(await audit(new MemoryStore())).toEqual({ ok: true, entries: 0, lines: 0, requests: 0, problems: [] });
});

/** A lie as a feed of a gateway (`g`) holds it in block 1, and what is said of its entry 0. */
interface Lie {
  readonly name: string;
  readonly tell: (g: FeedMaker) => readonly Entry[];
  readonly found: string;
  /** Which entry is wrong, if not the first. */
  readonly index?: number;
  /** Nobody has set a price. */
  readonly isFree?: true;
}

const lies: readonly Lie[] = [
  {
    name: 'a statement left out of its tab',
    isFree: true,
    tell: (g) => {
      g.statement(alice.peer, [line('run', 1)]);
      return [g.statement(alice.peer, [line('run', 2)], { previous: new Uint8Array(32), totals: totals(1) })];
    },
    found: ': statement 1 of its tab stands where 0 should',
  },
  {
    name: 'a statement that follows another one than is there',
    isFree: true,
    tell: (g) => [g.statement(alice.peer, [line('run', 1)], { previous: new Uint8Array(32).fill(7) })],
    found: ': it does not follow the statement of its tab before it',
  },
  {
    name: 'totals that are less than the lines',
    isFree: true,
    tell: (g) => [g.statement(alice.peer, [line('run', 1)], { totals: { ...totals(1), completionTokens: 19 } })],
    found: ': its totals are not those before it and its lines together',
  },
  {
    name: 'totals with fewer prompt tokens than the lines have',
    isFree: true,
    tell: (g) => [g.statement(alice.peer, [line('run', 1)], { totals: { ...totals(1), promptTokens: 9 } })],
    found: ': its totals are not those before it and its lines together',
  },
  {
    name: 'an attempt that is stated twice',
    isFree: true,
    tell: (g) => [
      g.statement(alice.peer, [line('run', 2), line('run', 1)]),
      g.statement(bob.peer, [line('run', 3), line('run', 1)]),
    ],
    index: 1,
    found: ' line 1 (RUN.1): the attempt was stated before',
  },
  {
    name: 'an entry that is none',
    isFree: true,
    tell: () => [ban(2), { kind: 'other', number: 128, bytes: encodeValue([128, 'nobody']) }],
    index: 1,
    found: ': the author has signed an entry that does not parse: usage: no peer id',
  },
  {
    name: 'progress of an attempt that nobody told of',
    isFree: true,
    tell: (g) => [g.statement(alice.peer, [], { progress: [{ serial: 7, completionTokens: 1 }] })],
    found: ': it tells how far attempt RUN.7 is, which it never told as running',
  },
  {
    name: 'progress of an attempt that has its line',
    isFree: true,
    tell: (g) => [
      g.statement(alice.peer, [], { run: runNamed('run'), running: [line('run', 7, { outcome: 'running' })] }),
      g.statement(alice.peer, [line('run', 7)]),
      g.statement(alice.peer, [], { run: runNamed('run'), progress: [{ serial: 7, completionTokens: 30 }] }),
    ],
    index: 2,
    found: ': it tells how far attempt RUN.7 is, which it never told as running',
  },
  {
    name: 'a countersignature by another node',
    isFree: true,
    tell: (g) => {
      const entry = g.statement(alice.peer, [line('run', 1)]);
      return [{ ...g.word(bob.key, entry), node: alice.peer }, entry];
    },
    found: `: its signature is not that of ${alice.peer}`,
  },
  {
    name: 'a countersignature of a statement of another tab',
    isFree: true,
    tell: (g) => [g.word(bob.key, g.statement(alice.peer, [line('run', 1)]))],
    found: ': it countersigns a statement that does not stand in epoch EPOCH',
  },
  {
    name: 'a countersignature of a statement that another node got',
    isFree: true,
    tell: (g) => {
      const entry = g.statement(alice.peer, [line('run', 1)]);
      return [entry, g.word(bob.key, entry)];
    },
    index: 1,
    found: `: ${bob.peer} countersigns a statement of the tab with ${alice.peer}`,
  },
  {
    name: 'a countersignature that counts a statement as another one',
    isFree: true,
    tell: (g) => {
      const entry = g.statement(alice.peer, [line('run', 1)]);
      const { signature: _, ...word } = g.word(alice.key, entry);
      return [entry, signCountersign({ ...word, number: 5 }, { meshId, gateway: g.peer }, alice.key)];
    },
    index: 1,
    found: ': it names statement 0 of its tab as 5',
  },
  {
    name: 'a claim that the node did not sign',
    isFree: true,
    tell: (g) => [{ ...claimBy(alice.key, g.peer, [1]), node: bob.peer }],
    found: `: its signature is not that of ${bob.peer}`,
  },
  {
    name: 'a price that no issuer has set',
    isFree: true,
    tell: (g) => [g.statement(alice.peer, [line('run', 1, { price: { ...price, id: 'ff'.repeat(8) as PriceId } })])],
    found: ' line 0 (RUN.1): its price ffffffffffffffff is of no entry of an issuer that is held',
  },
  {
    name: 'other numbers than the price has',
    tell: (g) => [
      g.statement(alice.peer, [line('run', 1, { price }), line('run', 2, { price: { ...price, prompt: 1 } })]),
    ],
    found: ` line 1 (RUN.2): its price ${price.id} has other numbers than its entry`,
  },
  {
    name: 'another number for cached tokens than the price has',
    tell: (g) => [g.statement(alice.peer, [line('run', 1, { price: { ...price, cached: price.cached + 1 } })])],
    found: ` line 0 (RUN.1): its price ${price.id} has other numbers than its entry`,
  },
  {
    name: 'a price before it was set',
    tell: (g) => [g.statement(alice.peer, [line('run', 1, { price, startMs: unixMs(startMs - 2_000_000) })])],
    found: ` line 0 (RUN.1): its price ${price.id} was not in force for qwen3 at ${alice.peer} then`,
  },
  {
    name: 'no price where there was one',
    tell: (g) => [g.statement(alice.peer, [line('run', 1)])],
    found: ` line 0 (RUN.1): it has no price, and one was in force for qwen3 at ${alice.peer} then`,
  },
  {
    name: 'a lease that nobody gave',
    tell: (g) => [
      g.statement(alice.peer, [line('run', 1, { ...fromLease, lease: leaseTag('cd'.repeat(16) as LeaseId) })]),
    ],
    found: ` line 0 (RUN.1): it is paid from a lease (tag ${leaseTag('cd'.repeat(16) as LeaseId)}) of which no entry is held`,
  },
  {
    name: 'a lease that is overspent',
    tell: (g) => [
      g.statement(
        alice.peer,
        [1, 2, 3].map((serial) => line('run', serial, fromLease)),
      ),
    ],
    found: ` line 2 (RUN.3): up to it lines spend 150 micro-credits of lease ${'ab'.repeat(16)}, which is 100`,
  },
  {
    name: 'a lease closed with less than was spent',
    tell: (g) => [
      { kind: 'close', lease: 'ab'.repeat(16) as LeaseId, spentMicro: 99 },
      g.statement(
        alice.peer,
        [1, 2].map((serial) => line('run', serial, fromLease)),
      ),
    ],
    found: `: it closes lease ${'ab'.repeat(16)} with 99 micro-credits spent, and lines spend 100`,
  },
  {
    name: 'a close of a lease that nobody gave',
    tell: () => [{ kind: 'close', lease: 'cd'.repeat(16) as LeaseId, spentMicro: 0 }],
    found: `: it closes a lease ${'cd'.repeat(16)} of which no entry is held`,
  },
];

const totals = (lines: number) => ({ lines, promptTokens: 10 * lines, completionTokens: 20 * lines });

describe('names the entry that is wrong:', () => {
  test.for(lies)('$name', async ({ tell, found, index = 0, isFree }, { expect }) => {
    const money = issuer();
    const liar = gateway();
    money.block([...(isFree === true ? [] : [priced()]), lease(liar, 2 * costMicro)], early);
    liar.block([ban(1)]);
    liar.block(tell(liar));
    const { problems } = await audit(await storeOf(money, liar));
    const shown = problems.map(({ place, what }) => `${place}: ${what}`.replace(/\b[0-9a-f]{32}\.(?=\d)/, 'RUN.'));
    const expected = `${liar.author}/${liar.epoch}/1/${index}${found.replace('EPOCH', liar.epoch)}`;
    expect(shown).toEqual([expected]);
  });
});

describe('authors', () => {
  test('an author that may not write is named once an epoch, and its prices do not count', async ({ expect }) => {
    const { money, first, second } = honest();
    const store = await storeOf(money, first, second);
    const mayWrite = async (author: string) => author !== money.author;
    const { problems } = await audit(store, { mayWrite });
    expect(problems[0]).toEqual({
      place: `${money.author}/${money.epoch}/0/0`,
      what: 'the entry does not prove that its author may write in this mesh',
    });
    expect(problems.map(({ what }) => what)).toContain(
      `its price ${price.id} is of no entry of an issuer that is held`,
    );
  });

  test('an issuer states no work', async ({ expect }) => {
    const money = issuer();
    money.block([money.statement(alice.peer, [line('run', 1)])]);
    expect(await placesOf(money)).toEqual([
      `${money.author}/${money.epoch}/0/1: issuers have no work with nodes to state`,
    ]);
  });

  test('a fork is a problem until the root has lifted it', async ({ expect }) => {
    const { money, first, second } = honest();
    const other = gateway();
    other.block([ban(7)]);
    const store = await storeOf(money, first, second);
    const [a, b] = [first.blocks[0], other.blocks[0]] as [Block, Block];
    const key = proofKey(first.author, first.epoch);
    await store.batch([{ type: 'put', key, value: writeProofRow(key, { a: a.head, b: b.head }) }]);
    expect((await audit(store)).problems).toEqual([
      { place: `${first.author}/${first.epoch}/0`, what: 'the author has signed two blocks for this place: a fork' },
    ]);
    const lifted = liftKey(first.author, first.epoch);
    await store.batch([{ type: 'put', key: lifted, value: writeLiftRow(lifted) }]);
    expect((await audit(store)).ok).toBe(true);
  });
});

describe('a line that is stated twice', () => {
  /** The second process states what the first had stated; the node refuses one of both. */
  async function twice(refuses: 'first' | 'second' | 'none') {
    const one = gateway();
    const before = one.statement(alice.peer, [line('run', 1)]);
    const last = one.block([before]);
    const two = new (one.constructor as typeof FeedMaker)('gateway', 'gateway', 'later', last);
    const again = two.statement(alice.peer, [line('run', 1), line('run 2', 1)]);
    const refused = [{ index: 0, reason: 'repeated' }] as const;
    two.block([
      one.word(alice.key, before, refuses === 'first' ? refused : []),
      again,
      two.word(alice.key, again, refuses === 'second' ? refused : []),
    ]);
    return { report: await audit(await storeOf(one, two)), two };
  }

  test('is settled where its node has refused it as repeated', async ({ expect }) => {
    expect((await twice('second')).report).toMatchObject({ ok: true, lines: 3, requests: 2 });
  });

  test('is a problem otherwise, and it is the later one', async ({ expect }) => {
    const { report, two } = await twice('none');
    const place = `${two.author}/${two.epoch}/0/2 line 0 (${line('run', 1).run}.1)`;
    expect(report.problems).toEqual([{ place, what: 'the attempt was stated before' }]);
  });
});

describe('what a node says', () => {
  test('twice, and not the same', async ({ expect }) => {
    const g = gateway();
    const entry = g.statement(alice.peer, [line('run', 1)]);
    g.block([entry, g.word(alice.key, entry), g.word(alice.key, entry)]);
    g.block([g.word(alice.key, entry, [{ index: 0, reason: 'unknown' }])]);
    expect(await placesOf(g)).toEqual([
      `${g.author}/${g.epoch}/1/0: ${alice.peer} has signed another word on this statement before`,
    ]);
  });

  test('of lines that there are not', async ({ expect }) => {
    const g = gateway();
    const entry = g.statement(alice.peer, [line('run', 1)]);
    g.block([entry, g.word(alice.key, entry, [{ index: 1, reason: 'unknown' }])]);
    expect(await placesOf(g)).toEqual([`${g.author}/${g.epoch}/0/2: it refuses line 1 of 1`]);
  });
});

describe('what is missing', () => {
  const drop = async (store: MemoryStore, block: Block): Promise<void> =>
    store.batch([{ type: 'del', key: blockKey(block.head.header) }]);

  test('a hole is told once, and what stands behind it is read on', async ({ expect }) => {
    const g = gateway();
    const made = [1, 2, 3].map((serial) => g.statement(alice.peer, [line('run', serial)]));
    for (const entry of made) g.block([entry]);
    const store = await storeOf(g);
    await drop(store, g.blocks[1] as Block);
    expect(await audit(store)).toEqual({
      ok: false,
      entries: 3,
      lines: 2,
      requests: 2,
      problems: [{ place: `${g.author}/${g.epoch}/1`, what: 'blocks are missing from here on' }],
    });
  });

  test('the end of an epoch, when a later one names it', async ({ expect }) => {
    const { money, first, second } = honest();
    const store = await storeOf(money, first, second);
    await drop(store, first.blocks[1] as Block);
    const { problems } = await audit(store);
    expect(problems).toEqual([
      {
        place: `${first.author}/${first.epoch}/1`,
        what: `blocks up to 1 are missing, which epoch ${second.epoch} follows`,
      },
    ]);
  });

  test('the end of an epoch that has a hole, too', async ({ expect }) => {
    const g = gateway();
    for (const at of [0, 1, 2, 3]) g.block([ban(at)]);
    const [, second, , last] = g.blocks as [Block, Block, Block, Block];
    const later = new (g.constructor as typeof FeedMaker)('gateway', 'gateway', 'later', last);
    later.block([]);
    const store = await storeOf(g, later);
    for (const block of [second, last]) await drop(store, block);
    const { problems } = await audit(store);
    expect(problems.map(({ place, what }) => `${place}: ${what}`).sort()).toEqual([
      `${g.author}/${g.epoch}/1: blocks are missing from here on`,
      `${g.author}/${g.epoch}/3: blocks up to 3 are missing, which epoch ${later.epoch} follows`,
    ]);
  });

  test('what an epoch says it follows, where another block stands', async ({ expect }) => {
    const g = gateway();
    const last = g.block([ban(1)]);
    const later = new (g.constructor as typeof FeedMaker)('gateway', 'gateway', 'later', last);
    later.block([], { previous: new Uint8Array(32).fill(7) });
    expect(await placesOf(g, later)).toEqual([
      `${g.author}/${later.epoch}/0: the block does not follow block 0 of epoch ${g.epoch}, which it names`,
    ]);
  });

  test('a block that comes twice is not passed over', async ({ expect }) => {
    const g = gateway();
    for (const at of [1, 2]) g.block([ban(at)]);
    const rows = g.blocks.map((block) => {
      const key = blockKey(block.head.header);
      return [key, writeBlockRow(key, block)] as const;
    });
    async function* twice() {
      yield* rows;
      yield* rows.toReversed();
    }
    const { problems } = await verifyFeeds(twice(), auditing);
    const what = 'the block comes twice, or too late';
    expect(problems).toEqual([1, 0].map((number) => ({ place: `${g.author}/${g.epoch}/${number}`, what })));
  });
});

describe('blocks whose settled statements are gone', () => {
  const pruned = (block: Block, keeps: (entry: Entry) => boolean): PrunedBlock =>
    prune(block, (entry) => !keeps(entry)) as PrunedBlock;

  async function prunedStore(g: FeedMaker, at: number, keeps: (entry: Entry) => boolean): Promise<MemoryStore> {
    const store = await storeOf(g);
    const block = g.blocks[at] as Block;
    const key = blockKey(block.head.header);
    await store.batch([{ type: 'put', key, value: writePrunedRow(key, pruned(block, keeps)) }]);
    return store;
  }

  /** Each block holds a statement, and the word on the one before. */
  function worked(): FeedMaker {
    const g = gateway();
    const entries = [1, 2, 3].map((serial) => g.statement(alice.peer, [line('run', serial)]));
    for (const [at, entry] of entries.entries()) {
      const before = entries[at - 1];
      g.block(before === undefined ? [entry] : [entry, g.word(alice.key, before)]);
    }
    return g;
  }

  test('are told, and what is left of them is checked', async ({ expect }) => {
    const store = await prunedStore(worked(), 0, ({ kind }) => kind !== 'statement');
    expect(await audit(store)).toEqual({ ok: true, entries: 5, lines: 2, requests: 2, pruned: 1, problems: [] });
  });

  test('still say who may write', async ({ expect }) => {
    const g = gateway();
    g.block([ban(1), g.statement(alice.peer, [line('run', 1)])]);
    const store = await prunedStore(g, 0, ({ kind }) => kind === 'ban');
    const place = `${g.author}/${g.epoch}/0`;
    const what = 'an epoch begins with it, and no entry says who its author is';
    expect(await audit(store)).toMatchObject({ ok: false, problems: [{ place, what }] });
    const whole = await prunedStore(g, 0, ({ kind }) => kind !== 'statement');
    expect((await audit(whole, { mayWrite: async () => false })).ok).toBe(false);
  });
});

test('every byte that changes in a value is found, and in a key unless the row is gone and nothing names it', {
  timeout: 120_000,
}, async ({ expect }) => {
  const { money, first, second } = honest();
  const forked = gateway('forked');
  forked.block([ban(1)]);
  const branch = gateway('forked');
  branch.block([ban(2)]);
  const whole = await storeOf(money, first, second, forked);
  const key = proofKey(forked.author, forked.epoch);
  const proof = { a: (forked.blocks[0] as Block).head, b: (branch.blocks[0] as Block).head };
  const lift = liftKey(forked.author, forked.epoch);
  await whole.batch([
    { type: 'put', key, value: writeProofRow(key, proof) },
    { type: 'put', key: lift, value: writeLiftRow(lift) },
  ]);
  const rows: (readonly [Uint8Array, Uint8Array])[] = [];
  for await (const row of rowsInOrder(whole)) rows.push(row);
  expect((await audit(whole)).ok).toBe(true);
  const isFound = async (at: number, row: readonly [Uint8Array, Uint8Array]): Promise<boolean> => {
    const store = new MemoryStore();
    const all = rows.with(at, row);
    await store.batch(all.map(([k, value]) => ({ type: 'put', key: k, value })));
    return !(await audit(store)).ok;
  };
  const flip = (bytes: Uint8Array, at: number): Uint8Array => bytes.with(at, (bytes[at] ?? 0) ^ (1 << (at % 8)));
  const counts = { values: 0, valuesFound: 0, keys: 0, keysFound: 0 };
  const unseen: string[] = [];
  for (const [at, [k, value]] of rows.entries()) {
    for (let byte = 0; byte < value.length; byte += 1) {
      counts.values += 1;
      if (await isFound(at, [k, flip(value, byte)])) counts.valuesFound += 1;
    }
    for (let byte = 0; byte < k.length; byte += 1) {
      counts.keys += 1;
      if (await isFound(at, [flip(k, byte), value])) counts.keysFound += 1;
      else unseen.push(`row ${at} byte ${byte}`);
    }
  }
  console.info(`flipped bytes: ${JSON.stringify(counts)}; not found in keys: ${unseen.join(', ')}`);
  expect(counts.valuesFound).toBe(counts.values);
  // Without its first two bytes a key is none of a feed: the row is lost, and so may be the end of the newest epoch.
  expect(unseen.every((where) => /byte [01]$/.test(where))).toBe(true);
});

test('however lines are cut into statements and blocks, they are right and counted', async ({ expect }) => {
  const cuts = fc.array(
    fc.record({ lines: fc.integer({ min: 1, max: 9 }), by: fc.constantFrom(alice, bob), ends: fc.boolean() }),
    {
      minLength: 1,
      maxLength: 12,
    },
  );
  await fc.assert(
    fc.asyncProperty(cuts, async (parts) => {
      const g = gateway();
      let serial = 0;
      let waiting: Entry[] = [];
      for (const { lines, by, ends } of parts) {
        const some = Array.from({ length: lines }, () => {
          serial += 1;
          return line('run', serial);
        });
        const entry = g.statement(by.peer, some);
        waiting.push(entry, g.word(by.key, entry));
        if (!ends) continue;
        g.block(waiting);
        waiting = [];
      }
      g.block([ban(1), ...waiting]);
      expect(await audit(await storeOf(g))).toMatchObject({ ok: true, lines: serial, requests: serial });
    }),
    { numRuns: 25 },
  );
});
