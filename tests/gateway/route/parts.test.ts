/** Answers that nobody can carry on, clients that have part of an answer, and what the parts cost. */

import { describe, test } from 'vitest';
import { encodeChatRequest } from '../../../protocol/messages/chat.ts';
import { accessOf } from '../../support/access.ts';
import { endsOf, SmallMesh } from '../../support/small-mesh.ts';
import { begin, finish, linesOf, tellAndCut } from './moved.ts';
import {
  addTelling,
  atWork,
  beginning,
  modelThat,
  TellingEngine,
  type TellingNode,
  wholeText,
  wholeTokens,
} from './told.ts';

const tokens = wholeTokens(modelThat('tokens'));

describe('an answer that cannot be carried on', () => {
  test.for([
    ['since its engine cannot', 'none', false],
    ['since part of it is hidden', 'tokens', true],
  ] as const)('%s, is interrupted', async ([, continuation, isOpaque], { expect }) => {
    const under = await begin(2, {}, modelThat(continuation));
    const node = atWork(under.nodes);
    node.engine.tell(3);
    if (isOpaque) void node.engine.running[0]?.emit('', [99], true);
    await tellAndCut(under, 0);
    expect([endsOf(under.seen), under.seen.texts.join('')]).toEqual([['STREAM_INTERRUPTED'], beginning(3).text]);
    expect(under.mesh.accounting.ends().map((end) => end?.outcome)).toEqual(['lost']);
    expect(under.mesh.gateway.counts.splices).toEqual({ resumed: 0, failed: 1 });
  });

  test('is opaque also by what came before its first text', async ({ expect }) => {
    const under = await begin(2);
    void atWork(under.nodes).engine.running[0]?.emit('', [99], true);
    await tellAndCut(under, 3);
    expect(endsOf(under.seen)).toEqual(['STREAM_INTERRUPTED']);
  });

  test('begins again where nobody has seen it, and the gateway pays for what is void', async ({ expect }) => {
    const under = await begin(2, { isWhole: true }, modelThat('none'));
    const first = await tellAndCut(under, 3);
    const second = await finish(under);
    expect([under.seen.voids, under.seen.texts.join('')]).toEqual([[beginning(3).text], wholeText]);
    expect(under.seen.ends).toMatchObject([
      { completionTokens: tokens, served: { node: second.peer, nodes: [second.peer], attempts: 2 } },
    ]);
    expect(under.seen.committed).toHaveLength(1);
    expect(linesOf(under)).toEqual([
      [first.peer, undefined, 'hedged', 0, 4],
      [second.peer, 1, 'done', 3, tokens],
    ]);
    expect(second.engine.resumes).toEqual([undefined]);
  });

  test('begins again, and again; what is lost before it has told anything does not count', async ({ expect }) => {
    const under = await begin(5, { isWhole: true }, modelThat('none'));
    await tellAndCut(under, 3);
    await tellAndCut(under, 2);
    await tellAndCut(under, 0);
    await tellAndCut(under, 1);
    await finish(under);
    expect(under.seen.texts.join('')).toBe(wholeText);
    expect(under.seen.voids).toEqual([3, 2, 1].map((count) => beginning(count).text));
    expect(under.mesh.accounting.ends().map((end) => end?.outcome)).toEqual([
      'hedged',
      'hedged',
      'lost',
      'hedged',
      'done',
    ]);
  });

  test('and that begins again finds no node: it is interrupted', async ({ expect }) => {
    const under = await begin(1, { isWhole: true }, modelThat('none'));
    await tellAndCut(under, 3);
    await under.mesh.pass(10_200);
    expect(endsOf(under.seen)).toEqual(['STREAM_INTERRUPTED']);
    await under.mesh.gateway.drain();
  });
});

describe('a client that has part of an answer', () => {
  test('and leaves while a node is sought is charged what it has', async ({ expect }) => {
    const under = await begin(1);
    await tellAndCut(under, 3);
    under.seen.answer.cancel();
    under.nodes.push(addTelling(under.mesh));
    await under.mesh.pass(200);
    expect([under.nodes[1]?.engine.running, under.mesh.gateway.calls(), under.mesh.gateway.waiting()]).toEqual([
      [],
      0,
      0,
    ]);
    expect(linesOf(under)).toMatchObject([[under.nodes[0]?.peer, undefined, 'lost', 0, 4]]);
    await under.mesh.gateway.drain();
  });

  test('and leaves after the cut pays the prompt once, and all tokens', async ({ expect }) => {
    const under = await begin(2);
    const first = await tellAndCut(under, 3);
    const second = atWork(under.nodes);
    second.engine.tell(2);
    await under.mesh.settle();
    under.seen.answer.cancel();
    await under.mesh.settle();
    expect(linesOf(under)).toMatchObject([
      [first.peer, undefined, 'lost', 0, 4],
      [second.peer, 1, 'cancelled', expect.any(Number), 4],
    ]);
    expect(second.engine.running).toEqual([]);
  });

  test('may read slowly over the cut: credit is what it takes of the part that comes', async ({ expect }) => {
    const model = modelThat('tokens', { contextTokens: 1_000_000 });
    const under = await begin(2, {}, model);
    const { mesh, nodes, seen } = under;
    const big = 'x'.repeat(8_000);
    const say = async (count: number): Promise<boolean> => {
      let room: Promise<void> | undefined;
      for (let piece = 0; piece < count; piece += 1) room = atWork(nodes).engine.running[0]?.emit(big, [1]);
      await mesh.settle();
      return room === undefined;
    };
    expect(await say(30)).toBe(true);
    atWork(nodes).link.cut();
    await mesh.settle();
    const generation = atWork(nodes).engine.running[0];
    expect(await say(33)).toBe(false);
    seen.answer.consumed(30 * big.length);
    await mesh.settle();
    let hasRoom = false;
    void generation?.emit('', [1])?.then(() => {
      hasRoom = true;
    });
    await mesh.settle();
    expect(hasRoom).toBe(false);
    seen.answer.consumed(20 * big.length);
    await mesh.settle();
    expect(hasRoom).toBe(true);
  });
});

