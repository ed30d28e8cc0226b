/** Members on simulated machines: they find each other again after a loss, and from memory alone. */

import { test } from 'vitest';
import type { PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { createRoots } from '../../../protocol/peer/create-roots.ts';
import { signRevocation } from '../../../protocol/root-tokens.ts';
import { MemoryStore } from '../../support/memory-store.ts';
import { contactOf, newMesh, Stage, tokens } from '../../support/sim-members.ts';
import { startMs } from '../mesh-fixture.ts';

test('a node that lost its gateway is back before a new connection would have settled', async ({ expect }) => {
  await using stage = new Stage(await newMesh());
  const { peers } = stage;
  const [gatewayPeer, nodePeer] = [peers.add(), peers.add(false)];
  await stage.run('gateway', gatewayPeer, []);
  const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
  await peers.until(() => node.ready.length === 1);
  await node.member.admitted()[0]?.[0].close();
  await peers.until(() => node.ready.length === 2, limits.sessionSettleMs / 2);
  expect([node.ready, node.gone]).toEqual([
    [gatewayPeer.network.self, gatewayPeer.network.self],
    [gatewayPeer.network.self],
  ]);
});

test('a node that starts again without bootstrap finds the gateway it knew', async ({ expect }) => {
  await using stage = new Stage(await newMesh());
  const { peers } = stage;
  const [gatewayPeer, nodePeer] = [peers.add(), peers.add(false)];
  const store = new MemoryStore();
  await stage.run('gateway', gatewayPeer, []);
  const first = await stage.run('node', nodePeer, [contactOf(gatewayPeer)], { store });
  await peers.until(() => first.ready.length === 1);
  peers.kill(nodePeer.network);
  const again = { network: peers.on(peers.fabric.host(false), nodePeer.network.self), seed: nodePeer.seed };
  const second = await stage.run('node', again, [], { store });
  await peers.until(() => second.ready.length === 1);
  expect(second.ready).toEqual([gatewayPeer.network.self]);
});

test('a member that is banned loses its connection and session at once, is not dialled, and cannot come back', async ({
  expect,
}) => {
  await using stage = new Stage(await newMesh());
  const { peers } = stage;
  const [gatewayPeer, nodePeer, otherPeer] = [peers.add(), peers.add(), peers.add()];
  const banned = new Set<PeerId>();
  const gate = { isMember: ({ peer }: { readonly peer: PeerId }) => !banned.has(peer) };
  const gateway = await stage.run('gateway', gatewayPeer, [], { gate });
  const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
  await stage.run('node', otherPeer, [contactOf(gatewayPeer)]);
  await peers.until(() => gateway.ready.length === 2 && node.ready.length === 1);
  expect(new Set(gateway.admitted)).toEqual(new Set([nodePeer.network.self, otherPeer.network.self]));

  banned.add(nodePeer.network.self);
  gateway.member.review();
  await peers.until(() => gateway.gone.length === 1 && node.gone.length === 1, 1_000);
  expect(gateway.gone).toEqual([nodePeer.network.self]);
  expect(gateway.member.discovery.known().map(({ peer }) => peer)).toEqual([otherPeer.network.self]);
  await peers.pass(120_000);
  expect([gateway.admitted.length, node.ready.length, gateway.member.sessions.all().length]).toEqual([2, 1, 1]);
});

test('a word of the root that comes by any hello parts a gateway from all members of that issuer', async ({
  expect,
}) => {
  await using stage = new Stage(await newMesh());
  const { peers, root } = stage;
  const [gatewayPeer, nodePeer] = [peers.add(), peers.add()];
  const roots = createRoots({ tokens }, root);
  const gateway = await stage.run('gateway', gatewayPeer, [], { gate: { roots } });
  const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
  await peers.until(() => node.ready.length === 1 && gateway.ready.length === 1);
  const grant = { meshId: root.meshId, issuer: stage.issuer };
  const token = await signRevocation(grant, root.key, { tokens, nowMs: startMs });
  await peers.run(roots.take({ kind: 'revocation', token }));
  await peers.until(() => node.gone.length === 1, 1_000);
  expect(gateway.member.admitted()).toEqual([]);
});
