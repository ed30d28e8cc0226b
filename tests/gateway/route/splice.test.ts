/** Answers that lose their node: another one goes on, and their clients, their lines and their money look as if nothing had happened. */

import { describe, test } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { encodeChatRequest } from '../../../protocol/messages/chat.ts';
import { ms } from '../../../protocol/units.ts';
import { accessOf } from '../../support/access.ts';
import { endsOf, type SeenCall, SmallMesh } from '../../support/small-mesh.ts';
import {
  addTelling,
  atWork,
  beginning,
  modelThat,
  piecesCount,
  TellingEngine,
  type TellingNode,
  wholeText,
  wholeTokens,
} from './told.ts';

const tokens = wholeTokens(modelThat('tokens'));

interface Under {
  readonly mesh: SmallMesh;
  readonly nodes: TellingNode[];
  readonly seen: SeenCall;
}

async function begin(
  nodes: number,
  more: Parameters<SmallMesh['call']>[2] = {},
  model = modelThat('tokens'),
): Promise<Under> {
  const mesh = new SmallMesh();
  const all = Array.from({ length: nodes }, () => addTelling(mesh, new TellingEngine(model)));
  return { mesh, nodes: all, seen: await mesh.call('m', 60_000, more) };
}

/** The node at work tells so many pieces, and is lost. */
async function tellAndCut({ mesh, nodes }: Under, pieces: number): Promise<TellingNode> {
  const node = atWork(nodes);
  node.engine.tell(pieces);
  await mesh.settle();
  node.link.cut();
  await mesh.settle();
  return node;
}

async function finish({ mesh, nodes }: Under): Promise<TellingNode> {
  const node = atWork(nodes);
  node.engine.finish();
  await mesh.settle();
  return node;
}

const linesOf = ({ mesh }: Pick<Under, 'mesh'>): unknown[] =>
  mesh.accounting.lines.map(({ start, end }) => [
    start.node,
    start.first,
    end?.outcome,
    end?.promptTokens,
    end?.completionTokens,
  ]);

