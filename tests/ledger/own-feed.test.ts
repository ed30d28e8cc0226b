/** The feed of this process: group commit, its epochs, and what no crash and no backup may do to it. */

import { test } from 'vitest';
import type { Block } from '../../ledger/block.ts';
import type { Entry } from '../../ledger/entry.ts';
import type { EpochHead } from '../../ledger/feeds.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import { SimRandom } from '../../sim/random.ts';
import {
  authorNamed,
  BlockMaker,
  ban,
  codeOf,
  Disk,
  DiskStore,
  epochNamed,
  type FeedPeer,
  firstEntry,
  keyNamed,
  linesOf,
  openFeeds,
  revoke,
  writerOf,
} from './feed-stage.ts';

const author = authorNamed('own');
const large = (bytes: number): Entry => ({ kind: 'other', number: 40, bytes: bytesOfOther(bytes) });
/** An entry of a kind to come: kind 40, then so many bytes. */
const bytesOfOther = (count: number): Uint8Array =>
  Uint8Array.from([0x82, 0x18, 40, 0x59, count >> 8, count & 255, ...new Uint8Array(count).fill(count & 255)]);

test('nothing is signed before the first append, which begins the epoch with its author', async ({ expect }) => {
  const peer = await openFeeds();
  const asked: (EpochHead | undefined)[] = [];
  const own = peer.feeds.write(keyNamed('own'), (after) => {
    asked.push(after);
    return firstEntry(after);
  });
  expect([own.author, own.epoch, asked, peer.feeds.heads(), await own.append([])]).toEqual([
    author,
    undefined,
    [],
    [],
    [],
  ]);
  const places = await own.append([ban(1), revoke(2)]);
  expect(places.map(({ number, index, generation, epoch }) => [number, index, generation, epoch])).toEqual([
    [0, 1, 0, own.epoch],
    [0, 2, 0, own.epoch],
  ]);
  expect(peer.told.map(({ entry }) => entry)).toEqual([firstEntry(), ban(1), revoke(2)]);
  expect(peer.told.slice(1).map(({ place }) => place)).toEqual(places);
  expect([asked, peer.added.length]).toEqual([[undefined], 1]);
  expect(await peer.feeds.accept(peer.added[0] as Block)).toBe('known');
});

test('appends of one turn share a block; those that come during a write share the next', async ({ expect }) => {
  const store = new DiskStore(new Disk());
  const peer = await openFeeds(store);
  const own = writerOf(peer, 'own');
  let open: () => void = () => {};
  store.gate = new Promise((resolve) => {
    open = resolve;
  });
  const early = Array.from({ length: 50 }, (_, at) => own.append([ban(at)]));
  while (store.batches === 0) await peer.clock.turn();
  const late: Promise<unknown>[] = [];
  for (let at = 50; at < 60; at += 1) {
    late.push(own.append([ban(at)]));
    await peer.clock.turn();
  }
  expect([peer.told, peer.added, own.epoch, peer.feeds.headOf(author, own.epoch ?? epochNamed(''))]).toEqual([
    [],
    [],
    undefined,
    undefined,
  ]);
  open();
  await Promise.all([...early, ...late]);
  expect([store.batches, peer.added.map(({ head }) => head.header.count)]).toEqual([2, [51, 10]]);
  expect(peer.told.slice(1).map(({ entry }) => entry)).toEqual(Array.from({ length: 60 }, (_, at) => ban(at)));
});

test('what a block cannot hold becomes several, in one write, each within the bounds', async ({ expect }) => {
  const store = new DiskStore(new Disk());
  const peer = await openFeeds(store);
  const own = writerOf(peer, 'own');
  const entries = [
    ...Array.from({ length: 9 }, () => large(16_000)),
    ...Array.from({ length: 1_500 }, (_, at) => revoke(at)),
  ];
  const before = store.batches;
  const places = await own.append(entries);
  expect(store.batches - before).toBe(1);
  expect(peer.added.length).toBeGreaterThan(4);
  for (const block of peer.added) {
    const { count } = block.head.header;
    const bytes = 'entries' in block ? block.entries.reduce((sum, entry) => sum + entry.length, 0) : Number.NaN;
    expect([count <= limits.blockEntriesMax, bytes <= limits.blockMaxBytes]).toEqual([true, true]);
  }
  expect(peer.told.slice(1).map(({ place }) => place)).toEqual(places);
  const other = await openFeeds();
  for (const block of peer.added) expect(await other.feeds.accept(block)).toBe('new');
  expect(linesOf(other.told)).toEqual(linesOf(peer.told));
});

