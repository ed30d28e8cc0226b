/** What a peer gets that is connected but not admitted: nothing. And what a hostile member can do: little. */

import type { Stream, StreamHandler } from '@libp2p/interface';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import { sha256 } from 'multiformats/hashes/sha2';
import { afterEach, describe, test } from 'vitest';
import { systemClock } from '../../../protocol/adapters/clock.ts';
import { advertKey } from '../../../protocol/adapters/libp2p/adverts.ts';
import { kadProtocol } from '../../../protocol/adapters/libp2p/kad-service.ts';
import type { Libp2pNetwork } from '../../../protocol/adapters/network-libp2p.ts';
import { keyFromSeed } from '../../../protocol/crypto.ts';
import type { HelixFlowError } from '../../../protocol/errors.ts';
import type { PeerId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { encodeAdvert } from '../../../protocol/messages/advert.ts';
import { peerIdFromSeed } from '../../../protocol/peer/identity.ts';
import { ms, unixMs } from '../../../protocol/units.ts';
import { nextSeed, openNetwork, testMeshId, untilTrue } from '../../support/libp2p-world.ts';
import { dialRaw, openRaw, type RawPeer, tableSize } from '../../support/raw-libp2p.ts';

const PROTOCOL = '/test/members/1';
const OPEN_PROTOCOL = '/test/anybody/1';
const clock = systemClock();
const never = new AbortController().signal;

const closers: (() => Promise<unknown> | undefined)[] = [];
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

interface Started {
  readonly network: Libp2pNetwork;
  /** Bytes that came over `PROTOCOL` and `OPEN_PROTOCOL`, and how their channels closed. */
  readonly heard: { frames: number; ends: (HelixFlowError | undefined)[]; accepted: string[] };
}

async function startNetwork(admits: (peer: PeerId) => boolean): Promise<Started> {
  const network = await openNetwork();
  const heard: Started['heard'] = { frames: 0, ends: [], accepted: [] };
  network.onConnection((connection) => {
    if (admits(connection.peer)) connection.admit();
  });
  for (const protocol of [PROTOCOL, OPEN_PROTOCOL]) {
    const options = { beforeAdmission: protocol === OPEN_PROTOCOL, frameMaxBytes: 1_000 };
    network.handle(protocol, options, (channel) => {
      heard.accepted.push(protocol);
      channel.receive({
        frame: () => {
          heard.frames += 1;
        },
        closed: (error) => void heard.ends.push(error),
        drained: () => {},
      });
    });
  }
  await network.start();
  closers.push(() => network.close());
  return { network, heard };
}

async function startRaw(seed = nextSeed()): Promise<RawPeer> {
  const peer = await openRaw(seed);
  closers.push(() => Promise.resolve(peer.stop()));
  return peer;
}

/** How many bytes came on a stream before it closed. */
function bytesUntilClose(stream: Stream): Promise<number> {
  let bytes = 0;
  stream.addEventListener('message', ({ data }) => {
    bytes += data.byteLength;
  });
  return new Promise((resolve) => {
    if (stream.status !== 'open') resolve(bytes);
    else stream.addEventListener('close', () => resolve(bytes));
  });
}

const outcome = (work: Promise<unknown>): Promise<'answered' | 'refused'> =>
  work.then(
    () => 'answered',
    () => 'refused',
  );

async function names(events: AsyncIterable<{ readonly name: string }>): Promise<readonly string[]> {
  const seen: string[] = [];
  try {
    for await (const { name } of events) seen.push(name);
  } catch (error) {
    seen.push(error instanceof Error ? error.name : 'error');
  }
  return seen;
}

const cidOf = async (text: string): Promise<CID> =>
  CID.createV1(raw.code, await sha256.digest(new TextEncoder().encode(text)));

describe('a stranger', () => {
  test('gets no answer from any protocol, and no place in the table', async ({ expect }) => {
    const { network, heard } = await startNetwork(() => false);
    const stranger = await startRaw();
    const connection = await dialRaw(stranger, network);
    using deadline = clock.deadline(ms(limits.helloTimeoutMs + 500));
    const options = { signal: deadline.signal };
    const member = connection.newStream(PROTOCOL).then(bytesUntilClose);
    const directory = connection.newStream(kadProtocol(testMeshId)).then((stream) => {
      stream.send(new Uint8Array(50));
      return bytesUntilClose(stream);
    });
    const results = await Promise.all([
      outcome(stranger.services.identify.identify(connection, options)),
      outcome(stranger.services.ping.ping(connection.remotePeer, options)),
      member,
      directory,
    ]);
    expect(results).toEqual(['refused', 'refused', 0, 0]);
    expect([network.directory.size(), tableSize(stranger), heard.accepted]).toEqual([0, 0, []]);
    expect(network.connections()).toHaveLength(1);
  });

  test('is served before admission what is meant for it', async ({ expect }) => {
    const { network, heard } = await startNetwork(() => false);
    const stranger = await startRaw();
    const stream = await (await dialRaw(stranger, network)).newStream(OPEN_PROTOCOL);
    stream.send(Uint8Array.of(2, 7, 7));
    await untilTrue(() => heard.frames === 1);
    expect(heard.accepted).toEqual([OPEN_PROTOCOL]);
  });

  test('becomes everybody’s peer once admitted', async ({ expect }) => {
    const { network } = await startNetwork(() => false);
    const member = await startRaw();
    const connection = await dialRaw(member, network);
    const pinged = member.services.ping.ping(connection.remotePeer, { signal: never });
    await untilTrue(() => network.connections().length === 1);
    network.connections()[0]?.admit();
    expect(await outcome(pinged)).toBe('answered');
    await untilTrue(() => network.directory.size() === 1 && tableSize(member) === 1);
    const events = await names(member.services.kad.findProviders(await cidOf('x'), { signal: never }));
    expect(events).toContain('PEER_RESPONSE');
  });

  test('cannot hold more waiting streams than a few', async ({ expect }) => {
    const { network } = await startNetwork(() => false);
    const connection = await dialRaw(await startRaw(), network);
    let refused = 0;
    // A stream may be reset while its protocol is still being agreed on, or after: both are refusals.
    const open = async (): Promise<void> => {
      const stream = await connection.newStream(kadProtocol(testMeshId)).catch(() => undefined);
      if (stream !== undefined) await bytesUntilClose(stream);
      refused += 1;
    };
    const startMs = clock.nowMs();
    for (let count = 0; count < 24; count += 1) void open();
    await untilTrue(() => refused >= 8);
    expect(clock.nowMs() - startMs).toBeLessThan(limits.helloTimeoutMs / 2);
    expect(refused).toBeLessThan(24);
    await untilTrue(() => refused === 24);
  });

  test('that a member names is not asked for anything', async ({ expect }) => {
    const stranger = await startRaw();
    const { network } = await startNetwork((peer) => peer !== stranger.peerId.toString());
    const askers: string[] = [];
    const echo: StreamHandler = (stream, { remotePeer }) => {
      askers.push(remotePeer.toString());
      stream.addEventListener('message', ({ data }) => void stream.send(data));
    };
    await stranger.handle('/ipfs/ping/1.0.0', echo, { force: true });
    await stranger.handle(kadProtocol(testMeshId), echo, { force: true });
    const member = await startRaw();
    await member.dial(stranger.getMultiaddrs());
    await untilTrue(() => tableSize(member) === 1);
    await dialRaw(member, network);
    await untilTrue(() => tableSize(member) === 2 && network.directory.size() === 1);
    for await (const contact of network.directory.find('anything', never)) expect(contact).toBeUndefined();
    await untilTrue(() => network.connections().some(({ peer }) => peer === stranger.peerId.toString()));
    for (let turns = 0; turns < 100; turns += 1) await clock.turn();
    expect(askers).toContain(member.peerId.toString());
    expect([network.directory.size(), askers.includes(network.self)]).toEqual([1, false]);
  });

  test('leaves nothing behind', async ({ expect }) => {
    const { network } = await startNetwork(() => false);
    const stranger = await startRaw();
    const connection = await dialRaw(stranger, network);
    await connection.newStream(PROTOCOL);
    await untilTrue(() => network.connections().length === 1);
    await connection.close();
    await untilTrue(() => network.connections().length === 0);
    expect(network.directory.size()).toBe(0);
  });
});

describe('a peer that writes junk', () => {
  test('ends its channel with a typed error, and nothing else', async ({ expect }) => {
    const { network, heard } = await startNetwork(() => true);
    const connection = await dialRaw(await startRaw(), network);
    const junk = [
      [0xff, 0xff, 0xff, 0xff, 0xff],
      [0x80, 0x00],
      [0xe9, 0x07],
      [0x05, 1, 2],
    ];
    for (const bytes of junk) {
      const stream = await connection.newStream(PROTOCOL);
      stream.send(Uint8Array.from(bytes));
      await stream.close();
    }
    await untilTrue(() => heard.ends.length === junk.length);
    const codes = heard.ends.map((error) => error?.code).sort();
    expect(codes).toEqual(['CHANNEL_CLOSED', 'FRAME_MALFORMED', 'FRAME_TOO_LARGE', 'FRAME_TOO_LARGE']);
    expect([heard.frames, connection.status]).toEqual([0, 'open']);
  });

  test('to the directory loses its stream, not its connection', async ({ expect }) => {
    const { network } = await startNetwork(() => true);
    const connection = await dialRaw(await startRaw(), network);
    const stream = await connection.newStream(kadProtocol(testMeshId));
    stream.send(new Uint8Array(500).fill(0x7f));
    expect(await bytesUntilClose(stream)).toBe(0);
    expect([connection.status, network.connections().length]).toEqual(['open', 1]);
  });
});

describe('a hostile member', () => {
  const advert = (seed: Uint8Array, sequence: number, model = 'm'): Uint8Array => {
    const nowMs = clock.wallMs();
    const key = keyFromSeed(seed);
    const peer = peerIdFromSeed(seed);
    const models = [{ name: model, digest: 'ab'.repeat(32) as never }];
    const expiresMs = unixMs(nowMs + limits.advertTtlMs);
    const fields = { meshId: testMeshId, peer, role: 'node', sequence, issuedMs: nowMs, expiresMs } as const;
    return encodeAdvert({ ...fields, addresses: [], models }, key);
  };

  test('cannot replace an advert by an older one, by a fork, or by its own', async ({ expect }) => {
    const { network } = await startNetwork(() => true);
    const hostile = await startRaw();
    await dialRaw(hostile, network);
    await untilTrue(() => tableSize(hostile) === 1);
    const seed = nextSeed();
    const victim = peerIdFromSeed(seed);
    const put = (bytes: Uint8Array) => names(hostile.services.kad.put(advertKey(victim), bytes, { signal: never }));
    const newest = advert(seed, 9);
    expect(await put(newest)).not.toContain('QUERY_ERROR');
    for (const bytes of [advert(seed, 8), advert(seed, 9, 'fork'), advert(nextSeed(), 10), Uint8Array.of(1)]) {
      expect(await put(bytes)).toContain('QUERY_ERROR');
    }
    expect(await network.directory.getAdvert(victim, never)).toEqual(newest);
  });

  test('cannot fill the directory with provider records', async ({ expect }) => {
    const { network } = await startNetwork(() => true);
    const hostile = await startRaw();
    await dialRaw(hostile, network);
    await untilTrue(() => tableSize(hostile) === 1);
    const keys = Array.from({ length: 2 * limits.offerModelsMax + 20 }, (_, at) => `key ${at}`);
    for (const key of keys) await names(hostile.services.kad.provide(await cidOf(key), { signal: never }));
    await hostile.stop();
    await untilTrue(() => network.directory.size() === 0);
    const reader = await startRaw();
    await dialRaw(reader, network);
    await untilTrue(() => tableSize(reader) === 1);
    let held = 0;
    for (const key of keys) {
      const events = await names(reader.services.kad.findProviders(await cidOf(key), { signal: never }));
      if (events.includes('PROVIDER')) held += 1;
    }
    expect(held).toBe(2 * limits.offerModelsMax);
  });

  test('cannot send the directory more than its share', async ({ expect }) => {
    const { network } = await startNetwork(() => true);
    const connection = await dialRaw(await startRaw(), network);
    const stream = await connection.newStream(kadProtocol(testMeshId));
    const closed = bytesUntilClose(stream);
    const pings = new Uint8Array(3 * 1_024).map((_, at) => [2, 8, 5][at % 3] ?? 0);
    for (let sent = 0; sent < 60 && stream.status === 'open'; sent += 1) {
      if (!stream.send(pings)) await stream.onDrain();
      await clock.turn();
    }
    await closed;
    expect([stream.status, connection.status]).toEqual(['reset', 'open']);
  });
});
