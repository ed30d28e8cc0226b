/** Retention: what was settled leaves the disk, and no total, no header and no root shows it. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { createCheckpoints } from '../../ledger/checkpoint.ts';
import { createUsage, type FoldedUsage } from '../../ledger/create-usage.ts';
import type { Entry } from '../../ledger/entry.ts';
import { pruneEpoch, readPrunedRow, writePrunedRow } from '../../ledger/feed-prune.ts';
import { blockKey } from '../../ledger/feed-rows.ts';
import type { HeldEntry, OwnFeed } from '../../ledger/feeds.ts';
import { createRetention, type Retention } from '../../ledger/retention.ts';
import { noTotals, type StatementEntry } from '../../ledger/statement.ts';
import { verifyFeeds } from '../../ledger/verify.ts';
import type { AuthorId, EpochId, LeaseId } from '../../protocol/ids.ts';
import type { Store } from '../../protocol/ports.ts';
import { ms, unixMs } from '../../protocol/units.ts';
import { ban, Disk, DiskStore, type FeedPeer, headsOf, meshId, openFeeds, silentLog, writerOf } from './feed-stage.ts';
import { LedgerMesh } from './mesh-stage.ts';
import { answersOf, countersign } from './usage-feeds.ts';
import { lineOf, nodes, runs, tagOf } from './usage-stage.ts';
import '../support/seed.ts';

const dayMs = 86_400_000;

interface Process {
  readonly peer: FeedPeer;
  readonly usage: FoldedUsage;
  readonly retention: Retention;
  readonly checkpoint: string;
}

/** A gateway's process on a disk: counters from the checkpoint, then everything that its feeds tell. */
async function start(disk: Disk, retainDays: number | 'all' = 1, store: Store = new DiskStore(disk)): Promise<Process> {
  const peer = await openFeeds(store);
  const { clock } = peer;
  const usage = createUsage({ clock }, { meshId });
  const checkpoints = createCheckpoints({ store, clock, log: silentLog, usage });
  const { state } = await checkpoints.open();
  for (const held of peer.told) usage.apply(held);
  const deps = { store, clock, log: silentLog, ledger: peer.feeds, usage, checkpoints };
  const options = retainDays === 'all' ? {} : { retainDays };
  return { peer, usage, retention: createRetention(deps, options), checkpoint: state };
}

class Gateway {
  readonly process: Process;
  readonly #feed: OwnFeed;
  readonly #numbers = new Map<string, number>();
  #serial = 0;

  constructor(process: Process) {
    this.process = process;
    this.#feed = writerOf(process.peer, 'gateway');
  }

  get author() {
    return this.#feed.author;
  }

  /** Everything that was told since then also counts. */
  async append(...entries: readonly Entry[]): Promise<readonly HeldEntry[]> {
    const { peer, usage } = this.process;
    const from = peer.told.length;
    await this.#feed.append(entries);
    const told = peer.told.slice(from);
    for (const held of told) usage.apply(held);
    return told;
  }