test('a flood of appends is written piece by piece', async ({ expect }) => {
  const store = new DiskStore(new Disk());
  const own = writerOf(await openFeeds(store), 'own');
  await Promise.all(Array.from({ length: 300 }, () => own.append([large(16_000)])));
  expect(store.batches).toBeGreaterThan((300 * 16_000) / (2 * limits.ledgerWindowBytes));
});

test('an entry that no peer could read is refused before anything is signed', async ({ expect }) => {
  const peer = await openFeeds();
  const own = writerOf(peer, 'own');
  const bad: Entry[] = [
    large(limits.entryMaxBytes),
    { ...ban(1), peer: 'no peer' as never },
    { ...ban(1), ban: 'abc' },
    { kind: 'other', number: 40, bytes: Uint8Array.of(0xff) },
  ];
  const codes = [];
  for (const entry of bad) codes.push(await codeOf(own.append([ban(1), entry])));
  expect(codes).toEqual(['FRAME_TOO_LARGE', 'FRAME_MALFORMED', 'FRAME_MALFORMED', 'FRAME_MALFORMED']);
  expect([peer.told, own.epoch]).toEqual([[], undefined]);
});

test('a first entry that cannot be made fails that append only', async ({ expect }) => {
  const peer = await openFeeds();
  let isReady = false;
  const own = peer.feeds.write(keyNamed('own'), (after) => {
    if (!isReady) throw new HelixFlowError('ISSUER_MISSING', { meshId: 'none' });
    return firstEntry(after);
  });
  expect(await codeOf(own.append([ban(1)]))).toBe('ISSUER_MISSING');
  isReady = true;
  expect(await codeOf(own.append([ban(2)]))).toBe('did not fail');
  expect(peer.told.map(({ entry }) => entry)).toEqual([firstEntry(), ban(2)]);
});

test('once a write has failed nothing is ever signed again', async ({ expect }) => {
  const disk = new Disk();
  const store = new DiskStore(disk);
  const peer = await openFeeds(store);
  const own = writerOf(peer, 'own');
  await own.append([ban(1)]);
  store.failure = new HelixFlowError('STORE_FAILED', { reason: 'EIO' });
  const codes = await Promise.all([codeOf(own.append([ban(2)])), codeOf(own.append([ban(3)]))]);
  store.failure = undefined;
  codes.push(await codeOf(own.append([ban(4)])), await codeOf(writerOf(peer, 'other').append([ban(5)])));
  expect(codes).toEqual(['STORE_FAILED', 'STORE_FAILED', 'STORE_FAILED', 'STORE_FAILED']);
  disk.cut();
  expect([disk.rows.size, peer.added.length, store.batches]).toEqual([1, 1, 2]);
});

test('what waits for a write that fails is not signed', async ({ expect }) => {
  const store = new DiskStore(new Disk());
  const peer = await openFeeds(store);
  let signed = 0;
  const later = peer.feeds.write(keyNamed('later'), (after) => {
    signed += 1;
    return firstEntry(after);
  });
  let open: () => void = () => {};
  store.gate = new Promise((resolve) => {
    open = resolve;
  });
  const early = codeOf(writerOf(peer, 'own').append([ban(1)]));
  while (store.batches === 0) await peer.clock.turn();
  const waiting = codeOf(later.append([ban(2)]));
  store.failure = new HelixFlowError('STORE_FAILED', { reason: 'EIO' });
  open();
  expect([await early, await waiting, signed, peer.added]).toEqual(['STORE_FAILED', 'STORE_FAILED', 0, []]);
});

