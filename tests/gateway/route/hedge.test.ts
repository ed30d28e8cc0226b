/** Requests that are late against their model's own times: a second node is asked, and nobody but the gateway pays for the loser. */

import { describe, test } from 'vitest';
import { ms } from '../../../protocol/units.ts';
import { accessOf } from '../../support/access.ts';
import { endsOf, type SeenCall, SmallMesh } from '../../support/small-mesh.ts';
import { addTelling, beginning, modelThat, TellingEngine, type TellingNode, wholeText, wholeTokens } from './told.ts';

const tokens = wholeTokens(modelThat('tokens'));
const prices = { id: '' as const, prompt: 2_000_000, cached: 1_000_000, completion: 1_000_000 };

interface Under {
  readonly mesh: SmallMesh;
  readonly nodes: readonly TellingNode[];
  /** The one that a late request is at, and the one that it is sent to as well. */
  readonly first: TellingNode;
  readonly second: TellingNode;
  readonly seen: SeenCall;
}

/** Two nodes that have answered forty requests in ten milliseconds each. */
async function practised(slots: readonly number[] = [2, 2], hedgeShare = 0.05): Promise<Pick<Under, 'mesh' | 'nodes'>> {
  const mesh = new SmallMesh(100, undefined, { policy: { hedgeShare } });
  const nodes = slots.map((count) => addTelling(mesh, new TellingEngine(modelThat('tokens'), count)));
  for (let count = 0; count < 40; count += 1) {
    // Each of them in turn, so that all are known.
    const node = nodes[count % nodes.length];
    await mesh.call('m', 60_000, { preferences: { nodes: { allow: node === undefined ? [] : [node.peer] } } });
    await mesh.pass(10);
    node?.engine.finish();
    await mesh.settle();
  }
  mesh.accounting.lines.length = 0;
  return { mesh, nodes };
}

/** A request that is so late that it has two attempts. */
async function raced(more: Parameters<SmallMesh['call']>[2] = {}): Promise<Under> {
  const { mesh, nodes } = await practised();
  const seen = await mesh.call('m', 60_000, more);
  const first = nodes.find(({ engine }) => engine.running.length === 1);
  const second = nodes.find((node) => node !== first);
  await mesh.pass(100);
  if (first === undefined || second?.engine.running.length !== 1) throw new Error('no race');
  return { mesh, nodes, first, second, seen };
}

const outcomes = ({ mesh }: Pick<Under, 'mesh'>): unknown[] =>
  mesh.accounting.lines.map(({ start, end }) => [start.node, end?.outcome, end?.promptTokens, end?.completionTokens]);

async function finish({ mesh, seen }: Under, node: TellingNode): Promise<void> {
  node.engine.finish();
  await mesh.settle();
  await mesh.settle();
  if (seen.texts.join('') !== wholeText) throw new Error(`told ${seen.texts.join('')}`);
}

