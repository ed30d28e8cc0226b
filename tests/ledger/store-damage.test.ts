/** Damaged disks: whatever byte of a store changes, what is told is true, and what is missing can be had again. */

import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { test } from 'vitest';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import type { Block, OpenBlock } from '../../ledger/block.ts';
import { openPartOf } from '../../ledger/block.ts';
import { blockKey, writeBlockRow } from '../../ledger/feed-rows.ts';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { Store } from '../../protocol/ports.ts';
import {
  BlockMaker,
  ban,
  Disk,
  DiskStore,
  type FeedPeer,
  headsOf,
  keyNamed,
  linesOf,
  openFeeds,
  revoke,
  writerOf,
} from './feed-stage.ts';
import '../support/seed.ts';

/** Two authors, one of them with two epochs. */
function someBlocks(): Block[] {
  const [a, b, c] = [new BlockMaker('a', 'x'), new BlockMaker('a', 'y', 1), new BlockMaker('b', 'z')];
  const blocks = [a.next([ban(1), revoke(2)]), a.next([ban(3)]), a.next([revoke(4)]), a.next([ban(5)])];
  return [...blocks, b.next([ban(6)]), b.next([revoke(7)]), c.next([ban(8), ban(9)])];
}

async function diskWith(blocks: readonly (Block | OpenBlock)[], holds: 'all' | 'open' = 'all'): Promise<Disk> {
  const disk = new Disk();
  const { feeds } = await openFeeds(new DiskStore(disk), { holds });
  for (const block of blocks) await feeds.accept(block);
  return disk;
}

const isSubset = (some: readonly string[], all: ReadonlySet<string>): boolean => some.every((line) => all.has(line));

/** Every copy of the disk with one byte of one key or one value changed. */
function* flips(disk: Disk): Generator<{ readonly damaged: Disk; readonly what: string }> {
  for (const [key, value] of disk.rows) {
    for (let at = 0; at < key.length / 2; at += 1) {
      const bytes = Buffer.from(key, 'hex');
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
      const damaged = disk.copy();
      damaged.rows.delete(key);
      damaged.rows.set(bytes.toString('hex'), value.slice());
      yield { damaged, what: `byte ${at} of key ${key}` };
    }
    for (let at = 0; at < value.length; at += 1) {
      const damaged = disk.copy();
      const bytes = value.slice();
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
      damaged.rows.set(key, bytes);
      yield { damaged, what: `byte ${at} of the value of ${key}` };
    }
  }
}

const seenOf = ({ feeds, told }: FeedPeer) => ({ heads: headsOf(feeds), lines: linesOf(told) });

test('every byte of every key and value that changes is found or harmless, and healed by others', {
  timeout: 60_000,
}, async ({ expect }) => {
  const blocks = someBlocks();
  const disk = await diskWith(blocks);
  const whole = seenOf(await openFeeds(new DiskStore(disk)));
  const truth = new Set(whole.lines);
  let found = 0;
  for (const { damaged, what } of flips(disk)) {
    const peer = await openFeeds(new DiskStore(damaged));
    const seen = seenOf(peer);
    expect(isSubset(seen.lines, truth), what).toBe(true);
    const isMissing = seen.lines.length < whole.lines.length;
    const isShown = peer.report.damaged.length > 0 || seen.heads.join() !== whole.heads.join();
    expect(isMissing && !isShown, what).toBe(false);
    if (isMissing) found += 1;

    await Promise.all(blocks.map((block) => peer.feeds.accept(block)));
    expect(seenOf(peer), what).toEqual(whole);
    const again = await openFeeds(new DiskStore(damaged));
    expect([seenOf(again), again.report.damaged], what).toEqual([whole, []]);
  }
  expect(found).toBeGreaterThan(1_000);
});

