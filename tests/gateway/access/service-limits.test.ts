/** Limits in the service: however a call ends, its hold is settled once, by what was used. */

import { describe, test } from 'vitest';
import { defaultHoldTokens } from '../../../gateway/access/limits.ts';
import type { Rate } from '../../../gateway/access/subject.ts';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { encodeChatRequest } from '../../../protocol/messages/chat.ts';
import { accessOf } from '../../support/access.ts';
import { ScriptedEngine, scriptedModel } from '../../support/scripted-engine.ts';
import { endsOf, type MeshNodeUnderTest, type SeenCall, SmallMesh } from '../../support/small-mesh.ts';

const caller = accessOf({ limits: { rpm: 5, tpm: 10_000, concurrency: 3 } });
const chat = { messages: [{ role: 'user' as const, content: 'hi' }], maxTokens: 100 };
const promptBound = encodeChatRequest(chat).length;
const promptEstimate = Math.ceil(promptBound / 4);

interface Under {
  readonly mesh: SmallMesh;
  readonly nodes: readonly MeshNodeUnderTest[];
  readonly seen: SeenCall;
  /** The node that has the call. */
  readonly serving: MeshNodeUnderTest;
}

async function begin(nodes = 1): Promise<Under> {
  const mesh = new SmallMesh();
  const all = Array.from({ length: nodes }, () => mesh.add());
  const seen = await mesh.call('m', 60_000, { caller, chat });
  const serving = all.find(({ engine }) => engine.running.length > 0) ?? all[0];
  if (serving === undefined) throw new Error('no node');
  return { mesh, nodes: all, seen, serving };
}

async function emit({ mesh, serving }: Under, ...texts: readonly string[]): Promise<void> {
  for (const text of texts) void serving.engine.running[0]?.emit(text);
  await mesh.settle();
}

/** What the call has cost, once it is over. */
function cost({ mesh }: Under): { requests: number; tokens: number; held: unknown } {
  const rate = mesh.gateway.rateOf(caller);
  return {
    requests: 5 - (rate?.requests?.remaining ?? 0),
    tokens: 10_000 - (rate?.tokens?.remaining ?? 0),
    held: mesh.gateway.limits(),
  };
}
const nothingHeld = { subjects: 1, running: 0, heldTokens: 0 };

describe('a call under way', () => {
  test('holds a request, the bytes of its prompt, max_tokens, and a place', async ({ expect }) => {
    const under = await begin();
    const rate: Rate = {
      requests: { limit: 5, remaining: 4, resetMs: 61_000 as never },
      tokens: { limit: 10_000, remaining: 10_000 - promptBound - 100, resetMs: 60_000 as never },
      concurrency: { limit: 3, remaining: 2 },
    };
    expect(under.seen.answer.rate).toEqual(rate);
    expect(cost(under).held).toEqual({ subjects: 1, running: 1, heldTokens: promptBound + 100 });
  });

  test('without max_tokens holds the model’s context, or what is usual where that is more', async ({ expect }) => {
    for (const [contextTokens, held] of [
      [1_000, 1_000],
      [100_000, defaultHoldTokens],
    ] as const) {
      const mesh = new SmallMesh();
      mesh.add(new ScriptedEngine(2, [{ ...scriptedModel(), contextTokens }]));
      const { maxTokens: _, ...open } = chat;
      await mesh.call('m', 60_000, { caller, chat: open });
      expect(mesh.gateway.limits().heldTokens).toBe(encodeChatRequest(open).length + held);
    }
  });

  test('holds no more for a max_tokens beyond the context than nodes will make', async ({ expect }) => {
    const mesh = new SmallMesh();
    mesh.add();
    const seen = await mesh.call('m', 60_000, { caller, chat: { ...chat, maxTokens: 500_000 } });
    expect([endsOf(seen), mesh.gateway.limits().heldTokens]).toEqual([[], promptBound + 3 + 1_000]);
  });

  test('of a key without limits holds nothing', async ({ expect }) => {
    const mesh = new SmallMesh();
    mesh.add();
    const seen = await mesh.call();
    expect([seen.answer.rate, mesh.gateway.limits()]).toEqual([undefined, { subjects: 0, running: 0, heldTokens: 0 }]);
  });
});

