/** The gateway's service over real sessions: who serves, who is tried next, what a client is told. */

import { describe, test } from 'vitest';
import { HelixFlowError } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import { ScriptedEngine, scriptedModel } from '../support/scripted-engine.ts';
import { endsOf, SmallMesh } from '../support/small-mesh.ts';

describe('a call', () => {
  test('is answered by a node that offers the model', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add();
    const seen = await mesh.call();
    void node.engine.running[0]?.emit('hel');
    void node.engine.running[0]?.emit('lo');
    node.engine.running[0]?.finish();
    await mesh.settle();
    expect(seen.texts).toEqual(['hel', 'lo']);
    expect(seen.committed).toEqual([
      { node: node.peer, digest: scriptedModel().digest, attempts: 1, nodes: [node.peer], splices: 0 },
    ]);
    expect(seen.ends).toEqual([
      { finish: 'stop', promptTokens: 3, cachedTokens: 1, completionTokens: 2, served: seen.committed[0] },
    ]);
    expect(mesh.gateway.calls()).toBe(0);
  });

  test('moves to another node unseen when the first is lost before first content', async ({ expect }) => {
    const mesh = new SmallMesh();
    const [first, second] = [mesh.add(), mesh.add()];
    const seen = await mesh.call();
    const dead = first.engine.running.length > 0 ? first : second;
    const other = dead === first ? second : first;
    dead.link.cut();
    await mesh.settle();
    void other.engine.running[0]?.emit('ok');
    other.engine.running[0]?.finish();
    await mesh.settle();
    expect([seen.texts, endsOf(seen), seen.committed.map(({ node, attempts }) => [node, attempts])]).toEqual([
      ['ok'],
      ['done'],
      [[other.peer, 2]],
    ]);
  });

  test('ends with an error, never as done, when the node is lost after first content', async ({ expect }) => {
    const mesh = new SmallMesh();
    const [first, second] = [mesh.add(), mesh.add()];
    const seen = await mesh.call();
    const dead = first.engine.running.length > 0 ? first : second;
    void dead.engine.running[0]?.emit('half');
    await mesh.settle();
    dead.link.cut();
    await mesh.settle();
    expect([seen.texts, endsOf(seen)]).toEqual([['half'], ['STREAM_INTERRUPTED']]);
    expect((dead === first ? second : first).engine.running).toEqual([]);
  });

  test('moves on from a node that is silent, within five heartbeats', async ({ expect }) => {
    const mesh = new SmallMesh();
    const [first, second] = [mesh.add(), mesh.add()];
    const seen = await mesh.call();
    const silent = first.engine.running.length > 0 ? first : second;
    const other = silent === first ? second : first;
    for (let beat = 0; beat <= limits.heartbeatMissesMax; beat += 1) {
      await mesh.clock.advance(limits.heartbeatActiveMs);
      other.link.settle();
    }
    void other.engine.running[0]?.emit('ok');
    other.engine.running[0]?.finish();
    await mesh.clock.turn();
    other.link.settle();
    await mesh.clock.turn();
    expect([seen.texts, endsOf(seen)]).toEqual([['ok'], ['done']]);
  });

  test('is not retried elsewhere when the request itself is at fault', async ({ expect }) => {
    const mesh = new SmallMesh();
    const nodes = [mesh.add(), mesh.add()];
    const seen = await mesh.call();
    const details = { contextTokens: 10, requestedTokens: 20, promptTokens: 15, completionTokens: 5 };
    const serving = nodes.find(({ engine }) => engine.running.length > 0);
    serving?.engine.running[0]?.fail(new HelixFlowError('CONTEXT_LENGTH_EXCEEDED', details));
    await mesh.settle();
    expect(endsOf(seen)).toEqual(['CONTEXT_LENGTH_EXCEEDED']);
    expect(seen.ends[0]).toMatchObject({ details });
    expect(nodes.flatMap(({ engine }) => engine.running)).toEqual([]);
  });

  test('tries at most three nodes and then tells the last failure', async ({ expect }) => {
    const mesh = new SmallMesh();
    const nodes = [mesh.add(), mesh.add(), mesh.add(), mesh.add()];
    const seen = await mesh.call();
    for (let attempt = 0; attempt < 4; attempt += 1) {
      const running = nodes.flatMap(({ engine }) => engine.running)[0];
      running?.fail(new Error('the engine broke'));
      await mesh.settle();
    }
    expect(endsOf(seen)).toEqual(['ENGINE_FAILED']);
    expect(mesh.gateway.nodes().reduce((sum, { counts }) => sum + counts.attempts, 0)).toBe(3);
  });

  test('tells when every node is full', async ({ expect }) => {
    const mesh = new SmallMesh();
    mesh.add(new ScriptedEngine(1), 'owner', 0);
    await mesh.call();
    const seen = await mesh.call();
    expect([endsOf(seen), mesh.gateway.waiting()]).toEqual([[], 1]);
    for (let second = 0; second < 11; second += 1) {
      await mesh.clock.advance(1_000);
      await mesh.settle();
    }
    expect([endsOf(seen), mesh.gateway.waiting()]).toEqual([['GATEWAY_OVERLOADED'], 0]);
  });

  test('is stopped at the engine when the client goes, also before first content', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add();
    const seen = await mesh.call();
    expect(node.engine.running).toHaveLength(1);
    seen.answer.cancel();
    await mesh.settle();
    expect([node.engine.running, seen.ends, mesh.gateway.calls()]).toEqual([[], [], 0]);
    expect(node.server.status().served).toEqual({ done: 0, failed: 0, cancelled: 1 });
  });

  test('ends at its deadline and frees the node', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add();
    const seen = await mesh.call('m', 5_000);
    for (let second = 0; second < 6; second += 1) {
      await mesh.clock.advance(1_000);
      await mesh.settle();
    }
    expect([endsOf(seen), node.engine.running]).toEqual([['DEADLINE_EXCEEDED'], []]);
  });

  test('is refused while the gateway drains, and those under way finish', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add();
    const under = await mesh.call();
    let isDrained = false;
    // Whoever asks twice is answered twice.
    void Promise.all([mesh.gateway.drain(), mesh.gateway.drain()]).then(() => {
      isDrained = true;
    });
    expect(endsOf(await mesh.call())).toEqual(['GATEWAY_DRAINING']);
    expect(isDrained).toBe(false);
    node.engine.running[0]?.finish();
    await mesh.settle();
    expect([endsOf(under), isDrained]).toEqual([['done'], true]);
  });

  test('beyond the bound of calls is refused', async ({ expect }) => {
    const mesh = new SmallMesh(1);
    mesh.add();
    await mesh.call();
    expect(endsOf(await mesh.call())).toEqual(['NODE_OVERLOADED']);
  });
});

