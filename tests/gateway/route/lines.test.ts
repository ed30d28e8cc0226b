/** What each attempt leaves behind: one line with the right end, on disk before its client hears of a good one. */

import { describe, test } from 'vitest';
import type { AttemptEnd } from '../../../ledger/tabs.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import { encodeChatRequest } from '../../../protocol/messages/chat.ts';
import { accessOf } from '../../support/access.ts';
import { ScriptedEngine, scriptedModel } from '../../support/scripted-engine.ts';
import { endsOf, type MeshNodeUnderTest, type SeenCall, SmallMesh } from '../../support/small-mesh.ts';

const chat = { messages: [{ role: 'user' as const, content: 'hi' }] };
const promptEstimate = Math.ceil(encodeChatRequest(chat).length / 4);
const caller = accessOf();

interface Under {
  readonly mesh: SmallMesh;
  readonly nodes: readonly MeshNodeUnderTest[];
  readonly seen: SeenCall;
  readonly serving: MeshNodeUnderTest;
}

async function begin(nodes = 1): Promise<Under> {
  const mesh = new SmallMesh();
  const all = Array.from({ length: nodes }, () => mesh.add());
  const seen = await mesh.call('m', 60_000, { chat });
  const serving = all.find(({ engine }) => engine.running.length > 0) ?? all[0];
  if (serving === undefined) throw new Error('no node');
  return { mesh, nodes: all, seen, serving };
}

async function emit({ mesh, serving }: Under, ...texts: readonly string[]): Promise<void> {
  for (const text of texts) void serving.engine.running[0]?.emit(text);
  await mesh.settle();
}

async function pass({ mesh }: Pick<Under, 'mesh'>, seconds: number): Promise<void> {
  for (let second = 0; second < seconds; second += 1) {
    await mesh.clock.advance(1_000);
    await mesh.settle();
  }
}

/** Ends as they stand in lines, without the time to the first content. */
const written = ({ mesh }: Under): unknown[] =>
  mesh.accounting.ends().map((end) => {
    const { firstMs: _, ...rest } = end as AttemptEnd;
    return rest;
  });

const nothing = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };

describe('an attempt leaves', () => {
  const rows: readonly (readonly [string, (under: Under) => unknown, readonly string[], object])[] = [
    [
      'done, when its answer is whole',
      ({ serving }) => serving.engine.running[0]?.finish(),
      ['done'],
      { outcome: 'done', promptTokens: 3, cachedTokens: 1, completionTokens: 2, nodeTokens: 2 },
    ],
    [
      'cancelled, when its client leaves',
      ({ seen }) => seen.answer.cancel(),
      [],
      { outcome: 'cancelled', promptTokens: promptEstimate, cachedTokens: 0, completionTokens: 2, nodeTokens: 2 },
    ],
    [
      'cancelled, when its key is taken back',
      ({ mesh }) => mesh.gateway.cut(caller.keyId, caller.issuer),
      ['KEY_REVOKED'],
      { outcome: 'cancelled', promptTokens: promptEstimate, cachedTokens: 0, completionTokens: 2, nodeTokens: 2 },
    ],
    [
      'cut, when its deadline passes',
      (under) => pass(under, 61),
      ['STREAM_INTERRUPTED'],
      { outcome: 'cut', ...nothing, completionTokens: 2 },
    ],
    [
      'lost, when its node goes',
      ({ serving }) => serving.link.cut(),
      ['STREAM_INTERRUPTED'],
      { outcome: 'lost', ...nothing, completionTokens: 2 },
    ],
    [
      'failed, when its engine breaks',
      ({ serving }) => serving.engine.running[0]?.fail(new Error('broken')),
      ['STREAM_INTERRUPTED'],
      { outcome: 'failed', ...nothing, completionTokens: 2 },
    ],
  ];
  test.for(rows)('%s', async ([, act, told, line], { expect }) => {
    const under = await begin();
    await emit(under, 'hel', 'lo');
    await act(under);
    await under.mesh.settle();
    expect([endsOf(under.seen), written(under)]).toEqual([told, [line]]);
    expect(under.mesh.gateway.calls()).toBe(0);
    await under.mesh.gateway.drain();
  });

  test('cancelled, when no more money is there, as an answer that has reached its length', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add(new ScriptedEngine(2, [{ ...scriptedModel(), contextTokens: 1_000_000 }]));
    mesh.accounting.price = { id: '', prompt: 7, cached: 7, completion: 1_000_000 };
    mesh.accounting.budgetMicro = 2_048 + 1_024 + 100;
    const budget = { amountMicro: 1, period: 'total' } as const;
    const seen = await mesh.call('m', 60_000, { caller: accessOf({ budget }), chat });
    for (let piece = 0; piece < 4_000; piece += 1) {
      void node.engine.running[0]?.emit('x');
      seen.answer.consumed(1);
      if (piece % 50 === 0) await mesh.settle();
    }
    await mesh.settle();
    expect(seen.texts).toHaveLength(2_048 + 1_024);
    const billed = { promptTokens: promptEstimate, cachedTokens: 0, completionTokens: 3_072 };
    expect(seen.ends).toMatchObject([{ finish: 'length', ...billed }]);
    expect(mesh.accounting.ends()).toMatchObject([{ outcome: 'cancelled', ...billed }]);
    expect([mesh.accounting.heldMicro, mesh.accounting.spentMicro]).toEqual([0, 3_073]);
    expect(node.engine.running).toEqual([]);
  });

  test('a line for each node that had it, which all name the first', async ({ expect }) => {
    const under = await begin(3);
    under.serving.link.cut();
    await under.mesh.settle();
    const second = under.nodes.find(({ engine, link }) => engine.running.length > 0 && !link.b.isClosed);
    second?.engine.running[0]?.fail(new Error('broken'));
    await under.mesh.settle();
    const third = under.nodes.find(({ engine, link }) => engine.running.length > 0 && !link.b.isClosed);
    void third?.engine.running[0]?.emit('ok');
    third?.engine.running[0]?.finish();
    await under.mesh.settle();
    expect(endsOf(under.seen)).toEqual(['done']);
    expect(under.mesh.accounting.lines.map(({ start, end }) => [start.node, start.first, end?.outcome])).toEqual([
      [under.serving.peer, undefined, 'lost'],
      [second?.peer, 1, 'failed'],
      [third?.peer, 1, 'done'],
    ]);
  });

  test('no line where it never left', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add();
    const full = await mesh.call();
    // A goodbye that is not heard of yet: the session takes nothing more.
    node.link.b.events?.closed(undefined);
    const seen = await mesh.call();
    await mesh.settle();
    expect([endsOf(full), endsOf(seen)]).toEqual([['NODE_LOST'], ['MODEL_UNAVAILABLE']]);
    expect(mesh.accounting.ends()).toMatchObject([{ outcome: 'lost' }]);
  });
});

