/** What a node says of its load: at once, never too often, and often enough while it works. */

import { describe, test } from 'vitest';
import { ScriptedEngine } from '../support/scripted-engine.ts';
import { NodeStage } from './stage.ts';

describe('load', () => {
  test('tells a first change at once, and those of the next tenth of a second together', async ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(3));
    await stage.pass(500);
    stage.loads.length = 0;
    const atMs = stage.clock.nowMs();
    for (let at = 0; at < 3; at += 1) stage.open();
    await stage.pass(150);
    expect(stage.loads.map((load) => [load.atMs - atMs, load.active, load.freeSlots])).toEqual([
      [0, 1, 2],
      [100, 3, 0],
    ]);
  });

  test('comes each second while anything runs, with how far the engine has come, and not after', async ({ expect }) => {
    const engine = new ScriptedEngine(1);
    engine.progress = 0;
    const stage = new NodeStage(engine);
    stage.open();
    await stage.pass(150);
    stage.loads.length = 0;
    const atMs = stage.clock.nowMs();
    for (let second = 1; second <= 3; second += 1) {
      // The third second is one in which nothing changed.
      if (second < 3) engine.progress = second * 10;
      await stage.pass(1_000);
    }
    expect(stage.loads.map(({ progress }) => progress)).toEqual([10, 20, 20]);
    expect(stage.loads.every((load, index) => load.atMs - atMs <= 1_000 * (index + 1))).toBe(true);
    await stage.finish();
    await stage.pass(200);
    stage.loads.length = 0;
    await stage.pass(5_000);
    expect(stage.loads).toEqual([]);
  });

  test('never comes more than ten times a second, whatever goes on', async ({ expect }) => {
    const engine = new ScriptedEngine(1);
    engine.progress = 0;
    const stage = new NodeStage(engine);
    await stage.pass(500);
    stage.loads.length = 0;
    for (let step = 0; step < 100; step += 1) {
      engine.progress = step;
      stage.open();
      await stage.finish();
      await stage.pass(20);
    }
    const times = stage.loads.map(({ atMs }) => atMs);
    const busiest = Math.max(...times.map((from) => times.filter((at) => at >= from && at < from + 1_000).length));
    expect([busiest <= 10, stage.loads.length >= 15]).toEqual([true, true]);
  });

  test('says 0 of an engine that cannot tell how far it has come', ({ expect }) => {
    const engine = new ScriptedEngine(1);
    engine.progress = 0;
    engine.progress = undefined;
    expect(new NodeStage(engine).gateway.load?.progress).toBe(0);
  });

  test('is offered with where the node stands', ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(1), { region: 'eu-central' });
    expect([stage.gateway.offer?.region, stage.server.status().region]).toEqual(['eu-central', 'eu-central']);
    expect(new NodeStage().server.status()).not.toHaveProperty('region');
  });
});
