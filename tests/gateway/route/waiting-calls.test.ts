/** Calls that find all nodes busy, or none that may serve them: in turn, bounded, fair, and with an honest answer. */

import { describe, test } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { AccountId, PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { ms } from '../../../protocol/units.ts';
import { accessOf } from '../../support/access.ts';
import { endsOf, type SeenCall, SmallMesh } from '../../support/small-mesh.ts';
import { addTelling, modelThat, TellingEngine, type TellingNode, wholeText } from './told.ts';

const callerOf = (account: string) => accessOf({ account: account as AccountId });

interface Under {
  readonly mesh: SmallMesh;
  readonly node: TellingNode;
  readonly ask: (account?: string, deadlineMs?: number) => Promise<SeenCall>;
}

/** A node of one slot, which has an answer and two that wait; whoever comes now waits at the gateway. */
async function fullMesh(waitingMax = 100): Promise<Under> {
  const mesh = new SmallMesh(100, undefined, { waitingMax });
  const node = addTelling(mesh, new TellingEngine(modelThat('tokens'), 1));
  const ask = (account = 'local', deadlineMs = 60_000): Promise<SeenCall> =>
    mesh.call('m', deadlineMs, { caller: callerOf(account) });
  for (let count = 0; count < 3; count += 1) await ask('first');
  return { mesh, node, ask };
}

/** The node ends the answer that it works on, and whoever is next goes. */
async function serveOne({ mesh, node }: Under): Promise<void> {
  node.engine.finish();
  await mesh.settle();
  await mesh.pass(200);
}

describe('a call that finds all nodes busy', () => {
  test('waits for its turn, and is served', async ({ expect }) => {
    const under = await fullMesh();
    const [one, two] = [await under.ask(), await under.ask()];
    expect(under.mesh.gateway.waiting()).toBe(2);
    for (let count = 0; count < 4; count += 1) await serveOne(under);
    expect([endsOf(one), endsOf(two), under.mesh.gateway.waiting()]).toEqual([['done'], [], 0]);
    await serveOne(under);
    expect(endsOf(two)).toEqual(['done']);
    expect(two.texts.join('')).toBe(wholeText);
    expect(under.mesh.gateway.counts.waits).toEqual({ begun: 2, refused: 0, expired: 0 });
  });

  test('is told so after ten seconds, with how long it should wait', async ({ expect }) => {
    const under = await fullMesh();
    const seen = await under.ask();
    await under.mesh.pass(9_900);
    expect(seen.ends).toEqual([]);
    await under.mesh.pass(200);
    expect(seen.ends).toMatchObject([{ code: 'GATEWAY_OVERLOADED', details: { retryAfterMs: expect.any(Number) } }]);
    expect(under.mesh.gateway.counts.waits).toEqual({ begun: 1, refused: 0, expired: 1 });
    expect(under.mesh.gateway.waiting()).toBe(0);
  });

  test('waits no longer than its deadline', async ({ expect }) => {
    const under = await fullMesh();
    const seen = await under.ask('local', 2_000);
    await under.mesh.pass(2_100);
    expect([endsOf(seen), under.mesh.gateway.waiting()]).toEqual([['DEADLINE_EXCEEDED'], 0]);
  });

  test('is told at once where too many wait', async ({ expect }) => {
    const under = await fullMesh(2);
    const [one, two] = [await under.ask('a'), await under.ask('b')];
    const three = await under.ask('c');
    expect([endsOf(one), endsOf(two), endsOf(three)]).toEqual([[], [], ['GATEWAY_OVERLOADED']]);
    const four = await under.ask('a');
    expect(endsOf(four)).toEqual(['ACCOUNT_OVERLOADED']);
    expect(under.mesh.gateway.counts.waits).toMatchObject({ refused: 2 });
  });

  test('is not told to come again soon because nodes refuse many', async ({ expect }) => {
    const under = await fullMesh(1);
    await under.ask('a');
    await under.mesh.pass(5_000);
    for (let refusal = 0; refusal < 3; refusal += 1) {
      under.node.engine.running[0]?.fail(new HelixFlowError('ENGINE_REFUSED', { status: 400 }));
      under.node.link.a.deliver();
      await under.mesh.clock.turn();
    }
    const [end] = (await under.ask('b')).ends;
    // One waits, and in five seconds nobody was served.
    expect(end).toMatchObject({ code: 'GATEWAY_OVERLOADED' });
    expect((end as HelixFlowError<'GATEWAY_OVERLOADED'>).details.retryAfterMs).toBeGreaterThan(7_000);
  });

  test('gives up its place to an account that has none', async ({ expect }) => {
    const under = await fullMesh(4);
    const many = [await under.ask('a'), await under.ask('a')];
    const others = [await under.ask('b'), await under.ask('b')];
    const one = await under.ask('c');
    expect(endsOf(one)).toEqual([]);
    expect([...many, ...others].flatMap(endsOf)).toEqual(['ACCOUNT_OVERLOADED']);
    expect(under.mesh.gateway.waiting()).toBe(4);
  });

  test('has its turn before the second one of an account that asks more', async ({ expect }) => {
    const under = await fullMesh();
    const flood = [];
    for (let count = 0; count < 5; count += 1) flood.push(await under.ask('flood'));
    const modest = await under.ask('modest');
    for (let count = 0; count < 5; count += 1) await serveOne(under);
    expect(endsOf(modest)).toEqual(['done']);
    expect(flood.flatMap(endsOf)).toEqual(['done']);
  });

  test('comes after one of an account that has less under way', async ({ expect }) => {
    const under = await fullMesh();
    const [early, late] = [await under.ask('first'), await under.ask('other')];
    await serveOne(under);
    expect(under.mesh.gateway.waiting()).toBe(1);
    for (let count = 0; count < 3; count += 1) await serveOne(under);
    expect([endsOf(late), endsOf(early)]).toEqual([['done'], []]);
  });

  test('comes no later for what its account had under way before', async ({ expect }) => {
    const under = await fullMesh();
    for (let count = 0; count < 3; count += 1) await serveOne(under);
    const ended = [await under.ask('first'), await under.ask('first')];
    for (const { answer } of ended) answer.cancel();
    under.mesh.nodes[0]?.link.settle();
    await under.mesh.pass(200);
    for (let count = 0; count < 3; count += 1) await under.ask('third');
    const [early, late] = [await under.ask('first'), await under.ask('other')];
    for (let count = 0; count < 4; count += 1) await serveOne(under);
    expect([endsOf(early), endsOf(late)]).toEqual([['done'], []]);
  });

  test('leaves its place when its client leaves', async ({ expect }) => {
    const under = await fullMesh();
    const [one, two] = [await under.ask(), await under.ask()];
    one.answer.cancel();
    expect(under.mesh.gateway.waiting()).toBe(1);
    for (let count = 0; count < 4; count += 1) await serveOne(under);
    expect([one.ends, one.answer.isBilled, endsOf(two), two.answer.isBilled]).toEqual([[], false, ['done'], true]);
    expect(under.mesh.accounting.lines).toHaveLength(4);
  });

  test('leaves its place when its key is taken back', async ({ expect }) => {
    const under = await fullMesh();
    const seen = await under.ask();
    const { keyId, issuer } = accessOf();
    expect(under.mesh.gateway.cut(keyId, issuer)).toBe(4);
    expect([endsOf(seen), under.mesh.gateway.waiting()]).toEqual([['KEY_REVOKED'], 0]);
    await under.mesh.settle();
    await under.mesh.gateway.drain();
  });

  test('is served while the gateway drains', async ({ expect }) => {
    const under = await fullMesh();
    const seen = await under.ask();
    let isDrained = false;
    void under.mesh.gateway.drain().then(() => {
      isDrained = true;
    });
    expect(endsOf(await under.ask())).toEqual(['GATEWAY_DRAINING']);
    for (let count = 0; count < 4; count += 1) await serveOne(under);
    expect([endsOf(seen), isDrained]).toEqual([['done'], true]);
  });

  test('goes to a node that has just come', async ({ expect }) => {
    const under = await fullMesh();
    const seen = await under.ask();
    const other = addTelling(under.mesh);
    await under.mesh.pass(100);
    expect([other.engine.running.length, under.mesh.gateway.waiting(), seen.ends]).toEqual([1, 0, []]);
  });

  test('is told that nobody is there when the last node goes', async ({ expect }) => {
    const under = await fullMesh();
    const seen = await under.ask();
    under.node.link.cut();
    await under.mesh.pass(10_100);
    expect([endsOf(seen), under.mesh.gateway.waiting()]).toEqual([['MODEL_UNAVAILABLE'], 0]);
  });

  test('leaves no trace where the session with its node carries all it may', async ({ expect }) => {
    const mesh = new SmallMesh(100, undefined, { sessionAttemptsMax: 8 });
    const node = addTelling(mesh, new TellingEngine(modelThat('tokens'), 50));
    const call = {
      request: 'ab'.repeat(16) as never,
      caller: accessOf(),
      model: 'm',
      chat: { messages: [{ role: 'user' as const, content: 'hi' }] },
      deadlineMs: ms(60_000),
    };
    const nothing = { committed: () => {}, delta: () => {}, done: () => {}, failed: () => {} };
    for (let count = 0; count < 8; count += 1) {
      const answer = mesh.gateway.chat(call, nothing);
      await Promise.resolve();
      // The node has not heard of any of this yet.
      answer.cancel();
    }
    const ends: unknown[] = [];
    mesh.gateway.chat(call, { ...nothing, done: () => ends.push('done'), failed: ({ code }) => ends.push(code) });
    await Promise.resolve();
    expect([mesh.gateway.waiting(), mesh.accounting.lines.at(-1)?.isDropped]).toEqual([1, true]);
    await mesh.settle();
    await mesh.pass(1_200);
    node.engine.finish();
    await mesh.settle();
    await mesh.pass(200);
    expect([ends, mesh.gateway.nodes()[0]?.active]).toEqual([['done'], 0]);
    await mesh.gateway.drain();
  });

  test('comes again where a node has refused it for being full, and that is no try', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = addTelling(mesh, new TellingEngine(modelThat('tokens'), 4));
    const seen = await mesh.call();
    for (let refusal = 0; refusal < 5; refusal += 1) {
      node.engine.running[0]?.fail(new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 10 }));
      await mesh.settle();
      await mesh.pass(1_200);
    }
    node.engine.finish();
    await mesh.settle();
    expect(endsOf(seen)).toEqual(['done']);
    expect(seen.ends).toMatchObject([{ served: { attempts: 6 } }]);
    expect(mesh.accounting.ends().map((end) => end?.outcome)).toEqual([...Array(5).fill('failed'), 'done']);
  });
});

