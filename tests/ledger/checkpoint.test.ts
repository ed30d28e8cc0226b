/** Checkpoints: a start that goes on from one comes to the same as one that settles everything again. */

import fc from 'fast-check';
import { test } from 'vitest';
import { type Checkpoints, createCheckpoints } from '../../ledger/checkpoint.ts';
import { createUsage, type FoldedUsage } from '../../ledger/create-usage.ts';
import type { HeldEntry } from '../../ledger/feeds.ts';
import { type UsageBounds, usageBounds } from '../../ledger/usage-state.ts';
import type { Store } from '../../protocol/ports.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { Disk, DiskStore, silentLog } from './feed-stage.ts';
import { answersOf, epochs, expectedOf, meshId, UsageFeeds } from './usage-feeds.ts';
import { anyhow, feedsOf, honestFeeds, someRequest, someStated } from './usage-histories.ts';
import { authors, lineOf, nodes, tagOf } from './usage-stage.ts';
import '../support/seed.ts';

const leases = authors.flatMap((author) => [8, 9].map((number) => [author, tagOf(number)] as const));

interface Process {
  readonly usage: FoldedUsage;
  readonly checkpoints: Checkpoints;
}

function start(store: Store, bounds: UsageBounds = usageBounds): Process {
  const clock = new ManualClock();
  const usage = createUsage({ clock }, { meshId, bounds });
  return { usage, checkpoints: createCheckpoints({ store, clock, log: silentLog, usage }, bounds) };
}

/** Everything that can be asked. */
const stateOf = (usage: FoldedUsage) => ({
  ...answersOf(usage, leases),
  totals: usage.totals(),
  newestMs: usage.newestMs(),
});

/** A process that settles everything itself, and lets go at the same moments. */
function throughout(parts: readonly (readonly HeldEntry[])[]): FoldedUsage {
  const { usage } = start(new DiskStore(new Disk()));
  for (const [at, part] of parts.entries()) {
    if (at > 0) usage.fold(() => true);
    for (const held of part) usage.apply(held);
  }
  return usage;
}

/** One process for each part; each is told everything that is on disk again. */
async function restarted(parts: readonly (readonly HeldEntry[])[], disk = new Disk()): Promise<FoldedUsage> {
  let told: readonly HeldEntry[] = [];
  let usage: FoldedUsage | undefined;
  for (const [at, part] of parts.entries()) {
    const process = start(new DiskStore(disk));
    usage = process.usage;
    const { state } = await process.checkpoints.open();
    if (state !== (at === 0 ? 'none' : 'whole')) throw new Error(`the checkpoint is ${state}`);
    told = [...told, ...part];
    for (const held of told) usage.apply(held);
    if (at < parts.length - 1) await process.checkpoints.write();
  }
  if (usage === undefined) throw new Error('there is at least one part');
  return usage;
}

const cut = <T>(all: readonly T[], places: readonly number[]): readonly (readonly T[])[] => {
  const borders = [
    0,
    ...places.map((place) => Math.floor((place * all.length) / 100)).sort((a, b) => a - b),
    all.length,
  ];
  return borders.slice(1).map((to, at) => all.slice(borders[at], to));
};
const places = fc.array(fc.nat(100), { minLength: 1, maxLength: 3 });

test('whoever lies, restarts do not show', async ({ expect }) => {
  const told = fc.array(someStated, { maxLength: 8 }).chain((stated) => anyhow(feedsOf(stated)));
  await fc.assert(
    fc.asyncProperty(told, places, async (held, borders) => {
      const parts = cut(held, borders);
      expect(stateOf(await restarted(parts))).toEqual(stateOf(throughout(parts)));
    }),
  );
});

test('while everyone is honest, it is what settlement of everything comes to', async ({ expect }) => {
  await fc.assert(
    fc.asyncProperty(fc.array(someRequest, { maxLength: 10 }).map(honestFeeds), places, async (held, borders) => {
      const usage = await restarted(cut(held, borders));
      expect(answersOf(usage, leases)).toEqual(expectedOf(held));
    }),
  );
});

test('only days that have changed are written again', async ({ expect }) => {
  const disk = new Disk();
  const { usage, checkpoints } = start(new DiskStore(disk));
  const [author] = authors;
  const feeds = new UsageFeeds();
  const state = (serial: number, startMs: number): void => {
    const line = lineOf(serial, { startMs: startMs as never });
    usage.apply(feeds.state({ author, epoch: epochs[0], node: nodes[0], lines: [line] }));
  };
  const days = (): readonly string[] => [...disk.rows.keys()].filter((key) => key.startsWith('752f64'));
  state(1, 0);
  await checkpoints.write();
  const before = days();
  state(2, 86_400_000);
  await checkpoints.write();
  const after = days();
  state(3, 1);
  const { days: changed } = await checkpoints.write();
  expect([before.length, after.length, after.includes(before[0] ?? ''), changed.map(({ day }) => day)]).toEqual([
    1,
    2,
    true,
    [0],
  ]);
});

