/** Feeds: what is accepted, in what order, and what a fork does. */

import fc from 'fast-check';
import { test } from 'vitest';
import { type Block, type OpenBlock, openPartOf } from '../../ledger/block.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import {
  authorNamed,
  BlockMaker,
  ban,
  codeOf,
  Disk,
  DiskStore,
  epochNamed,
  firstEntry,
  headsOf,
  linesOf,
  openFeeds,
  revoke,
  somePeer,
  writerOf,
} from './feed-stage.ts';
import '../support/seed.ts';

/** Blocks of one epoch with one entry each. */
function chain(name: string, epoch: string, count: number, from = 0): Block[] {
  const maker = new BlockMaker(name, epoch);
  return Array.from({ length: count }, (_, at) => maker.next([ban(from + 2 * at), revoke(from + 2 * at + 1)]));
}

test('a block is on disk, and its entries are told, before it is accepted', async ({ expect }) => {
  const store = new DiskStore(new Disk());
  const peer = await openFeeds(store);
  let open: () => void = () => {};
  store.gate = new Promise((resolve) => {
    open = resolve;
  });
  const [block] = chain('a', 'e', 1) as [Block];
  let outcome: string | undefined;
  const accepted = peer.feeds.accept(block).then((acceptance) => {
    outcome = acceptance;
  });
  const again = peer.feeds.accept(block);
  while (store.batches === 0) await peer.clock.turn();
  expect([outcome, peer.told.length, peer.added.length, peer.feeds.heads().length]).toEqual([undefined, 0, 0, 0]);
  expect(await peer.feeds.headerAt(block.head.header)).toBeUndefined();
  expect(await peer.feeds.read(authorNamed('a'), epochNamed('e'), 0, 1_000)).toEqual([]);
  open();
  await accepted;
  expect([outcome, await again, peer.told.length, peer.added]).toEqual(['new', 'known', 3, [block]]);
  expect((await peer.feeds.headerAt(block.head.header))?.hash).toEqual(block.head.hash);
  const place = { author: authorNamed('a'), epoch: epochNamed('e'), number: 0, generation: 0, timeMs: 1_000 };
  const entries = [firstEntry(), ban(0), revoke(1)];
  expect(peer.told).toEqual(
    entries.map((entry, index) => ({
      entry,
      bytes: block.entries[index],
      place: { ...place, index, isAfterFork: false },
    })),
  );
});

test('blocks that are handed over together share syncs, and are judged in order', async ({ expect }) => {
  const store = new DiskStore(new Disk());
  const { feeds, told } = await openFeeds(store);
  const blocks = chain('a', 'e', 100);
  const before = store.batches;
  const outcomes = await Promise.all(blocks.map((block) => feeds.accept(block)));
  expect(new Set(outcomes)).toEqual(new Set(['new']));
  expect(store.batches - before).toBe(1);
  expect(told.map(({ place }) => place.number)).toEqual(told.map(({ place }) => place.number).sort((a, b) => a - b));
  expect(feeds.headOf(authorNamed('a'), epochNamed('e'))?.number).toBe(99);
});

test('a block without the one before it is a gap, until that has come', async ({ expect }) => {
  const { feeds } = await openFeeds();
  const [first, second, third] = chain('a', 'e', 3) as [Block, Block, Block];
  expect(await feeds.accept(second)).toBe('gap');
  expect(await feeds.accept(first)).toBe('new');
  expect(await feeds.accept(third)).toBe('gap');
  expect(await feeds.accept(second)).toBe('new');
  expect(await feeds.accept(third)).toBe('new');
  expect(await feeds.accept(first)).toBe('known');
});

test('generation, previous hash and first entry are what they must be', async ({ expect }) => {
  const { feeds } = await openFeeds();
  const maker = new BlockMaker('a', 'e');
  await feeds.accept(maker.next([ban(1)]));
  expect(await feeds.accept(maker.branch().next([ban(2)], { generation: 1 }))).toBe('invalid');
  expect(await feeds.accept(maker.branch().next([ban(2)], { previous: new Uint8Array(32) }))).toBe('gap');
  const other = new BlockMaker('a', 'other');
  other.number = 1;
  expect(await feeds.accept(other.next([ban(1)], { number: 0 }))).toBe('invalid');
  expect(await feeds.accept(maker.next([ban(2)]))).toBe('new');
});

