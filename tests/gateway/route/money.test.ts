/** Money of calls: set aside before they begin, never more charged than that, and all the rest given back, whatever happens. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import type { Price } from '../../../ledger/price.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { encodeChatRequest } from '../../../protocol/messages/chat.ts';
import { accessOf } from '../../support/access.ts';
import { leaseTag } from '../../support/memory-tabs.ts';
import { ScriptedEngine, scriptedModel } from '../../support/scripted-engine.ts';
import { endsOf, type SeenCall, SmallMesh } from '../../support/small-mesh.ts';

const caller = accessOf({ budget: { amountMicro: 1, period: 'total' } });
const chat = { messages: [{ role: 'user' as const, content: 'hi' }], maxTokens: 10 };
const promptBound = encodeChatRequest(chat).length;
/** A micro-credit for each token of an answer, two for each of a prompt. */
const price: Price = { id: '', prompt: 2_000_000, cached: 1_000_000, completion: 1_000_000 };
const ask = (mesh: SmallMesh, more = {}): Promise<SeenCall> => mesh.call('m', 60_000, { caller, chat, ...more });

function meshWith(nodes = 1, contextTokens = 1_000): SmallMesh {
  const mesh = new SmallMesh();
  for (let node = 0; node < nodes; node += 1) {
    mesh.add(new ScriptedEngine(4, [{ ...scriptedModel(), contextTokens }]));
  }
  mesh.accounting.price = price;
  return mesh;
}

