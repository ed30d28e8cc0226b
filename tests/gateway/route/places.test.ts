/** Waiting for a node, through a whole gateway: that one request finds no place says nothing of the others. */

import { test } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import type { AccountId, PeerId } from '../../../protocol/ids.ts';
import { accessOf } from '../../support/access.ts';
import { ScriptedEngine } from '../../support/scripted-engine.ts';
import { SmallMesh } from '../../support/small-mesh.ts';

/** Two nodes of one slot each; the second has as much work as it takes, of one account. */
async function halfFullMesh() {
  const mesh = new SmallMesh();
  const [free, full] = [mesh.add(new ScriptedEngine(1)), mesh.add(new ScriptedEngine(1))];
  const ask = (account: string, allow?: readonly PeerId[]) =>
    mesh.call('m', 60_000, {
      caller: accessOf({ account: account as AccountId }),
      ...(allow === undefined ? {} : { preferences: { nodes: { allow } } }),
    });
  for (let count = 0; count < 3; count += 1) await ask('flood', [full.peer]);
  return { mesh, free, full, ask };
}

/** Lets those go who wait. */
async function later(mesh: SmallMesh): Promise<void> {
  await mesh.clock.advance(200);
  await mesh.settle();
}

test('who waits for one node holds up nobody who would take any', async ({ expect }) => {
  const { mesh, free, full, ask } = await halfFullMesh();
  await ask('picky', [full.peer]);
  await ask('plain');
  await later(mesh);
  expect([mesh.gateway.waiting(), free.engine.running.length]).toEqual([1, 1]);
});

test('who has failed at the only node with a place holds up nobody either', async ({ expect }) => {
  const { mesh, free, ask } = await halfFullMesh();
  await ask('unlucky');
  free.engine.running[0]?.fail(new HelixFlowError('ENGINE_FAILED', { reason: 'x' }));
  await mesh.settle();
  expect(mesh.gateway.waiting()).toBe(1);
  await ask('plain');
  await later(mesh);
  expect([mesh.gateway.waiting(), free.engine.running.length]).toEqual([1, 1]);
});
