/** A node's admission, queue, deadlines and drain. */

import { describe, test } from 'vitest';
import { admit, isLate, type LaneLoad } from '../../node/admission.ts';
import { createNodeServer } from '../../node/serve.ts';
import { nothingCounted } from '../../protocol/counting.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { encodeChatRequest } from '../../protocol/messages/chat.ts';
import type { Session } from '../../protocol/session/session.ts';
import { ms } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { quietLog } from '../support/pair-of-sessions.ts';
import { ScriptedEngine, scriptedModel } from '../support/scripted-engine.ts';
import { requestOf } from '../support/sessions.ts';
import { NodeStage } from './stage.ts';

const load = (change: Partial<LaneLoad>): LaneLoad => ({
  active: 0,
  slots: 2,
  queued: 0,
  queueMax: 2,
  isOwed: false,
  draining: false,
  serviceMeanMs: 4_000,
  ...change,
});

describe('admission', () => {
  test.for<[string, Partial<LaneLoad>, ReturnType<typeof admit>]>([
    ['starts while a slot is free', {}, { kind: 'start' }],
    ['queues when none is', { active: 2 }, { kind: 'queue' }],
    ['queues behind others even if a slot is free', { active: 1, queued: 1 }, { kind: 'queue' }],
    [
      'refuses when the queue is full, with an honest wait',
      { active: 2, queued: 2 },
      { kind: 'refuse', reason: 'full', retryAfterMs: 6_000 },
    ],
    ['queues in a full queue that owes a place', { active: 2, queued: 2, isOwed: true }, { kind: 'queue' }],
    ['refuses while draining', { draining: true }, { kind: 'refuse', reason: 'draining' }],
    [
      'refuses at once without slots or queue',
      { slots: 0, queueMax: 0 },
      { kind: 'refuse', reason: 'full', retryAfterMs: 60_000 },
    ],
  ])('%s', ([, change, expected], { expect }) => {
    expect(admit(load(change))).toEqual(expected);
  });
});

test.for([
  // Two slots, 4 s for each: one comes free every two seconds.
  [0, 1_000, 3_000, false],
  [0, 1_000, 2_999, true],
  [3, 1_000, 9_000, false],
  [4, 1_000, 9_000, true],
  [3, 1_001, 9_000, true],
] as const)(
  'behind %d others, with an answer of %d ms and %d ms of time: late is %s',
  ([ahead, answerMs, deadlineMs, late], { expect }) => {
    expect(isLate({ slots: 2, serviceMeanMs: 4_000 }, { ahead, answerMs, deadlineMs })).toBe(late);
  },
);

