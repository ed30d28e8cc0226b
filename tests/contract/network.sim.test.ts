/** The simulated network under the contract, and what its faults do. */

import { describe, test } from 'vitest';
import { isHelixFlowError } from '../../protocol/errors.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { Channel, Network } from '../../protocol/ports.ts';
import { blackHole, oneWay, partition, slowLink } from '../../sim/links.ts';
import type { SimNetwork } from '../../sim/network.ts';
import { SimPeers } from '../support/sim-peers.ts';
import { type NetworkWorld, networkContract } from './network.ts';
import { relayContract } from './relays.ts';

const world = async (): Promise<NetworkWorld> => {
  const peers = new SimPeers(1);
  return {
    network: async ({ isHidden = false, relayReservationsMax = 0 } = {}) =>
      peers.add(!isHidden, { relayReservationsMax }).network,
    addressesOf: (network: Network) => network.addresses(),
    cut: () => {
      for (const end of peers.fabric.ends()) if (end.direction === 'outbound') peers.fabric.reset(end);
    },
    run: (work) => peers.run(work),
    until: (condition) => peers.until(condition),
    [Symbol.asyncDispose]: () => peers[Symbol.asyncDispose](),
  };
};
networkContract('the simulated network', world);
relayContract('the simulated network', world);

const PROTOCOL = '/test/faults/1';
const never = new AbortController().signal;

interface Heard {
  readonly sizes: number[];
  readonly ends: string[];
  channel: Channel;
}

/** Two machines with a channel from the first to the second. */
async function pair(seed: number): Promise<{ peers: SimPeers; a: SimNetwork; b: SimNetwork; near: Heard; far: Heard }> {
  const peers = new SimPeers(seed);
  const [a, b] = [peers.add().network, peers.add().network];
  const listen = (channel: Channel): Heard => {
    const heard: Heard = { sizes: [], ends: [], channel };
    channel.receive({
      frame: (bytes) => heard.sizes.push(bytes.length),
      closed: (error) => heard.ends.push(error?.code ?? 'clean'),
      drained: () => {},
    });
    return heard;
  };
  const far: Heard[] = [];
  for (const network of [a, b]) {
    network.onConnection((connection) => connection.admit());
    network.handle(PROTOCOL, { beforeAdmission: false, frameMaxBytes: 65_536 }, (channel) => far.push(listen(channel)));
    await network.start();
  }
  const connection = await peers.run(a.connect(b.self, b.addresses(), never));
  const near = listen(await peers.run(connection.open(PROTOCOL, never)));
  await peers.until(() => far.length > 0);
  return { peers, a, b, near, far: far[0] as Heard };
}

const send = (heard: Heard, size: number): boolean => heard.channel.send(new Uint8Array(size));

