/** Members behind NATs, on simulated machines: served over what they dialled, reached through relays, moved to direct ones. */

import { describe, test } from 'vitest';
import type { PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { isRelayed } from '../../../protocol/peer/address.ts';
import type { ConnectionPath } from '../../../protocol/ports.ts';
import { partition } from '../../../sim/links.ts';
import { contactOf, newMesh, type Running, Stage } from '../../support/sim-members.ts';
import type { SimPeer } from '../../support/sim-peers.ts';

const hourMs = 3_600_000;

/** The path of the session that `running` uses with `peer`. */
const pathTo = ({ member }: Running, { network }: SimPeer): ConnectionPath | undefined =>
  member.sessions.get(network.self)?.connection.path;

const dialled = ({ network }: SimPeer): readonly PeerId[] =>
  network
    .connections()
    .filter(({ direction }) => direction === 'outbound')
    .map(({ peer }) => peer);

describe('a node that can only dial out', () => {
  test('is served over the connection it opened, and never dialled', async ({ expect }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [gatewayPeer, nodePeer] = [peers.add(), peers.add(false)];
    const gateway = await stage.run('gateway', gatewayPeer, []);
    await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
    await peers.until(() => gateway.ready.length === 1);
    await peers.pass(300_000);
    expect([pathTo(gateway, nodePeer), dialled(gatewayPeer), gateway.admitted.length]).toEqual(['direct', [], 1]);
  });

  test('is back within a second of a goodbye, and of a cut', async ({ expect }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [gatewayPeer, nodePeer] = [peers.add(), peers.add(false)];
    const gateway = await stage.run('gateway', gatewayPeer, []);
    const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
    await peers.until(() => node.ready.length === 1);
    await peers.pass(20_000);
    gateway.member.sessions.get(nodePeer.network.self)?.leave('CHANNEL_CLOSED');
    await peers.until(() => node.ready.length === 2, 1_000);
    await peers.pass(20_000);
    for (const end of peers.fabric.ends()) if (end.direction === 'outbound') peers.fabric.reset(end);
    await peers.until(() => node.ready.length === 3, 1_000);
    expect(node.gone).toHaveLength(2);
  });

  test('tries for ever a gateway that is away for hours, at most twice a minute or so, and finds it again', async ({
    expect,
  }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [gatewayPeer, nodePeer, otherPeer] = [peers.add(), peers.add(false), peers.add()];
    await stage.run('gateway', gatewayPeer, []);
    // The second one is known by hearsay only: nothing pins it.
    await stage.run('gateway', otherPeer, [contactOf(gatewayPeer)]);
    const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
    await peers.until(() => node.ready.length === 2, 60_000);
    await peers.pass(20_000);
    const heal = peers.links.add(partition(new Set([nodePeer.network.host.id])));
    await peers.pass(8 * hourMs);
    expect(node.member.sessions.all()).toEqual([]);
    const before = peers.counts.of('partition');
    await peers.pass(hourMs);
    // Two gateways, and one block counted for each try.
    expect(peers.counts.of('partition') - before).toBeLessThan(2 * 2 * 120 * 2);
    heal();
    await peers.until(() => node.member.sessions.all().length === 2, 60_000);
    expect(new Set(node.member.sessions.all().map(({ peer }) => peer))).toEqual(
      new Set([gatewayPeer.network.self, otherPeer.network.self]),
    );
  });
});

describe('where neither side can be dialled', () => {
  test('a gateway and a node meet through another gateway, and stay so', async ({ expect }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [relay, hiddenGateway, hiddenNode] = [peers.add(), peers.add(false), peers.add(false)];
    await stage.run('gateway', relay, []);
    const node = await stage.run('node', hiddenNode, [contactOf(relay)]);
    const gateway = await stage.run('gateway', hiddenGateway, [contactOf(relay)]);
    await peers.until(() => gateway.member.sessions.get(hiddenNode.network.self) !== undefined, 180_000);
    await peers.pass(60_000);
    expect([pathTo(gateway, hiddenNode), pathTo(node, hiddenGateway), pathTo(node, relay)]).toEqual([
      'relayed',
      'relayed',
      'direct',
    ]);
    const { gone } = node;
    await peers.pass(hourMs);
    expect(gone).toEqual([]);
  });

  test('they meet again through another relay when theirs is gone', async ({ expect }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [first, second, hiddenGateway, hiddenNode] = [peers.add(), peers.add(), peers.add(false), peers.add(false)];
    await stage.run('gateway', first, []);
    await stage.run('gateway', second, [contactOf(first)]);
    const both = [contactOf(first), contactOf(second)];
    await stage.run('node', hiddenNode, both);
    const gateway = await stage.run('gateway', hiddenGateway, both);
    const session = () => gateway.member.sessions.get(hiddenNode.network.self);
    await peers.until(() => session() !== undefined, 180_000);
    await peers.pass(20_000);
    const through = session()?.connection.remoteAddress ?? '';
    const [theirs, other] = through.includes(first.network.self) ? [first, second] : [second, first];
    peers.kill(theirs.network);
    await peers.until(() => session() === undefined, 5_000);
    await peers.until(() => session() !== undefined, 180_000);
    expect([pathTo(gateway, hiddenNode), session()?.connection.remoteAddress.includes(other.network.self)]).toEqual([
      'relayed',
      true,
    ]);
    expect(hiddenNode.network.addresses().every((text) => text.includes(other.network.self))).toBe(true);
  });

  test('nobody who can be dialled reserves with anybody', async ({ expect }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [one, two, node] = [peers.add(), peers.add(), peers.add()];
    await stage.run('gateway', one, []);
    await stage.run('gateway', two, [contactOf(one)]);
    await stage.run('node', node, [contactOf(one)]);
    await peers.pass(120_000);
    expect([one, two, node].map(({ network }) => network.addresses().some(isRelayed))).toEqual([false, false, false]);
  });
});

describe('a gateway that announces an address nobody can dial', () => {
  test('meets nodes through a relay, and is dialled in vain ever less often', async ({ expect }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [relay, hiddenNode, named] = [peers.add(), peers.add(false), peers.add()];
    const host = peers.fabric.host(false);
    const far = { network: peers.on(host, named.network.self, { announce: [host.address] }), seed: named.seed };
    await stage.run('gateway', relay, []);
    const node = await stage.run('node', hiddenNode, [contactOf(relay)]);
    const gateway = await stage.run('gateway', far, [contactOf(relay)]);
    await peers.until(() => pathTo(gateway, hiddenNode) === 'relayed', 180_000);
    const { network } = hiddenNode;
    const connect = network.connect.bind(network);
    const dials: number[] = [];
    network.connect = (peer, addresses, signal) => {
      if (peer === far.network.self) dials.push(peers.kernel.nowMs);
      return connect(peer, addresses, signal);
    };
    await peers.pass(6 * hourMs);
    expect([pathTo(gateway, hiddenNode), pathTo(node, far)]).toEqual(['relayed', 'relayed']);
    expect(dials.length).toBeGreaterThan(3);
    expect(dials.length).toBeLessThan(20);
    host.isReachable = true;
    await peers.pass(2 * hourMs);
    expect(pathTo(gateway, hiddenNode)).toBe('reversed');
  });
});

describe('connection reversal', () => {
  test('a node that was reached through a relay dials back, and the session moves to the direct connection', async ({
    expect,
  }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [relay, hiddenNode, far] = [peers.add(), peers.add(false), peers.add()];
    await stage.run('gateway', relay, []);
    const node = await stage.run('node', hiddenNode, [contactOf(relay)]);
    await peers.until(() => hiddenNode.network.addresses().length > 0, 30_000);
    // It knows the node and nobody else, so the node cannot have heard of it.
    const contact = contactOf(hiddenNode);
    const gateway = await stage.run('gateway', far, []);
    const reaching = gateway.member.discovery.reach(contact, new AbortController().signal);
    const relayed = await peers.run(reaching);
    expect(relayed.path).toBe('relayed');
    await peers.until(() => pathTo(gateway, hiddenNode) === 'reversed', limits.sessionSettleMs + 10_000);
    await peers.pass(10_000);
    expect([pathTo(gateway, hiddenNode), pathTo(node, far), relayed.isOpen]).toEqual(['reversed', 'reversed', false]);
    expect(far.network.connections().filter(({ peer }) => peer === hiddenNode.network.self)).toHaveLength(1);
  });

  test('between gateways, too, the relayed connection makes room for the direct one', async ({ expect }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [relay, hidden, far] = [peers.add(), peers.add(false), peers.add()];
    await stage.run('gateway', relay, []);
    const gateway = await stage.run('gateway', hidden, [contactOf(relay)]);
    await peers.until(() => hidden.network.addresses().length > 0, 30_000);
    const other = await stage.run('gateway', far, []);
    const reaching = other.member.discovery.reach(contactOf(hidden), new AbortController().signal);
    expect((await peers.run(reaching)).path).toBe('relayed');
    await peers.pass(15_000);
    const left = far.network.connections().filter(({ peer }) => peer === hidden.network.self);
    expect(left.map(({ path, direction }) => [path === 'relayed', direction])).toEqual([[false, 'inbound']]);
    expect(gateway.admitted.filter((peer) => peer === far.network.self)).toHaveLength(2);
  });
});