describe('a late request', () => {
  test('is sent to a second node after a while, and to no third', async ({ expect }) => {
    const { mesh, nodes } = await practised([2, 2, 2]);
    await mesh.call();
    const running = (): number => nodes.reduce((sum, { engine }) => sum + engine.running.length, 0);
    await mesh.clock.advance(25);
    expect(running()).toBe(1);
    await mesh.pass(2_000);
    expect([running(), mesh.gateway.counts.attempts.hedge]).toEqual([2, 1]);
  });

  test('is answered by the second node where that is sooner; the first one stops', async ({ expect }) => {
    const under = await raced();
    await finish(under, under.second);
    expect(under.seen.ends).toMatchObject([
      {
        completionTokens: tokens,
        served: { node: under.second.peer, nodes: [under.second.peer], attempts: 2, splices: 0 },
      },
    ]);
    expect(outcomes(under)).toEqual([
      [under.first.peer, 'hedged', 0, 0],
      [under.second.peer, 'done', 3, tokens],
    ]);
    expect(under.first.engine.running).toEqual([]);
    expect(under.mesh.gateway.counts).toMatchObject({ hedges: { won: 1, lost: 0 }, settles: { total: 1, unheard: 0 } });
  });

  test('is answered by the first node where that is sooner; the second one stops', async ({ expect }) => {
    const under = await raced();
    await finish(under, under.first);
    expect(under.seen.ends).toMatchObject([{ served: { node: under.first.peer, attempts: 2 } }]);
    expect(outcomes(under)).toEqual([
      [under.first.peer, 'done', 3, tokens],
      [under.second.peer, 'hedged', 0, 0],
    ]);
    expect(under.second.engine.running).toEqual([]);
    expect(under.mesh.gateway.counts).toMatchObject({ hedges: { won: 0, lost: 1 } });
  });

  test('is billed once, at the price of who answered', async ({ expect }) => {
    const { mesh, nodes } = await practised();
    mesh.accounting.price = prices;
    const chat = { messages: [{ role: 'user' as const, content: 'hi' }], maxTokens: 100 };
    const budget = { amountMicro: 1, period: 'total' } as const;
    const seen = await mesh.call('m', 60_000, { caller: accessOf({ budget }), chat });
    const first = nodes.find(({ engine }) => engine.running.length === 1) as TellingNode;
    const second = nodes.find((node) => node !== first) as TellingNode;
    mesh.accounting.prices.set(second.peer, { ...prices, completion: 3_000_000 });
    await mesh.pass(100);
    await finish({ mesh, nodes, first, second, seen }, second);
    expect([mesh.accounting.spentMicro, mesh.accounting.heldMicro]).toEqual([2 * 2 + 1 + 3 * tokens, 0]);
  });

  test('stays where it is when a second node is too dear for its account, and is not considered again', async ({
    expect,
  }) => {
    const { mesh, nodes } = await practised();
    mesh.accounting.price = { ...prices, prompt: 0, cached: 0 };
    mesh.accounting.budgetMicro = 100;
    const chat = { messages: [{ role: 'user' as const, content: 'hi' }], maxTokens: 100 };
    const budget = { amountMicro: 1, period: 'total' } as const;
    await mesh.call('m', 60_000, { caller: accessOf({ budget }), chat });
    const first = nodes.find(({ engine }) => engine.running.length === 1) as TellingNode;
    const second = nodes.find((node) => node !== first) as TellingNode;
    mesh.accounting.prices.set(second.peer, { ...prices, completion: 3_000_000 });
    await mesh.pass(500);
    expect([first.engine.running.length, second.engine.running.length]).toEqual([1, 0]);
    // Forty requests are worth two hedges, of which one is left, for another request.
    mesh.accounting.prices.clear();
    await mesh.pass(500);
    expect(mesh.gateway.counts.attempts.hedge).toBe(0);
    await mesh.call();
    await mesh.pass(500);
    expect(mesh.gateway.counts.attempts.hedge).toBe(1);
  });

  test.for([
    ['its first node', 'first', 'second'],
    ['its second node', 'second', 'first'],
  ] as const)('that loses %s goes on at the other one', async ([, lost, left], { expect }) => {
    const under = await raced();
    under[lost].link.cut();
    await under.mesh.settle();
    expect(under[left].engine.running).toHaveLength(1);
    await finish(under, under[left]);
    expect(under.mesh.accounting.lines.map(({ start, end }) => [start.node, end?.outcome]).sort()).toEqual(
      [
        [under[lost].peer, 'lost'],
        [under[left].peer, 'done'],
      ].sort(),
    );
    expect(under.mesh.gateway.counts.attempts).toMatchObject({ retry: 0, hedge: 1 });
  });

  test('that loses both is tried again', async ({ expect }) => {
    const under = await raced();
    under.first.link.cut();
    under.second.link.cut();
    await under.mesh.settle();
    expect(endsOf(under.seen)).toEqual(['NODE_LOST']);
    expect(outcomes(under)).toEqual([
      [under.first.peer, 'lost', 0, 0],
      [under.second.peer, 'lost', 0, 0],
    ]);
    await under.mesh.gateway.drain();
  });

  test('whose winner is lost after content is gone on with elsewhere', async ({ expect }) => {
    const under = await raced();
    under.second.engine.tell(3);
    await under.mesh.settle();
    under.second.link.cut();
    await under.mesh.settle();
    expect(under.first.engine.resumes.at(-1)).toMatchObject({ text: beginning(3).text });
    await finish(under, under.first);
    expect(outcomes(under)).toEqual([
      [under.first.peer, 'hedged', 0, 0],
      [under.second.peer, 'lost', 0, 4],
      [under.first.peer, 'done', 3, tokens - 4],
    ]);
  });

  test('whose client leaves stops at both, and is charged for one', async ({ expect }) => {
    const under = await raced();
    under.seen.answer.cancel();
    await under.mesh.settle();
    expect([under.first.engine.running, under.second.engine.running]).toEqual([[], []]);
    expect(under.mesh.accounting.lines.map(({ end }) => end?.outcome)).toEqual(['cancelled', 'hedged']);
    expect(under.mesh.gateway.counts.settles).toMatchObject({ total: 2, unheard: 0 });
    await under.mesh.gateway.drain();
  });

  test('whose deadline passes stops at both, and is charged for none', async ({ expect }) => {
    const under = await raced({ deadlineMs: ms(2_000) });
    await under.mesh.pass(2_000);
    expect(endsOf(under.seen)).toEqual(['DEADLINE_EXCEEDED']);
    expect([under.first.engine.running, under.second.engine.running]).toEqual([[], []]);
    for (const { end } of under.mesh.accounting.lines)
      expect(end).toMatchObject({ promptTokens: 0, completionTokens: 0 });
    await under.mesh.gateway.drain();
  });

  test('of which both attempts are silent is taken from both', async ({ expect }) => {
    const under = await raced();
    await under.mesh.pass(4_500);
    expect(under.mesh.gateway.counts.stalled).toBe(2);
    expect(endsOf(under.seen)).toEqual(['NODE_STALLED']);
    expect([under.first.engine.running, under.second.engine.running]).toEqual([[], []]);
    expect(under.mesh.accounting.lines.map(({ end }) => end?.outcome)).toEqual(['cut', 'cut']);
    await under.mesh.gateway.drain();
  });
});