describe('a node', () => {
  test('runs as many answers as it has slots, queues the next in order, and refuses the rest', async ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(1), { queueMax: 2 });
    const seen = [stage.open(), stage.open(), stage.open(), stage.open()];
    expect(stage.engine.running).toHaveLength(1);
    expect(stage.server.status()).toMatchObject({ active: 1, queued: 2 });
    for (let answer = 0; answer < 3; answer += 1) await stage.finish();
    expect(seen.map(({ ends }) => ends)).toEqual([['done'], ['done'], ['done'], ['NODE_OVERLOADED']]);
    expect(stage.server.status()).toMatchObject({ active: 0, queued: 0, served: { done: 3, failed: 1, cancelled: 0 } });
  });

  test('tells whom it refuses how long those before take', async ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(2), { queueMax: 2 });
    const wait = () => stage.open().errors[0]?.details;
    for (let at = 0; at < 4; at += 1) stage.open();
    // Nothing is known yet but how long those that run have run.
    await stage.pass(2_000);
    expect(wait()).toEqual({ retryAfterMs: 3_000 });
    await stage.pass(1_000);
    await stage.finish();
    stage.open();
    // One took 3 s, and so has the other one so far: three at two slots.
    expect(wait()).toEqual({ retryAfterMs: 4_500 });
  });

  test('takes a deadline for no sign of speed', async ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(1), { queueMax: 0 });
    stage.open();
    await stage.pass(4_000);
    await stage.finish();
    stage.open({ deadlineMs: ms(100) });
    await stage.pass(100);
    stage.open();
    expect(stage.open().errors[0]?.details).toEqual({ retryAfterMs: 4_000 });
  });

  test('holds against no account what it has had', async ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(1));
    stage.open({ account: 'a' });
    await stage.finish();
    stage.open({ account: 'b' });
    const [again, other] = [stage.open({ account: 'a' }), stage.open({ account: 'c' })];
    await stage.finish();
    await stage.finish();
    expect([again.ends, other.ends]).toEqual([['done'], []]);
  });

  test('gives a place in its full queue to an account that has none, and says so to the one that had most', async ({
    expect,
  }) => {
    const stage = new NodeStage(new ScriptedEngine(1), { queueMax: 2 });
    const crowd = [stage.open(), stage.open(), stage.open()];
    const other = stage.open({ account: 'b' });
    expect(crowd.map(({ ends }) => ends)).toEqual([[], [], ['NODE_OVERLOADED']]);
    expect(crowd[2]?.errors[0]?.details).toEqual({ retryAfterMs: expect.any(Number) });
    crowd.push(stage.open());
    await stage.finish();
    await stage.finish();
    await stage.finish();
    expect([other.ends, crowd[1]?.ends, crowd[3]?.ends]).toEqual([['done'], ['done'], ['NODE_OVERLOADED']]);
  });

  test('starts nothing that could not be done in time any more', async ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(1));
    // Its answers take 3 ms at least, of which 1 ms is the first token's.
    stage.open();
    await stage.finish();
    stage.open();
    const late = stage.open({ account: 'late', deadlineMs: ms(1_000) });
    const short = stage.open({ deadlineMs: ms(1_000), chat: { maxTokens: 1 } });
    await stage.pass(950);
    await stage.clock.advance(48);
    await stage.finish();
    expect([late.ends, short.ends, stage.engine.running.length]).toEqual([['NODE_OVERLOADED'], [], 1]);
    // What was not started counts against its account no longer.
    const [next, other] = [stage.open({ account: 'late' }), stage.open({ account: 'other' })];
    await stage.finish();
    await stage.finish();
    expect([next.ends, other.ends]).toEqual([['done'], []]);
  });

  test('lets nobody wait in vain', async ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(1));
    stage.open();
    await stage.pass(2_000);
    await stage.finish();
    stage.open();
    const late = stage.open({ deadlineMs: ms(1_900) });
    const soon = stage.open({ deadlineMs: ms(2_100) });
    expect([late.ends, late.errors[0]?.details, soon.ends]).toEqual([['NODE_OVERLOADED'], { retryAfterMs: 2_000 }, []]);
  });

  test('starts what waits when its engine has slots again', async ({ expect }) => {
    const engine = new ScriptedEngine(1);
    const stage = new NodeStage(engine);
    stage.open();
    stage.open();
    Object.assign(engine, { slots: 2 });
    engine.setModels([scriptedModel()]);
    expect(engine.running).toHaveLength(2);
  });

  test('stops every answer of a gateway that is lost', async ({ expect }) => {
    const stage = new NodeStage(new ScriptedEngine(1));
    stage.open();
    stage.open();
    stage.link.cut();
    await stage.clock.turn();
    const { active, queued } = stage.server.status();
    expect([stage.engine.running, active, queued]).toEqual([[], 0, 0]);
  });

  test('refuses a model it does not serve under that digest', async ({ expect }) => {
    const engine = new ScriptedEngine();
    const stage = new NodeStage(engine);
    engine.setModels([scriptedModel('m', 'ef')]);
    expect([stage.open().ends, engine.running.length]).toEqual([['NODE_MODEL_MISSING'], 0]);
  });
});

describe('an answer that has ended', () => {
  /** A server of one slot, and attempts whose ends are written down. */
  const start = () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(1);
    const server = createNodeServer(
      { clock, log: quietLog, tabs: { refusal: () => undefined, begin: () => ({ end: () => {} }) } },
      { engines: [engine], queueMax: 2, owner: 'owner', hardware: 'test' },
    );
    const open = () => {
      const ends: string[] = [];
      const abort = new AbortController();
      const { body: _, ...asked } = requestOf(new Uint8Array());
      const body = encodeChatRequest({ messages: [{ role: 'user', content: 'hi' }] });
      server.opened({ peer: 'gateway', peerProcess: '22'.repeat(16) } as unknown as Session, {
        open: {
          type: 'open',
          operation: 'chat',
          attempt: 1,
          ...asked,
          bodyBytes: body.length,
          piece: body,
          resumeBytes: 0,
        },
        body,
        signal: abort.signal,
        emit: () => undefined,
        done: () => ends.push('done'),
        fail: ({ code }) => ends.push(code),
        cancelled: () => ends.push('cancelled'),
        sent: () => nothingCounted,
        acknowledgedTokens: () => 0,
      });
      return { ends, abort };
    };
    return { clock, engine, server, open };
  };

  test.for(['done', 'ENGINE_FAILED', 'cancelled'] as const)('as %s leaves no timer', async (how, { expect }) => {
    const { clock, engine, open } = start();
    const { ends, abort } = open();
    await clock.advance(1_000);
    // The deadline's, and the one that tells the gateways every second that it works.
    expect(clock.timers).toBe(2);
    if (how === 'done') engine.running[0]?.finish();
    else if (how === 'cancelled') abort.abort(new HelixFlowError('REQUEST_CANCELLED', {}));
    else engine.running[0]?.fail(new HelixFlowError('ENGINE_FAILED', { reason: 'broken' }));
    await clock.turn();
    // Longer than a load frame may wait.
    await clock.advance(1_000);
    expect([ends, clock.timers]).toEqual([[how], 0]);
  });

  test('is not ended again by its gateway’s leaving, nor is any other', async ({ expect }) => {
    const { clock, engine, server, open } = start();
    const ended = open();
    const [running, queued] = [open(), open()];
    engine.running[0]?.finish();
    await clock.turn();
    ended.abort.abort(new HelixFlowError('REQUEST_CANCELLED', {}));
    await clock.advance(requestOf(new Uint8Array()).deadlineMs / 2);
    expect([ended.ends, running.ends, queued.ends]).toEqual([['done'], [], []]);
    expect(server.status()).toMatchObject({ active: 1, queued: 1, served: { done: 1, failed: 0, cancelled: 0 } });
    expect(engine.running[0]?.signal.aborted).toBe(false);
  });
});

