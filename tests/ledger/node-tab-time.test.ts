/** Tabs at a node as time passes: when no more is taken from a gateway, when again, and what is claimed of it. */

import { describe, test } from 'vitest';
import { claimAttemptsMax } from '../../ledger/statement.ts';
import { limits } from '../../protocol/limits.ts';
import { Disk, DiskStore } from './feed-stage.ts';
import { doneWith, NodeStage, StagedGateway, StagedLink } from './node-tab-stage.ts';

const { uncoveredMaxMs, recoveryWaitMs } = limits;

const open = async () => {
  const node = await NodeStage.open();
  const gateway = new StagedGateway();
  node.tabs.ready(gateway.link);
  return { node, gateway };
};

/** Whether the gateway's work is taken after each of these steps. */
async function takenAfter(node: NodeStage, gateway: StagedGateway, stepsMs: readonly number[]): Promise<boolean[]> {
  const taken: boolean[] = [];
  for (const stepMs of stepsMs) {
    await node.clock.advance(stepMs);
    taken.push(node.codeFor(gateway) === undefined);
  }
  return taken;
}

describe('work that no statement covers', () => {
  test('ends all further work after so much connected time, until it is covered', async ({ expect }) => {
    const { node, gateway } = await open();
    const other = new StagedGateway('another');
    node.tabs.ready(other.link);
    node.whole(gateway, 1);
    expect(await takenAfter(node, gateway, [uncoveredMaxMs, 1, 60_000])).toEqual([true, false, false]);
    expect(node.tabs.refusal(gateway.peer)?.details).toEqual({ ageMs: uncoveredMaxMs + 60_001 });
    expect(node.codeFor(other)).toBeUndefined();
    gateway.send(node, [gateway.line(1)]);
    await node.settle();
    expect(node.codeFor(gateway)).toBeUndefined();
  });

  test('does not age without a session on which the gateway answers', async ({ expect }) => {
    const { node, gateway } = await open();
    const state = { isResponsive: true, isStale: false };
    const link = Object.assign(new StagedLink(gateway.peer, gateway.run), state);
    node.whole(gateway, 1);
    await node.clock.advance(6_000);
    node.tabs.gone(gateway.link);
    await node.clock.advance(100_000);
    node.tabs.ready(link);
    link.isResponsive = false;
    await node.clock.advance(20_000);
    link.isResponsive = true;
    link.isStale = true;
    await node.clock.advance(20_000);
    link.isStale = false;
    expect(await takenAfter(node, gateway, [3_000, 1_100])).toEqual([true, false]);
  });

  test('is as old in the next process of the node, and given up there soon', async ({ expect }) => {
    const { node, gateway } = await open();
    node.whole(gateway, 1);
    await node.clock.advance(8_000);
    await node.tabs.close();
    const next = await NodeStage.open({ store: new DiskStore(node.store.disk), clock: node.clock });
    next.tabs.ready(gateway.link);
    expect(next.tabs.status()[0]).toMatchObject({ uncovered: 1, uncoveredMs: 8_000 });
    expect(await takenAfter(next, gateway, [1_900, 1_200])).toEqual([true, true]);
    // What has covered it may have been lost with the process.
    expect(next.tabs.status()[0]).toMatchObject({ uncovered: 0 });
  });

  test('stays so when its line is refused, in the next process too', async ({ expect }) => {
    const { node, gateway } = await open();
    node.whole(gateway, 1);
    gateway.send(node, [gateway.line(1, { completionTokens: 1 })]);
    await node.clock.advance(1_000);
    expect(await takenAfter(node, gateway, [9_000, 1])).toEqual([true, false]);
    await node.tabs.close();
    const next = await NodeStage.open({ store: new DiskStore(node.store.disk), clock: node.clock });
    next.tabs.ready(gateway.link);
    expect(await takenAfter(next, gateway, [0, 60_000])).toEqual([false, false]);
    gateway.send(next, [gateway.line(1)]);
    await next.settle();
    expect([gateway.words, next.codeFor(gateway)]).toEqual([[[{ index: 0, reason: 'count' }], []], undefined]);
  });

  test('that is worth nothing is not waited for', async ({ expect }) => {
    const { node, gateway } = await open();
    node.begin(gateway, 1).work.end({ kind: 'failed' });
    node.begin(gateway, 2).work.end({ kind: 'cancelled', promptTokens: 0, completionTokens: 0 });
    expect(await takenAfter(node, gateway, [60_000])).toEqual([true]);
    gateway.send(node, [
      gateway.line(2, { outcome: 'cancelled', completionTokens: 0, cachedTokens: 0, nodeTokens: 0 }),
    ]);
    await node.settle();
    expect(gateway.words).toEqual([[]]);
  });
});