test('every process begins an epoch of its own, above all that is known', async ({ expect }) => {
  const disk = new Disk();
  const generations = [];
  for (let run = 0; run < 3; run += 1) {
    const peer = await openFeeds(new DiskStore(disk));
    const before = peer.feeds.newestOf(author);
    const own = writerOf(peer, 'own');
    await own.append([ban(run)]);
    const [block] = peer.added as [Block];
    const first = peer.told.find(({ place, entry }) => place.epoch === own.epoch && entry.kind === 'author');
    expect(first?.entry).toEqual(firstEntry(before));
    expect(block.head.header.previous).toEqual(before?.head.hash ?? new Uint8Array(32));
    generations.push(block.head.header.generation);
  }
  expect(generations).toEqual([0, 1, 2]);
});

test('a frozen author writes nothing, until the root lifts that: then in a new epoch', async ({ expect }) => {
  const peer = await openFeeds();
  const own = writerOf(peer, 'own');
  await own.append([ban(1)]);
  const [first] = peer.added as [Block];
  const forked = own.epoch;
  const thief = new BlockMaker('own', '');
  const stolen = Object.assign(thief, { epoch: forked }).next([ban(2)]);
  expect(await peer.feeds.acceptProof({ a: first.head, b: stolen.head })).toBe(true);
  expect(await codeOf(own.append([ban(3)]))).toBe('FEED_FROZEN');
  await peer.feeds.lift(author, forked ?? epochNamed(''));
  const [place] = await own.append([ban(4)]);
  expect([place?.generation, place?.number, place?.epoch === forked]).toEqual([1, 0, false]);
});

test('nobody else adds to an epoch that this process writes', async ({ expect }) => {
  const peer = await openFeeds();
  const own = writerOf(peer, 'own');
  await own.append([ban(1)]);
  const [first] = peer.added as [Block];
  const thief = Object.assign(new BlockMaker('own', ''), { epoch: own.epoch, number: 1, previous: first.head.hash });
  expect(await peer.feeds.accept(thief.next([ban(2)]))).toBe('refused');
  expect(await codeOf(own.append([ban(3)]))).toBe('did not fail');
});

test('after close what was appended before is on disk, and nothing else is', async ({ expect }) => {
  const disk = new Disk();
  const peer = await openFeeds(new DiskStore(disk));
  const own = writerOf(peer, 'own');
  const last = own.append([ban(1)]);
  await peer.feeds.close();
  expect(disk.rows.size).toBe(1);
  expect(await codeOf(last)).toBe('did not fail');
  expect(await codeOf(own.append([ban(2)]))).toBe('LEDGER_UNREADY');
});

/** What a process that may die has to show for itself. */
interface Life {
  readonly random: SimRandom;
  readonly resolved: number[];
  readonly left: Block[];
  next: number;
}

const groups = [1, 4, 2, 7, 1, 3];

/** Appends in groups, some of them while others are being written; every block that is told leaves at once. */
async function live(peer: FeedPeer, life: Life, rounds: number): Promise<void> {
  const own = writerOf(peer, 'own');
  for (let round = 0; round < rounds; round += 1) {
    const appends = Array.from({ length: groups[round % groups.length] ?? 1 }, async () => {
      const number = life.next;
      life.next += 1;
      await own.append([number % 3 === 0 ? revoke(number) : ban(number)]);
      life.resolved.push(number);
    });
    if (round % 2 === 0) await Promise.all(appends);
    else await appends[0];
  }
  await peer.feeds.close();
}

async function start(store: DiskStore, life: Life): Promise<FeedPeer> {
  const peer = await openFeeds(store, { random: life.random.fork('process') });
  const push = peer.added.push.bind(peer.added);
  peer.added.push = (...blocks) => {
    life.left.push(...(blocks as Block[]));
    return push(...blocks);
  };
  return peer;
}

