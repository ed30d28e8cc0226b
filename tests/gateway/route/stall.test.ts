/** Nodes that answer pings and produce nothing: found within five seconds, left alone, and their answers moved. */

import { describe, test } from 'vitest';
import { endsOf, type SeenCall, SmallMesh } from '../../support/small-mesh.ts';
import { addTelling, atWork, beginning, modelThat, TellingEngine, type TellingNode, wholeText } from './told.ts';

interface Under {
  readonly mesh: SmallMesh;
  readonly nodes: TellingNode[];
  readonly seen: SeenCall;
}

async function begin(
  nodes: number,
  { slots = 2, progress }: { slots?: number; progress?: number } = {},
): Promise<Under> {
  const mesh = new SmallMesh();
  const all = Array.from({ length: nodes }, () => {
    const engine = new TellingEngine(modelThat('tokens'), slots);
    engine.progress = progress;
    return addTelling(mesh, engine);
  });
  return { mesh, nodes: all, seen: await mesh.call() };
}

const outcomes = ({ mesh }: Under): unknown[] =>
  mesh.accounting.lines.map(({ start, end }) => [start.node, end?.outcome]);

describe('an answer that goes silent', () => {
  test('moves on after four seconds; its node is stopped, and gets nothing more for a while', async ({ expect }) => {
    const under = await begin(2);
    const { mesh, nodes, seen } = under;
    const first = atWork(nodes);
    first.engine.tell(3);
    await mesh.settle();
    await mesh.pass(3_900);
    expect(first.engine.running).toHaveLength(1);
    await mesh.pass(200);
    expect(first.engine.running).toEqual([]);
    expect(mesh.gateway.breakers()).toEqual({ closed: 1, open: 1, 'half-open': 0 });
    expect(mesh.gateway.counts.stalled).toBe(1);
    const second = atWork(nodes);
    expect(second.engine.resumes).toMatchObject([{ text: beginning(3).text }]);
    second.engine.finish();
    await mesh.settle();
    expect(seen.texts.join('')).toBe(wholeText);
    expect(outcomes(under)).toEqual([
      [first.peer, 'cut'],
      [second.peer, 'done'],
    ]);
    await mesh.call();
    expect(first.engine.running).toEqual([]);
  });

  test('tells it when there is nowhere to go', async ({ expect }) => {
    const { mesh, nodes, seen } = await begin(1);
    atWork(nodes).engine.tell(3);
    await mesh.settle();
    await mesh.pass(18_000);
    expect(endsOf(seen)).toEqual(['STREAM_INTERRUPTED']);
    await mesh.gateway.drain();
  });

  test('goes on where it went silent, when that works again and nobody else is there', async ({ expect }) => {
    const { mesh, nodes, seen } = await begin(1);
    const { engine } = atWork(nodes);
    engine.tell(3);
    await mesh.settle();
    await mesh.pass(4_200);
    expect(engine.running).toEqual([]);
    // Its breaker lets a probe pass.
    await mesh.pass(2_500);
    engine.finish();
    await mesh.settle();
    expect(seen.texts.join('')).toBe(wholeText);
    expect(mesh.gateway.breakers()).toMatchObject({ closed: 1 });
  });

  test('takes its late pieces from nobody', async ({ expect }) => {
    const { mesh, nodes, seen } = await begin(2);
    const first = atWork(nodes);
    first.engine.tell(3);
    await mesh.settle();
    await mesh.pass(3_950);
    // These are on their way while the gateway's patience ends.
    first.engine.tell(2);
    await mesh.clock.advance(100);
    await mesh.settle();
    expect(mesh.gateway.counts.stalled).toBe(1);
    atWork(nodes).engine.finish();
    await mesh.settle();
    expect(seen.texts.join('')).toBe(wholeText);
  });

  test('is not silent while its client takes nothing of it', async ({ expect }) => {
    const { mesh, nodes, seen } = await begin(1);
    const generation = atWork(nodes).engine.running[0];
    const piece = 'x'.repeat(8_000);
    let room: Promise<void> | undefined;
    while (room === undefined) room = generation?.emit(piece);
    await mesh.settle();
    await mesh.pass(20_000);
    expect([mesh.gateway.counts.stalled, atWork(nodes).engine.running.length]).toEqual([0, 1]);
    // When the node may send again its silence is its own, from then on.
    seen.answer.consumed(40 * piece.length);
    await mesh.settle();
    await mesh.pass(3_800);
    expect(mesh.gateway.counts.stalled).toBe(0);
    await mesh.pass(400);
    expect(mesh.gateway.counts.stalled).toBe(1);
  });

  test('is not silent while pieces without text come', async ({ expect }) => {
    const { mesh, nodes } = await begin(2);
    const first = atWork(nodes);
    first.engine.tell(1);
    for (let second = 0; second < 12; second += 1) {
      await mesh.pass(1_000);
      void first.engine.running[0]?.emit('', [1]);
    }
    expect([mesh.gateway.counts.stalled, atWork(nodes)]).toEqual([0, first]);
  });
});