describe('the tab with a gateway', () => {
  const gateway = { peer: 'gateway', peerProcess: '22'.repeat(16) } as unknown as Session;

  /** A server of one slot; what it told the gateway and its tab, in order. */
  const start = (uncovered?: HelixFlowError<'TAB_UNCOVERED'>, maxTokens?: number) => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(1);
    const told: unknown[] = [];
    const counts: (() => readonly number[])[] = [];
    const server = createNodeServer(
      {
        clock,
        log: quietLog,
        tabs: {
          refusal: () => uncovered,
          begin: ({ sent, acknowledgedTokens, ...named }) => {
            told.push(named);
            counts.push(() => [sent().tokens, acknowledgedTokens()]);
            return { end: (end) => told.push(end) };
          },
        },
      },
      { engines: [engine], queueMax: 2, owner: 'owner', hardware: 'test' },
    );
    const abort = new AbortController();
    const { body: _, ...asked } = requestOf(new Uint8Array());
    const body = encodeChatRequest({
      messages: [{ role: 'user', content: 'hi' }],
      ...(maxTokens === undefined ? {} : { maxTokens }),
    });
    const open = (): void =>
      server.opened(gateway, {
        open: {
          type: 'open',
          operation: 'chat',
          attempt: 1,
          ...asked,
          bodyBytes: body.length,
          piece: body,
          resumeBytes: 0,
        },
        body,
        signal: abort.signal,
        emit: () => undefined,
        done: ({ promptTokens, completionTokens }) => told.push(['done', promptTokens, completionTokens]),
        fail: ({ code }) => told.push(code),
        cancelled: (completionTokens, promptTokens) => told.push(['cancelled', promptTokens, completionTokens]),
        sent: () => ({ tokens: 7, bytes: 28, hasIds: true }),
        acknowledgedTokens: () => 6,
      });
    open();
    const { deadlineMs: _ms, account: _tag, ...named } = asked;
    const begun = { gateway: gateway.peer, run: gateway.peerProcess, ...named, bodyBytes: body.length };
    return { clock, engine, abort, told, counts, begun, open, bodyBytes: body.length };
  };

  test('refuses work while too much is uncovered, before anything else', async ({ expect }) => {
    const { engine, told } = start(new HelixFlowError('TAB_UNCOVERED', { ageMs: 12_000 }));
    expect([told, engine.running.length]).toEqual([['TAB_UNCOVERED'], 0]);
  });

  test('hears of an answer what the gateway is told of it', async ({ expect }) => {
    const { clock, engine, told, begun } = start();
    engine.running[0]?.finish();
    await clock.turn();
    const done = { kind: 'done', promptTokens: 3, cachedTokens: 1, completionTokens: 2 };
    expect(told).toEqual([begun, done, ['done', 3, 2]]);
  });

  test('hears of one that failed', async ({ expect }) => {
    const { clock, engine, told, begun } = start();
    engine.running[0]?.fail(new HelixFlowError('ENGINE_FAILED', { reason: 'broken' }));
    await clock.turn();
    expect(told).toEqual([begun, { kind: 'failed' }, 'ENGINE_FAILED']);
  });

  test('counts no more than was asked for, whatever the engine sends', async ({ expect }) => {
    for (const [maxTokens, expected] of [
      [undefined, [7, 6]],
      [5, [5, 5]],
    ] as const) {
      const { clock, told, counts, abort } = start(undefined, maxTokens);
      expect(counts[0]?.()).toEqual(expected);
      abort.abort(new HelixFlowError('REQUEST_CANCELLED', {}));
      await clock.turn();
      expect(told.at(-2)).toMatchObject({ kind: 'cancelled', completionTokens: expected[0] });
    }
  });

  test('hears of one that was stopped, with all that was sent and a guess of the prompt', async ({ expect }) => {
    const { clock, told, begun, abort, open, bodyBytes } = start();
    open();
    abort.abort(new HelixFlowError('REQUEST_CANCELLED', {}));
    await clock.turn();
    const guess = Math.ceil(bodyBytes / 4);
    expect(told).toEqual([
      begun,
      begun,
      // It was waiting for the slot, and nothing of its prompt was read.
      { kind: 'cancelled', promptTokens: 0, completionTokens: 7 },
      ['cancelled', 0, 7],
      { kind: 'cancelled', promptTokens: guess, completionTokens: 7 },
      ['cancelled', guess, 7],
    ]);
  });
});