describe('a model name', () => {
  test('that nobody offers does not exist only after a completed discovery', async ({ expect }) => {
    const mesh = new SmallMesh();
    mesh.isDiscoveryComplete = false;
    expect(endsOf(await mesh.call('x'))).toEqual(['MODEL_UNAVAILABLE']);
    mesh.isDiscoveryComplete = true;
    expect(endsOf(await mesh.call('x'))).toEqual(['MODEL_NOT_FOUND']);
  });

  test('pinned to a digest that nobody has does not exist either; one that was there is unavailable', async ({
    expect,
  }) => {
    const mesh = new SmallMesh();
    const [held, other] = [scriptedModel(), scriptedModel('m', 'ef')];
    const nobody = `m@${'0'.repeat(8)}`;
    mesh.isDiscoveryComplete = false;
    mesh.add(new ScriptedEngine(2, [held]));
    const second = mesh.add(new ScriptedEngine(2, [other]));
    expect(endsOf(await mesh.call(nobody))).toEqual(['MODEL_UNAVAILABLE']);
    mesh.isDiscoveryComplete = true;
    expect(endsOf(await mesh.call(nobody))).toEqual(['MODEL_NOT_FOUND']);
    second.link.cut();
    expect(endsOf(await mesh.call(`m@${other.digest.slice(0, 8)}`))).toEqual(['MODEL_UNAVAILABLE']);
    expect(endsOf(await mesh.call(nobody))).toEqual(['MODEL_NOT_FOUND']);
  });

  test('whose last node is gone is unavailable, not unknown, and is no longer listed', async ({ expect }) => {
    const mesh = new SmallMesh();
    mesh.add().link.cut();
    expect(endsOf(await mesh.call())).toEqual(['MODEL_UNAVAILABLE']);
    expect(mesh.gateway.models()).toEqual([]);
  });

  test('counts no node that is known to be silent, and is not listed while all are', async ({ expect }) => {
    const mesh = new SmallMesh();
    const [first, second] = [mesh.add(), mesh.add()];
    const seen = (): unknown => [mesh.gateway.models().map(({ nodes }) => nodes), mesh.gateway.readiness()];
    const pass = async (...answering: (typeof first)[]): Promise<void> => {
      for (let at = 0; at < 3_000; at += 100) {
        await mesh.clock.advance(100);
        for (const { link } of answering) link.settle();
      }
    };
    await pass(first, second);
    expect(seen()).toEqual([[2], { ready: true, degraded: false, nodes: 2 }]);
    await pass(first);
    expect(seen()).toEqual([[1], { ready: true, degraded: false, nodes: 1 }]);
    await pass();
    expect(seen()).toEqual([[], { ready: true, degraded: true, nodes: 0 }]);
    await pass(first, second);
    expect(seen()).toEqual([[2], { ready: true, degraded: false, nodes: 2 }]);
  });

  test('with two digests stays with the one it is served from, shows the other, and lets it be pinned', async ({
    expect,
  }) => {
    const mesh = new SmallMesh();
    const other = scriptedModel('m', 'ef');
    mesh.add(new ScriptedEngine(), 'bob');
    mesh.add(new ScriptedEngine(), 'carol');
    const pinned = mesh.add(new ScriptedEngine(2, [other]), 'alice');
    expect(mesh.gateway.models()).toMatchObject([
      { name: 'm', digest: scriptedModel().digest, nodes: 2, otherDigests: [other.digest] },
    ]);
    await mesh.call(`m@${other.digest.slice(0, 8)}`);
    expect(pinned.engine.running).toHaveLength(1);
    await mesh.call('m');
    expect(pinned.engine.running).toHaveLength(1);
  });

  test('pinned to a digest never goes to a model that only carries such a name', async ({ expect }) => {
    const mesh = new SmallMesh();
    const honest = mesh.add();
    const pinned = `m@${scriptedModel().digest.slice(0, 8)}`;
    const evil = mesh.add(new ScriptedEngine(2, [scriptedModel(pinned, 'ef')]));
    await mesh.call(pinned);
    expect([honest.engine.running.length, evil.engine.running.length]).toEqual([1, 0]);
    expect(mesh.gateway.models().map(({ name }) => name)).toEqual(['m']);
  });

  test('follows the offers of its nodes', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = mesh.add();
    await mesh.clock.advance(200);
    node.engine.setModels([scriptedModel('new')]);
    await mesh.settle();
    expect(mesh.gateway.models().map(({ name }) => name)).toEqual(['new']);
    expect(endsOf(await mesh.call('m'))).toEqual(['MODEL_UNAVAILABLE']);
  });
});