test('every byte of a node’s store that changes is found or harmless', { timeout: 60_000 }, async ({ expect }) => {
  const disk = await diskWith(someBlocks().map(openPartOf).slice(0, 4), 'open');
  const whole = seenOf(await openFeeds(new DiskStore(disk), { holds: 'open' }));
  const truth = new Set(whole.lines);
  for (const { damaged, what } of flips(disk)) {
    const peer = await openFeeds(new DiskStore(damaged), { holds: 'open' });
    const seen = seenOf(peer);
    expect(isSubset(seen.lines, truth), what).toBe(true);
    const isShown = peer.report.damaged.length > 0 || seen.heads.join() !== whole.heads.join();
    expect(seen.lines.length < whole.lines.length && !isShown, what).toBe(false);
  }
});

test('a damaged proof or lift never frees nor freezes anyone else, and is had again from others', async ({
  expect,
}) => {
  const maker = new BlockMaker('a', 'x');
  const other = new BlockMaker('b', 'y');
  const first = maker.next([ban(1)]);
  const branch = maker.branch();
  const disk = new Disk();
  const peer = await openFeeds(new DiskStore(disk));
  for (const block of [first, other.next([ban(2)]), maker.next([ban(3)]), branch.next([ban(4)])]) {
    await peer.feeds.accept(block);
  }
  await peer.feeds.lift(other.author, other.epoch);
  const truth = new Set(linesOf(peer.told));
  for (const { damaged, what } of flips(disk)) {
    const hurt = await openFeeds(new DiskStore(damaged));
    expect(isSubset(linesOf(hurt.told), truth), what).toBe(true);
    expect(hurt.feeds.isFrozen(other.author), what).toBe(false);
    for (const proof of peer.feeds.proofs()) await hurt.feeds.acceptProof(proof);
    // Where its first block is gone, too, there is nobody to freeze until that has come back.
    await hurt.feeds.accept(first);
    expect(hurt.feeds.isFrozen(maker.author), what).toBe(true);
    if (what.includes('value')) expect(hurt.report.damaged, what).toHaveLength(1);
  }
});

test('blocks behind a hole count, the head stays before it, and filling it joins both', async ({ expect }) => {
  const maker = new BlockMaker('a', 'x');
  const blocks = Array.from({ length: 8 }, (_, at) => maker.next([ban(at)]));
  const disk = await diskWith(blocks);
  const keys = [...disk.rows.keys()].sort();
  for (const at of [2, 3, 6]) disk.rows.delete(keys[at] ?? '');
  const peer = await openFeeds(new DiskStore(disk));
  expect(peer.report.damaged.map(({ number, reason }) => [number, reason])).toEqual([
    [2, 'missing'],
    [6, 'missing'],
  ]);
  expect(peer.told.map(({ place }) => place.number)).toEqual([0, 0, 1, 4, 5, 7]);
  expect(peer.feeds.headOf(maker.author, maker.epoch)?.number).toBe(1);
  expect(await peer.feeds.read(maker.author, maker.epoch, 0, 1_000_000)).toEqual(blocks.slice(0, 2));
  expect(await peer.feeds.accept(blocks[3] as Block)).toBe('gap');
  const numbers: (number | undefined)[] = [];
  for (const at of [2, 3, 6]) {
    expect(await peer.feeds.accept(blocks[at] as Block)).toBe('new');
    numbers.push(peer.feeds.headOf(maker.author, maker.epoch)?.number);
  }
  expect(numbers).toEqual([2, 5, 7]);
  expect(await peer.feeds.accept(maker.next([ban(9)]))).toBe('new');
});

test('a hole is filled with nothing but what belongs there, even when the author is frozen', async ({ expect }) => {
  const maker = new BlockMaker('a', 'x');
  const first = maker.next([ban(0)]);
  const branch = maker.branch();
  const rest = [1, 2, 3].map((at) => maker.next([ban(at)]));
  const disk = await diskWith([first, ...rest]);
  disk.rows.delete([...disk.rows.keys()].sort()[1] ?? '');
  const peer = await openFeeds(new DiskStore(disk));
  const foreign = branch.next([ban(7)]);
  expect(await peer.feeds.accept(foreign)).toBe('frozen');
  expect(await peer.feeds.accept(branch.next([ban(8)]))).toBe('forked');
  expect(await peer.feeds.accept(foreign)).toBe('frozen');
  expect(await peer.feeds.accept(rest[0] as Block)).toBe('new');
  expect(peer.feeds.headOf(maker.author, maker.epoch)?.number).toBe(3);
});