test('a second attempt that is silent is over, and the first one goes on', async ({ expect }) => {
  const under = await raced();
  for (let second = 0; second < 5; second += 1) {
    void under.first.engine.running[0]?.emit('', [1]);
    await under.mesh.pass(1_000);
  }
  expect([under.first.engine.running.length, under.second.engine.running.length]).toEqual([1, 0]);
  expect([under.mesh.gateway.counts.stalled, endsOf(under.seen)]).toEqual([1, []]);
});

describe('no second node is asked', () => {
  test('before anything is known of the model', async ({ expect }) => {
    const mesh = new SmallMesh();
    addTelling(mesh);
    addTelling(mesh);
    await mesh.call();
    await mesh.pass(1_000);
    expect(mesh.gateway.counts.attempts.hedge).toBe(0);
  });

  test('once there is content', async ({ expect }) => {
    const { mesh, nodes } = await practised();
    await mesh.call();
    nodes.find(({ engine }) => engine.running.length === 1)?.engine.tell(1);
    await mesh.settle();
    await mesh.pass(1_000);
    expect(mesh.gateway.counts.attempts.hedge).toBe(0);
  });

  test('where none has a free slot; but as soon as one has', async ({ expect }) => {
    const { mesh, nodes } = await practised([1, 1]);
    for (let call = 0; call < 2; call += 1) await mesh.call();
    const [first, second] = nodes as [TellingNode, TellingNode];
    expect([first.engine.running.length, second.engine.running.length]).toEqual([1, 1]);
    await mesh.pass(300);
    expect(mesh.gateway.counts.attempts.hedge).toBe(0);
    second.engine.finish();
    await mesh.pass(300);
    expect(mesh.gateway.counts.attempts.hedge).toBe(1);
  });

  test('where the one with a free slot may not be asked, and the other one has none', async ({ expect }) => {
    const { mesh, nodes } = await practised([1, 1, 1]);
    const [first, second, third] = nodes as [TellingNode, TellingNode, TellingNode];
    await mesh.call('m', 60_000, { preferences: { nodes: { allow: [second.peer] } } });
    await mesh.call('m', 60_000, { preferences: { nodes: { allow: [first.peer, second.peer] } } });
    await mesh.pass(1_000);
    expect(nodes.map(({ engine }) => engine.running.length)).toEqual([1, 1, 0]);
    expect([mesh.gateway.counts.attempts.hedge, third.engine.running]).toEqual([0, []]);
  });

  test('beyond the share of requests that it may be', async ({ expect }) => {
    const { mesh } = await practised([40, 40]);
    for (let call = 0; call < 25; call += 1) await mesh.call();
    await mesh.pass(200);
    // Of sixty-five requests one in twenty.
    expect(mesh.gateway.counts.attempts.hedge).toBe(3);
  });

  test('where the share is none', async ({ expect }) => {
    const { mesh } = await practised([2, 2], 0);
    await mesh.call();
    await mesh.pass(1_000);
    expect(mesh.gateway.counts.attempts.hedge).toBe(0);
  });
});