test('an author that may not write is refused, and asked about once for each epoch', async ({ expect }) => {
  const asked: unknown[] = [];
  const peer = await openFeeds(undefined, {
    mayWrite: async (author, first, atMs) => {
      asked.push([author, first.peer, atMs]);
      if (author === authorNamed('broken')) throw new HelixFlowError('TOKEN_INVALID', { reason: 'signature' });
      return author === authorNamed('a');
    },
  });
  const outcomes = [];
  for (const name of ['a', 'b', 'broken']) {
    for (const block of chain(name, 'e', 2)) outcomes.push(await peer.feeds.accept(block));
  }
  expect(outcomes).toEqual(['new', 'new', 'refused', 'gap', 'refused', 'gap']);
  expect(asked).toEqual(['a', 'b', 'broken'].map((name) => [authorNamed(name), somePeer, 1_000]));
  expect(new Set(peer.told.map(({ place }) => place.author))).toEqual(new Set([authorNamed('a')]));
});

test('blocks of one epoch do not overtake each other while an author is being judged', async ({ expect }) => {
  let judge: (answer: boolean) => void = () => {};
  const mayWrite = () =>
    new Promise<boolean>((resolve) => {
      judge = resolve;
    });
  const { feeds, clock } = await openFeeds(undefined, { mayWrite });
  const blocks = chain('a', 'e', 3);
  const twice = [...blocks, ...blocks].map((block) => feeds.accept(block));
  await clock.turn();
  judge(true);
  expect(await Promise.all(twice)).toEqual(['new', 'new', 'new', 'known', 'known', 'known']);
});

test('two blocks of one place prove a fork, which freezes the author and outlives the process', async ({ expect }) => {
  const disk = new Disk();
  const peer = await openFeeds(new DiskStore(disk));
  const maker = new BlockMaker('a', 'e');
  const first = maker.next([ban(1)]);
  const branch = maker.branch();
  const held = [first, maker.next([ban(2)]), maker.next([ban(3)])];
  const other = branch.next([ban(4)]);
  for (const block of held) await peer.feeds.accept(block);
  expect(peer.feeds.isFrozen(authorNamed('a'))).toBe(false);
  const before = peer.told.length;
  expect(await peer.feeds.accept(other)).toBe('forked');
  expect(peer.forks).toEqual([{ a: held[1]?.head, b: other.head }]);
  expect(peer.told.slice(before).map(({ place }) => [place.number, place.isAfterFork])).toEqual([
    [1, true],
    [2, true],
  ]);
  expect(await peer.feeds.accept(other)).toBe('frozen');
  expect(await peer.feeds.accept(branch.next([ban(5)]))).toBe('frozen');
  expect(await peer.feeds.accept(new BlockMaker('a', 'later', 1).next([]))).toBe('frozen');
  expect(await peer.feeds.accept(first)).toBe('known');

  const again = await openFeeds(new DiskStore(disk));
  expect(again.report.damaged).toEqual([]);
  expect(again.feeds.isFrozen(authorNamed('a'))).toBe(true);
  expect(again.feeds.proofs()).toEqual(peer.feeds.proofs());
  expect(again.told.map(({ place }) => place.isAfterFork)).toEqual([false, false, true, true]);
  expect(await again.feeds.accept(maker.next([ban(6)]))).toBe('frozen');
});

test('a proof from elsewhere freezes as one’s own does; what is no proof does not', async ({ expect }) => {
  const giver = await openFeeds();
  const taker = await openFeeds();
  const maker = new BlockMaker('a', 'e');
  const first = maker.next([ban(1)]);
  const [left, right] = [maker.branch().next([ban(2)]), maker.next([ban(3)])];
  for (const { feeds } of [giver, taker]) await feeds.accept(first);
  await taker.feeds.accept(left);
  const proof = { a: left.head, b: right.head };
  expect(await taker.feeds.acceptProof({ a: left.head, b: left.head })).toBe(false);
  expect(await taker.feeds.acceptProof({ a: left.head, b: first.head })).toBe(false);
  const forged = { ...right.head, signature: left.head.signature };
  expect(await taker.feeds.acceptProof({ a: left.head, b: forged })).toBe(false);
  expect(await taker.feeds.acceptProof({ a: left.head, b: { ...right.head, bytes: new Uint8Array(3) } })).toBe(false);
  expect(taker.feeds.isFrozen(maker.author)).toBe(false);
  expect([await taker.feeds.acceptProof(proof), await taker.feeds.acceptProof(proof)]).toEqual([true, false]);
  expect([taker.forks, taker.feeds.isFrozen(maker.author)]).toEqual([[proof], true]);
  expect(taker.told.at(-1)?.place.isAfterFork).toBe(true);
});

