/** What answers over several nodes cost whom, where nodes, clients or budgets make the most of a cut. */

import { describe, test } from 'vitest';
import type { RunningAttempt } from '../../../gateway/route/attempt.ts';
import { Course } from '../../../gateway/route/course.ts';
import type { Price } from '../../../ledger/price.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { RequestId } from '../../../protocol/ids.ts';
import { encodeChatRequest } from '../../../protocol/messages/chat.ts';
import { ms } from '../../../protocol/units.ts';
import { accessOf } from '../../support/access.ts';
import { endsOf, type SeenCall, SmallMesh } from '../../support/small-mesh.ts';
import { digestOf } from './routed-node.ts';
import { addTelling, atWork, modelThat, TellingEngine, type TellingNode } from './told.ts';

/** A micro-credit for each token of an answer. */
const price: Price = { id: '', prompt: 0, cached: 0, completion: 1_000_000 };
const caller = accessOf({ budget: { amountMicro: 1, period: 'total' } });
const messages = [{ role: 'user' as const, content: 'hi' }];

interface Under {
  readonly mesh: SmallMesh;
  readonly nodes: TellingNode[];
  readonly seen: SeenCall;
}

async function ask(contextTokens: number, budgetMicro: number): Promise<Under> {
  const mesh = new SmallMesh();
  mesh.accounting.price = price;
  mesh.accounting.budgetMicro = budgetMicro;
  const model = modelThat('tokens', { contextTokens });
  const nodes = [addTelling(mesh, new TellingEngine(model)), addTelling(mesh, new TellingEngine(model))];
  return { mesh, nodes, seen: await mesh.call('m', 60_000, { caller, chat: { messages } }) };
}

async function say({ mesh, nodes }: Under, count: number): Promise<void> {
  for (let piece = 0; piece < count; piece += 1) void atWork(nodes).engine.running[0]?.emit('x', [1]);
  await mesh.settle();
}

async function cut({ mesh, nodes }: Pick<Under, 'mesh' | 'nodes'>): Promise<void> {
  atWork(nodes).link.cut();
  await mesh.settle();
}

describe('a budget over a cut', () => {
  test('reaches as far as it would have without one', async ({ expect }) => {
    const under = await ask(1_000_000, 3_072);
    await say(under, 1_500);
    await cut(under);
    await say(under, 2_000);
    expect(under.seen.ends).toMatchObject([{ finish: 'length', completionTokens: 3_072 }]);
    expect(under.mesh.accounting.ends().map((end) => end?.completionTokens)).toEqual([1_500, 1_572]);
    expect([under.mesh.accounting.heldMicro, under.mesh.accounting.spentMicro]).toEqual([0, 3_072]);
  });

  test('pays for no more than what was set aside, whatever the second node sends and says', async ({ expect }) => {
    const under = await ask(1_000, 1_000_000);
    await say(under, 600);
    await cut(under);
    await say(under, 600);
    const [, second] = under.mesh.accounting.lines;
    expect(second?.received).toBe(400);
    atWork(under.nodes).engine.running[0]?.finish({ completionTokens: 600 });
    await under.mesh.settle();
    expect(under.seen.ends).toMatchObject([{ completionTokens: 1_000 }]);
    expect(second?.end).toMatchObject({ outcome: 'done', completionTokens: 400, nodeTokens: 600 });
    expect([under.mesh.accounting.heldMicro, under.mesh.accounting.spentMicro]).toEqual([0, 1_000]);
  });
});

test('an answer that was told in part is billed, also when the next node tells nothing', async ({ expect }) => {
  const under = await ask(1_000, 1_000_000);
  const { mesh, nodes, seen } = under;
  await say(under, 3);
  expect(seen.answer.isBilled).toBe(false);
  await cut(under);
  expect(seen.answer.isBilled).toBe(true);
  atWork(nodes).engine.running[0]?.fail(new HelixFlowError('RESUME_REFUSED', { reason: 'x' }));
  await mesh.settle();
  await mesh.pass(10_200);
  expect([endsOf(seen), seen.answer.isBilled, mesh.accounting.spentMicro]).toEqual([['STREAM_INTERRUPTED'], true, 3]);
});