describe('what is in a line', () => {
  test('is who asked, what for, at which price, and when content began', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add();
    const price = { id: 'ab'.repeat(8) as never, prompt: 1, cached: 1, completion: 2 };
    mesh.accounting.prices.set(node.peer, price);
    await mesh.call();
    await mesh.clock.advance(250);
    void node.engine.running[0]?.emit('x');
    node.engine.running[0]?.finish();
    await mesh.settle();
    expect(mesh.accounting.lines[0]).toMatchObject({
      serial: 1,
      start: {
        node: node.peer,
        request: 'ab'.repeat(16),
        model: 'm',
        digest: scriptedModel().digest,
        caller: mesh.accounting.callerOf(),
        price,
        payer: 'account',
      },
      received: 1,
      end: { firstMs: 250 },
    });
    expect(mesh.accounting.lines[0]?.start).not.toHaveProperty('lease');
  });

  test('never counts more than came, whatever the node says', async ({ expect }) => {
    const under = await begin();
    under.serving.engine.running[0]?.finish();
    await under.mesh.settle();
    expect(written(under)).toEqual([
      { outcome: 'done', promptTokens: 3, cachedTokens: 1, completionTokens: 1, nodeTokens: 2 },
    ]);
    expect(under.seen.ends).toMatchObject([{ promptTokens: 3, cachedTokens: 1, completionTokens: 1 }]);
  });

  test('counts nothing of an attempt that was never shown', async ({ expect }) => {
    const under = await begin();
    await emit(under, '', '');
    under.serving.link.cut();
    await under.mesh.settle();
    expect(written(under)).toEqual([{ outcome: 'lost', ...nothing }]);
  });
});