describe('a call of an account with a budget', () => {
  test('holds what it may take at worst at the dearest node, and pays what it took', async ({ expect }) => {
    const mesh = meshWith(2);
    const [first, second] = mesh.nodes;
    mesh.accounting.prices.set(second?.peer as never, { ...price, completion: 3_000_000 });
    await ask(mesh);
    expect(mesh.accounting.heldMicro).toBe(2 * promptBound + 3 * 10);
    const running = [first, second].flatMap((node) => node?.engine.running ?? [])[0];
    void running?.emit('a');
    void running?.emit('b');
    running?.finish();
    await mesh.settle();
    const dear = mesh.accounting.lines[0]?.start.node === second?.peer ? 3 : 1;
    expect([mesh.accounting.heldMicro, mesh.accounting.spentMicro]).toEqual([0, 2 * 2 + 1 + 2 * dear]);
    expect(mesh.accounting.lines[0]?.start).toMatchObject({ lease: leaseTag, payer: 'account' });
  });

  test('holds nothing for what costs nothing, unless that has changed before it leaves', async ({ expect }) => {
    const mesh = meshWith();
    mesh.accounting.price = { ...price, prompt: 0, cached: 0, completion: 0 };
    mesh.accounting.budgetMicro = 0;
    const free = await ask(mesh);
    expect([free.ends, mesh.accounting.lines.length, mesh.accounting.holds]).toEqual([[], 1, []]);
    const priceOf = mesh.accounting.priceOf.bind(mesh.accounting);
    let asked = 0;
    mesh.accounting.priceOf = (...of) => {
      asked += 1;
      return asked > 1 ? price : priceOf(...of);
    };
    expect(endsOf(await ask(mesh))).toEqual(['BUDGET_UNAVAILABLE']);
  });

  test('of none holds nothing', async ({ expect }) => {
    const mesh = meshWith();
    await mesh.call('m', 60_000, { chat });
    expect(mesh.accounting.holds).toEqual([]);
  });

  test('is the gateway’s own debit outside a lease', async ({ expect }) => {
    const mesh = meshWith();
    mesh.accounting.isGrace = true;
    await ask(mesh);
    expect(mesh.accounting.lines[0]?.start).toMatchObject({ payer: 'gateway' });
  });

  test('is refused where the budget does not reach, before any node has it', async ({ expect }) => {
    const mesh = meshWith();
    mesh.accounting.budgetMicro = 2 * promptBound + 9;
    const seen = await ask(mesh);
    expect(endsOf(seen)).toEqual(['BUDGET_EXHAUSTED']);
    expect([mesh.accounting.lines, mesh.nodes[0]?.engine.running, mesh.gateway.calls()]).toEqual([[], [], 0]);
    await mesh.gateway.drain();
  });

  test('that waits for a lease can be left meanwhile, and gives back what it then gets', async ({ expect }) => {
    const mesh = meshWith();
    const { promise, resolve } = Promise.withResolvers<void>();
    mesh.accounting.whenLeased = promise;
    const seen = await ask(mesh);
    seen.answer.cancel();
    const whenDrained = mesh.gateway.drain().then(() => 'drained');
    resolve();
    await expect(whenDrained).resolves.toBe('drained');
    expect(mesh.accounting.holds).toEqual([{ heldMicro: 0, spentMicro: 0, settled: 1 }]);
    expect([mesh.accounting.lines, seen.ends]).toEqual([[], []]);
  });

  test('moves to a dearer node only where that is covered', async ({ expect }) => {
    for (const [budgetMicro, code] of [
      [2 * promptBound + 10, 'NODE_LOST'],
      [2 * promptBound + 20, undefined],
    ] as const) {
      const mesh = meshWith();
      mesh.accounting.budgetMicro = budgetMicro;
      const seen = await ask(mesh);
      const later = mesh.add(new ScriptedEngine(4));
      mesh.accounting.prices.set(later.peer, { ...price, completion: 2_000_000 });
      mesh.nodes[0]?.link.cut();
      await mesh.settle();
      expect([seen.ends.map((end) => 'code' in end && end.code), later.engine.running.length]).toEqual(
        code === undefined ? [[], 1] : [[code], 0],
      );
    }
  });

  test('is charged no more than max_tokens, also where a node sends more', async ({ expect }) => {
    const mesh = meshWith();
    const seen = await ask(mesh);
    for (let piece = 0; piece < 15; piece += 1) void mesh.nodes[0]?.engine.running[0]?.emit('x');
    mesh.nodes[0]?.link.cut();
    await mesh.settle();
    expect(mesh.accounting.ends()).toMatchObject([{ outcome: 'lost' }]);
    expect([seen.texts.length > 0, mesh.accounting.spentMicro <= 10]).toEqual([false, true]);
  });

  test('owes no more than that by what is told of it while it runs, with and without a budget', async ({ expect }) => {
    const told = [];
    for (const by of [caller, accessOf({})]) {
      const mesh = meshWith();
      const seen = await ask(mesh, { caller: by });
      const running = mesh.nodes[0]?.engine.running[0];
      for (let piece = 0; piece < 30; piece += 1) {
        void running?.emit('word');
        await mesh.settle();
        seen.answer.consumed(4);
      }
      mesh.nodes[0]?.link.cut();
      await mesh.settle();
      told.push([seen.texts.length, mesh.accounting.lines[0]?.received, mesh.accounting.ends()[0]?.completionTokens]);
    }
    expect(told).toEqual([
      [30, 10, 10],
      [30, 10, 10],
    ]);
  });
});

/** What may happen to calls at any moment. */
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('emit' as const), of: fc.nat(3), pieces: fc.integer({ min: 1, max: 900 }) }),
  },
  ...(['call', 'open', 'finish', 'fail', 'cancel', 'revoke', 'sync', 'settle', 'cut', 'lease'] as const).map(
    (what) => ({
      weight: what === 'call' || what === 'open' ? 3 : 1,
      arbitrary: fc.record({ do: fc.constant(what), of: fc.nat(3) }),
    }),
  ),
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('pass' as const), of: fc.nat(3), seconds: fc.integer({ min: 1, max: 40 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('price' as const),
      of: fc.nat(3),
      micro: fc.integer({ min: 0, max: 5_000_000 }),
    }),
  },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

interface Played {
  readonly mesh: SmallMesh;
  readonly calls: SeenCall[];
  /** Whoever waits for a lease has it. */
  readonly lease: () => void;
}