test('a proof that comes before its author counts from the first block on', async ({ expect }) => {
  const { feeds, forks, told } = await openFeeds();
  const maker = new BlockMaker('a', 'e');
  const first = maker.next([ban(1)]);
  const proof = { a: maker.branch().next([ban(2)]).head, b: maker.next([ban(3)]).head };
  expect(await feeds.acceptProof(proof)).toBe(false);
  expect([feeds.proofs(), await feeds.accept(first)]).toEqual([[], 'frozen']);
  expect([forks, told, feeds.isFrozen(maker.author)]).toEqual([[proof], [], true]);
});

test('nobody fills memory or disk with proofs about authors that nobody knows', async ({ expect }) => {
  const store = new DiskStore(new Disk());
  const { feeds } = await openFeeds(store);
  for (let at = 0; at < 300; at += 1) {
    const maker = new BlockMaker(`stranger ${at}`, 'e');
    await feeds.acceptProof({ a: maker.branch().next([ban(1)]).head, b: maker.next([ban(2)]).head });
  }
  expect([store.disk.rows.size, feeds.proofs()]).toEqual([0, []]);
});

test('the earliest fork of an epoch counts, whichever was found first', async ({ expect }) => {
  const { feeds, told, forks } = await openFeeds();
  const maker = new BlockMaker('a', 'e');
  const root = maker.next([ban(1)]);
  const branch = maker.branch();
  const [left1, left2] = [maker.next([ban(2)]), maker.next([ban(3)])];
  const [right1, right2] = [branch.next([ban(4)]), branch.next([ban(5)])];
  for (const block of [root, left1, left2]) await feeds.accept(block);
  expect(await feeds.accept(right2)).toBe('forked');
  expect(await feeds.acceptProof({ a: left1.head, b: right1.head })).toBe(true);
  expect(await feeds.acceptProof({ a: left2.head, b: right2.head })).toBe(false);
  expect(forks.map(({ a }) => a.header.number)).toEqual([2, 1]);
  expect(feeds.proofs()).toEqual([{ a: left1.head, b: right1.head }]);
  const after = new Set(told.filter(({ place }) => place.isAfterFork).map(({ place }) => place.number));
  expect(after).toEqual(new Set([1, 2]));
});

test('a lift lets other epochs grow again, and never the forked one', async ({ expect }) => {
  const disk = new Disk();
  const peer = await openFeeds(new DiskStore(disk));
  const maker = new BlockMaker('a', 'e');
  await peer.feeds.accept(maker.next([ban(1)]));
  const rest = maker.branch();
  await peer.feeds.accept(maker.next([ban(2)]));
  expect(await peer.feeds.accept(rest.next([ban(3)]))).toBe('forked');
  await peer.feeds.lift(maker.author, epochNamed('another'));
  expect(peer.feeds.isFrozen(maker.author)).toBe(true);
  await peer.feeds.lift(maker.author, maker.epoch);
  const later = new BlockMaker('a', 'later', 1);
  const again = await openFeeds(new DiskStore(disk));
  for (const { feeds } of [peer, again]) expect(feeds.isFrozen(maker.author)).toBe(false);
  expect(await again.feeds.accept(later.next([ban(4)]))).toBe('new');
  expect(await again.feeds.accept(maker.next([ban(5)]))).toBe('frozen');
  expect(again.told.at(-1)?.place.isAfterFork).toBe(false);
});

test('nodes hold the open entries with their proofs, and serve them', async ({ expect }) => {
  const disk = new Disk();
  const node = await openFeeds(new DiskStore(disk), { holds: 'open' });
  const whole = chain('a', 'e', 3);
  const open = whole.map(openPartOf);
  for (const block of [...open, ...whole]) await node.feeds.accept(block);
  expect(new Set(node.told.map(({ entry }) => entry.kind))).toEqual(new Set(['author', 'ban']));
  expect(await node.feeds.read(authorNamed('a'), epochNamed('e'), 1, 100_000)).toEqual(open.slice(1));
  const again = await openFeeds(new DiskStore(disk), { holds: 'open' });
  expect([again.report.damaged, linesOf(again.told)]).toEqual([[], linesOf(node.told)]);
  const gateway = await openFeeds();
  expect(await gateway.feeds.accept(open[0] as OpenBlock)).toBe('invalid');
});

test('a node cannot be kept from an open entry, nor be told another', async ({ expect }) => {
  const { feeds, told } = await openFeeds(undefined, { holds: 'open' });
  const [first] = chain('a', 'e', 1) as [Block];
  const { head, open } = openPartOf(first);
  const [author, banned] = open as [(typeof open)[0], (typeof open)[0]];
  const bad: OpenBlock[] = [
    { head, open: [author] },
    { head, open: [author, author] },
    { head, open: [author, { ...banned, bytes: author.bytes }] },
    { head, open: [author, { ...banned, index: 2 }] },
    { head, open: [author, { ...banned, path: banned.path.slice(1) }] },
    { head, open: [author, banned, { ...banned, index: 2 }] },
  ];
  for (const block of bad) expect(await feeds.accept(block)).toBe('invalid');
  expect([told.length, await feeds.accept({ head, open }), told.length]).toEqual([0, 'new', 2]);
});

