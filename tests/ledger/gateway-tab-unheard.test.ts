/** Statements behind a lost block of a gateway's own feed: nobody else hears of them, so that their lines are stated again. */

import { test } from 'vitest';
import { blockKey } from '../../ledger/feed-rows.ts';
import { attemptName } from '../../ledger/line.ts';
import { toHex } from '../../protocol/crypto.ts';
import type { EpochId } from '../../protocol/ids.ts';
import { Disk, DiskStore } from './feed-stage.ts';
import { GatewayStage, gatewayAuthor, linesOf, NodeStage, startAt } from './gateway-tab-stage.ts';

const node = new NodeStage('a');

/** A process that stated one line in each of `blocks` blocks. */
async function lived(disk: Disk, run: string, blocks: number): Promise<GatewayStage> {
  const stage = await GatewayStage.open({ store: new DiskStore(disk), run });
  for (let at = 0; at < blocks; at += 1) {
    await stage.attempt(startAt(node.peer, `${run} ${at}`)).durable;
    await stage.clock.advance(1_500);
    await stage.settle();
  }
  return stage;
}

/** Lets it say all that it has to say. */
async function rest(stage: GatewayStage): Promise<GatewayStage> {
  for (let at = 0; at < 4; at += 1) {
    await stage.settle();
    await stage.clock.advance(1_500);
  }
  await stage.settle();
  return stage;
}

/** Takes a block out of the disk, as a hole in LevelDB's log does. */
function lose(disk: Disk, epoch: EpochId | undefined, number: number): void {
  if (epoch === undefined) throw new Error('nothing was written');
  // The line log is empty by then.
  disk.sync();
  disk.rows.delete(toHex(blockKey({ author: gatewayAuthor, epoch, number })));
}

/** What others hear of: statements before the first hole of each epoch. */
function heard(stage: GatewayStage): string[] {
  const heads = new Map(stage.feeds.heads().map(({ epoch, number }) => [epoch, number]));
  const told = stage.held.filter(({ place }) => place.number <= (heads.get(place.epoch) ?? -1));
  return linesOf(told.flatMap(({ entry }) => (entry.kind === 'statement' ? [entry] : [])))
    .map(attemptName)
    .sort();
}

test('their lines are stated again, once, by the next process', async ({ expect }) => {
  const disk = new Disk();
  const first = await lived(disk, 'one', 4);
  const all = linesOf(first.statements).map(attemptName).sort();
  lose(disk, first.epoch, 1);
  const second = await rest(await lived(disk, 'two', 1));
  const own = attemptName({ run: second.run, serial: 1 });
  // What the lost block itself held is gone.
  const left = all.filter((name) => name !== attemptName({ run: first.run, serial: 2 }));
  expect(heard(second)).toEqual([...left, own].sort());
  const third = await rest(await lived(disk, 'three', 0));
  expect([third.appends.flat(), heard(third)]).toEqual([[], heard(second)]);
});

test('nothing is stated again where no block is lost', async ({ expect }) => {
  const disk = new Disk();
  await lived(disk, 'one', 3);
  const second = await rest(await lived(disk, 'two', 0));
  expect(second.appends).toEqual([]);
});