describe('money over a cut', () => {
  const price = { id: '' as const, prompt: 2_000_000, cached: 1_000_000, completion: 1_000_000 };
  const budget = { amountMicro: 1, period: 'total' } as const;
  const chat = { messages: [{ role: 'user' as const, content: 'hi' }], maxTokens: 100 };

  test('pays both parts, each at its price, and the prompt once', async ({ expect }) => {
    const mesh = new SmallMesh();
    const nodes = [addTelling(mesh), addTelling(mesh)];
    const [first, second] = nodes as [TellingNode, TellingNode];
    mesh.accounting.prices.set(first.peer, price);
    mesh.accounting.prices.set(second.peer, { ...price, completion: 3_000_000 });
    const seen = await mesh.call('m', 60_000, { caller: accessOf({ budget }), chat });
    const under = { mesh, nodes, seen };
    expect(await tellAndCut(under, 3)).toBe(first);
    await finish(under);
    expect(endsOf(seen)).toEqual(['done']);
    // Two fresh tokens of the prompt, and a cached one.
    const paidMicro = 2 * 2 + 1 + 4 + 3 * (tokens - 4);
    expect([mesh.accounting.heldMicro, mesh.accounting.spentMicro]).toEqual([0, paidMicro]);
  });

  test('that ends in the second part ends the answer there', async ({ expect }) => {
    const model = modelThat('tokens', { contextTokens: 1_000_000 });
    const mesh = new SmallMesh();
    mesh.accounting.price = { ...price, prompt: 0, cached: 0 };
    mesh.accounting.budgetMicro = 2_048 + 4;
    const nodes = [addTelling(mesh, new TellingEngine(model)), addTelling(mesh, new TellingEngine(model))];
    const open = { messages: chat.messages };
    const seen = await mesh.call('m', 60_000, { caller: accessOf({ budget }), chat: open });
    const under = { mesh, nodes, seen };
    const say = async (count: number): Promise<void> => {
      for (let piece = 0; piece < count; piece += 1) void atWork(nodes).engine.running[0]?.emit('x', [1]);
      await mesh.settle();
    };
    await say(1_500);
    await tellAndCut(under, 0);
    await say(1_500);
    expect(seen.texts).toHaveLength(2_048);
    expect(seen.ends).toMatchObject([{ finish: 'length', completionTokens: 2_048 }]);
    expect(mesh.accounting.ends()).toMatchObject([
      { outcome: 'lost', completionTokens: 1_500 },
      { outcome: 'cancelled', completionTokens: 548 },
    ]);
    expect([mesh.accounting.heldMicro, mesh.accounting.spentMicro]).toEqual([0, 2_048]);
  });

  test('that does not reach the only other node interrupts the answer', async ({ expect }) => {
    const mesh = new SmallMesh();
    const nodes = [addTelling(mesh), addTelling(mesh)];
    const [, second] = nodes as [TellingNode, TellingNode];
    mesh.accounting.price = { ...price, prompt: 0, cached: 0 };
    const seen = await mesh.call('m', 60_000, { caller: accessOf({ budget }), chat });
    const under = { mesh, nodes, seen };
    mesh.accounting.budgetMicro = 100;
    mesh.accounting.prices.set(second.peer, { ...price, completion: 5_000_000 });
    await tellAndCut(under, 3);
    expect(endsOf(seen)).toEqual(['STREAM_INTERRUPTED']);
    expect(mesh.gateway.counts.splices).toEqual({ resumed: 0, failed: 1 });
    expect([mesh.accounting.heldMicro, mesh.accounting.spentMicro]).toEqual([0, 4]);
    await mesh.gateway.drain();
  });
});

test('limits count what was told before the cut also while nothing has come after it', async ({ expect }) => {
  const mesh = new SmallMesh();
  const nodes = [addTelling(mesh), addTelling(mesh)];
  const caller = accessOf({ limits: { tpm: 10_000 } });
  const chat = { messages: [{ role: 'user' as const, content: 'hi' }], maxTokens: 100 };
  const seen = await mesh.call('m', 60_000, { caller, chat });
  await tellAndCut({ mesh, nodes, seen }, 3);
  seen.answer.cancel();
  await mesh.settle();
  const prompt = Math.ceil(encodeChatRequest(chat).length / 4);
  expect(mesh.gateway.rateOf(caller)?.tokens?.remaining).toBe(10_000 - prompt - 4);
});

test('limits count all parts of an answer once', async ({ expect }) => {
  const mesh = new SmallMesh();
  const nodes = [addTelling(mesh), addTelling(mesh)];
  const caller = accessOf({ limits: { tpm: 10_000 } });
  const chat = { messages: [{ role: 'user' as const, content: 'hi' }], maxTokens: 100 };
  const seen = await mesh.call('m', 60_000, { caller, chat });
  const under = { mesh, nodes, seen };
  await tellAndCut(under, 3);
  await tellAndCut({ ...under, nodes }, 0);
  nodes.push(addTelling(mesh));
  await mesh.pass(100);
  await finish(under);
  expect(mesh.gateway.rateOf(caller)?.tokens?.remaining).toBe(10_000 - 3 - tokens);
});
