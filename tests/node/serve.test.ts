/** A node's admission, queue, deadlines and drain. */

import { describe, test } from 'vitest';
import { admit, type LaneLoad } from '../../node/admission.ts';
import { createNodeServer } from '../../node/serve.ts';
import { nothingCounted } from '../../protocol/counting.ts';
import { HelixFlowError } from '../../protocol/errors.ts';
import { encodeChatRequest } from '../../protocol/messages/chat.ts';
import type { Session } from '../../protocol/session/session.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { quietLog } from '../support/pair-of-sessions.ts';
import { ScriptedEngine, scriptedModel } from '../support/scripted-engine.ts';
import { requestOf } from '../support/sessions.ts';
import { endsOf, SmallMesh } from '../support/small-mesh.ts';

const load = (change: Partial<LaneLoad>): LaneLoad => ({
  active: 0,
  slots: 2,
  queued: 0,
  queueMax: 2,
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
      { kind: 'refuse', reason: 'full', retryAfterMs: 2_000 },
    ],
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

describe('a node', () => {
  test('runs as many answers as it has slots, queues the next in order, and refuses the rest', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add(new ScriptedEngine(1), 'owner', 2);
    const seen = [await mesh.call(), await mesh.call(), await mesh.call(), await mesh.call()];
    expect(node.engine.running).toHaveLength(1);
    expect(node.server.status()).toMatchObject({ active: 1, queued: 2 });
    for (let answer = 0; answer < 3; answer += 1) {
      node.engine.running[0]?.finish();
      await mesh.settle();
    }
    expect(seen.map(endsOf)).toEqual([['done'], ['done'], ['done'], ['NODE_OVERLOADED']]);
    expect(node.server.status()).toMatchObject({ active: 0, queued: 0, served: { done: 3, failed: 1, cancelled: 0 } });
  });

  test('frees the place of a queued answer whose client has gone', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add(new ScriptedEngine(1), 'owner', 1);
    await mesh.call();
    const queued = await mesh.call();
    queued.answer.cancel();
    await mesh.settle();
    expect(node.server.status()).toMatchObject({ active: 1, queued: 0 });
    const next = await mesh.call();
    node.engine.running[0]?.finish();
    await mesh.settle();
    node.engine.running[0]?.finish();
    await mesh.settle();
    expect(endsOf(next)).toEqual(['done']);
  });

  test('stops every answer of a gateway that is lost', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add(new ScriptedEngine(1));
    await mesh.call();
    await mesh.call();
    node.link.cut();
    await mesh.clock.turn();
    expect([node.engine.running, node.server.status().active, node.server.status().queued]).toEqual([[], 0, 0]);
  });

  test('drains: finishes what runs and waits, refuses what comes, and says so', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add(new ScriptedEngine(1));
    const seen = [await mesh.call(), await mesh.call()];
    let isDrained = false;
    void node.server.drain().then(() => {
      isDrained = true;
    });
    await mesh.clock.advance(1_000);
    await mesh.settle();
    expect(mesh.gateway.nodes()[0]?.draining).toBe(true);
    expect(endsOf(await mesh.call())).toEqual(['MODEL_UNAVAILABLE']);
    for (let answer = 0; answer < 2; answer += 1) {
      node.engine.running[0]?.finish();
      await mesh.settle();
    }
    expect([seen.map(endsOf), isDrained]).toEqual([[['done'], ['done']], true]);
  });

  test('refuses a model it does not serve under that digest', async ({ expect }) => {
    const mesh = new SmallMesh();
    const engine = new ScriptedEngine();
    const node = mesh.add(engine);
    engine.setModels([scriptedModel('m', 'ef')]);
    const seen = await mesh.call();
    await mesh.settle();
    // The new offer was on its way when the call went out to the old digest.
    expect([endsOf(seen), node.engine.running.length]).toEqual([['NODE_MODEL_MISSING'], 0]);
  });

  test('reports its load to the gateway', async ({ expect }) => {
    const mesh = new SmallMesh();
    mesh.add(new ScriptedEngine(2));
    await mesh.call();
    await mesh.clock.advance(200);
    await mesh.settle();
    expect(mesh.gateway.nodes()[0]).toMatchObject({ active: 1, queued: 0, slots: 2, draining: false });
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
        open: { type: 'open', operation: 'chat', attempt: 1, ...asked, bodyBytes: body.length, piece: body, resumeBytes: 0 },
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
    // The deadline's.
    expect(clock.timers).toBe(1);
    if (how === 'done') engine.running[0]?.finish();
    else if (how === 'cancelled') abort.abort(new HelixFlowError('REQUEST_CANCELLED', {}));
    else engine.running[0]?.fail(new HelixFlowError('ENGINE_FAILED', { reason: 'broken' }));
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
        open: { type: 'open', operation: 'chat', attempt: 1, ...asked, bodyBytes: body.length, piece: body, resumeBytes: 0 },
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
