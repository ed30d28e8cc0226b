/** What every `Network` keeps to: admission, frames, ends, cuts, back-pressure. */

import { describe, type ExpectStatic, test } from 'vitest';
import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import { limits } from '../../protocol/limits.ts';
import type { Channel, ChannelEvents, Connection, HandlerOptions, Network } from '../../protocol/ports.ts';

/** What is special about a peer. */
export interface PeerTraits {
  /** It can only dial out. */
  readonly isHidden?: boolean;
  /** Peers that it relays to, at most; none when absent. */
  readonly relayReservationsMax?: number;
}

/** A small world of networks that can reach each other, but for hidden ones. */
export interface NetworkWorld extends AsyncDisposable {
  /** Another peer's network. The suite sets its handlers and starts it; the world closes it. */
  network(traits?: PeerTraits): Promise<Network>;
  /** Where the started `network` can be dialled by the others. */
  addressesOf(network: Network): readonly string[];
  /** Breaks every connection there is, at once and without a goodbye. New ones can be made afterwards. */
  cut(): void;
  /** Resolves as `work` does; a world with virtual time lets time pass meanwhile. */
  run<T>(work: Promise<T>): Promise<T>;
  /** Lets time pass until `condition` holds; rejects when it does not within about ten seconds. */
  until(condition: () => boolean): Promise<void>;
}

export const PROTOCOL = '/test/stream/1';
const OPEN_PROTOCOL = '/test/hello/1';
export const usual: HandlerOptions = { beforeAdmission: false, frameMaxBytes: limits.frameMaxBytes };
export const never: AbortSignal = new AbortController().signal;

/** Keeps what a channel tells, in order. */
export class Ear implements ChannelEvents {
  readonly frames: Uint8Array[] = [];
  readonly errors: (HelixFlowError | undefined)[] = [];
  readonly channel: Channel;
  drains = 0;

  constructor(channel: Channel) {
    this.channel = channel;
    channel.receive(this);
  }

  frame(bytes: Uint8Array): void {
    this.frames.push(bytes.slice());
  }

  closed(error: HelixFlowError | undefined): void {
    this.errors.push(error);
  }

  drained(): void {
    this.drains += 1;
  }

  get isClosed(): boolean {
    return this.errors.length > 0;
  }

  /** The code it closed with; `clean` for none; undefined while open. */
  get end(): string | undefined {
    return this.isClosed ? (this.errors[0]?.code ?? 'clean') : undefined;
  }
}

/** One side of a pair: what it heard on the channels that the other side opened. */
export interface Side {
  readonly network: Network;
  readonly connections: Connection[];
  readonly ears: Ear[];
}

export async function startSide(
  world: NetworkWorld,
  options: HandlerOptions,
  admits: boolean | ((connection: Connection) => boolean),
  traits: PeerTraits = {},
): Promise<Side> {
  const network = await world.network(traits);
  const side: Side = { network, connections: [], ears: [] };
  network.onConnection((connection) => {
    side.connections.push(connection);
    if (typeof admits === 'boolean' ? admits : admits(connection)) connection.admit();
  });
  network.handle(PROTOCOL, options, (channel) => void side.ears.push(new Ear(channel)));
  network.handle(
    OPEN_PROTOCOL,
    { ...options, beforeAdmission: true },
    (channel) => void side.ears.push(new Ear(channel)),
  );
  await world.run(network.start());
  return side;
}

interface Pair {
  readonly a: Side;
  readonly b: Side;
  readonly ab: Connection;
  readonly ba: Connection;
}

interface PairOptions {
  readonly admits?: boolean;
  readonly a?: HandlerOptions;
  readonly b?: HandlerOptions;
}

async function pairOf(world: NetworkWorld, options: PairOptions = {}): Promise<Pair> {
  const a = await startSide(world, options.a ?? usual, options.admits ?? true);
  const b = await startSide(world, options.b ?? usual, options.admits ?? true);
  const ab = await world.run(a.network.connect(b.network.self, world.addressesOf(b.network), never));
  await world.until(() => b.connections.length > 0);
  return { a, b, ab, ba: b.connections[0] as Connection };
}

/** A channel from `a` to `b`, with an ear on either end. */
async function channelOf(world: NetworkWorld, { ab, b }: Pair, protocol = PROTOCOL): Promise<[Ear, Ear]> {
  const ours = new Ear(await world.run(ab.open(protocol, never)));
  await world.until(() => b.ears.length > 0);
  return [ours, b.ears.at(-1) as Ear];
}