describe('an answer that loses its node', () => {
  test('is gone on with from the ids and the text that were received', async ({ expect }) => {
    const under = await begin(2);
    const first = await tellAndCut(under, 3);
    const second = await finish(under);
    expect(second.engine.resumes).toEqual([{ tokenIds: beginning(3).ids, text: beginning(3).text, tokens: 4 }]);
    const { seen } = under;
    expect(seen.texts.join('')).toBe(wholeText);
    const served = { node: second.peer, attempts: 2, nodes: [first.peer, second.peer], splices: 1 };
    expect(seen.ends).toMatchObject([{ finish: 'stop', promptTokens: 3, completionTokens: tokens, served }]);
    expect(seen.committed).toMatchObject([{ node: first.peer, attempts: 1, nodes: [first.peer], splices: 0 }]);
    expect(linesOf(under)).toEqual([
      [first.peer, undefined, 'lost', 0, 4],
      [second.peer, 1, 'done', 3, tokens - 4],
    ]);
    expect(under.mesh.gateway.counts).toMatchObject({
      attempts: { first: 1, splice: 1, retry: 0 },
      splices: { resumed: 1, failed: 0 },
    });
  });

  test('is gone on with from its text alone, where no ids are told', async ({ expect }) => {
    const model = modelThat('text');
    const under = await begin(2, {}, model);
    await tellAndCut(under, 4);
    const second = await finish(under);
    expect(second.engine.resumes).toEqual([{ tokenIds: [], text: beginning(4).text, tokens: 4 }]);
    expect(under.seen.texts.join('')).toBe(wholeText);
    expect(under.seen.ends).toMatchObject([{ completionTokens: wholeTokens(model) }]);
  });

  test('knows of ids whose text had not come yet', async ({ expect }) => {
    const under = await begin(2);
    await tellAndCut(under, 2);
    const second = await finish(under);
    expect(second.engine.resumes).toMatchObject([{ tokenIds: [11, 12, 13], text: 'Grü' }]);
    expect(under.seen.texts.join('')).toBe(wholeText);
  });

  test('may lose as many as it likes', async ({ expect }) => {
    const under = await begin(6);
    const served: string[] = [];
    for (let cut = 0; cut < 5; cut += 1) served.push((await tellAndCut(under, 2)).peer);
    served.push((await finish(under)).peer);
    expect(under.seen.texts.join('')).toBe(wholeText);
    expect(under.seen.ends).toMatchObject([
      { completionTokens: tokens, served: { nodes: served, splices: 5, attempts: 6 } },
    ]);
    expect(under.mesh.accounting.ends().map((end) => end?.outcome)).toEqual([...Array(5).fill('lost'), 'done']);
    expect(under.mesh.accounting.ends().reduce((sum, end) => sum + (end?.completionTokens ?? 0), 0)).toBe(tokens);
  });

  test('moves on unseen from one that is lost before it has told anything of it', async ({ expect }) => {
    const under = await begin(3);
    const first = await tellAndCut(under, 3);
    await tellAndCut(under, 0);
    const third = await finish(under);
    expect(third.engine.resumes).toMatchObject([{ text: beginning(3).text, tokens: 4 }]);
    expect(under.seen.texts.join('')).toBe(wholeText);
    expect(under.seen.ends).toMatchObject([
      { completionTokens: tokens, served: { nodes: [first.peer, third.peer], splices: 1, attempts: 3 } },
    ]);
    expect(under.mesh.gateway.counts.splices).toEqual({ resumed: 1, failed: 0 });
  });

  test('tells nothing of how fast its second node is with a whole request', async ({ expect }) => {
    const under = await begin(2);
    await tellAndCut(under, 3);
    await under.mesh.pass(500);
    const second = await finish(under);
    await under.mesh.call();
    const [choice] = under.mesh.gateway.traces.newest(1)[0]?.steps ?? [];
    expect(choice).toMatchObject({ kind: 'choice', chosen: second.peer, candidates: [{ score: { overheadMs: 0 } }] });
  });

  test('may go on where it had failed before it began', async ({ expect }) => {
    const under = await begin(2);
    const first = atWork(under.nodes);
    first.engine.running[0]?.fail(new Error('broken'));
    await under.mesh.settle();
    await tellAndCut(under, 3);
    expect(await finish(under)).toBe(first);
    expect(under.seen.texts.join('')).toBe(wholeText);
  });

  test('moves on from one that does not go on with it', async ({ expect }) => {
    const under = await begin(3);
    await tellAndCut(under, 3);
    const second = atWork(under.nodes);
    second.engine.running[0]?.fail(new HelixFlowError('RESUME_REFUSED', { reason: 'x' }));
    await under.mesh.settle();
    await finish(under);
    expect(under.seen.texts.join('')).toBe(wholeText);
    expect(under.mesh.accounting.ends().map((end) => end?.outcome)).toEqual(['lost', 'failed', 'done']);
    expect(under.mesh.gateway.breakers()).toMatchObject({ open: 0 });
  });

  test('moves on from one whose context has no room for it, where another one has', async ({ expect }) => {
    const under = await begin(2);
    const { mesh, nodes } = under;
    nodes.push(addTelling(mesh, new TellingEngine(modelThat('tokens', { contextTokens: 2_000 }))));
    await tellAndCut(under, 3);
    const second = atWork(nodes);
    expect(second).toBe(nodes[1]);
    const details = { contextTokens: 1_000, requestedTokens: 1_500, promptTokens: 1_400, completionTokens: 100 };
    second.engine.running[0]?.fail(new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', details));
    await mesh.settle();
    expect(await finish(under)).toBe(nodes[2]);
    expect(under.seen.texts.join('')).toBe(wholeText);
  });

  test('is whole where only its end was missing', async ({ expect }) => {
    const under = await begin(2);
    await tellAndCut(under, piecesCount);
    await finish(under);
    expect(under.seen.texts.join('')).toBe(wholeText);
    expect(under.seen.ends).toMatchObject([{ finish: 'stop', completionTokens: tokens }]);
  });

  test('ends at the bound that its client named, over all its parts', async ({ expect }) => {
    const under = await begin(2, { chat: { messages: [{ role: 'user', content: 'hi' }], maxTokens: 6 } });
    await tellAndCut(under, 3);
    const second = atWork(under.nodes);
    expect(second.engine.running[0]?.request).toMatchObject({ chat: { maxTokens: 6 }, resume: { tokens: 4 } });
    // This one tells more than was asked for.
    second.engine.tell(2);
    second.engine.running[0]?.finish({ finish: 'length', completionTokens: 4 });
    await under.mesh.settle();
    expect(under.seen.ends).toMatchObject([{ finish: 'length', completionTokens: 6 }]);
    expect(linesOf(under)).toMatchObject([
      [under.nodes[0]?.peer, undefined, 'lost', 0, 4],
      [second.peer, 1, 'done', 3, 2],
    ]);
  });

  test('is handed over by a node that drains and has no more time', async ({ expect }) => {
    const under = await begin(2);
    const first = atWork(under.nodes);
    first.engine.tell(5);
    await under.mesh.settle();
    const hurry = new AbortController();
    const drained = first.server.drain(hurry.signal);
    await under.mesh.settle();
    hurry.abort();
    await under.mesh.settle();
    expect(await drained).toEqual({ finished: 0, handedOver: 1 });
    await finish(under);
    expect(under.seen.texts.join('')).toBe(wholeText);
    expect(under.seen.ends).toMatchObject([{ completionTokens: tokens }]);
    expect(under.mesh.accounting.ends().map((end) => end?.outcome)).toEqual(['failed', 'done']);
  });
});

describe('an answer that nobody can go on with now', () => {
  test('waits for a node', async ({ expect }) => {
    const under = await begin(1);
    const first = await tellAndCut(under, 3);
    await under.mesh.pass(9_000);
    expect([under.seen.ends, under.mesh.gateway.waiting()]).toEqual([[], 1]);
    under.nodes.push(addTelling(under.mesh));
    await under.mesh.pass(100);
    const second = await finish(under);
    expect(under.seen.texts.join('')).toBe(wholeText);
    expect(under.seen.ends).toMatchObject([{ served: { nodes: [first.peer, second.peer], splices: 1 } }]);
  });

  test('goes on at the node that it has lost, when that is back', async ({ expect }) => {
    const under = await begin(1);
    const first = await tellAndCut(under, 3);
    const engine = new TellingEngine();
    under.nodes.push({ ...under.mesh.back(first, engine), engine });
    await under.mesh.pass(100);
    await finish(under);
    expect(under.seen.texts.join('')).toBe(wholeText);
    expect(under.seen.ends).toMatchObject([{ served: { nodes: [first.peer], splices: 1, attempts: 2 } }]);
  });

  test('goes on at the only node, when its engine is there again; not without end', async ({ expect }) => {
    const under = await begin(1);
    const { mesh, seen } = under;
    const { engine } = atWork(under.nodes);
    engine.tell(3);
    for (let failure = 0; failure < 2; failure += 1) {
      engine.running[0]?.fail(new Error('broken'));
      await mesh.settle();
      await mesh.pass(100);
    }
    engine.tell(3);
    await mesh.settle();
    let failures = 0;
    for (let tenth = 0; tenth < 200; tenth += 1) {
      for (const generation of [...engine.running]) {
        generation.fail(new Error('broken'));
        failures += 1;
      }
      await mesh.settle();
      await mesh.pass(100);
    }
    expect([endsOf(seen), seen.texts.join('')]).toEqual([['STREAM_INTERRUPTED'], beginning(6).text]);
    // Its breaker opens after three of them, and then again at each probe.
    expect(failures).toBeLessThan(8);
    await mesh.gateway.drain();
  });

  test('waits also where there are nodes, of which it may have none', async ({ expect }) => {
    const mesh = new SmallMesh();
    const nodes = [addTelling(mesh), addTelling(mesh)];
    const [first] = nodes as [TellingNode];
    const seen = await mesh.call('m', 60_000, { preferences: { nodes: { allow: [first.peer] } } });
    const under = { mesh, nodes, seen };
    await tellAndCut(under, 3);
    expect(seen.ends).toEqual([]);
    const engine = new TellingEngine();
    nodes.push({ ...mesh.back(first, engine), engine });
    await mesh.pass(100);
    await finish(under);
    expect(seen.texts.join('')).toBe(wholeText);
  });

  test('is interrupted after ten seconds, which is an error and no end', async ({ expect }) => {
    const under = await begin(1);
    await tellAndCut(under, 3);
    await under.mesh.pass(9_900);
    expect(endsOf(under.seen)).toEqual([]);
    await under.mesh.pass(200);
    expect([endsOf(under.seen), under.seen.texts.join('')]).toEqual([['STREAM_INTERRUPTED'], beginning(3).text]);
    expect(linesOf(under)).toMatchObject([[under.nodes[0]?.peer, undefined, 'lost', 0, 4]]);
    expect(under.mesh.gateway.counts.splices).toEqual({ resumed: 0, failed: 1 });
    await under.mesh.gateway.drain();
  });

  test('has a patience of its own', async ({ expect }) => {
    const policy = { waitMs: ms(1_000), spliceWaitMs: ms(5_000) };
    const mesh = new SmallMesh(100, undefined, { policy });
    const nodes = [addTelling(mesh)];
    const under = { mesh, nodes, seen: await mesh.call() };
    await tellAndCut(under, 3);
    await mesh.pass(4_900);
    expect(endsOf(under.seen)).toEqual([]);
    await mesh.pass(200);
    expect(endsOf(under.seen)).toEqual(['STREAM_INTERRUPTED']);
  });

  test('waits ten seconds, however long it had waited before it began', async ({ expect }) => {
    const mesh = new SmallMesh();
    const nodes = [addTelling(mesh, new TellingEngine(modelThat('tokens'), 1))];
    const before = [await mesh.call(), await mesh.call(), await mesh.call()];
    const under = { mesh, nodes, seen: await mesh.call() };
    await mesh.pass(8_000);
    expect(mesh.gateway.waiting()).toBe(1);
    for (const { answer } of before) answer.cancel();
    await mesh.pass(200);
    await tellAndCut(under, 3);
    await mesh.pass(8_000);
    nodes.push(addTelling(mesh));
    await mesh.pass(100);
    await finish(under);
    expect(under.seen.texts.join('')).toBe(wholeText);
  });

  test('waits at most to its deadline', async ({ expect }) => {
    const mesh = new SmallMesh();
    const nodes = [addTelling(mesh)];
    const under = { mesh, nodes, seen: await mesh.call('m', 3_000) };
    await tellAndCut(under, 3);
    await mesh.pass(3_100);
    expect(endsOf(under.seen)).toEqual(['STREAM_INTERRUPTED']);
    expect(mesh.gateway.waiting()).toBe(0);
  });

  test('goes before requests that have nothing yet', async ({ expect }) => {
    const mesh = new SmallMesh();
    const first = addTelling(mesh, new TellingEngine(modelThat('tokens'), 1));
    const under = { mesh, nodes: [first], seen: await mesh.call() };
    // Two wait at the node, and one at the gateway.
    for (let more = 0; more < 3; more += 1) await mesh.call();
    expect(mesh.gateway.waiting()).toBe(1);
    await tellAndCut(under, 3);
    const second = addTelling(mesh, new TellingEngine(modelThat('tokens'), 1));
    await mesh.pass(100);
    expect(second.engine.resumes.map((resume) => resume?.text)).toEqual([beginning(3).text]);
  });
});

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