describe('a call that no node could ever take', () => {
  const only = (...peers: readonly string[]) => ({ preferences: { nodes: { allow: peers as readonly PeerId[] } } });

  test('is told at once, with the reasons', async ({ expect }) => {
    const mesh = new SmallMesh();
    addTelling(mesh);
    const seen = await mesh.call('m', 60_000, only('elsewhere'));
    expect(seen.ends).toMatchObject([{ code: 'NODES_EXCLUDED', details: { model: 'm', reason: 'denied: 1' } }]);
  });

  test('is told at once also while others wait', async ({ expect }) => {
    const under = await fullMesh();
    await under.ask();
    const seen = await under.mesh.call('m', 60_000, only('elsewhere'));
    expect([endsOf(seen), under.mesh.gateway.waiting()]).toEqual([['NODES_EXCLUDED'], 1]);
  });

  test('any more is told when its turn comes', async ({ expect }) => {
    const under = await fullMesh();
    const seen = await under.mesh.call('m', 60_000, only(under.node.peer));
    const behind = await under.ask();
    expect(under.mesh.gateway.waiting()).toBe(2);
    under.node.link.cut();
    addTelling(under.mesh);
    await under.mesh.pass(100);
    expect([endsOf(seen), endsOf(behind), under.mesh.gateway.waiting()]).toEqual([['NODES_EXCLUDED'], [], 0]);
  });

  test('because of its size is told how much would do', async ({ expect }) => {
    const mesh = new SmallMesh();
    const maxBytes = limits.requestBodyMaxBytes;
    addTelling(mesh);
    const seen = await mesh.call('m', 60_000, {
      chat: { messages: [{ role: 'user', content: 'x'.repeat(maxBytes) }] },
    });
    expect(seen.ends).toMatchObject([{ code: 'REQUEST_TOO_LARGE', details: { maxBytes } }]);
  });
});