describe('a call costs', () => {
  test('what the node counted, when it ends well', async ({ expect }) => {
    const under = await begin();
    await emit(under, 'hel', 'lo');
    under.serving.engine.running[0]?.finish();
    await under.mesh.settle();
    expect(endsOf(under.seen)).toEqual(['done']);
    expect(cost(under)).toEqual({ requests: 1, tokens: 3 + 2, held: nothingHeld });
  });

  test('no more than the bytes that came, whatever the node counted', async ({ expect }) => {
    const under = await begin();
    under.serving.engine.running[0]?.finish();
    await under.mesh.settle();
    expect(cost(under)).toMatchObject({ tokens: 3 + 1 });
  });

  test('its prompt, by its bytes, when its client leaves before first content', async ({ expect }) => {
    const under = await begin();
    under.seen.answer.cancel();
    under.seen.answer.cancel();
    await under.mesh.settle();
    expect(cost(under)).toEqual({ requests: 1, tokens: promptEstimate, held: nothingHeld });
  });

  test('its prompt and what was delivered, when its client leaves later', async ({ expect }) => {
    const under = await begin();
    await emit(under, 'a', 'b', 'c');
    under.seen.answer.cancel();
    await under.mesh.settle();
    expect(cost(under)).toEqual({ requests: 1, tokens: promptEstimate + 3, held: nothingHeld });
  });

  test('nothing but the request, when its client leaves before any node has it', async ({ expect }) => {
    const mesh = new SmallMesh();
    mesh.add();
    const events = { committed: () => {}, delta: () => {}, done: () => {}, failed: () => {} };
    const call = { request: 'ab'.repeat(16) as never, caller, model: 'm', chat, deadlineMs: 1_000 as never };
    mesh.gateway.chat(call, events).cancel();
    await mesh.settle();
    expect(mesh.gateway.rateOf(caller)).toMatchObject({ requests: { remaining: 4 }, tokens: { remaining: 10_000 } });
    expect(mesh.gateway.limits()).toEqual(nothingHeld);
  });

  test('nothing but the request, when every node fails before first content', async ({ expect }) => {
    const under = await begin(2);
    for (const { engine } of [under.serving, ...under.nodes.filter((node) => node !== under.serving)]) {
      engine.running[0]?.fail(new Error('the engine broke'));
      await under.mesh.settle();
    }
    expect(endsOf(under.seen)).toEqual(['ENGINE_FAILED']);
    expect(cost(under)).toEqual({ requests: 1, tokens: 0, held: nothingHeld });
  });

  test('its prompt and what was delivered, when the node is lost in the middle', async ({ expect }) => {
    const under = await begin();
    await emit(under, 'a', 'b');
    under.serving.link.cut();
    await under.mesh.settle();
    expect(endsOf(under.seen)).toEqual(['STREAM_INTERRUPTED']);
    expect(cost(under)).toEqual({ requests: 1, tokens: promptEstimate + 2, held: nothingHeld });
  });

  test('its prompt, when it ends at its deadline', async ({ expect }) => {
    const under = await begin();
    for (let second = 0; second < 61; second += 1) {
      await under.mesh.clock.advance(1_000);
      await under.mesh.settle();
    }
    expect(endsOf(under.seen)).toEqual(['DEADLINE_EXCEEDED']);
    expect(cost(under)).toEqual({ requests: 0, tokens: promptEstimate, held: nothingHeld });
  });

  test('once, when it moves from one node to another', async ({ expect }) => {
    const under = await begin(2);
    under.serving.link.cut();
    await under.mesh.settle();
    const other = under.nodes.find((node) => node !== under.serving);
    void other?.engine.running[0]?.emit('ok');
    other?.engine.running[0]?.finish();
    await under.mesh.settle();
    expect(endsOf(under.seen)).toEqual(['done']);
    expect(cost(under)).toEqual({ requests: 1, tokens: 3 + 2, held: nothingHeld });
  });

  test('more than was held, where an answer without max_tokens grows beyond it', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add(new ScriptedEngine(2, [{ ...scriptedModel(), contextTokens: 1_000_000 }]));
    const { maxTokens: _, ...open } = chat;
    await mesh.call('m', 60_000, { caller, chat: open });
    const before = mesh.gateway.limits().heldTokens;
    for (let piece = 0; piece <= defaultHoldTokens; piece += 1) {
      void node.engine.running[0]?.emit('x');
      if (piece % 100 === 0) await mesh.settle();
    }
    await mesh.settle();
    expect(mesh.gateway.limits().heldTokens).toBe(before + 1_024);
  });
});