test('pieces without text cost no credit that nobody would ever give back', async ({ expect }) => {
  const { mesh, nodes } = await begin(1);
  const { engine } = atWork(nodes);
  const ids = Array.from({ length: 250 }, (_, at) => 100_000 + at);
  let room: Promise<void> | undefined;
  for (let piece = 0; piece < 400; piece += 1) {
    room = engine.running[0]?.emit('', ids);
    if (piece % 50 === 0) await mesh.settle();
  }
  expect(room).toBeUndefined();
});

describe('before its first content an answer', () => {
  test('moves on when its node tells of no work any more', async ({ expect }) => {
    const under = await begin(2, { progress: 1 });
    const { mesh, nodes } = under;
    const first = atWork(nodes);
    for (let second = 0; second < 8; second += 1) {
      first.engine.progress = 10 + second;
      await mesh.pass(1_000);
    }
    expect(mesh.gateway.counts.stalled).toBe(0);
    await mesh.pass(4_200);
    expect(mesh.gateway.counts.stalled).toBe(1);
    expect(outcomes(under)).toEqual([
      [first.peer, 'cut'],
      [atWork(nodes).peer, undefined],
    ]);
    atWork(nodes).engine.finish();
    await mesh.settle();
    expect(under.seen.texts.join('')).toBe(wholeText);
  });

  test('waits for two minutes where nothing is known of its node', async ({ expect }) => {
    const mesh = new SmallMesh();
    const nodes = [addTelling(mesh), addTelling(mesh)];
    await mesh.call('m', 600_000);
    const first = atWork(nodes);
    await mesh.pass(119_500, 500);
    expect([mesh.gateway.counts.stalled, atWork(nodes)]).toEqual([0, first]);
    await mesh.pass(1_000, 500);
    expect([mesh.gateway.counts.stalled, first.engine.running]).toEqual([1, []]);
    expect(atWork(nodes).peer).not.toBe(first.peer);
  });

  test('waits by what is known of its model where its node tells of no work', async ({ expect }) => {
    const { mesh, nodes } = await begin(1);
    const [node] = nodes as [TellingNode];
    await mesh.pass(500);
    node.engine.finish();
    await mesh.settle();
    await mesh.call();
    // Half a second is what it took: four times that, and four seconds.
    await mesh.pass(5_800);
    expect(mesh.gateway.counts.stalled).toBe(0);
    await mesh.pass(400);
    expect(mesh.gateway.counts.stalled).toBe(1);
  });

  test('waits longer than four seconds for a slot, though its node tells of no work', async ({ expect }) => {
    const { mesh, nodes } = await begin(1, { slots: 1, progress: 1 });
    const [node] = nodes as [TellingNode];
    const waiting = await mesh.call();
    const [generation] = node.engine.running;
    // Whoever has the slot has a client that reads slowly.
    let room: Promise<void> | undefined;
    while (room === undefined) room = generation?.emit('x'.repeat(8_000));
    await mesh.settle();
    await mesh.pass(20_000);
    expect([mesh.gateway.counts.stalled, endsOf(waiting)]).toEqual([0, []]);
  });

  test('moves on soon from a node where another one has gone silent', async ({ expect }) => {
    const { mesh, nodes } = await begin(2);
    const first = atWork(nodes);
    first.engine.tell(3);
    await mesh.settle();
    const other = await mesh.call('m', 60_000, { preferences: { nodes: { allow: [first.peer] } } });
    expect(first.engine.running).toHaveLength(2);
    await mesh.pass(4_500);
    expect([mesh.gateway.counts.stalled, first.engine.running]).toEqual([2, []]);
    expect(endsOf(other).length).toBeLessThanOrEqual(1);
  });
});

test('who was found stalled is probed again when the client of its probe leaves', async ({ expect }) => {
  const { mesh, nodes, seen } = await begin(1);
  const [node] = nodes as [TellingNode];
  node.engine.tell(3);
  await mesh.settle();
  await mesh.pass(4_200);
  seen.answer.cancel();
  const probe = await mesh.call();
  await mesh.call();
  await mesh.pass(2_500);
  expect([node.engine.running.length, mesh.gateway.waiting()]).toEqual([1, 1]);
  probe.answer.cancel();
  await mesh.settle();
  await mesh.pass(200);
  expect([node.engine.running.length, mesh.gateway.waiting()]).toEqual([1, 0]);
});

test('who was found stalled is probed with one request, and is back when that works', async ({ expect }) => {
  const { mesh, nodes, seen } = await begin(1);
  const [node] = nodes as [TellingNode];
  node.engine.tell(3);
  await mesh.settle();
  await mesh.pass(4_200);
  seen.answer.cancel();
  expect(mesh.gateway.breakers()).toMatchObject({ open: 1 });
  const [probe, behind] = [await mesh.call(), await mesh.call()];
  expect([node.engine.running.length, mesh.gateway.waiting()]).toEqual([0, 2]);
  await mesh.pass(2_500);
  expect([node.engine.running.length, mesh.gateway.waiting()]).toEqual([1, 1]);
  node.engine.tell(1);
  await mesh.settle();
  await mesh.pass(100);
  expect([mesh.gateway.breakers(), node.engine.running.length]).toEqual([{ closed: 1, open: 0, 'half-open': 0 }, 2]);
  for (const generation of [...node.engine.running]) node.engine.finish(generation);
  await mesh.settle();
  expect([endsOf(probe), endsOf(behind)]).toEqual([['done'], ['done']]);
});
