/** Answers that lose their node: another one goes on, and their clients, their lines and their money look as if nothing had happened. */

import { describe, test } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { ms } from '../../../protocol/units.ts';
import { endsOf, SmallMesh } from '../../support/small-mesh.ts';
import { begin, finish, linesOf, tellAndCut } from './moved.ts';
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
    expect(endsOf(under.seen)).toEqual(['DEADLINE_EXCEEDED']);
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
