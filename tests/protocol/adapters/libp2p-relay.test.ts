/** Circuits on real libp2p: what a relay sees of them, what it passes on and for how many, and what strangers get of it. */

import {
  type CircuitRelayServerComponents,
  circuitRelayServer,
  circuitRelayTransport,
  RELAY_V2_HOP_CODEC,
  RELAY_V2_STOP_CODEC,
} from '@libp2p/circuit-relay-v2';
import type { Connection as Libp2pConnection, StreamMessageEvent } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { afterEach, describe, test } from 'vitest';
import { overlay } from '../../../protocol/adapters/libp2p/overlay.ts';
import type { Libp2pNetwork, Libp2pOptions } from '../../../protocol/adapters/network-libp2p.ts';
import type { HelixFlowError } from '../../../protocol/errors.ts';
import { limits } from '../../../protocol/limits.ts';
import { modelKey } from '../../../protocol/peer/discovery.ts';
import type { Channel, Connection, Contact } from '../../../protocol/ports.ts';
import { nextSeed, openNetwork, untilTrue } from '../../support/libp2p-world.ts';
import { bytesOf } from '../../support/raw-hello.ts';
import { dialRaw, openRaw } from '../../support/raw-libp2p.ts';

const PROTOCOL = '/test/circuit/1';
const never = new AbortController().signal;
const nobody = (): void => {};

const closers: (() => Promise<unknown> | undefined)[] = [];
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

interface Started {
  readonly network: Libp2pNetwork;
  readonly frames: Uint8Array[];
  readonly channels: Channel[];
  readonly ends: (HelixFlowError | undefined)[];
}

function listen(heard: Omit<Started, 'network'>, channel: Channel): Channel {
  heard.channels.push(channel);
  channel.receive({
    frame: (bytes) => heard.frames.push(bytes.slice()),
    closed: (error) => heard.ends.push(error),
    drained: nobody,
  });
  return channel;
}

/** A peer that admits everybody, unless `admits` is false. */
async function start(options: Partial<Libp2pOptions> = {}, admits = true): Promise<Started> {
  const network = await openNetwork(options);
  const heard: Omit<Started, 'network'> = { frames: [], channels: [], ends: [] };
  network.onConnection((connection) => {
    if (admits) connection.admit();
  });
  const handler = { beforeAdmission: false, frameMaxBytes: limits.frameMaxBytes };
  network.handle(PROTOCOL, handler, (channel) => void listen(heard, channel));
  await network.start();
  closers.push(() => network.close());
  return { network, ...heard };
}

const startRelay = (more: Partial<Libp2pOptions> = {}): Promise<Started> => start({ relayReservationsMax: 8, ...more });
const startHidden = (): Promise<Started> => start({ listen: undefined });

const connect = (from: Started, to: Contact): Promise<Connection> => from.network.connect(to.peer, to.addresses, never);
const contactOf = ({ network }: Started): Contact => ({ peer: network.self, addresses: network.addresses() });

async function reserve(hidden: Started, relay: Contact): Promise<void> {
  const connection = await connect(hidden, relay);
  await hidden.network.reserve(connection, nobody, never);
}

/** What passed through a relay that keeps all of it. */
interface Spy {
  readonly contact: Contact;
  /** Of all circuits, both ways. */
  readonly seen: Uint8Array[];
}

/** A relay that writes down what it passes on, after its own decryption of either hop. */
async function startSpy(): Promise<Spy> {
  const seen: Uint8Array[] = [];
  const keep = (data: Uint8Array | { subarray(): Uint8Array }): number => seen.push(new Uint8Array(data.subarray()));
  const spying = (components: CircuitRelayServerComponents): ReturnType<ReturnType<typeof circuitRelayServer>> =>
    circuitRelayServer({ reservations: { applyDefaultLimit: false } })(
      overlay(components, {
        registrar: overlay(components.registrar, {
          handle: (protocol, handler, options) =>
            components.registrar.handle(
              protocol,
              async (stream, connection) => {
                const send = stream.send.bind(stream);
                stream.send = (data) => {
                  keep(data);
                  return send(data);
                };
                await handler(stream, connection);
                stream.addEventListener('message', ({ data }: StreamMessageEvent) => keep(data));
              },
              options,
            ),
        }),
      }),
    );
  const relay = await openRaw(nextSeed(), undefined, { services: { spying } });
  closers.push(() => Promise.resolve(relay.stop()));
  const addresses = relay.getMultiaddrs().map((address) => address.toString().replace(/\/p2p\/[^/]*$/, ''));
  return { contact: { peer: relay.peerId.toString() as Contact['peer'], addresses }, seen };
}

