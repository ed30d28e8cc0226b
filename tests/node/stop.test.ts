/** Answers that end early: by their gateway in every mode, by their deadline, by a drain. */

import { describe, test } from 'vitest';
import { limits } from '../../protocol/limits.ts';
import { ms } from '../../protocol/units.ts';
import { ScriptedEngine } from '../support/scripted-engine.ts';
import { NodeStage } from './stage.ts';

/** Lets go of nothing: what is aborted goes on. */
class StuckEngine extends ScriptedEngine {
  override generate(...[request, emit]: Parameters<ScriptedEngine['generate']>) {
    return super.generate(request, emit, new AbortController().signal);
  }
}

describe('a cancel', () => {
  test('frees the place of an answer that waits, and is acknowledged', async ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(1), { queueMax: 1 });
    stage.open();
    const queued = stage.open();
    queued.cancel();
    expect(queued.said).toEqual([expect.objectContaining({ type: 'cancelled', completionTokens: 0, promptTokens: 0 })]);
    expect(stage.server.status()).toMatchObject({ active: 1, queued: 0, served: { cancelled: 1 } });
    const next = stage.open();
    await stage.finish();
    await stage.finish();
    expect(next.ends).toEqual(['done']);
  });

  test('stops the engine of an answer that runs, and starts the next one', async ({ expect }) => {
    const stage = new NodeStage();
    const [running, queued] = [stage.open(), stage.open()];
    const generation = stage.engine.running[0];
    running.cancel();
    await stage.settle();
    expect([generation?.signal.aborted, running.said.length, stage.engine.running.length]).toEqual([true, 1, 1]);
    await stage.finish();
    expect(queued.ends).toEqual(['done']);
  });

  test('reaches an engine that waits for credit', async ({ expect }) => {
    const stage = new NodeStage();
    const stalled = stage.open();
    let isGoingOn = false;
    const piece = 'x'.repeat(limits.creditInitialBytes / 8);
    for (let sent = 0; sent < 8; sent += 1) void stage.engine.running[0]?.emit(piece);
    const waiting = stage.engine.running[0]?.emit(piece);
    void waiting?.then(() => {
      isGoingOn = true;
    });
    await stage.clock.turn();
    expect([waiting === undefined, isGoingOn]).toEqual([false, false]);
    stage.link.settle();
    stalled.cancel();
    await stage.settle();
    expect([isGoingOn, stalled.said.length]).toEqual([true, 1]);
  });

  test('is told of the slot that came free at once', async ({ expect }) => {
    const stage = new NodeStage();
    const running = stage.open();
    await stage.pass(1_500);
    const atMs = stage.clock.nowMs();
    running.cancel();
    await stage.settle();
    expect(stage.loads.at(-1)).toMatchObject({ active: 0, freeSlots: 1, atMs });
  });
});

describe('a deadline', () => {
  test('ends an answer whose client takes nothing', async ({ expect }) => {
    const stage = new NodeStage();
    const stalled = stage.open({ deadlineMs: ms(1_000) });
    const generation = stage.engine.running[0];
    const piece = 'x'.repeat(limits.creditInitialBytes);
    void generation?.emit(piece);
    let isGoingOn = false;
    void generation?.emit(piece)?.then(() => {
      isGoingOn = true;
    });
    await stage.pass(1_000);
    await stage.settle();
    expect([isGoingOn, stalled.ends]).toEqual([true, ['DEADLINE_EXCEEDED']]);
  });
});

describe('a drain', () => {
  test('finishes what runs and what waits, refuses what comes, and says so at once', async ({ expect }) => {
    const stage = new NodeStage();
    const seen = [stage.open(), stage.open()];
    const drained: unknown[] = [];
    void stage.server.drain().then((result) => drained.push(result));
    stage.link.settle();
    expect(stage.loads.at(-1)?.draining).toBe(true);
    expect(stage.open().ends).toEqual(['NODE_DRAINING']);
    await stage.finish();
    expect(drained).toEqual([]);
    await stage.finish();
    expect([seen.map(({ ends }) => ends), drained]).toEqual([[['done'], ['done']], [{ finished: 2, handedOver: 0 }]]);
  });

  test('hands over what is left when there is no more time, also of an engine that does not let go', async ({
    expect,
  }) => {
    const engine = new StuckEngine(2);
    const stage = new NodeStage(engine);
    const [done, running, queued] = [stage.open(), stage.open(), stage.open()];
    const hurry = new AbortController();
    const drained = stage.server.drain(hurry.signal);
    const generation = engine.running[1];
    await stage.finish();
    void generation?.emit('half');
    await stage.settle();
    hurry.abort();
    expect(await drained).toEqual({ finished: 1, handedOver: 2 });
    const sent = stage.link.a.queue.length;
    void generation?.emit('too late');
    expect(stage.link.a.queue.length).toBe(sent);
    await stage.settle();
    expect(await stage.server.drain(hurry.signal)).toEqual({ finished: 0, handedOver: 0 });
    expect([done, running, queued].map(({ texts, ends }) => [texts, ends])).toEqual([
      [[], ['done']],
      [['half'], ['NODE_DRAINING']],
      [[], ['NODE_DRAINING']],
    ]);
    expect(stage.works.map(({ ends }) => ends.map(({ kind }) => kind))).toEqual([['done'], ['failed'], ['failed']]);
  });

  test('without patience hands over everything, without work it is over', async ({ expect }) => {
    const stage = new NodeStage();
    expect(await stage.server.drain(AbortSignal.abort())).toEqual({ finished: 0, handedOver: 0 });
    const busy = new NodeStage();
    const seen = busy.open();
    expect(await busy.server.drain(AbortSignal.abort())).toEqual({ finished: 0, handedOver: 1 });
    busy.link.settle();
    expect([seen.ends, busy.server.status().draining]).toEqual([['NODE_DRAINING'], true]);
  });
});