test('without its first block an epoch has no head, and writing goes on above it', async ({ expect }) => {
  const disk = new Disk();
  const before = await openFeeds(new DiskStore(disk));
  const lost = writerOf(before, 'own');
  for (let at = 0; at < 3; at += 1) await lost.append([ban(at)]);
  disk.rows.delete([...disk.rows.keys()].sort()[0] ?? '');
  const peer = await openFeeds(new DiskStore(disk));
  expect([peer.feeds.heads(), peer.told.length]).toEqual([[], 2]);
  const [place] = await writerOf(peer, 'own').append([ban(9)]);
  expect(place?.generation).toBe(1);
  expect(await peer.feeds.accept(before.added[0] as Block)).toBe('new');
  expect(peer.feeds.heads().map(({ number }) => number)).toEqual([2, 0]);
});

test('rows that are whole and do not belong together are found, too', async ({ expect }) => {
  const maker = new BlockMaker('a', 'x');
  const blocks = [0, 1, 2, 3].map((at) => maker.next([ban(at)]));
  const [, second, third, last] = blocks as [Block, Block, Block, Block];
  const from = (number: number, previous: Uint8Array, generation = 0): BlockMaker =>
    Object.assign(new BlockMaker('a', 'x', generation, previous), { number });
  const thief = Object.assign(from(3, third.head.hash), { key: keyNamed('thief') });
  const unsigned = { head: { ...last.head, signature: second.head.signature }, entries: last.entries };
  const rows: [string, Block, (readonly [number, string])[]][] = [
    ['of another chain', from(2, new Uint8Array(32)).next([ban(9)]), [[2, 'chain']]],
    ['of another generation', from(3, third.head.hash, 1).next([ban(9)]), [[3, 'chain']]],
    ['of another author', thief.next([ban(9)]), [[3, 'signature']]],
    ['not signed', unsigned, [[3, 'signature']]],
    [
      'not signed in the middle',
      { head: { ...third.head, signature: last.head.signature }, entries: third.entries },
      [],
    ],
    ['with other entries', { head: last.head, entries: third.entries }, [[3, 'contents']]],
  ];
  for (const [what, block, damaged] of rows) {
    const disk = await diskWith(blocks);
    const key = blockKey(block.head.header);
    disk.apply([{ type: 'put', key, value: writeBlockRow(key, block) }], true);
    const peer = await openFeeds(new DiskStore(disk));
    expect([what, peer.report.damaged.map(({ number, reason }) => [number, reason])]).toEqual([what, damaged]);
    if (damaged.length > 0)
      expect(peer.feeds.headOf(maker.author, maker.epoch)?.number).toBe((damaged[0]?.[0] ?? 0) - 1);
    await Promise.all(blocks.map((good) => peer.feeds.accept(good)));
    expect(peer.feeds.headOf(maker.author, maker.epoch)?.number, what).toBe(3);
  }
});

test('a long run is vouched for piece by piece', async ({ expect }) => {
  const maker = new BlockMaker('a', 'x');
  const blocks = Array.from({ length: 600 }, (_, at) => maker.next([ban(at)]));
  const disk = new Disk();
  const before = await openFeeds(new DiskStore(disk));
  await Promise.all(blocks.map((block) => before.feeds.accept(block)));
  const tail = blocks
    .slice(255, 258)
    .map(({ head, entries }) => ({ head: { ...head, signature: new Uint8Array(64) }, entries }));
  for (const block of tail) {
    const key = blockKey(block.head.header);
    disk.apply([{ type: 'put', key, value: writeBlockRow(key, block) }], true);
  }
  const peer = await openFeeds(new DiskStore(disk));
  // The run ends where its signatures do, and the next begins behind: the last of the three is vouched for.
  expect(peer.report.damaged.map(({ number, reason }) => [number, reason])).toEqual([[255, 'signature']]);
  expect([peer.report.blocks, peer.feeds.heads().map(({ number }) => number)]).toEqual([599, [254]]);
  expect(await peer.feeds.accept(blocks[255] as Block)).toBe('new');
  expect([linesOf(peer.told), headsOf(peer.feeds)]).toEqual([linesOf(before.told), headsOf(before.feeds)]);
});

