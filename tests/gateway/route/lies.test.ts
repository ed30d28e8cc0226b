/** Nodes that say anything to keep requests, or to be asked again: what each request may cost, and when it goes elsewhere. */

import { describe, test } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { encodeSessionFrame, type Load } from '../../../protocol/messages/session.ts';
import { endsOf, SmallMesh } from '../../support/small-mesh.ts';
import { addTelling, atWork, modelThat, TellingEngine, wholeText } from './told.ts';

const idle: Load = {
  type: 'load',
  active: 0,
  queued: 0,
  freeSlots: 2,
  tokensPerSecond: 0,
  draining: false,
  progress: 1,
};

class Refusing extends TellingEngine {
  override generate(): ReturnType<TellingEngine['generate']> {
    return Promise.reject(new HelixFlowError('NODE_OVERLOADED', { retryAfterMs: 1 }));
  }
}

describe('a node that lies', () => {
  test('about its room is asked so often, and no more', async ({ expect }) => {
    const mesh = new SmallMesh();
    const { link } = addTelling(mesh, new Refusing(modelThat('tokens')));
    const seen = await mesh.call();
    for (let round = 0; round < 200; round += 1) {
      link.a.send(encodeSessionFrame({ ...idle, tokensPerSecond: round }));
      await mesh.settle();
      await mesh.clock.advance(20);
    }
    expect([endsOf(seen), mesh.accounting.lines.length]).toEqual([['NODE_OVERLOADED'], 67]);
  });

  test('about its work keeps a request for two minutes, and then gets none for a while', async ({ expect }) => {
    const mesh = new SmallMesh();
    const nodes = [1, 2].map(() => addTelling(mesh, new TellingEngine(modelThat('tokens'))));
    const seen = await mesh.call('m', 600_000);
    const liar = atWork(nodes);
    for (let round = 1; round <= 121; round += 1) {
      liar.link.a.send(encodeSessionFrame({ ...idle, active: 1, progress: round }));
      await mesh.pass(1_000);
    }
    expect(mesh.gateway.breakers()).toEqual({ closed: 1, open: 1, 'half-open': 0 });
    const honest = atWork(nodes);
    expect(honest).not.toBe(liar);
    honest.engine.finish();
    await mesh.settle();
    expect(seen.texts.join('')).toBe(wholeText);
  });

  test('with pieces without any text keeps it no longer, and leaves nothing behind', async ({ expect }) => {
    const mesh = new SmallMesh();
    const node = addTelling(mesh, new TellingEngine(modelThat('tokens')));
    const seen = await mesh.call('m', 600_000);
    for (let round = 0; round < 1_260; round += 1) {
      for (const { emit } of node.engine.running) void emit('', []);
      await mesh.pass(100);
    }
    expect([mesh.gateway.counts.stalled, endsOf(seen)]).toEqual([1, ['NODE_STALLED']]);
  });
});
