/** What the contract of `Network` leaves to libp2p: ports, addresses, turns, and cuts in the middle of bytes. */

import { connect, createServer } from 'node:net';
import { afterEach, describe, test } from 'vitest';
import { systemClock } from '../../../protocol/adapters/clock.ts';
import type { Libp2pNetwork, Libp2pOptions } from '../../../protocol/adapters/network-libp2p.ts';
import { type HelixFlowError, isHelixFlowError } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import type { Channel } from '../../../protocol/ports.ts';
import { CuttableProxy, openNetwork, portIn, untilTrue } from '../../support/libp2p-world.ts';
import { dialRaw, openRaw } from '../../support/raw-libp2p.ts';

const PROTOCOL = '/test/stream/1';
const never = new AbortController().signal;
const clock = systemClock();

const closers: (() => unknown)[] = [];
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

interface Heard {
  readonly frames: number[];
  readonly ends: (HelixFlowError | undefined)[];
}

interface Started {
  readonly network: Libp2pNetwork;
  readonly channels: Channel[];
  readonly heard: Heard;
}

function listen(channel: Channel, heard: Heard): Channel {
  channel.receive({
    frame: (bytes) => void heard.frames.push(bytes.length),
    closed: (error) => void heard.ends.push(error),
    drained: () => {},
  });
  return channel;
}

async function start(options: Partial<Libp2pOptions> = {}): Promise<Started> {
  const network = await openNetwork(options);
  const started: Started = { network, channels: [], heard: { frames: [], ends: [] } };
  network.onConnection((connection) => connection.admit());
  network.handle(PROTOCOL, { beforeAdmission: false, frameMaxBytes: 65_536 }, (channel) => {
    started.channels.push(listen(channel, started.heard));
  });
  closers.push(() => network.close());
  await network.start();
  return started;
}

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'did not fail',
    (error: unknown) => (isHelixFlowError(error) ? error.code : `not typed: ${error}`),
  );