/** The code of the operating error that `work` rejects with; a sentence for anything else. */
export async function codeOf(world: NetworkWorld, work: Promise<unknown>): Promise<string> {
  try {
    await world.run(work);
    return 'did not fail';
  } catch (error) {
    return isHelixFlowError(error) ? error.code : `not typed: ${error}`;
  }
}

const bytesOf = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, at) => (at * 31 + seed) & 0xff);
const broken = () => new HelixFlowError('PROTOCOL_VIOLATION', { reason: 'a test' });

type Suite = (sentence: string, body: (world: NetworkWorld, expect: ExpectStatic) => Promise<void>) => void;

/** Runs the suite. @param open Makes a world of its own for each test. */
export function networkContract(name: string, open: () => Promise<NetworkWorld>): void {
  const check: Suite = (sentence, body) => {
    test(sentence, { timeout: 60_000 }, async ({ expect }) => {
      await using world = await open();
      await body(world, expect);
    });
  };
  describe(`${name} keeps the contract of Network: connections`, () => connectionTests(check));
  describe(`${name} keeps the contract of Network: admission`, () => admissionTests(check));
  describe(`${name} keeps the contract of Network: frames`, () => frameTests(check));
  describe(`${name} keeps the contract of Network: ends`, () => endTests(check));
}

function connectionTests(check: Suite): void {
  check('both sides learn of a connection, before it is admitted', async (world, expect) => {
    const { a, b, ab, ba } = await pairOf(world, { admits: false });
    expect(a.connections).toEqual([ab]);
    expect(a.network.connections()).toEqual([ab]);
    expect(b.network.connections()).toEqual([ba]);
    expect([ab.peer, ab.direction, ab.isOpen, ab.isAdmitted]).toEqual([b.network.self, 'outbound', true, false]);
    expect([ba.peer, ba.direction, ba.isOpen, ba.isAdmitted]).toEqual([a.network.self, 'inbound', true, false]);
    expect(world.addressesOf(b.network)).toContain(ab.remoteAddress);
  });

  check('a second connect to a connected peer gives the connection there is', async (world, expect) => {
    const { a, b, ab } = await pairOf(world);
    const again = await world.run(a.network.connect(b.network.self, world.addressesOf(b.network), never));
    expect(again).toBe(ab);
    expect(a.network.connections()).toHaveLength(1);
  });

  check('a peer that is gone cannot be connected to', async (world, expect) => {
    const a = await startSide(world, usual, true);
    const b = await startSide(world, usual, true);
    const addresses = world.addressesOf(b.network);
    await world.run(b.network.close());
    expect(await codeOf(world, a.network.connect(b.network.self, addresses, never))).toBe('CONNECT_FAILED');
  });

  check('another peer at the address is not taken for the one that was meant', async (world, expect) => {
    const a = await startSide(world, usual, true);
    const b = await startSide(world, usual, true);
    const c = await startSide(world, usual, true);
    const work = a.network.connect(c.network.self, world.addressesOf(b.network), never);
    expect(await codeOf(world, work)).toBe('CONNECT_FAILED');
  });

  check('an address that no mesh may dial is refused', async (world, expect) => {
    const { a, b } = await pairOf(world);
    const c = await startSide(world, usual, true);
    for (const address of ['/ip4/169.254.169.254/tcp/80', '/dns4/localhost/tcp/80', 'nonsense']) {
      expect(await codeOf(world, a.network.connect(c.network.self, [address], never))).toBe('ADDRESS_REFUSED');
    }
    expect(await codeOf(world, a.network.connect(c.network.self, [], never))).toBe('ADDRESS_REFUSED');
    expect(b.network.connections()).toHaveLength(1);
  });

  check('a connect can be given up', async (world, expect) => {
    const a = await startSide(world, usual, true);
    const b = await startSide(world, usual, true);
    const stop = AbortSignal.abort(broken());
    expect(await codeOf(world, a.network.connect(b.network.self, world.addressesOf(b.network), stop))).toBe(
      'CONNECT_FAILED',
    );
  });

  check('close ends the connection on both sides, each told once', async (world, expect) => {
    const { a, b, ab, ba } = await pairOf(world);
    const told: string[] = [];
    ab.onClose(() => told.push('a'));
    ba.onClose(() => told.push('b'));
    await world.run(ab.close());
    await world.until(() => told.length === 2);
    ab.onClose(() => told.push('late'));
    await world.until(() => told.length === 3);
    expect(told.sort()).toEqual(['a', 'b', 'late']);
    expect([ab.isOpen, ba.isOpen, a.network.connections(), b.network.connections()]).toEqual([false, false, [], []]);
    expect(await codeOf(world, ab.open(PROTOCOL, never))).toBe('CHANNEL_CLOSED');
    await world.run(ab.close());
  });

  check('a network that closes takes its connections with it', async (world, expect) => {
    const pair = await pairOf(world);
    const [ours, theirs] = await channelOf(world, pair);
    await world.run(pair.b.network.close());
    await world.until(() => ours.isClosed && theirs.isClosed && !pair.ab.isOpen);
    expect([ours.end, theirs.end, pair.a.network.connections()]).toEqual(['CHANNEL_CLOSED', 'CHANNEL_CLOSED', []]);
    await world.run(pair.b.network.close());
  });
}

