/** Clients that leave, at any moment: their slots are free at once, and they hear nothing more. */

import { describe, test } from 'vitest';
import { ms } from '../../../protocol/units.ts';
import { accessOf } from '../../support/access.ts';
import { SmallMesh } from '../../support/small-mesh.ts';
import { addTelling, modelThat, TellingEngine, type TellingNode } from './told.ts';

describe('a client that leaves', () => {
  test.for<[string, (node: TellingNode, mesh: SmallMesh) => void | Promise<void>, isWhole: boolean]>([
    ['before anything has come', () => {}, false],
    ['in mid-stream', ({ engine }) => engine.tell(3), false],
    ['in the middle of an answer that is told whole', ({ engine }) => engine.tell(3), true],
  ])('%s, frees its slot, which its node tells', async ([, act, isWhole], { expect }) => {
    const mesh = new SmallMesh();
    const node = addTelling(mesh, new TellingEngine(modelThat('tokens'), 1));
    const seen = await mesh.call('m', 60_000, { isWhole });
    await act(node, mesh);
    await mesh.settle();
    seen.answer.cancel();
    // Its node may have worked on the prompt.
    expect(seen.answer.isBilled).toBe(true);
    await mesh.settle();
    expect(node.engine.running).toEqual([]);
    await mesh.pass(200);
    expect(mesh.gateway.counts.settles).toMatchObject({ total: 1, unheard: 0, sumMs: 0 });
    expect(mesh.gateway.nodes()).toMatchObject([{ active: 0, counts: { cancelled: 1 } }]);
  });

  test('while its call waits at the node frees its place there', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = addTelling(mesh, new TellingEngine(modelThat('tokens'), 1));
    await mesh.call();
    const seen = await mesh.call();
    await mesh.pass(200);
    expect(mesh.gateway.nodes()).toMatchObject([{ active: 2, queued: 1 }]);
    seen.answer.cancel();
    await mesh.settle();
    await mesh.pass(200);
    expect(mesh.gateway.nodes()).toMatchObject([{ active: 1, queued: 0 }]);
    expect(mesh.gateway.counts.settles).toMatchObject({ total: 1, unheard: 0 });
    expect(node.engine.resumes).toHaveLength(1);
  });

  test('of a node that is gone, or says nothing for two seconds, is told by nobody', async ({ expect }) => {
    const mesh = new SmallMesh();
    const [first, second] = [addTelling(mesh), addTelling(mesh)];
    const calls = [await mesh.call(), await mesh.call()];
    expect([first.engine.running.length, second.engine.running.length]).toEqual([1, 1]);
    for (const { answer } of calls) answer.cancel();
    first.link.cut();
    await mesh.clock.advance(2_000);
    expect(mesh.gateway.counts.settles).toMatchObject({ total: 0, unheard: 2 });
    await mesh.gateway.drain();
  });

  test.for(['committed', 'delta', 'restarted'] as const)(
    'from within %s hears nothing more',
    async (moment, { expect }) => {
      const mesh = new SmallMesh();
      const nodes = [
        addTelling(mesh, new TellingEngine(modelThat('none'))),
        addTelling(mesh, new TellingEngine(modelThat('none'))),
      ];
      const heard: string[] = [];
      const hear = (what: string) => (): void => {
        heard.push(what);
        if (what === moment) answer.cancel();
      };
      const [committed, delta, restarted, done, failed] = ['committed', 'delta', 'restarted', 'done', 'failed'].map(
        hear,
      ) as [() => void, () => void, () => void, () => void, () => void];
      const call = {
        request: 'ab'.repeat(16) as never,
        caller: accessOf(),
        model: 'm',
        chat: { messages: [{ role: 'user' as const, content: 'hi' }] },
        deadlineMs: ms(60_000),
        isWhole: true,
      };
      const answer = mesh.gateway.chat(call, { committed, delta, restarted, done, failed });
      await mesh.settle();
      const at = nodes.find(({ engine }) => engine.running.length > 0);
      at?.engine.tell(1);
      await mesh.settle();
      at?.link.cut();
      await mesh.settle();
      await mesh.pass(200);
      const all = ['committed', 'delta', 'restarted'];
      expect(heard).toEqual(all.slice(0, all.indexOf(moment) + 1));
      expect(nodes.flatMap(({ engine }) => engine.running)).toEqual([]);
      await mesh.gateway.drain();
    },
  );

  test('from within the first news of an empty answer hears nothing of its end', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = addTelling(mesh);
    const heard: string[] = [];
    const answer = mesh.gateway.chat(
      {
        request: 'ab'.repeat(16) as never,
        caller: accessOf(),
        model: 'm',
        chat: { messages: [{ role: 'user', content: 'hi' }] },
        deadlineMs: ms(60_000),
      },
      {
        committed: () => {
          heard.push('committed');
          answer.cancel();
        },
        delta: () => heard.push('delta'),
        done: () => heard.push('done'),
        failed: () => heard.push('failed'),
      },
    );
    await mesh.settle();
    node.engine.running[0]?.finish({ completionTokens: 0 });
    await mesh.settle();
    expect(heard).toEqual(['committed']);
  });

  test('while the end of its money is on its way to the node hears of no end', async ({ expect }) => {
    const mesh = new SmallMesh();
    mesh.accounting.price = { id: '', prompt: 0, cached: 0, completion: 1_000_000 };
    mesh.accounting.budgetMicro = 2_048;
    const node = addTelling(mesh, new TellingEngine(modelThat('tokens', { contextTokens: 100_000 })));
    const budget = { amountMicro: 1, period: 'total' } as const;
    const seen = await mesh.call('m', 60_000, { caller: accessOf({ budget }) });
    for (let piece = 0; piece < 2_100; piece += 1) void node.engine.running[0]?.emit('x');
    node.link.a.deliver();
    expect(seen.texts).toHaveLength(2_048);
    seen.answer.cancel();
    await mesh.settle();
    expect([seen.ends, mesh.accounting.ends()]).toMatchObject([
      [],
      [{ outcome: 'cancelled', completionTokens: 2_048 }],
    ]);
    expect([mesh.accounting.heldMicro, mesh.accounting.spentMicro]).toEqual([0, 2_048]);
    await mesh.gateway.drain();
  });
});