describe('a libp2p network', () => {
  test('says that its port is in use', async ({ expect }) => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closers.push(() => server.close());
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const network = await openNetwork({ listen: { host: '127.0.0.1', port } });
    closers.push(() => network.close());
    const error = await network.start().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'PORT_IN_USE', details: { host: '127.0.0.1', port } });
  });

  test('says that it cannot listen on an address that is not this machine’s', async ({ expect }) => {
    const network = await openNetwork({ listen: { host: '192.0.2.1', port: 0 } });
    closers.push(() => network.close());
    expect(await codeOf(network.start())).toBe('CONFIG_INVALID');
  });

  test('tells where it listens, or what it is told to announce', async ({ expect }) => {
    const { network } = await start();
    expect(network.addresses()).toEqual([`/ip4/127.0.0.1/tcp/${portIn(network.addresses())}`]);
    const announce = ['/ip4/10.1.2.3/tcp/7421', '/ip6/fd00::7/tcp/7421'];
    expect((await start({ announce })).network.addresses()).toEqual(announce);
    expect((await start({ network: 'public' })).network.addresses()).toEqual([]);
  });

  test('that only dials is served and finds others, who cannot dial it', async ({ expect }) => {
    const [a, b] = [await start({ listen: undefined }), await start()];
    b.network.directory.provide('a key');
    const connection = await a.network.connect(b.network.self, b.network.addresses(), never);
    const channel = listen(await connection.open(PROTOCOL, never), a.heard);
    channel.send(new Uint8Array(5));
    await untilTrue(() => b.heard.frames.length === 1 && a.network.directory.size() === 1);
    const found: string[] = [];
    for await (const { peer } of a.network.directory.find('a key', never)) found.push(peer);
    expect([a.network.addresses(), b.network.directory.size(), found]).toEqual([[], 0, [b.network.self]]);
  });

  test('announces nothing that its mesh may not dial', async ({ expect }) => {
    for (const address of ['/dns4/example.com/tcp/1', '/ip4/169.254.169.254/tcp/80', '/ip4/10.0.0.1/tcp/1']) {
      expect(await codeOf(openNetwork({ network: 'public', announce: [address] }))).toBe('ADDRESS_REFUSED');
    }
  });

  test('of a public mesh does not dial private addresses, whoever names them', async ({ expect }) => {
    const [a, b] = [await start({ network: 'public' }), await start()];
    const address = `/ip4/127.0.0.1/tcp/${portIn(b.network.addresses())}`;
    expect(await codeOf(a.network.connect(b.network.self, [address], never))).toBe('ADDRESS_REFUSED');
    expect(b.network.connections()).toEqual([]);
  });

  test('takes many peers from one address at once', async ({ expect }) => {
    const { network } = await start();
    const others = await Promise.all(Array.from({ length: 12 }, () => start()));
    const connections = await Promise.all(
      others.map((other) => other.network.connect(network.self, network.addresses(), never)),
    );
    await untilTrue(() => network.connections().length === others.length);
    expect(connections.every(({ isOpen }) => isOpen)).toBe(true);
  });

  test('lets a peer in at once while others of its address connect and say nothing', async ({ expect }) => {
    const { network } = await start();
    const port = portIn(network.addresses());
    let [opened, closed] = [0, 0];
    const idle = Array.from({ length: 200 }, () => {
      const socket = connect(port, '127.0.0.1', () => {
        opened += 1;
      });
      // What is closed on this side's bytes may come as a reset.
      socket.on('error', () => {});
      socket.on('close', () => {
        closed += 1;
      });
      return socket.resume();
    });
    closers.push(() => idle.forEach((socket) => void socket.destroy()));
    await untilTrue(() => opened === idle.length);
    const other = await start();
    const startMs = clock.nowMs();
    const connection = await other.network.connect(network.self, network.addresses(), never);
    await untilTrue(() => network.connections().length === 1);
    expect(clock.nowMs() - startMs).toBeLessThan(limits.helloTimeoutMs / 2);
    // Those beyond the share of one address go at once, the others when their time is up.
    await untilTrue(() => closed === idle.length);
    expect([connection.isOpen, network.connections().length]).toEqual([true, 1]);
  });

  test('writes all frames of one turn at once', async ({ expect }) => {
    const { network, channels } = await start();
    const raw = await openRaw();
    closers.push(() => raw.stop());
    const connection = await dialRaw(raw, network);
    const stream = await connection.newStream(PROTOCOL);
    const pieces: number[] = [];
    stream.addEventListener('message', ({ data }) => void pieces.push(data.byteLength));
    await untilTrue(() => channels.length === 1);
    for (let sent = 0; sent < 200; sent += 1) channels[0]?.send(new Uint8Array(9));
    await untilTrue(() => pieces.length > 0);
    await clock.turn();
    expect(pieces).toEqual([2_000]);
  });

  test('notices a cut wherever it falls, and never as a clean end', async ({ expect }) => {
    const [a, b] = [await start(), await start()];
    const proxy = new CuttableProxy();
    closers.push(() => proxy.close());
    await proxy.listen(portIn(b.network.addresses()));
    for (const afterBytes of [1, 2, 3, 17, 18, 19, 40, 1_000, 20_000, 20_060]) {
      const address = `/ip4/127.0.0.1/tcp/${proxy.port}`;
      const connection = await a.network.connect(b.network.self, [address], never);
      const heard: Heard = { frames: [], ends: [] };
      const count = b.channels.length;
      const channel = listen(await connection.open(PROTOCOL, never), heard);
      await untilTrue(() => b.channels.length > count && b.network.directory.size() === 1);
      const ends = b.heard.ends.length;
      proxy.cutAfter(afterBytes);
      channel.send(new Uint8Array(20_000));
      channel.end();
      await untilTrue(() => heard.ends.length > 0 && b.heard.ends.length > ends && !connection.isOpen);
      expect([afterBytes, heard.ends[0]?.code, b.heard.ends.at(-1)?.code]).toEqual([
        afterBytes,
        'CHANNEL_CLOSED',
        'CHANNEL_CLOSED',
      ]);
      await untilTrue(() => a.network.connections().length + b.network.connections().length === 0);
    }
  });

  test('does not take a cut for a clean end while it still has something to write', async ({ expect }) => {
    const [a, b] = [await start(), await start()];
    const proxy = new CuttableProxy();
    closers.push(() => proxy.close());
    await proxy.listen(portIn(b.network.addresses()));
    const connection = await a.network.connect(b.network.self, [`/ip4/127.0.0.1/tcp/${proxy.port}`], never);
    const heard: Heard = { frames: [], ends: [] };
    const channel = listen(await connection.open(PROTOCOL, never), heard);
    await untilTrue(() => b.channels.length === 1);
    b.channels[0]?.send(new Uint8Array(1));
    b.channels[0]?.end();
    await untilTrue(() => heard.frames.length === 1);
    for (let turns = 0; turns < 20; turns += 1) await clock.turn();
    proxy.cutAfter(10_000);
    // With their lengths a few bytes more than one window of yamux: the rest stays with the stream.
    for (let sent = 0; sent < 4; sent += 1) channel.send(new Uint8Array(65_536));
    channel.end();
    await untilTrue(() => heard.ends.length > 0);
    expect(heard.ends[0]?.code).toBe('CHANNEL_CLOSED');
  });
});
