/** What a node's process forgot in a crash: judged by the serials of its gateway, whatever the clocks say. */

import { test } from 'vitest';
import { ms, unixMs } from '../../protocol/units.ts';
import { Disk, DiskStore } from './feed-stage.ts';
import { NodeStage, StagedGateway } from './node-tab-stage.ts';

const aheadMs = 600_000;

/** A node that has covered one attempt, worked on more, and died. */
async function restarted(gateway: StagedGateway): Promise<NodeStage> {
  const store = new DiskStore(new Disk());
  const before = await NodeStage.open({ store });
  before.tabs.ready(gateway.link);
  before.whole(gateway, 1);
  gateway.send(before, [gateway.line(1)]);
  await before.clock.advance(ms(1_000));
  before.begin(gateway, 2);
  before.begin(gateway, 3);
  store.disk.cut();
  const node = await NodeStage.open({ store: new DiskStore(store.disk.copy()), clock: before.clock });
  node.tabs.ready(gateway.link);
  return node;
}

test('attempts of before its start are nobody’s fault, however far ahead the gateway’s clock is', async ({
  expect,
}) => {
  const gateway = new StagedGateway();
  const node = await restarted(gateway);
  const startMs = unixMs(node.clock.wallMs() + aheadMs);
  gateway.send(node, [gateway.line(2, { startMs, outcome: 'lost' })]);
  node.whole(gateway, 5);
  await node.settle();
  gateway.send(node, [gateway.line(3, { startMs, outcome: 'lost' }), gateway.line(5, { startMs })]);
  await node.settle();
  expect(gateway.words).toEqual([[], [], []]);
});

test('an attempt that came after the first one of its start is known, or was never made', async ({ expect }) => {
  const gateway = new StagedGateway();
  const node = await restarted(gateway);
  const startMs = unixMs(node.clock.wallMs() + aheadMs);
  node.whole(gateway, 5);
  gateway.send(node, [gateway.line(5, { startMs }), gateway.line(6, { startMs })]);
  await node.settle();
  expect(gateway.words.at(-1)).toEqual([{ index: 1, reason: 'unknown' }]);
});

test('a node that never ran before has forgotten nothing', async ({ expect }) => {
  const gateway = new StagedGateway();
  const node = await NodeStage.open();
  node.tabs.ready(gateway.link);
  const startMs = unixMs(node.clock.wallMs() + aheadMs);
  gateway.send(node, [gateway.line(1, { startMs })]);
  await node.settle();
  expect(gateway.words).toEqual([[{ index: 0, reason: 'unknown' }]]);
});