describe('faults of the simulated network', () => {
  test('a partition holds back what is sent, and it arrives in order when it heals', async ({ expect }) => {
    const { peers, a, near, far } = await pair(1);
    const heal = peers.links.add(partition(new Set([a.host.id])));
    for (let size = 1; size <= 5; size += 1) send(near, size);
    await peers.pass(10_000);
    expect([far.sizes, peers.counts.of('partition') > 0]).toEqual([[], true]);
    heal();
    send(near, 6);
    await peers.until(() => far.sizes.length === 6, 30_000);
    expect(far.sizes).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('a partition of one way leaves the other open', async ({ expect }) => {
    const { peers, a, near, far } = await pair(1);
    peers.links.add(oneWay(new Set([a.host.id]), 'out'));
    send(near, 1);
    send(far, 2);
    await peers.until(() => near.sizes.length === 1);
    expect([near.sizes, far.sizes]).toEqual([[2], []]);
  });

  test('nothing can be dialled through a partition', async ({ expect }) => {
    const peers = new SimPeers(1);
    const [a, b] = [peers.add().network, peers.add().network];
    await b.start();
    peers.links.add(oneWay(new Set([b.host.id]), 'in'));
    const dial = peers.run(a.connect(b.self, b.addresses(), never));
    await expect(dial).rejects.toMatchObject({ code: 'CONNECT_FAILED' });
    expect(peers.counts.of('oneWay')).toBe(1);
  });

  test('a black hole is noticed by nobody who does not send, and ends the sender’s side after a minute', async ({
    expect,
  }) => {
    const { peers, a, b, near, far } = await pair(1);
    peers.links.add(blackHole(a.host.id, b.host.id));
    send(near, 1);
    send(far, 2);
    await peers.pass(59_000);
    expect([near.ends, far.ends, near.sizes]).toEqual([[], [], [2]]);
    await peers.pass(10_000);
    expect([near.ends, peers.counts.of('blackHole') > 0]).toEqual([['CHANNEL_CLOSED'], true]);
  });

  test('a slow link takes longer, and that counts', async ({ expect }) => {
    const { peers, a, near, far } = await pair(1);
    const timed = async (): Promise<number> => {
      const [startMs, before] = [peers.kernel.nowMs, far.sizes.length];
      send(near, 10_000);
      await peers.until(() => far.sizes.length > before);
      return peers.kernel.nowMs - startMs;
    };
    const usualMs = await timed();
    peers.links.add(slowLink(a.host.id, 20));
    expect(await timed()).toBeGreaterThan(5 * usualMs);
    expect(peers.counts.of('slowLink')).toBeGreaterThan(0);
  });

  test('a killed process resets its connections', async ({ expect }) => {
    const { peers, b, near } = await pair(1);
    peers.kill(b);
    await peers.until(() => near.ends.length > 0, 200);
    expect(near.ends).toEqual(['CHANNEL_CLOSED']);
  });

  test('a machine without power says nothing, until it is on again and is spoken to', async ({ expect }) => {
    const { peers, b, near } = await pair(1);
    b.host.isPowered = false;
    peers.kill(b);
    send(near, 1);
    await peers.pass(20_000);
    expect(near.ends).toEqual([]);
    b.host.isPowered = true;
    await peers.pass(1_000);
    expect(near.ends).toEqual([]);
    send(near, 2);
    await peers.until(() => near.ends.length > 0, 200);
    expect(near.ends).toEqual(['CHANNEL_CLOSED']);
  });

  test('a paused process reads nothing, which its sender feels, and loses nothing', async ({ expect }) => {
    const { peers, b, near, far } = await pair(1);
    b.lifeline.pause();
    let sent = 0;
    for (let isReady = true; isReady; sent += 1) isReady = send(near, 60_000);
    await peers.pass(5_000);
    expect([far.sizes.length, sent * 60_000 > limits.channelHighWaterBytes]).toEqual([0, true]);
    b.lifeline.resume();
    await peers.until(() => far.sizes.length === sent);
  });

  test('a machine behind a NAT can dial and not be dialled', async ({ expect }) => {
    const peers = new SimPeers(1);
    const [hidden, open] = [peers.add(false).network, peers.add().network];
    await hidden.start();
    await open.start();
    expect(hidden.addresses()).toEqual([]);
    const dial = open.connect(hidden.self, [hidden.host.address], never);
    await expect(peers.run(dial)).rejects.toMatchObject({ code: 'CONNECT_FAILED' });
    const connection = await peers.run(hidden.connect(open.self, open.addresses(), never));
    expect(connection.isOpen).toBe(true);
  });

  test('a frame is worthless after the call that gave it', async ({ expect }) => {
    const { peers, near, b } = await pair(1);
    let kept = new Uint8Array();
    const inbound = b.connections()[0];
    b.handle('/test/keep/1', { beforeAdmission: false, frameMaxBytes: 100 }, (channel) =>
      channel.receive({
        frame: (bytes) => {
          kept = bytes as Uint8Array<ArrayBuffer>;
        },
        closed: () => {},
        drained: () => {},
      }),
    );
    const channel = await peers.run(near.channel.connection.open('/test/keep/1', never));
    channel.send(Uint8Array.of(1, 2, 3));
    await peers.until(() => kept.length > 0);
    expect([inbound?.isOpen, [...kept]]).toEqual([true, [0xdb, 0xdb, 0xdb]]);
  });

  test('a port is used once at a time', async ({ expect }) => {
    const { peers, a } = await pair(1);
    const second = peers.on(a.host, 'second' as PeerId);
    const code = await second.start().catch((error: unknown) => isHelixFlowError(error) && error.code);
    expect(code).toBe('PORT_IN_USE');
  });
});