describe('a running attempt', () => {
  const running = (gateway: StagedGateway, completionTokens: number) => ({
    running: [gateway.line(1, { outcome: 'running', completionTokens, nodeTokens: undefined as never })],
  });
  const progress = (completionTokens: number) => ({ progress: [{ serial: 1, completionTokens }] });

  test('must be told, and then each time that it has come further', async ({ expect }) => {
    const { node, gateway } = await open();
    const staged = node.begin(gateway, 1);
    await node.clock.advance(9_000);
    gateway.send(node, [], running(gateway, 0));
    // A long prompt: nothing is uncovered.
    expect(await takenAfter(node, gateway, [30_000])).toEqual([true]);
    staged.send(10);
    expect(await takenAfter(node, gateway, [9_000, 2_100])).toEqual([true, false]);
    gateway.send(node, [], progress(10));
    expect(await takenAfter(node, gateway, [30_000])).toEqual([true]);
  });

  test('is covered as far as statements are behind by less than it may age', async ({ expect }) => {
    const { node, gateway } = await open();
    const staged = node.begin(gateway, 1);
    gateway.send(node, [], running(gateway, 0));
    const taken: boolean[] = [];
    for (let second = 1; second <= 60; second += 1) {
      staged.send(10 * second);
      await node.clock.advance(1_000);
      if (second > 3) gateway.send(node, [], progress(10 * (second - 3)));
      taken.push(node.codeFor(gateway) === undefined);
    }
    expect(taken.every((one) => one)).toBe(true);
  });

  test('does not hide behind counts that stand still', async ({ expect }) => {
    const { node, gateway } = await open();
    const staged = node.begin(gateway, 1);
    gateway.send(node, [], running(gateway, 0));
    let seconds = 0;
    for (; node.codeFor(gateway) === undefined && seconds < 60; seconds += 1) {
      staged.send(10 * (seconds + 1));
      await node.clock.advance(1_000);
      gateway.send(node, [], progress(5));
    }
    expect(seconds).toBeLessThanOrEqual(uncoveredMaxMs / 1_000 + 2);
  });

  test('is covered no further than it had come, whatever is stated', async ({ expect }) => {
    const { node, gateway } = await open();
    const staged = node.begin(gateway, 1);
    staged.send(10);
    gateway.send(node, [], running(gateway, 1_000_000));
    await node.clock.advance(1_000);
    staged.send(20);
    expect(await takenAfter(node, gateway, [9_000, 2_000])).toEqual([true, false]);
  });

  test('needs a line when it has ended here', async ({ expect }) => {
    const { node, gateway } = await open();
    const staged = node.begin(gateway, 1);
    staged.send(20);
    gateway.send(node, [], running(gateway, 20));
    await node.clock.advance(60_000);
    staged.work.end(doneWith(20));
    expect(await takenAfter(node, gateway, [uncoveredMaxMs, 1])).toEqual([true, false]);
  });
});

describe('a gateway that starts again', () => {
  test('may take longer with its first statements', async ({ expect }) => {
    const { node, gateway } = await open();
    const next = new StagedGateway('a gateway', 'second');
    await node.clock.advance(1_000);
    node.tabs.gone(gateway.link);
    node.tabs.ready(next.link);
    node.whole(next, 1);
    expect(await takenAfter(node, next, [uncoveredMaxMs + recoveryWaitMs - 100])).toEqual([true]);
    next.send(node, [next.line(1)]);
    await node.settle();
    node.whole(next, 2);
    expect(await takenAfter(node, next, [uncoveredMaxMs, 1])).toEqual([true, false]);
  });

  test('loses nothing by what died with it once, and more each time', async ({ expect }) => {
    const node = await NodeStage.open();
    const waits: number[] = [];
    let before: StagedGateway | undefined;
    for (let life = 0; life < 5; life += 1) {
      const gateway = new StagedGateway('a gateway', `life ${life}`);
      if (before !== undefined) node.tabs.gone(before.link);
      node.tabs.ready(gateway.link);
      let waitedMs = 0;
      let refusedMs = 0;
      for (; waitedMs < 200_000; waitedMs += 1_000) {
        await node.clock.advance(1_000);
        if (node.codeFor(gateway) !== undefined) refusedMs += 1_000;
      }
      waits.push(refusedMs);
      node.whole(gateway, 1);
      before = gateway;
    }
    expect(waits).toEqual([0, 0, 0, 30_000, 150_000]);
  });
});