const numberOf = (entry: Entry): number =>
  entry.kind === 'ban' ? Number.parseInt(entry.ban, 16) : entry.kind === 'revoke' ? Number.parseInt(entry.key, 16) : -1;

const processes = 3;
const roundsEach = 14;

/** The same three lives; the `nth` operation of all is the last of its process. @returns undefined when none was. */
async function liveWithDeath(nth: number, isApplied: boolean): Promise<{ disk: Disk; life: Life } | undefined> {
  const disk = new Disk();
  const life: Life = { random: new SimRandom(`death ${nth} ${isApplied}`), resolved: [], left: [], next: 1 };
  let left = nth;
  let hasDied = false;
  for (let run = 0; run < processes; run += 1) {
    const store = new DiskStore(disk, hasDied ? undefined : { after: left, isApplied });
    const work = start(store, life).then((peer) => live(peer, life, roundsEach));
    const end = await Promise.race([work.then(() => 'lived'), store.died.then(() => 'died')]);
    hasDied ||= end === 'died';
    left -= store.operations;
  }
  return hasDied ? { disk, life } : undefined;
}

test('a crash at any operation of the store neither forks the author nor loses what had resolved', async ({
  expect,
}) => {
  let deaths = 0;
  let appends = 0;
  for (const isApplied of [false, true]) {
    for (let nth = 0; ; nth += 1) {
      const outcome = await liveWithDeath(nth, isApplied);
      if (outcome === undefined) break;
      deaths += 1;
      const { disk, life } = outcome;
      appends = life.next;
      const end = await openFeeds(new DiskStore(disk));
      const held = new Set(end.told.map(({ entry }) => numberOf(entry)));
      expect([end.report.damaged, life.resolved.filter((number) => !held.has(number))]).toEqual([[], []]);

      // One that heard of each block as it left, and then of all that is on the disk.
      const other = await openFeeds();
      const onDisk: Block[] = [];
      for (const { epoch } of end.feeds.heads()) {
        onDisk.push(...((await end.feeds.read(author, epoch, 0, 10_000_000)) as Block[]));
      }
      const outcomes = await Promise.all([...life.left, ...onDisk].map((block) => other.feeds.accept(block)));
      expect(outcomes.filter((outcome) => outcome !== 'new' && outcome !== 'known')).toEqual([]);
      expect([other.forks, linesOf(other.told)]).toEqual([[], linesOf(end.told)]);
    }
  }
  expect([deaths > 80, appends > 100]).toEqual([true, true]);
});

test('a backup of any moment that is restored and written on forks nothing', async ({ expect }) => {
  const disk = new Disk();
  const life: Life = { random: new SimRandom('backups'), resolved: [], left: [], next: 1 };
  const backups: Disk[] = [disk.copy()];
  for (let run = 0; run < 3; run += 1) {
    const peer = await start(new DiskStore(disk), life);
    const own = writerOf(peer, 'own');
    for (let round = 0; round < 6; round += 1) {
      await own.append([ban(life.next)]);
      life.next += 1;
      backups.push(disk.copy());
    }
  }
  const all = [...life.left];
  for (const backup of backups) {
    const restored: Life = { ...life, left: [], resolved: [] };
    const peer = await start(new DiskStore(backup), restored);
    const own = writerOf(peer, 'own');
    // Written before it hears anything, as well as after it has got back a part of what it had lost.
    await own.append([ban(restored.next)]);
    for (const block of all.slice(0, all.length / 2)) await peer.feeds.accept(block);
    await own.append([ban(restored.next + 1)]);
    for (const block of all) expect(['new', 'known']).toContain(await peer.feeds.accept(block));

    const holder = await openFeeds();
    const outcomes = [];
    for (const block of [...all, ...restored.left]) outcomes.push(await holder.feeds.accept(block));
    expect(outcomes.filter((outcome) => outcome !== 'new' && outcome !== 'known')).toEqual([]);
    expect([holder.forks, peer.forks, holder.feeds.heads().length]).toEqual([[], [], 4]);
    expect(linesOf(holder.told)).toEqual(linesOf(peer.told));
  }
});