function admissionTests(check: Suite): void {
  check('a protocol before admission is served at once', async (world, expect) => {
    const pair = await pairOf(world, { admits: false });
    const [ours, theirs] = await channelOf(world, pair, OPEN_PROTOCOL);
    ours.channel.send(bytesOf(3, 1));
    await world.until(() => theirs.frames.length > 0);
    expect(theirs.frames).toEqual([bytesOf(3, 1)]);
    expect([theirs.channel.protocol, theirs.channel.connection]).toEqual([OPEN_PROTOCOL, pair.ba]);
  });

  check('any other protocol waits for admission, and loses nothing meanwhile', async (world, expect) => {
    const pair = await pairOf(world, { admits: false });
    const opening = pair.ab.open(PROTOCOL, never).then((channel) => {
      channel.send(bytesOf(5, 1));
      channel.send(bytesOf(5, 2));
      return new Ear(channel);
    });
    const hello = await channelOf(world, pair, OPEN_PROTOCOL);
    hello[0].channel.send(bytesOf(1, 1));
    await world.until(() => hello[1].frames.length > 0);
    expect(pair.b.ears).toHaveLength(1);
    pair.ba.admit();
    pair.ba.admit();
    expect(pair.ba.isAdmitted).toBe(true);
    const ours = await world.run(opening);
    await world.until(() => pair.b.ears[1]?.frames.length === 2);
    expect(pair.b.ears[1]?.frames).toEqual([bytesOf(5, 1), bytesOf(5, 2)]);
    expect(ours.isClosed).toBe(false);
  });

  check('a peer that is never admitted is refused in the end, and its frames reach nobody', async (world, expect) => {
    const pair = await pairOf(world, { admits: false });
    let end = '';
    pair.ab.open(PROTOCOL, never).then(
      (channel) => {
        channel.send(bytesOf(5, 1));
        channel.receive({
          frame: () => (end = 'a frame'),
          closed: (error) => (end = error?.code ?? 'clean'),
          drained: () => {},
        });
      },
      (error) => (end = isHelixFlowError(error) ? error.code : `not typed: ${error}`),
    );
    await world.until(() => end !== '');
    expect([end, pair.b.ears.length]).toEqual(['CHANNEL_CLOSED', 0]);
    pair.ba.admit();
    await channelOf(world, pair);
    expect(pair.b.ears).toHaveLength(1);
  });

  check('a protocol that nobody serves is refused', async (world, expect) => {
    const { ab } = await pairOf(world);
    expect(await codeOf(world, ab.open('/test/unknown/1', never))).toBe('CHANNEL_CLOSED');
  });

  check('an open can be given up', async (world, expect) => {
    const { ab } = await pairOf(world);
    expect(await codeOf(world, ab.open(PROTOCOL, AbortSignal.abort(broken())))).toBe('CHANNEL_CLOSED');
  });
}