describe('claims', () => {
  test('go to other gateways, each time another, once a minute and not for ever', async ({ expect }) => {
    const { node, gateway } = await open();
    const others = ['first', 'second'].map((name) => new StagedGateway(name));
    for (const other of others) node.tabs.ready(other.link);
    node.whole(gateway, 1);
    node.begin(gateway, 2).send(7);
    const sentAfter: number[] = [];
    for (let minute = 0; minute < 6; minute += 1) {
      await node.clock.advance(60_000);
      sentAfter.push(others.reduce((sum, { link }) => sum + link.claims().length, 0));
    }
    expect(sentAfter).toEqual([1, 2, 3, 3, 3, 3]);
    expect([gateway.link.claims().length, ...others.map(({ link }) => link.claims().length).sort()]).toEqual([0, 1, 2]);
    const [claim] = others.flatMap(({ link }) => link.claims());
    expect([claim?.gateway, claim?.attempts]).toMatchObject([
      gateway.peer,
      [
        { run: gateway.run, serial: 1, promptTokens: 100, completionTokens: 20 },
        { run: gateway.run, serial: 2, promptTokens: 0, completionTokens: 7 },
      ],
    ]);
    expect(node.tabs.status()[0]).toMatchObject({ claimed: 2 });
  });

  test('are split, and go to the gateway itself where there is no other', async ({ expect }) => {
    const { node, gateway } = await open();
    for (let serial = 1; serial <= 2 * claimAttemptsMax + 1; serial += 1) node.whole(gateway, serial);
    await node.clock.advance(40_000);
    expect(gateway.link.claims().map(({ attempts }) => attempts.length)).toEqual([
      claimAttemptsMax,
      claimAttemptsMax,
      1,
    ]);
  });

  test('are about what was given up, too', async ({ expect }) => {
    const { node, gateway } = await open();
    node.whole(gateway, 1);
    await node.clock.advance(1_000);
    node.tabs.gone(gateway.link);
    const next = new StagedGateway('a gateway', 'second');
    node.tabs.ready(next.link);
    await node.clock.advance(90_000);
    expect(next.link.claims().map(({ attempts }) => attempts.map(({ serial }) => serial))).toEqual([[1]]);
    // Late is better than never.
    next.send(node, [gateway.line(1)]);
    await node.settle();
    expect(next.words).toEqual([[]]);
  });
});

test('a dispute is given up after a long while, longer each time', async ({ expect }) => {
  const { node, gateway } = await open();
  const refusedMinutes: number[] = [];
  for (let serial = 1; serial <= 3; serial += 1) {
    node.whole(gateway, serial);
    gateway.send(node, [gateway.line(serial, { completionTokens: 0, nodeTokens: 0 })]);
    await node.clock.advance(20_000);
    let minutes = 0;
    for (; node.codeFor(gateway) !== undefined; minutes += 1) await node.clock.advance(60_000);
    refusedMinutes.push(minutes);
  }
  expect(refusedMinutes).toEqual([10, 40, 160]);
});

test('nothing is written and no timer runs where there is nothing to wait for', async ({ expect }) => {
  const { node, gateway } = await open();
  node.whole(gateway, 1);
  gateway.send(node, [gateway.line(1)]);
  await node.clock.advance(5_000);
  const { batches } = node.store;
  await node.clock.advance(600_000);
  expect([node.clock.timers, node.store.batches - batches]).toEqual([0, 0]);
  expect((await NodeStage.open({ store: new DiskStore(new Disk()) })).clock.timers).toBe(0);
});