describe('a call that is too long for the context of its node', () => {
  const tooLong = (requestedTokens: number) =>
    new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', {
      contextTokens: 1_000,
      requestedTokens,
      promptTokens: requestedTokens,
      completionTokens: 0,
    });

  test('is tried where the context is long enough, and nowhere else', async ({ expect }) => {
    const mesh = new SmallMesh();
    const [short, middle, long] = [1_000, 1_500, 2_000].map((contextTokens) =>
      addTelling(mesh, new TellingEngine(modelThat('tokens', { contextTokens }))),
    ) as [TellingNode, TellingNode, TellingNode];
    const seen = await mesh.call();
    expect(short.engine.running).toHaveLength(1);
    short.engine.running[0]?.fail(tooLong(1_600));
    await mesh.settle();
    expect([middle.engine.running.length, long.engine.running.length]).toEqual([0, 1]);
    long.engine.finish();
    await mesh.settle();
    expect(endsOf(seen)).toEqual(['done']);
  });

  test.for([
    ['where none has a longer one', [1_000, 1_000], 1_600],
    ['where none has one that is long enough', [1_000, 1_500], 1_600],
    ['where it claims to have asked for less than it has room for', [1_000, 1_000], 1],
  ] as const)('is told so %s', async ([, contexts, requestedTokens], { expect }) => {
    const mesh = new SmallMesh();
    const nodes = contexts.map((contextTokens) =>
      addTelling(mesh, new TellingEngine(modelThat('tokens', { contextTokens }))),
    );
    const seen = await mesh.call();
    nodes[0]?.engine.running[0]?.fail(tooLong(requestedTokens));
    await mesh.settle();
    expect([endsOf(seen), nodes.map(({ engine }) => engine.running.length)]).toEqual([
      ['CONTEXT_LENGTH_EXCEEDED'],
      [0, 0],
    ]);
  });
});
