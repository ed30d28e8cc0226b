/** Whether a peer can be dialled: asked of gateways, told to its operator, and of use to relays. */

import { describe, test } from 'vitest';
import { HelixFlowError } from '../../../protocol/errors.ts';
import { encodeReachFrame, REACH_PROTOCOL } from '../../../protocol/messages/reach.ts';
import { isRelayed } from '../../../protocol/peer/address.ts';
import type { Log } from '../../../protocol/ports.ts';
import { contactOf, newMesh, Stage } from '../../support/sim-members.ts';
import type { SimPeer } from '../../support/sim-peers.ts';

const address = '/ip4/10.9.9.9/tcp/4001';
const never = new AbortController().signal;

/** A log that keeps the names of what was told to the operator. */
function keeping(): { readonly log: Log; readonly told: string[] } {
  const told: string[] = [];
  const keep = (event: string): void => {
    if (event.startsWith('peer.')) told.push(event);
  };
  const quiet = (): void => {};
  const log: Log = { debug: quiet, info: keep, warn: keep, error: keep, with: () => log };
  return { log, told };
}

/** Counts what a peer is asked to try. */
function tries({ network }: SimPeer): () => number {
  let count = 0;
  const canDial = network.canDial.bind(network);
  network.canDial = (at, signal) => {
    count += 1;
    return canDial(at, signal);
  };
  return () => count;
}

describe('a peer that announces addresses', () => {
  test('knows that it can be dialled once one gateway has tried, and asks no more', async ({ expect }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [gatewayPeer, nodePeer] = [peers.add(), peers.add()];
    const tried = tries(gatewayPeer);
    const gateway = await stage.run('gateway', gatewayPeer, []);
    const { log, told } = keeping();
    const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)], { log });
    expect([gateway, node].map(({ member }) => member.discovery.reachable())).toEqual(['unknown', 'unknown']);
    await peers.until(() => node.member.discovery.reachable() === 'yes', 10_000);
    // There is no other gateway to ask, but the node has dialled this one.
    expect(gateway.member.discovery.reachable()).toBe('yes');
    await peers.pass(4 * 3_600_000);
    expect([tried(), told, nodePeer.network.addresses().some(isRelayed)]).toEqual([1, [], false]);
  });

  test('is told once when nobody can dial it, is reached through relays, and told again when it was mended', async ({
    expect,
  }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const gatewayPeer = peers.add();
    const host = peers.fabric.host(false);
    const { network, seed } = peers.add();
    const named = peers.on(host, network.self, { announce: [host.address] });
    await stage.run('gateway', gatewayPeer, []);
    const { log, told } = keeping();
    const node = await stage.run('node', { network: named, seed }, [contactOf(gatewayPeer)], { log });
    await peers.until(() => node.member.discovery.reachable() === 'no', 20_000);
    await peers.until(() => named.addresses().some(isRelayed), 5_000);
    await peers.pass(2 * 3_600_000);
    expect([told, node.member.discovery.reachable()]).toEqual([['peer.unreachable'], 'no']);
    host.isReachable = true;
    await peers.pass(2 * 3_600_000);
    expect([node.member.discovery.reachable(), told]).toEqual(['yes', ['peer.unreachable', 'peer.reachable']]);
  });

  test('that can only dial out needs to ask nobody', async ({ expect }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [gatewayPeer, nodePeer] = [peers.add(), peers.add(false)];
    const tried = tries(gatewayPeer);
    await stage.run('gateway', gatewayPeer, []);
    const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
    await peers.pass(60_000);
    expect([node.member.discovery.reachable(), tried()]).toEqual(['no', 0]);
  });
});

describe('a gateway', () => {
  test('tries no more than a few addresses, none of its own machine for others, and not for one connection again and again', async ({
    expect,
  }) => {
    await using stage = new Stage(await newMesh());
    const { peers } = stage;
    const [gatewayPeer, nodePeer] = [peers.add(), peers.add(false)];
    const tried = tries(gatewayPeer);
    await stage.run('gateway', gatewayPeer, []);
    const node = await stage.run('node', nodePeer, [contactOf(gatewayPeer)]);
    await peers.until(() => node.ready.length === 1);
    const connection = node.member.sessions.get(gatewayPeer.network.self)?.connection;
    const ask = async (bytes: Uint8Array): Promise<string> => {
      let end = '';
      const opening = connection?.open(REACH_PROTOCOL, never) ?? Promise.reject(new Error('no connection'));
      const channel = await peers.run(opening.catch((error: HelixFlowError) => error));
      if (channel instanceof HelixFlowError) return channel.code;
      channel.receive({
        frame: () => (end = 'answered'),
        closed: (error) => (end ||= error?.code ?? 'clean'),
        drained: () => {},
      });
      channel.send(bytes);
      await peers.until(() => end !== '', 30_000);
      return end;
    };
    const inside = ['/ip4/127.0.0.1/tcp/6379', '/ip6/::1/tcp/22'];
    const question = encodeReachFrame({ type: 'try', addresses: [address, ...inside] });
    const long = encodeReachFrame({ type: 'try', addresses: new Array<string>(5).fill(address) });
    expect(await ask(question)).toBe('answered');
    expect(await ask(question)).toBe('CHANNEL_CLOSED');
    await peers.pass(11_000);
    expect(await ask(long)).toBe('CHANNEL_CLOSED');
    expect(tried()).toBe(1);
  });
});