  async state(lines: number, node = nodes[0]): Promise<HeldEntry> {
    const number = this.#numbers.get(node) ?? 0;
    this.#numbers.set(node, number + 1);
    const entry: StatementEntry = {
      kind: 'statement',
      node,
      number,
      previous: new Uint8Array(32),
      run: runs[0],
      lines: Array.from({ length: lines }, () => {
        this.#serial += 1;
        return lineOf(this.#serial, { lease: tagOf(8) });
      }),
      running: [],
      progress: [],
      totals: noTotals,
    };
    const told = await this.append(entry);
    return told.at(-1) as HeldEntry;
  }

  async pass(days: number): Promise<void> {
    await this.process.peer.clock.advance(ms(days * dayMs));
  }
}

/** Of feeds. */
const bytesOf = (disk: Disk): number =>
  [...disk.rows].reduce((sum, [key, row]) => sum + (key.startsWith('662f') ? row.length : 0), 0);
const leasesOf = (author: HeldEntry['place']['author']) => [[author, tagOf(8)] as const];
/** Everything that can be asked, whatever the time. */
const stateOf = ({ usage }: Process, author: HeldEntry['place']['author']) => {
  const { unattested: _, ...totals } = usage.totals();
  return { ...answersOf(usage, leasesOf(author)), totals };
};

test('without an option everything stays', async ({ expect }) => {
  const disk = new Disk();
  const gateway = new Gateway(await start(disk, 'all'));
  const stated = await gateway.state(20);
  await gateway.append(countersign(stated));
  await gateway.pass(400);
  const { blocks } = await gateway.process.retention.fold();
  const again = await start(disk, 'all');
  expect([blocks, again.checkpoint, again.peer.told.length, stateOf(again, gateway.author).totals]).toEqual([
    0,
    'whole',
    3,
    stateOf(gateway.process, gateway.author).totals,
  ]);
});

test('old statements go once their nodes have signed them, and nothing else does', async ({ expect }) => {
  const disk = new Disk();
  const gateway = new Gateway(await start(disk));
  const close: Entry = { kind: 'close', lease: 'ab'.repeat(16) as LeaseId, spentMicro: 5 };
  const signed = await gateway.state(200);
  await gateway.append(countersign(signed), close, ban(7));
  await gateway.state(3, nodes[1]);
  await gateway.pass(2);
  const young = await gateway.state(2);
  await gateway.append(countersign(young));
  const before = { size: bytesOf(disk), heads: headsOf(gateway.process.peer.feeds) };
  const folded = await gateway.process.retention.fold();
  const again = await start(disk);
  const kinds = again.peer.told.map(({ entry }) => entry.kind);
  expect({
    pruned: folded.blocks,
    isSmaller: bytesOf(disk) < before.size / 2,
    kinds,
    heads: headsOf(again.peer.feeds),
    damaged: again.peer.report.damaged,
    state: stateOf(again, gateway.author),
  }).toEqual({
    pruned: 2,
    isSmaller: true,
    kinds: ['author', 'close', 'ban', 'statement', 'statement', 'countersign'],
    heads: before.heads,
    damaged: [],
    state: stateOf(gateway.process, gateway.author),
  });
  // Its node comes back after all.
  const waiting = again.peer.told.find(({ entry }) => entry.kind === 'statement' && entry.node === nodes[1]);
  const late = new Gateway(again);
  if (waiting !== undefined) await late.append(countersign(waiting, [{ index: 0, reason: 'unknown' }]));
  expect(again.usage.totals()).toMatchObject({ refused: 1, attempts: 205 });
});

test('a block with a statement that its node has not signed stays whole', async ({ expect }) => {
  const disk = new Disk();
  const process = await start(disk);
  const gateway = new Gateway(process);
  const [signed] = await Promise.all([gateway.state(1), gateway.state(1, nodes[1])]);
  await gateway.append(countersign(signed));
  await gateway.pass(3);
  await process.retention.fold();
  const { author, epoch } = signed.place;
  const [first] = await process.peer.feeds.read(author, epoch, 0, 1_000_000);
  expect([first?.head.header.number, first?.head.header.count]).toEqual([0, 3]);
});

test('the header of a pruned block is still known, its root is that of its leaves, and it is not served', async ({
  expect,
}) => {
  const disk = new Disk();
  const gateway = new Gateway(await start(disk));
  await gateway.append(ban(1));
  const { place } = await gateway.state(10);
  await gateway.append(countersign(await gateway.state(1)));
  const signed = gateway.process.peer.told.filter(({ entry }) => entry.kind === 'statement');
  await gateway.append(countersign(signed[0] as HeldEntry));
  const { feeds } = gateway.process.peer;
  const before = await feeds.headerAt(place);
  await gateway.pass(3);
  await gateway.process.retention.fold();
  const key = blockKey(place);
  const pruned = readPrunedRow(key, disk.rows.get(Buffer.from(key).toString('hex')) ?? new Uint8Array());
  const served = await feeds.read(place.author, place.epoch, 0, 1_000_000);
  expect({
    kept: pruned?.kept,
    root: pruned?.head.header.root,
    headers: [await feeds.headerAt(place), await (await start(disk)).peer.feeds.headerAt(place)],
    served: served.map(({ head }) => head.header.number),
  }).toEqual({ kept: [], root: before?.header.root, headers: [before, before], served: [0] });
});

const verified = async (disk: Disk) => {
  const rows = new DiskStore(disk).range({ gte: Uint8Array.of(0x66, 0x2f), lt: Uint8Array.of(0x66, 0x30) });
  return await verifyFeeds(rows, { meshId, holds: 'all', mayWrite: async () => true });
};

test('ledger verify finds nothing wrong with what was pruned', async ({ expect }) => {
  const disk = new Disk();
  const gateway = new Gateway(await start(disk));
  const old = await gateway.state(5);
  const other = await gateway.state(5);
  await gateway.append(countersign(old));
  await gateway.pass(2);
  // In a block that stays.
  await gateway.append(countersign(other));
  await gateway.process.retention.fold();
  const { problems } = await verified(disk);
  expect(problems.filter(({ what }) => !/lease|price|totals|follow/.test(what))).toEqual([]);
});

/** What happens to one gateway, one thing after the other. */
const step = fc.oneof(
  fc.record({
    kind: fc.constant('state' as const),
    lines: fc.integer({ min: 1, max: 4 }),
    node: fc.constantFrom(...nodes),
  }),
  fc.record({ kind: fc.constant('sign' as const), which: fc.nat(5), isRefused: fc.boolean() }),
  fc.record({ kind: fc.constant('pass' as const), days: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ kind: fc.constant('fold' as const) }),
  fc.record({ kind: fc.constant('ban' as const), number: fc.nat(1_000) }),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

async function happen(gateway: Gateway, steps: readonly Step[], isFolded: boolean): Promise<void> {
  const unsigned: HeldEntry[] = [];
  for (const one of steps) {
    if (one.kind === 'state') unsigned.push(await gateway.state(one.lines, one.node));
    else if (one.kind === 'pass') await gateway.pass(one.days);
    else if (one.kind === 'ban') await gateway.append(ban(one.number));
    else if (one.kind === 'fold') await (isFolded && gateway.process.retention.fold());
    else {
      const [stated] = unsigned.splice(one.which % Math.max(1, unsigned.length), 1);
      const refused = one.isRefused ? [{ index: 0, reason: 'count' as const }] : [];
      if (stated !== undefined) await gateway.append(countersign(stated, refused));
    }
  }
}

test('totals, headers and roots are those of an archive', async ({ expect }) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 24 }), async (steps) => {
      const [disk, whole] = [new Disk(), new Disk()];
      const gateway = new Gateway(await start(disk));
      await happen(gateway, steps, true);
      await gateway.process.retention.fold();
      const archive = new Gateway(await start(whole, 'all'));
      await happen(archive, steps, false);
      const again = await start(disk);
      const { author } = gateway;
      expect(stateOf(again, author)).toEqual(stateOf(archive.process, author));
      expect(stateOf(gateway.process, author)).toEqual(stateOf(archive.process, author));
      expect([again.peer.report.damaged, headsOf(again.peer.feeds).length]).toEqual([
        [],
        headsOf(archive.process.peer.feeds).length,
      ]);
      expect(headsOf(again.peer.feeds)).toEqual(headsOf(gateway.process.peer.feeds));
    }),
    { numRuns: 60 },
  );
});