function frameTests(check: Suite): void {
  check('frames of any size arrive whole and in order, both ways', async (world, expect) => {
    const [ours, theirs] = await channelOf(world, await pairOf(world));
    const sizes = [0, 1, 2, 127, 128, 1_000, 16_383, 16_384, limits.frameMaxBytes - 1, limits.frameMaxBytes, 0, 7];
    const frames = [...sizes, ...sizes].map((size, index) => bytesOf(size, index));
    for (const frame of frames) {
      ours.channel.send(frame.slice());
      theirs.channel.send(frame.slice());
    }
    await world.until(() => ours.frames.length >= frames.length && theirs.frames.length >= frames.length);
    expect(theirs.frames).toEqual(frames);
    expect(ours.frames).toEqual(frames);
  });

  check('many small frames over many turns keep their order', async (world, expect) => {
    const [ours, theirs] = await channelOf(world, await pairOf(world));
    const count = 3_000;
    let next = 0;
    while (next < count) {
      for (let more = 0; more < 1 + (next % 37) && next < count; more += 1) {
        ours.channel.send(bytesOf(next % 50, next));
        next += 1;
      }
      const heard = theirs.frames.length;
      if (next % 5 === 0) await world.until(() => theirs.frames.length > heard || theirs.frames.length === next);
    }
    await world.until(() => theirs.frames.length === count);
    expect(theirs.frames.every((frame, index) => Buffer.compare(frame, bytesOf(index % 50, index)) === 0)).toBe(true);
  });

  check('frames that come before their receiver are kept for it', async (world, expect) => {
    const a = await startSide(world, usual, true);
    const b = await world.network();
    const channels: Channel[] = [];
    b.onConnection((connection) => connection.admit());
    b.handle(PROTOCOL, usual, (channel) => void channels.push(channel));
    await world.run(b.start());
    const connection = await world.run(a.network.connect(b.self, world.addressesOf(b), never));
    const ours = new Ear(await world.run(connection.open(PROTOCOL, never)));
    for (let index = 0; index < 20; index += 1) ours.channel.send(bytesOf(1_000, index));
    ours.channel.end();
    await world.until(() => channels.length > 0);
    let turns = 0;
    await world.until(() => {
      turns += 1;
      return turns > 10;
    });
    const theirs = new Ear(channels[0] as Channel);
    expect(theirs.frames).toHaveLength(0);
    theirs.channel.end();
    await world.until(() => theirs.isClosed);
    expect([theirs.frames.length, theirs.end]).toEqual([20, 'clean']);
    expect(theirs.frames.at(-1)).toEqual(bytesOf(1_000, 19));
  });

  check('a frame over the limit closes the channel, and only that', async (world, expect) => {
    const pair = await pairOf(world, { b: { ...usual, frameMaxBytes: 100 } });
    const [ours, theirs] = await channelOf(world, pair);
    ours.channel.send(bytesOf(100, 1));
    ours.channel.send(bytesOf(101, 2));
    ours.channel.send(bytesOf(5, 3));
    await world.until(() => ours.isClosed && theirs.isClosed);
    expect([theirs.end, ours.end, theirs.frames.length]).toEqual(['FRAME_TOO_LARGE', 'CHANNEL_CLOSED', 1]);
    expect([pair.ab.isOpen, pair.ba.isOpen]).toEqual([true, true]);
    const [again, heard] = await channelOf(world, pair);
    again.channel.send(bytesOf(9, 1));
    await world.until(() => heard.frames.length === 1 || (pair.b.ears.at(-1)?.frames.length ?? 0) === 1);
  });

  check('a sender is told to wait, and then that it may go on', async (world, expect) => {
    const [ours, theirs] = await channelOf(world, await pairOf(world));
    const frame = bytesOf(limits.frameMaxBytes, 1);
    let sent = 0;
    for (let isReady = true; isReady; sent += 1) isReady = ours.channel.send(frame);
    expect(sent * frame.length).toBeGreaterThan(limits.channelHighWaterBytes);
    expect(ours.drains).toBe(0);
    await world.until(() => ours.drains > 0);
    expect(ours.drains).toBe(1);
    expect(ours.channel.send(bytesOf(1, 1))).toBe(true);
    await world.until(() => theirs.frames.length === sent + 1);
  });

  check('a queue that grows beyond its limit ends the channel', async (world, expect) => {
    const pair = await pairOf(world);
    const [ours, theirs] = await channelOf(world, pair);
    const frame = new Uint8Array(limits.frameMaxBytes);
    for (let sent = 0; sent <= limits.channelQueueMaxBytes / frame.length; sent += 1) ours.channel.send(frame);
    await world.until(() => ours.isClosed && theirs.isClosed);
    expect([ours.end, theirs.end]).toEqual(['CHANNEL_OVERFLOW', 'CHANNEL_CLOSED']);
    expect([pair.ab.isOpen, pair.ba.isOpen]).toEqual([true, true]);
  });
}