describe('a relay', () => {
  test('sees only ciphertext of what passes through it', async ({ expect }) => {
    const spy = await startSpy();
    const [hidden, far] = [await startHidden(), await start()];
    await reserve(hidden, spy.contact);
    const circuit = await connect(far, contactOf(hidden));
    const replies: Omit<Started, 'network'> = { frames: [], channels: [], ends: [] };
    const channel = listen(replies, await circuit.open(PROTOCOL, never));
    const secret = 'a prompt that is none of the relay’s business';
    const text = new TextEncoder().encode(secret.repeat(200));
    channel.send(text.slice());
    await untilTrue(() => hidden.frames.length === 1);
    hidden.channels[0]?.send(text.slice());
    await untilTrue(() => replies.frames.length === 1);
    expect([circuit.path, Buffer.compare(hidden.frames[0] as Uint8Array, text)]).toEqual(['relayed', 0]);
    const passed = Buffer.concat(spy.seen);
    expect(passed.length).toBeGreaterThan(2 * text.length);
    // The agreement on noise comes before it, in the clear: the relay does see what it passes.
    expect(passed.includes('/noise')).toBe(true);
    for (const word of ['prompt', 'business', PROTOCOL, '/yamux/1.0.0']) expect(passed.includes(word)).toBe(false);
  });

  test('passes on more than libp2p would let it by itself', async ({ expect }) => {
    const [relay, hidden, far] = [await startRelay(), await startHidden(), await start()];
    await reserve(hidden, contactOf(relay));
    const channel = await (await connect(far, contactOf(hidden))).open(PROTOCOL, never);
    for (let sent = 0; sent < 32; sent += 1) channel.send(new Uint8Array(60_000).fill(sent));
    await untilTrue(() => hidden.frames.length === 32);
    expect(hidden.frames.every((frame, at) => frame.length === 60_000 && frame[0] === at)).toBe(true);
  });

  test('cuts who sends more through it than a peer may', async ({ expect }) => {
    const [relay, hidden, far] = [await startRelay({ relayBurstBytes: 100_000 }), await startHidden(), await start()];
    await reserve(hidden, contactOf(relay));
    const circuit = await connect(far, contactOf(hidden));
    const channel = await circuit.open(PROTOCOL, never);
    // The bucket fills again while it runs: well beyond both.
    for (let sent = 0; sent < 500; sent += 1) channel.send(new Uint8Array(60_000));
    await untilTrue(() => !circuit.isOpen);
    expect(hidden.frames.length).toBeLessThan(500);
    const direct = far.network.connections().map(({ peer, path }) => [peer, path]);
    expect(direct).toEqual([[relay.network.self, 'direct']]);
  });

  test('passes on so many connections of one peer, and no more', async ({ expect }) => {
    const [relay, hidden] = [await startRelay(), await startHidden()];
    await reserve(hidden, contactOf(relay));
    const raw = await openRaw(nextSeed(), undefined, { transports: [circuitRelayTransport()] });
    closers.push(() => Promise.resolve(raw.stop()));
    const targets = hidden.network.addresses().map((address) => multiaddr(`${address}/p2p/${hidden.network.self}`));
    const circuits: Libp2pConnection[] = [];
    for (let made = 0; made < limits.relayCircuitsPerPeerMax; made += 1) {
      circuits.push(await raw.dial(targets, { force: true }));
    }
    await expect(raw.dial(targets, { force: true })).rejects.toThrow();
    await circuits[0]?.close();
    await untilTrue(() => hidden.network.connections().length === limits.relayCircuitsPerPeerMax);
    await expect(raw.dial(targets, { force: true })).resolves.toBeDefined();
  });

  test('is not used by Kademlia, which finds by it who provides something behind it', async ({ expect }) => {
    const [relay, hidden, far] = [await startRelay(), await startHidden(), await start()];
    const key = modelKey('ab'.repeat(32));
    hidden.network.directory.provide(key);
    await reserve(hidden, contactOf(relay));
    await connect(far, contactOf(relay));
    const search = async (wanted: string): Promise<readonly Contact[]> => {
      const found: Contact[] = [];
      for await (const contact of far.network.directory.find(wanted, never)) found.push(contact);
      return found;
    };
    let found: readonly Contact[] = [];
    while (found.length === 0) found = await search(key);
    expect(found).toEqual([contactOf(hidden)]);
    // Nobody provides these: whoever can be asked is.
    for (let round = 10; round < 40; round += 1) {
      expect(await search(modelKey(String(round).repeat(32)))).toEqual([]);
      await far.network.directory.getAdvert(hidden.network.self, never);
    }
    expect(far.network.connections().map(({ peer }) => peer)).toEqual([relay.network.self]);
  });
});

describe('a stranger', () => {
  test('reserves nothing at a relay, and reaches nobody through it', async ({ expect }) => {
    const relay = await start({ relayReservationsMax: 8 }, false);
    const raw = await openRaw(nextSeed(), undefined, { transports: [circuitRelayTransport()] });
    closers.push(() => Promise.resolve(raw.stop()));
    const connection = await dialRaw(raw, relay.network);
    const stream = await connection.newStream(RELAY_V2_HOP_CODEC);
    const answer = bytesOf(stream);
    stream.send(Uint8Array.of(2, 8, 0));
    expect((await answer).length).toBe(0);
    const [address = ''] = relay.network.addresses();
    const target = multiaddr(
      `${address}/p2p/${relay.network.self}/p2p-circuit/p2p/${(await startHidden()).network.self}`,
    );
    await expect(raw.dial(target)).rejects.toThrow();
  });

  test('opens no circuit to a peer by playing its relay, and neither does a member that it has not reserved with', async ({
    expect,
  }) => {
    for (const admits of [false, true]) {
      const target = await start({}, admits);
      const raw = await openRaw();
      closers.push(() => Promise.resolve(raw.stop()));
      const connection = await dialRaw(raw, target.network);
      const stream = await connection.newStream(RELAY_V2_STOP_CODEC);
      const answer = bytesOf(stream);
      const id = raw.peerId.toMultihash().bytes;
      stream.send(Uint8Array.of(id.length + 6, 8, 0, 0x12, id.length + 2, 0x0a, id.length, ...id));
      const over = stream.close();
      // To a member: STATUS, PERMISSION_DENIED.
      expect(Buffer.from(await answer).toString('hex')).toBe(admits ? '05080120ca01' : '');
      await over;
      expect(target.network.connections().every(({ path }) => path === 'direct')).toBe(true);
    }
  });
});