test('nodes that end what they have begun have a whole answer begin again three times, no more', async ({ expect }) => {
  const mesh = new SmallMesh();
  const model = modelThat('none');
  const nodes = [addTelling(mesh, new TellingEngine(model)), addTelling(mesh, new TellingEngine(model))];
  const seen = await mesh.call('m', 60_000, { isWhole: true });
  for (let attempt = 0; attempt < 8 && seen.ends.length === 0; attempt += 1) {
    const [running] = nodes.flatMap(({ engine }) => engine.running);
    void running?.emit('most of it', [1, 2, 3]);
    await mesh.settle();
    // Nobody blames a node that drains.
    running?.fail(new HelixFlowError('NODE_DRAINING', {}));
    await mesh.settle();
  }
  expect(endsOf(seen)).toEqual(['STREAM_INTERRUPTED']);
  expect(mesh.accounting.ends().map((end) => end?.outcome)).toEqual(['hedged', 'hedged', 'hedged', 'failed']);
});

describe('a client that leaves', () => {
  test('before anything has come is billed for what its node says, and for no prompt where that says nothing', async ({
    expect,
  }) => {
    for (const isHeard of [true, false]) {
      const { mesh, nodes, seen } = await ask(1_000, 1_000_000);
      const { link } = atWork(nodes);
      seen.answer.cancel();
      expect(seen.answer.isBilled).toBe(true);
      if (!isHeard) link.cut();
      await mesh.settle();
      await mesh.pass(2_100);
      const [end] = mesh.accounting.ends();
      expect([end?.outcome, end?.completionTokens, isHeard || end?.promptTokens === 0]).toEqual(['cancelled', 0, true]);
      expect(mesh.accounting.heldMicro).toBe(0);
    }
  });

  test('after a cut, or whose money has ended, has used its tokens once', async ({ expect }) => {
    const limited = accessOf({ budget: { amountMicro: 1, period: 'total' }, limits: { tpm: 10_000 } });
    const mesh = new SmallMesh();
    mesh.accounting.price = price;
    mesh.accounting.budgetMicro = 2_048;
    const model = modelThat('tokens', { contextTokens: 1_000_000 });
    const nodes = [addTelling(mesh, new TellingEngine(model)), addTelling(mesh, new TellingEngine(model))];
    const seen = await mesh.call('m', 60_000, { caller: limited, chat: { messages } });
    const under = { mesh, nodes, seen };
    await say(under, 1_500);
    await cut(under);
    await say(under, 1_000);
    expect(seen.ends).toMatchObject([{ finish: 'length', completionTokens: 2_048 }]);
    const prompt = Math.ceil(encodeChatRequest({ messages }).length / 4);
    expect(mesh.gateway.rateOf(limited)?.tokens?.remaining).toBe(10_000 - prompt - 2_048);
  });
});

test('a client that leaves when it hears that its answer begins again leaves nothing behind', async ({ expect }) => {
  const mesh = new SmallMesh();
  const model = modelThat('none');
  const nodes = [addTelling(mesh, new TellingEngine(model)), addTelling(mesh, new TellingEngine(model))];
  const heard: string[] = [];
  const answer = mesh.gateway.chat(
    {
      request: 'ab'.repeat(16) as RequestId,
      caller: accessOf({}),
      model: 'm',
      chat: { messages },
      deadlineMs: ms(60_000),
      isWhole: true,
    },
    {
      committed: () => {},
      delta: (text) => heard.push(text),
      restarted: () => answer.cancel(),
      done: () => heard.push('done'),
      failed: ({ code }) => heard.push(code),
    },
  );
  await mesh.settle();
  atWork(nodes).engine.tell(3);
  await mesh.settle();
  await cut({ mesh, nodes });
  await mesh.pass(2_100);
  expect(mesh.accounting.ends().map((end) => end?.outcome)).toEqual(['hedged']);
  expect([nodes.flatMap(({ engine }) => engine.running), mesh.gateway.calls()]).toEqual([[], 0]);
});

test('what a client has taken is first that of all nodes before', ({ expect }) => {
  const course = new Course(digestOf('d'));
  const part = { textBytes: 3, tokens: 3 } as RunningAttempt;
  course.spliced(part);
  course.spliced(part);
  expect([course.taken(5), course.taken(2)]).toEqual([0, 1]);
});