test('records that a disk loses without a word never fork their author, and come back from others', async ({
  expect,
}) => {
  const losses = fc.array(fc.array(fc.nat(30), { maxLength: 6 }), { minLength: 2, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(losses, async (runs) => {
      const disk = new Disk();
      const left: Block[] = [];
      for (const lost of runs) {
        const peer = await openFeeds(new DiskStore(disk));
        const own = writerOf(peer, 'own');
        for (let at = 0; at < 5; at += 1) await own.append([ban(left.length + at)]);
        left.push(...(peer.added as Block[]));
        const keys = [...disk.rows.keys()].sort();
        for (const at of lost) disk.rows.delete(keys[at] ?? '');
      }
      const holder = await openFeeds();
      for (const block of left) expect(await holder.feeds.accept(block)).toBe('new');
      const hurt = await openFeeds(new DiskStore(disk));
      expect(isSubset(linesOf(hurt.told), new Set(linesOf(holder.told)))).toBe(true);
      for (const block of left) await hurt.feeds.accept(block);
      expect([seenOf(hurt), hurt.forks]).toEqual([seenOf(holder), []]);
    }),
    { numRuns: 40 },
  );
});

/** What a process finds in a directory; `refused` when it does not open it. */
async function look(path: string): Promise<FeedPeer | 'refused'> {
  let store: Store | undefined;
  try {
    store = await openLevelStore(path);
    return await openFeeds(store);
  } catch (error) {
    if (!isHelixFlowError(error)) throw error;
    return 'refused';
  } finally {
    await store?.close();
  }
}

const flipsPerFile = 60;

test('bytes that change in LevelDB’s own files never make a wrong entry', { timeout: 120_000 }, async ({ expect }) => {
  const root = await mkdtemp(join(tmpdir(), 'helixflow-damage-'));
  try {
    const good = join(root, 'good');
    // The second process finds a log to make a table of, and leaves a log of its own.
    for (let run = 0; run < 2; run += 1) {
      const store = await openLevelStore(good);
      const own = writerOf(await openFeeds(store), `author ${run}`);
      for (let at = 0; at < 20; at += 1) await own.append([ban(at), revoke(at)]);
      await store.close();
    }
    const whole = await look(good);
    expect(whole).not.toBe('refused');
    const truth = new Set(linesOf((whole as FeedPeer).told));
    expect(truth.size).toBe(82);

    const outcomes = { refused: 0, damaged: 0, shorter: 0, whole: 0 };
    for (const file of await readdir(good)) {
      const { length } = await readFile(join(good, file));
      const step = Math.max(1, Math.floor(length / flipsPerFile));
      for (let at = 0; at < length; at += step) {
        const copy = join(root, 'copy');
        await cp(good, copy, { recursive: true });
        const bytes = await readFile(join(copy, file));
        bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8));
        await writeFile(join(copy, file), bytes);
        const found = await look(copy);
        const what = `byte ${at} of ${file}`;
        if (found === 'refused') {
          outcomes.refused += 1;
        } else {
          const lines = linesOf(found.told);
          expect(isSubset(lines, truth), what).toBe(true);
          expect(new Set(lines).size, what).toBe(lines.length);
          const hasLess = lines.length < truth.size;
          const isShorter = headsOf(found.feeds).join() !== headsOf((whole as FeedPeer).feeds).join();
          expect(hasLess && found.report.damaged.length === 0 && !isShorter, what).toBe(false);
          outcomes[found.report.damaged.length > 0 ? 'damaged' : isShorter ? 'shorter' : 'whole'] += 1;
        }
        await rm(copy, { recursive: true, force: true });
      }
    }
    expect(outcomes.damaged + outcomes.shorter).toBeGreaterThan(10);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
});