/** A disk with old statements that are not pruned yet. */
async function agedDisk(): Promise<{ readonly disk: Disk; readonly gateway: Gateway }> {
  const disk = new Disk();
  const gateway = new Gateway(await start(disk));
  for (const node of nodes) {
    const stated = await gateway.state(3, node);
    await gateway.append(countersign(stated));
  }
  await gateway.state(1);
  await gateway.pass(3);
  return { disk, gateway };
}

describe('what may go wrong', () => {
  test('a process that dies while it folds and prunes loses nothing', async ({ expect }) => {
    const { disk, gateway } = await agedDisk();
    const expected = stateOf(gateway.process, gateway.author);
    const heads = headsOf(gateway.process.peer.feeds);
    let end = '';
    for (let after = 0; end !== 'done'; after += 1) {
      const copy = disk.copy();
      const store = new DiskStore(copy, { after, isApplied: after % 2 === 1 });
      const work = async (): Promise<string> => {
        const dying = await start(copy, 1, store);
        await dying.peer.clock.advance(ms(5 * dayMs));
        await dying.retention.fold();
        return 'done';
      };
      end = await Promise.race([work(), store.died.then(() => 'died')]);
      const next = await start(copy);
      const { totals, rows, spent } = stateOf(next, gateway.author);
      expect([rows, spent, totals.attempts, headsOf(next.peer.feeds), next.peer.report.damaged]).toEqual([
        expected.rows,
        expected.spent,
        expected.totals.attempts,
        heads,
        [],
      ]);
    }
  });

  test('a byte of a pruned row that changed is found', async ({ expect }) => {
    const { disk, gateway } = await agedDisk();
    await gateway.process.retention.fold();
    const expected = stateOf(gateway.process, gateway.author);
    const rows = [...disk.rows].filter(([key, row]) => readPrunedRow(Buffer.from(key, 'hex'), row) !== undefined);
    expect(rows.length).toBe(6);
    for (const [key, row] of rows.slice(0, 2)) {
      for (let at = 0; at < row.length; at += 1) {
        const copy = disk.copy();
        const changed = row.slice();
        changed[at] = (changed[at] ?? 0) ^ 4;
        copy.rows.set(key, changed);
        const next = await start(copy);
        expect([next.peer.report.damaged.length, stateOf(next, gateway.author)]).toEqual([1, expected]);
      }
    }
  });

  test('leaves that are not those of the header are none', async ({ expect }) => {
    const { disk, gateway } = await agedDisk();
    await gateway.process.retention.fold();
    for (const [key, row] of disk.rows) {
      const pruned = readPrunedRow(Buffer.from(key, 'hex'), row);
      if (pruned === undefined) continue;
      const leaves = pruned.leaves.map((leaf, at) => (at === 0 ? leaf.map((byte) => byte ^ 1) : leaf));
      const forged = writePrunedRow(Buffer.from(key, 'hex'), { ...pruned, kept: [], leaves });
      expect(readPrunedRow(Buffer.from(key, 'hex'), forged)).toBe(undefined);
    }
  });

  test('a node’s word of which the statement is not known stays until it is', async ({ expect }) => {
    const disk = new Disk();
    const gateway = new Gateway(await start(disk));
    const elsewhere = new Gateway(await start(new Disk()));
    const unheard = await elsewhere.state(1);
    await gateway.append(countersign(unheard));
    await gateway.pass(3);
    const { blocks } = await gateway.process.retention.fold();
    expect([blocks, (await start(disk)).peer.told.map(({ entry }) => entry.kind)]).toEqual([
      0,
      ['author', 'countersign'],
    ]);
  });
});