describe('a call that is refused takes nothing, and tells what is left', () => {
  test.for([
    ['whose model does not exist', 'x', 'MODEL_NOT_FOUND'],
    ['that would be one too many', 'm', 'RATE_LIMITED'],
  ] as const)('%s', async ([, model, code], { expect }) => {
    const mesh = new SmallMesh();
    mesh.add(new ScriptedEngine(10));
    for (let count = 0; count < 3; count += 1) await mesh.call('m', 60_000, { caller, chat });
    const before = mesh.gateway.rateOf(caller);
    const seen = await mesh.call(model, 60_000, { caller, chat });
    expect([endsOf(seen), seen.answer.rate, mesh.gateway.rateOf(caller)]).toEqual([[code], before, before]);
  });

  test('and hears of it no more once it has gone', async ({ expect }) => {
    const mesh = new SmallMesh();
    const heard: unknown[] = [];
    const note = (what: unknown): void => void heard.push(what);
    const call = { request: 'ab'.repeat(16) as never, caller, model: 'x', chat, deadlineMs: 1_000 as never };
    mesh.gateway.chat(call, { committed: note, delta: note, done: note, failed: note }).cancel();
    await mesh.settle();
    expect(heard).toEqual([]);
  });

  test('for good, when it asks for more tokens than a minute holds', async ({ expect }) => {
    const mesh = new SmallMesh();
    mesh.add();
    const poor = accessOf({ limits: { tpm: 50 } });
    const seen = await mesh.call('m', 60_000, { caller: poor, chat });
    expect(seen.ends[0]).toMatchObject({
      code: 'REQUEST_OVER_LIMIT',
      details: { tokens: 100, limit: 50, scope: 'key' },
    });
  });
});

describe('a key that is revoked with a cut', () => {
  const cutAll = ({ mesh }: Under): number => mesh.gateway.cut(caller.keyId, caller.issuer);

  test.for([
    ['before', [], promptEstimate],
    ['after', ['half'], promptEstimate + 1],
  ] as const)('ends its calls %s first content, at the engine too', async ([, texts, tokens], { expect }) => {
    const under = await begin();
    await emit(under, ...texts);
    expect(cutAll(under)).toBe(1);
    await under.mesh.settle();
    expect([under.seen.texts, endsOf(under.seen), under.serving.engine.running]).toEqual([texts, ['KEY_REVOKED'], []]);
    expect(cost(under)).toEqual({ requests: 1, tokens, held: nothingHeld });
    expect(cutAll(under)).toBe(0);
  });

  test('ends no call of another key, nor of one of the same name by another issuer', async ({ expect }) => {
    const under = await begin();
    expect(under.mesh.gateway.cut('ffffffffffffffff' as never, caller.issuer)).toBe(0);
    expect(under.mesh.gateway.cut(caller.keyId, '99'.repeat(16) as never)).toBe(0);
    expect([under.seen.ends, under.mesh.gateway.calls()]).toEqual([[], 1]);
  });
});

test('an error from a node that is the request’s own costs the request alone', async ({ expect }) => {
  const under = await begin();
  const details = { contextTokens: 10, requestedTokens: 20, promptTokens: 15, completionTokens: 5 };
  under.serving.engine.running[0]?.fail(new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', details));
  await under.mesh.settle();
  expect(cost(under)).toEqual({ requests: 1, tokens: 0, held: nothingHeld });
});