function endTests(check: Suite): void {
  check('after both ends the channel is closed cleanly, with everything delivered', async (world, expect) => {
    const [ours, theirs] = await channelOf(world, await pairOf(world));
    for (let index = 0; index < 10; index += 1) ours.channel.send(bytesOf(50_000, index));
    ours.channel.end();
    await world.until(() => theirs.frames.length === 10);
    expect([ours.isClosed, theirs.isClosed]).toEqual([false, false]);
    theirs.channel.send(bytesOf(5, 1));
    theirs.channel.end();
    await world.until(() => ours.isClosed && theirs.isClosed);
    expect([ours.errors, theirs.errors, ours.frames.length]).toEqual([[undefined], [undefined], 1]);
  });

  check('an abort tells the owner its own error and the peer that the channel is gone', async (world, expect) => {
    const pair = await pairOf(world);
    const [ours, theirs] = await channelOf(world, pair);
    const error = broken();
    ours.channel.abort(error);
    ours.channel.abort(broken());
    ours.channel.send(bytesOf(1, 1));
    ours.channel.end();
    await world.until(() => ours.isClosed && theirs.isClosed);
    expect([ours.errors, theirs.end, theirs.frames]).toEqual([[error], 'CHANNEL_CLOSED', []]);
    expect(pair.ab.isOpen).toBe(true);
  });

  check('a closed connection closes its channels, which is no clean end', async (world, expect) => {
    const pair = await pairOf(world);
    const [ours, theirs] = await channelOf(world, pair);
    await world.run(pair.ab.close());
    await world.until(() => ours.isClosed && theirs.isClosed);
    expect([ours.end, theirs.end]).toEqual(['CHANNEL_CLOSED', 'CHANNEL_CLOSED']);
  });

  check('a cut connection is noticed on both sides, which is no clean end', async (world, expect) => {
    const pair = await pairOf(world);
    const [ours, theirs] = await channelOf(world, pair);
    ours.channel.send(bytesOf(10, 1));
    await world.until(() => theirs.frames.length === 1);
    world.cut();
    await world.until(() => ours.isClosed && theirs.isClosed && !pair.ab.isOpen && !pair.ba.isOpen);
    expect([ours.end, theirs.end]).toEqual(['CHANNEL_CLOSED', 'CHANNEL_CLOSED']);
    expect([ours.channel.send(bytesOf(1, 1)), pair.a.network.connections()]).toEqual([true, []]);
    const { a, b } = pair;
    const again = await world.run(a.network.connect(b.network.self, world.addressesOf(b.network), never));
    expect([again === pair.ab, again.isAdmitted]).toEqual([false, true]);
  });

  check('a cut after the end of one side is no clean end either', async (world, expect) => {
    const pair = await pairOf(world);
    const [ours, theirs] = await channelOf(world, pair);
    ours.channel.send(bytesOf(10, 1));
    ours.channel.end();
    await world.until(() => theirs.frames.length === 1);
    world.cut();
    await world.until(() => ours.isClosed && theirs.isClosed);
    expect([ours.end, theirs.end]).toEqual(['CHANNEL_CLOSED', 'CHANNEL_CLOSED']);
  });

  check('an owner that fails on a frame ends its channel, and nothing else', async (world, expect) => {
    const pair = await pairOf(world);
    const ours = await world.run(pair.ab.open(PROTOCOL, never));
    const ends: string[] = [];
    ours.receive({
      frame: () => {
        throw broken();
      },
      closed: (error) => void ends.push(error?.code ?? 'clean'),
      drained: () => {},
    });
    await world.until(() => pair.b.ears.length > 0);
    const theirs = pair.b.ears[0] as Ear;
    theirs.channel.send(bytesOf(1, 1));
    theirs.channel.send(bytesOf(1, 2));
    await world.until(() => ends.length > 0 && theirs.isClosed);
    expect([ends, theirs.end, pair.ab.isOpen]).toEqual([['PROTOCOL_VIOLATION'], 'CHANNEL_CLOSED', true]);
  });
}