/** A history with something of each kind in it. */
function history(): readonly HeldEntry[] {
  const feeds = new UsageFeeds();
  const [author, other] = authors;
  const [epoch, next] = epochs;
  feeds.state({ author, epoch, node: nodes[0], lines: [lineOf(1), lineOf(2, { lease: tagOf(8) })], refused: [] });
  feeds.state({ author, epoch, node: nodes[0], lines: [lineOf(3, { first: 2, outcome: 'lost' })] });
  const { nodeTokens: _, ...running } = lineOf(4, { outcome: 'running' });
  feeds.state({ author, epoch, node: nodes[1], running: [running], refused: [] });
  feeds.state({ author: other, epoch: next, node: nodes[1], progress: [{ serial: 9, completionTokens: 3 }] });
  feeds.state({ author, epoch: next, node: nodes[0], lines: [lineOf(1)] });
  const late = feeds.state({ author, epoch: next, node: nodes[2], lines: [lineOf(5)], refused: [] });
  // Its countersignature is known before it is.
  return feeds.held.filter((held) => held !== late);
}

test('a process that dies while it writes leaves the checkpoint before, or the new one', async ({ expect }) => {
  const held = history();
  const expected = answersOf(throughout([held, []]), leases);
  const outcomes = new Set<string>();
  let end = '';
  for (let after = 0; end !== 'done'; after += 1) {
    const disk = new Disk();
    const first = start(new DiskStore(disk));
    for (const one of held.slice(0, 4)) first.usage.apply(one);
    await first.checkpoints.write();
    const store = new DiskStore(disk, { after, isApplied: after % 2 === 0 });
    const second = start(store);
    const work = async (): Promise<string> => {
      await second.checkpoints.open();
      for (const one of held) second.usage.apply(one);
      await second.checkpoints.write();
      return 'done';
    };
    end = await Promise.race([work(), store.died.then(() => 'died')]);
    const third = start(new DiskStore(disk));
    const { state } = await third.checkpoints.open();
    for (const one of held) third.usage.apply(one);
    outcomes.add(`${end} ${state}`);
    expect(answersOf(third.usage, leases)).toEqual(expected);
  }
  expect([...outcomes].sort()).toEqual(['died whole', 'done whole']);
});

test('statements that nobody waits for any more stay unattested', async ({ expect }) => {
  const disk = new Disk();
  const bounds = { ...usageBounds, unsignedLinesMax: 2 };
  const { usage, checkpoints } = start(new DiskStore(disk), bounds);
  const [author] = authors;
  const feeds = new UsageFeeds();
  for (const serial of [1, 2, 3, 4]) {
    feeds.state({ author, epoch: epochs[0], node: nodes[0], lines: [lineOf(serial)], timeMs: 1 });
  }
  for (const held of feeds.held) usage.apply(held);
  await checkpoints.write();
  const next = start(new DiskStore(disk), bounds);
  await next.checkpoints.open();
  expect([usage.totals().unattested, next.usage.totals()]).toEqual([4, usage.totals()]);
});

test('a byte that changed is found, and everything is settled again', async ({ expect }) => {
  const held = history();
  const disk = new Disk();
  const first = start(new DiskStore(disk));
  for (const one of held) first.usage.apply(one);
  await first.checkpoints.write();
  const expected = stateOf(first.usage);
  const whole = start(new DiskStore(disk));
  const { state } = await whole.checkpoints.open();
  for (const one of held) whole.usage.apply(one);
  expect([state, stateOf(whole.usage)]).toEqual(['whole', expected]);
  for (const [key, row] of disk.rows) {
    for (const at of [0, row.length >> 1, row.length - 1]) {
      const damaged = disk.copy();
      const changed = row.slice();
      changed[at] = (changed[at] ?? 0) ^ 1;
      damaged.rows.set(key, changed);
      const { usage, checkpoints } = start(new DiskStore(damaged));
      const { state } = await checkpoints.open();
      for (const one of held) usage.apply(one);
      expect([state, stateOf(usage)]).toEqual(['damaged', expected]);
    }
    const lost = disk.copy();
    lost.rows.delete(key);
    const { state } = await start(new DiskStore(lost)).checkpoints.open();
    expect(state).toBe(key === '752f6d' ? 'none' : 'damaged');
  }
});