test('it takes its turn soon, then each day, and none after it was closed', async ({ expect }) => {
  const { gateway } = await agedDisk();
  const { retention, peer } = gateway.process;
  retention.start();
  const seen = [retention.last()?.blocks];
  await peer.clock.advance(ms(600_000));
  await peer.clock.advance(ms(0));
  seen.push(retention.last()?.blocks);
  await retention.close();
  const { timers } = peer.clock;
  expect([seen, timers]).toEqual([[undefined, 6], 0]);
});

test('a newcomer has everything from who keeps it, whoever else has pruned', async ({ expect }) => {
  await using mesh = await LedgerMesh.create();
  const pruning = await mesh.addIssuer();
  const archive = await mesh.add('gateway');
  await mesh.linkAll();
  const told: HeldEntry[] = [];
  pruning.ledger.onEntry((held) => told.push(held));
  const [node] = nodes;
  for (let number = 0; number < 4; number += 1) {
    const start = { kind: 'statement', node, number, previous: new Uint8Array(32), run: runs[0] } as const;
    const lines = [lineOf(number + 1)];
    await mesh.append(pruning, 'gateway', [{ ...start, lines, running: [], progress: [], totals: noTotals }]);
  }
  const stated = told.filter(({ entry }) => entry.kind === 'statement');
  await mesh.append(
    pruning,
    'gateway',
    stated.map((held) => countersign(held)),
  );
  await mesh.until(() => archive.ledger.status().blocks === 5);
  const [head] = pruning.ledger.heads();
  if (head === undefined) throw new Error('there is a feed');
  const { clock, store } = pruning.ports;
  const isDropped = ({ kind }: Entry): boolean => kind === 'statement' || kind === 'countersign';
  const options = {
    beforeMs: unixMs(clock.wallMs() + 1),
    isDropped: (_: unknown, __: unknown, entry: Entry) => isDropped(entry),
  };
  const { blocks } = await mesh.run(pruneEpoch({ store, clock }, head, 0, options));
  const newcomer = await mesh.add('gateway');
  await mesh.link(newcomer, pruning);
  await mesh.pass(20_000);
  const before = newcomer.ledger.status().blocks;
  await mesh.link(newcomer, archive);
  await mesh.until(() => newcomer.ledger.status().blocks === 5);
  expect([blocks, before, newcomer.ledger.heads()]).toEqual([5, 0, archive.ledger.heads()]);
});

test('a peer that has pruned many epochs is not taken for one that names what it does not have', async ({ expect }) => {
  await using mesh = await LedgerMesh.create();
  const gateway = await mesh.add('gateway');
  const puppet = await mesh.puppet(gateway);
  const named = (number: number) => ({
    author: 'ab'.repeat(32) as AuthorId,
    epoch: number.toString(16).padStart(32, '0') as EpochId,
    count: 9,
    hash: new Uint8Array(16),
  });
  const news = Array.from({ length: 100 }, (_, number) => named(number));
  puppet.send({ type: 'have', isStart: true, isWhole: true, news, changes: [] });
  let answered = 0;
  for (let turns = 0; turns < 200 && answered < news.length; turns += 1) {
    await mesh.pass(20);
    const wants = puppet.got.filter(({ type }) => type === 'want').length;
    for (; answered < wants; answered += 1) puppet.send({ type: 'blocks', isLast: true, blocks: [] });
  }
  await mesh.pass(1_000);
  expect([answered, puppet.connection.isOpen]).toEqual([100, true]);
});