test('reads give what was asked for: from a place on, up to some bytes, one at least', async ({ expect }) => {
  const { feeds } = await openFeeds();
  const blocks = chain('a', 'e', 5);
  for (const block of blocks) await feeds.accept(block);
  const [author, epoch] = [authorNamed('a'), epochNamed('e')];
  expect(await feeds.read(author, epoch, 0, 1_000_000)).toEqual(blocks);
  expect(await feeds.read(author, epoch, 3, 1_000_000)).toEqual(blocks.slice(3));
  expect(await feeds.read(author, epoch, 1, 1)).toEqual(blocks.slice(1, 2));
  expect(await feeds.read(author, epoch, 5, 1_000)).toEqual([]);
  expect(await feeds.read(author, epochNamed('none'), 0, 1_000)).toEqual([]);
  expect(await feeds.read(authorNamed('none'), epoch, Number.MAX_SAFE_INTEGER - 2, 1_000)).toEqual([]);
});

test('heads come in one order, and the newest epoch is the one of the highest generation', async ({ expect }) => {
  const { feeds } = await openFeeds();
  const [early, late] = [new BlockMaker('a', 'x', 3), new BlockMaker('a', 'y', 7)];
  for (const maker of [late, early, new BlockMaker('b', 'z')]) await feeds.accept(maker.next([ban(1)]));
  expect(feeds.newestOf(authorNamed('a'))).toMatchObject({ epoch: late.epoch, generation: 7, number: 0 });
  expect(feeds.newestOf(authorNamed('none'))).toBeUndefined();
  const listed = feeds.heads().map(({ author, generation }) => [author, generation]);
  const ordered = [...listed].sort(([a = '', x = 0], [b = '', y = 0]) =>
    a < b ? -1 : a > b ? 1 : Number(x) - Number(y),
  );
  expect(listed).toEqual(ordered);
});

test('an author begins no more epochs than there is room for', { timeout: 60_000 }, async ({ expect }) => {
  const peer = await openFeeds();
  const { feeds } = peer;
  const begin = (at: number) => feeds.accept(new BlockMaker('a', `epoch ${at}`, at).next([]));
  const outcomes = await Promise.all(Array.from({ length: limits.epochsPerAuthorMax }, (_, at) => begin(at)));
  expect(new Set(outcomes)).toEqual(new Set(['new']));
  expect(await begin(limits.epochsPerAuthorMax)).toBe('refused');
  expect(await feeds.accept(new BlockMaker('b', 'e').next([]))).toBe('new');
  expect(feeds.heads()).toHaveLength(limits.epochsPerAuthorMax + 1);
  const own = writerOf(peer, 'a');
  expect((await own.append([ban(1)]))[0]?.generation).toBe(limits.epochsPerAuthorMax);
  expect(await codeOf(writerOf(peer, 'a').append([ban(2)]))).toBe('LEDGER_UNREADY');
  expect(await codeOf(own.append([ban(3)]))).toBe('did not fail');
});

test('no more authors are followed than there is room for', { timeout: 60_000 }, async ({ expect }) => {
  const { feeds } = await openFeeds();
  const begin = (at: number) => feeds.accept(new BlockMaker(`author ${at}`, 'e').next([]));
  const outcomes = await Promise.all(Array.from({ length: limits.authorsMax }, (_, at) => begin(at)));
  expect(new Set(outcomes)).toEqual(new Set(['new']));
  expect([await begin(limits.authorsMax), await begin(7)]).toEqual(['refused', 'known']);
});

test('what arrives in any order, with gaps tried again, comes to the same', async ({ expect }) => {
  const all = ['a', 'b'].flatMap((name) => ['x', 'y'].flatMap((epoch) => chain(name, epoch, 4)));
  const straight = await openFeeds();
  for (const block of all) expect(await straight.feeds.accept(block)).toBe('new');
  const order = fc.shuffledSubarray([...all.keys()], { minLength: all.length });
  await fc.assert(
    fc.asyncProperty(order, fc.boolean(), async (permutation, isTogether) => {
      const { feeds, told } = await openFeeds();
      let waiting = permutation.map((at) => all[at] as Block);
      for (let round = 0; waiting.length > 0; round += 1) {
        expect(round).toBeLessThan(all.length);
        const outcomes = isTogether ? await Promise.all(waiting.map((block) => feeds.accept(block))) : [];
        if (!isTogether) for (const block of waiting) outcomes.push(await feeds.accept(block));
        expect(outcomes.filter((outcome) => outcome !== 'new' && outcome !== 'gap')).toEqual([]);
        waiting = waiting.filter((_, at) => outcomes[at] === 'gap');
      }
      expect([headsOf(feeds), linesOf(told)]).toEqual([headsOf(straight.feeds), linesOf(straight.told)]);
    }),
    { numRuns: 40 },
  );
});