describe('a client that left', () => {
  test('has its line after two seconds at most, where the node says nothing', async ({ expect }) => {
    const under = await begin();
    await emit(under, 'a');
    under.seen.answer.cancel();
    const whenDrained = under.mesh.gateway.drain().then(() => 'drained');
    await under.mesh.clock.advance(1_999);
    expect([under.mesh.gateway.calls(), under.mesh.accounting.ends()]).toEqual([0, [undefined]]);
    await under.mesh.clock.advance(1);
    expect(written(under)).toEqual([
      { outcome: 'cancelled', promptTokens: promptEstimate, cachedTokens: 0, completionTokens: 1 },
    ]);
    await expect(whenDrained).resolves.toBe('drained');
  });

  test('has it at once where the node has gone', async ({ expect }) => {
    const under = await begin();
    await emit(under, 'a');
    under.seen.answer.cancel();
    under.serving.link.cut();
    expect(written(under)).toMatchObject([{ outcome: 'cancelled', completionTokens: 1 }]);
  });

  test('while the end of its answer was on its way is still a client that left, with the counts of that end', async ({
    expect,
  }) => {
    const under = await begin();
    await emit(under, 'a');
    void under.serving.engine.running[0]?.emit('b');
    under.serving.engine.running[0]?.finish();
    await under.mesh.clock.turn();
    under.seen.answer.cancel();
    await under.mesh.settle();
    expect(written(under)).toEqual([
      { outcome: 'cancelled', promptTokens: 3, cachedTokens: 0, completionTokens: 1, nodeTokens: 2 },
    ]);
  });
});

describe('a good end', () => {
  test.for([
    ['after content', ['x'], [1], ['done']],
    ['of an empty answer', [], [0], ['done']],
  ] as const)('waits for the disk, %s', async ([, texts, committed, told], { expect }) => {
    const under = await begin();
    under.mesh.accounting.isSlow = true;
    await emit(under, ...texts);
    under.serving.engine.running[0]?.finish();
    await under.mesh.settle();
    expect([under.seen.committed.length, endsOf(under.seen), under.mesh.gateway.calls()]).toEqual([
      ...committed,
      [],
      1,
    ]);
    under.mesh.accounting.sync();
    expect([under.seen.committed.length, endsOf(under.seen), under.mesh.gateway.calls()]).toEqual([1, told, 0]);
  });

  test.for([
    ['as what it is, before content', [], 'USAGE_UNRECORDED', 0],
    ['as an interruption, after content', ['x'], 'STREAM_INTERRUPTED', 1],
  ] as const)('that cannot be written down is told %s', async ([, texts, code, committed], { expect }) => {
    const under = await begin();
    under.mesh.accounting.isSlow = true;
    await emit(under, ...texts);
    under.serving.engine.running[0]?.finish();
    await under.mesh.settle();
    under.mesh.accounting.error = new HelixFlowError('STORE_FAILED', { reason: 'full' });
    under.mesh.accounting.sync();
    expect([endsOf(under.seen), under.seen.committed.length]).toEqual([[code], committed]);
    expect(endsOf(await under.mesh.call())).toEqual(['USAGE_UNRECORDED']);
    expect(under.serving.engine.running).toEqual([]);
  });

  test('that waits is neither cut, nor too late, nor lost with its node; and a client that leaves hears nothing', async ({
    expect,
  }) => {
    const under = await begin();
    under.mesh.accounting.isSlow = true;
    await emit(under, 'x');
    under.serving.engine.running[0]?.finish();
    await under.mesh.settle();
    expect(under.mesh.gateway.cut(caller.keyId, caller.issuer)).toBe(0);
    under.serving.link.cut();
    await pass(under, 61);
    expect(under.seen.ends).toEqual([]);
    under.seen.answer.cancel();
    under.mesh.accounting.sync();
    expect([under.seen.ends, under.mesh.gateway.calls()]).toEqual([[], 0]);
    expect(written(under)).toMatchObject([{ outcome: 'done' }]);
  });
});

test('an answer that broke after content is told of once its line is on disk, or can never be', async ({ expect }) => {
  for (const error of [undefined, new HelixFlowError('STORE_FAILED', { reason: 'full' })]) {
    const under = await begin();
    under.mesh.accounting.isSlow = true;
    await emit(under, 'x');
    under.serving.link.cut();
    await under.mesh.settle();
    expect(endsOf(under.seen)).toEqual([]);
    under.mesh.accounting.error = error;
    under.mesh.accounting.sync();
    expect(endsOf(under.seen)).toEqual(['STREAM_INTERRUPTED']);
  }
});

test('a silent node loses its attempt, and its line, with the answer that moves on', async ({ expect }) => {
  const under = await begin(2);
  const other = under.nodes.find((node) => node !== under.serving);
  for (let beat = 0; beat <= limits.heartbeatMissesMax; beat += 1) {
    await under.mesh.clock.advance(limits.heartbeatActiveMs);
    other?.link.settle();
  }
  expect(under.mesh.accounting.lines.map(({ start, end }) => [start.node, end?.outcome])).toEqual([
    [under.serving.peer, 'lost'],
    [other?.peer, undefined],
  ]);
});