async function play({ mesh, calls, lease }: Played, one: Step): Promise<void> {
  const node = mesh.nodes[one.of % mesh.nodes.length];
  const call = calls[one.of % Math.max(1, calls.length)];
  switch (one.do) {
    case 'call':
      calls.push(await ask(mesh));
      break;
    case 'open':
      calls.push(await ask(mesh, { chat: { messages: chat.messages } }));
      break;
    case 'emit':
      for (let piece = 0; piece < one.pieces; piece += 1)
        void node?.engine.running[0]?.emit(piece % 7 === 0 ? '' : 'ab');
      break;
    case 'finish':
      node?.engine.running[0]?.finish();
      break;
    case 'fail':
      node?.engine.running[0]?.fail(new Error('broken'));
      break;
    case 'cancel':
      call?.answer.cancel();
      break;
    case 'revoke':
      mesh.gateway.cut(caller.keyId, caller.issuer);
      break;
    case 'sync':
      mesh.accounting.isSlow = !mesh.accounting.isSlow;
      mesh.accounting.sync();
      break;
    case 'lease':
      lease();
      break;
    case 'settle':
      await mesh.settle();
      break;
    case 'cut':
      node?.link.cut();
      mesh.add(new ScriptedEngine(4, [{ ...scriptedModel(), contextTokens: 100_000 }]));
      break;
    case 'pass':
      await mesh.clock.advance(one.seconds * 1_000);
      break;
    case 'price':
      mesh.accounting.price = { ...price, completion: one.micro };
      break;
  }
}

test('no money stays held, none is charged twice, and never more than was held, whatever happens in what order', async ({
  expect,
}) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 60 }),
      fc.integer({ min: 0, max: 40_000 }),
      fc.boolean(),
      async (steps, budgetMicro, isLate) => {
        const mesh = meshWith(2, 100_000);
        mesh.accounting.budgetMicro = budgetMicro;
        // Settling more than was held throws in the fake.
        const { promise, resolve: lease } = Promise.withResolvers<void>();
        if (isLate) mesh.accounting.whenLeased = promise;
        const calls: SeenCall[] = [];
        for (const one of steps) await play({ mesh, calls, lease }, one);
        lease();
        mesh.accounting.isSlow = false;
        mesh.accounting.sync();
        for (const { answer } of calls) answer.cancel();
        await mesh.settle();
        await mesh.clock.advance(2_000);
        await mesh.gateway.drain();
        mesh.accounting.sync();
        const { holds, lines } = mesh.accounting;
        expect(holds.filter(({ heldMicro, settled }) => heldMicro !== 0 || settled !== 1)).toEqual([]);
        expect(mesh.accounting.spentMicro).toBeLessThanOrEqual(budgetMicro);
        expect(lines.filter(({ end, isDropped }) => (end === undefined) !== isDropped)).toEqual([]);
        for (const { ends } of calls) expect(ends.length).toBeLessThanOrEqual(1);
        expect(
          mesh.gateway
            .nodes()
            .map(({ active }) => active)
            .filter((active) => active < 0),
        ).toEqual([]);
      },
    ),
    { numRuns: 150 },
  );
});

test('a client that leaves with the piece that used up the money is a client that left', async ({ expect }) => {
  const mesh = meshWith(1, 100_000);
  mesh.accounting.budgetMicro = 2 * promptBound + 2_048;
  const answer = mesh.gateway.chat(
    {
      request: 'ab'.repeat(16) as never,
      caller,
      model: 'm',
      chat: { messages: chat.messages },
      deadlineMs: 1e6 as never,
    },
    {
      committed: () => {},
      delta: () => {
        if (mesh.accounting.lines[0]?.received === 2_048) answer.cancel();
      },
      done: () => {},
      failed: () => {},
    },
  );
  await mesh.settle();
  for (let piece = 0; piece < 2_100; piece += 1) void mesh.nodes[0]?.engine.running[0]?.emit('x');
  await mesh.settle();
  expect(mesh.accounting.ends()).toMatchObject([{ outcome: 'cancelled', completionTokens: 2_048 }]);
  expect(mesh.gateway.nodes()).toMatchObject([{ counts: { cancelled: 1, done: 0 } }]);
});

test('an error is told as it is when the authority of a budget cannot be reached', async ({ expect }) => {
  const mesh = meshWith();
  mesh.accounting.hold = () => Promise.resolve(new HelixFlowError('BUDGET_UNAVAILABLE', {}));
  expect(endsOf(await ask(mesh))).toEqual(['BUDGET_UNAVAILABLE']);
});