test('a fork is found in whatever order its branches arrive', async ({ expect }) => {
  const maker = new BlockMaker('a', 'e');
  const trunk = [maker.next([ban(1)]), maker.next([ban(2)])];
  const branch = maker.branch();
  const all = [...trunk, ...[3, 4].map((at) => maker.next([ban(at)])), ...[5, 6].map((at) => branch.next([ban(at)]))];
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray([...all.keys()], { minLength: all.length }), async (permutation) => {
      const { feeds, forks, told } = await openFeeds();
      for (let round = 0; round < 4; round += 1) {
        for (const at of permutation) await feeds.accept(all[at] as Block);
      }
      expect([feeds.isFrozen(maker.author), feeds.proofs().map(({ a }) => a.header.number)]).toEqual([true, [2]]);
      expect(forks.at(-1)?.a.header.number).toBe(2);
      const last = new Map(told.map(({ place }) => [`${place.number}/${place.index}`, place]));
      for (const place of last.values()) expect(place.isAfterFork).toBe(place.number >= 2);
    }),
    { numRuns: 60 },
  );
});

test('no mutated block is accepted, and none proves a fork', async ({ expect }) => {
  const blocks = chain('a', 'e', 3);
  const { feeds, told, forks } = await openFeeds();
  await feeds.accept(blocks[0] as Block);
  const lines = linesOf(told);
  const flip = (bytes: Uint8Array, at: number, bit: number): Uint8Array => {
    const copy = bytes.slice();
    const place = at % Math.max(1, copy.length);
    copy[place] = (copy[place] ?? 0) ^ (1 << bit);
    return copy;
  };
  const mutation = fc.record({
    of: fc.nat(1),
    what: fc.constantFrom('header', 'signature', 'entry', 'order', 'drop', 'double', 'cut', 'swap'),
    at: fc.nat(1_000),
    bit: fc.nat(7),
  });
  await fc.assert(
    fc.asyncProperty(mutation, async ({ of, what, at, bit }) => {
      const { head, entries } = blocks[of] as Block;
      const entry = at % entries.length;
      const mutated: Record<typeof what, Block> = {
        header: { head: { ...head, bytes: flip(head.bytes, at, bit) }, entries },
        signature: { head: { ...head, signature: flip(head.signature, at, bit) }, entries },
        entry: { head, entries: entries.with(entry, flip(entries[entry] as Uint8Array, at, bit)) },
        order: { head, entries: entries.toReversed() },
        drop: { head, entries: entries.filter((_, index) => index !== entry) },
        double: { head, entries: [...entries, entries[entry] as Uint8Array] },
        cut: { head: { ...head, bytes: head.bytes.slice(0, at % head.bytes.length) }, entries },
        swap: { head: { ...(blocks[2] as Block).head, signature: head.signature }, entries },
      };
      // The block that is held is known by its header, whatever was put around it.
      expect(['invalid', ...(of === 0 ? ['known'] : [])]).toContain(await feeds.accept(mutated[what]));
    }),
    { numRuns: 2_000 },
  );
  expect([linesOf(told), forks, await feeds.accept(blocks[1] as Block)]).toEqual([lines, [], 'new']);
});

test('after the store has failed nothing is accepted, and after close neither', async ({ expect }) => {
  const store = new DiskStore(new Disk());
  const failing = await openFeeds(store);
  const [first, second] = chain('a', 'e', 2) as [Block, Block];
  await failing.feeds.accept(first);
  store.failure = new HelixFlowError('STORE_FAILED', { reason: 'broken' });
  expect(await codeOf(failing.feeds.accept(second))).toBe('STORE_FAILED');
  store.failure = undefined;
  expect(await codeOf(failing.feeds.accept(second))).toBe('STORE_FAILED');
  expect(failing.feeds.headOf(authorNamed('a'), epochNamed('e'))?.number).toBe(0);
  const closed = await openFeeds();
  await closed.feeds.close();
  expect(await codeOf(closed.feeds.accept(first))).toBe('LEDGER_UNREADY');
});
