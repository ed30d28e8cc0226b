/** Who gets past the hello, who does not, and that it always ends. */

import fc from 'fast-check';
import { afterEach, beforeEach, describe, test } from 'vitest';
import { encodeValue } from '../../protocol/codec.ts';
import type { HelixFlowError } from '../../protocol/errors.ts';
import type { Credentials, Membership } from '../../protocol/grants.ts';
import type { MeshId, ProcessId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import {
  type HelloFrame as AnyFrame,
  encodeHelloFrame,
  HELLO_PROTOCOL,
  type Hello as HelloFrame,
  ourLimits,
  parseHelloFrame,
} from '../../protocol/messages/hello.ts';
import { createHello, type Hello, type HelloOptions, type PeerInfo } from '../../protocol/peer/hello.ts';
import type { Channel, Connection } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { Hub, type MemoryConnection, type MemoryNetwork, until } from './memory-network.ts';
import { credentialsFor, newMesh, owner, peer, quietLog, startMs, tokens } from './mesh-fixture.ts';

const mesh = await newMesh('ours');
const theirMesh = await newMesh('theirs');
const a = peer('Alice');
const b = peer('Bert');

let clock: ManualClock;
let hub: Hub;

beforeEach(() => {
  clock = new ManualClock();
  hub = new Hub();
});

afterEach(async ({ expect }) => {
  for (const network of hub.peers.values()) await network.close();
  await until(() => [...hub.peers.values()].every((network) => network.open.size === 0));
  await clock.turn();
  expect(clock.timers).toBe(0);
});

interface Side {
  readonly network: MemoryNetwork;
  readonly hello: Hello;
  readonly admitted: [Connection, PeerInfo][];
  readonly refused: string[];
}

const process = (digit: string): ProcessId => digit.repeat(32) as ProcessId;

async function member(self: typeof a, options: Partial<HelloOptions> = {}): Promise<Side> {
  const network = hub.join(self);
  const credentials = await credentialsFor(mesh, self);
  const admitted: Side['admitted'] = [];
  const refused: string[] = [];
  const hello = createHello(
    { network, clock, tokens, log: quietLog },
    { meshId: mesh.mesh.meshId, process: process('1'), credentials: () => credentials, ...options },
    {
      admitted: (connection, info) => admitted.push([connection, info]),
      refused: (_, error: HelixFlowError) => refused.push(error.code),
    },
  );
  return { network, hello, admitted, refused };
}

const dial = (from: Side | { network: MemoryNetwork }, to: typeof a): Promise<MemoryConnection> =>
  from.network.connect(to, [], new AbortController().signal);

const allClosed = (): boolean => [...hub.peers.values()].every((network) => network.open.size === 0);

/** A peer that speaks the hello by hand. */
interface Puppet {
  readonly connection: MemoryConnection;
  readonly channel: Channel;
  readonly got: (AnyFrame | undefined)[];
  send(...frames: (AnyFrame | Uint8Array)[]): void;
}

async function puppet(to: typeof a): Promise<Puppet> {
  const network = hub.join(b);
  const connection = await dial({ network }, to);
  const channel = await connection.open(HELLO_PROTOCOL, new AbortController().signal);
  const got: (AnyFrame | undefined)[] = [];
  channel.receive({ frame: (bytes) => got.push(parseHelloFrame(bytes)), closed: () => {}, drained: () => {} });
  const send = (...frames: (AnyFrame | Uint8Array)[]): void => {
    for (const frame of frames) channel.send(frame instanceof Uint8Array ? frame : encodeHelloFrame(frame));
  };
  return { connection, channel, got, send };
}

const goodHello = async (credentials?: Credentials): Promise<HelloFrame> => ({
  type: 'hello',
  versions: { min: 1, max: 1 },
  process: process('2'),
  credentials: credentials ?? (await credentialsFor(mesh, b)),
  features: [],
  limits: new Map(Object.entries(ourLimits)),
  addresses: [],
});

describe('two members', () => {
  test('admit each other, and each learns who the other is', async ({ expect }) => {
    const alice = await member(a, { features: ['zip', 'old'] });
    const bert = await member(b, { process: process('2'), features: ['zip', 'new'] });
    const connection = await dial(alice, b);
    await until(() => alice.admitted.length === 1 && bert.admitted.length === 1);
    expect([connection.isAdmitted, connection.other.isAdmitted]).toEqual([true, true]);
    const info = alice.hello.infoOf(connection);
    expect(info).toBe(alice.admitted[0]?.[1]);
    expect(info).toEqual({
      membership: {
        meshId: mesh.mesh.meshId,
        issuer: expect.any(String),
        peer: b,
        role: 'node',
        owner,
        expiresMs: startMs + 86_400_000,
      },
      process: process('2'),
      version: 1,
      features: new Set(['zip']),
      limits: ourLimits,
      addresses: [`/memory/${b}`],
    });
    expect(bert.hello.infoOf(connection.other)?.process).toBe(process('1'));
  });

  test('who dial each other at once get two admitted connections', async ({ expect }) => {
    const [alice, bert] = [await member(a), await member(b)];
    await Promise.all([dial(alice, b), dial(bert, a), dial(alice, b)]);
    await until(() => alice.admitted.length === 3 && bert.admitted.length === 3);
    expect([alice.refused, bert.refused]).toEqual([[], []]);
  });

  test('know each other before anything else is answered', async ({ expect }) => {
    const [alice, bert] = [await member(a), await member(b)];
    const known: unknown[] = [];
    bert.network.handle('/other/1', { beforeAdmission: false, frameMaxBytes: 1 }, (channel) =>
      known.push(bert.hello.infoOf(channel.connection)?.membership.peer),
    );
    const connection = await dial(alice, b);
    await connection.open('/other/1', new AbortController().signal);
    await until(() => known.length === 1);
    expect(known).toEqual([a]);
  });

  test('are parted when the membership of one ends, and not before', async ({ expect }) => {
    const credentials = await credentialsFor(mesh, a, { expiresMs: unixMs(startMs + 7_200_000) });
    const [alice, bert] = [await member(a, { credentials: () => credentials }), await member(b)];
    const connection = await dial(alice, b);
    await until(() => alice.admitted.length === 1 && bert.admitted.length === 1);
    await clock.advance(7_199_000);
    expect(connection.isOpen).toBe(true);
    await clock.advance(1_000);
    expect(connection.isOpen).toBe(false);
    expect(bert.hello.infoOf(connection.other)).toBeUndefined();
  });
});

describe('no member', () => {
  const refusals: Record<string, () => Promise<Credentials>> = {
    'of another mesh': () => credentialsFor(theirMesh, b),
    'whose membership has expired': () => credentialsFor(mesh, b, { expiresMs: startMs }),
    'with the membership of another peer': () => credentialsFor(mesh, peer('Carol')),
    'with the root of our mesh and a membership of its own making': async () => ({
      ...(await credentialsFor(theirMesh, b)),
      rootPublicKey: mesh.mesh.rootPublicKey,
    }),
    'with garbage for tokens': async () => ({
      rootPublicKey: mesh.mesh.rootPublicKey,
      certificate: 'x',
      membership: '',
    }),
  };
  for (const [who, make] of Object.entries(refusals)) {
    test(`${who} is refused, is told why, and is gone`, async ({ expect }) => {
      const credentials = await make();
      const [alice, bert] = [await member(a), await member(b, { credentials: () => credentials })];
      await dial(bert, a);
      await until(allClosed);
      expect([alice.admitted, bert.admitted]).toEqual([[], []]);
      expect([alice.refused, bert.refused]).toEqual([['MEMBERSHIP_INVALID'], ['HELLO_REFUSED']]);
    });
  }

  test('whom the gate turns away gets in, whatever its signatures', async ({ expect }) => {
    const seen: Membership[] = [];
    const isMember = (membership: Membership): boolean => seen.push(membership) === 0;
    const [alice, bert] = [await member(a, { isMember }), await member(b)];
    await dial(bert, a);
    await until(allClosed);
    expect(seen.map((membership) => membership.peer)).toEqual([b]);
    expect([alice.refused, bert.refused]).toEqual([['MEMBERSHIP_INVALID'], ['HELLO_REFUSED']]);
  });

  test('gets in at a peer that is itself no member yet', async ({ expect }) => {
    const [alice, bert] = [await member(a, { credentials: () => undefined }), await member(b)];
    await dial(bert, a);
    await until(allClosed);
    expect([alice.admitted, bert.admitted]).toEqual([[], []]);
  });

  test('gets in at a peer that runs no hello', async ({ expect }) => {
    const alice = await member(a);
    hub.join(b);
    await dial(alice, b);
    await until(allClosed);
    expect(alice.refused).toEqual(['CHANNEL_CLOSED']);
  });
});

describe('a peer that does not keep to the hello', () => {
  test('is closed after three seconds of silence on the connection', async ({ expect }) => {
    const alice = await member(a);
    const connection = await dial({ network: hub.join(b) }, a);
    await clock.advance(limits.helloTimeoutMs - 1);
    expect(connection.isOpen).toBe(true);
    await clock.advance(1);
    expect(connection.isOpen).toBe(false);
    expect(alice.refused).toEqual(['HELLO_TIMEOUT']);
  });

  test('is closed after three seconds of silence in the hello, and after an accept that never comes', async ({
    expect,
  }) => {
    const alice = await member(a);
    const silent = await puppet(a);
    await clock.advance(limits.helloTimeoutMs);
    await until(() => silent.got.length === 2);
    expect(silent.got[1]).toMatchObject({ type: 'refuse', code: 'HELLO_TIMEOUT' });
    await clock.advance(1_000);
    expect(silent.connection.isOpen).toBe(false);

    const half = await puppet(a);
    half.send(await goodHello());
    await until(() => half.got.length === 2);
    expect(half.got[1]).toEqual({ type: 'accept' });
    expect(half.connection.other.isAdmitted).toBe(false);
    await clock.advance(limits.helloTimeoutMs + 1_000);
    expect(half.connection.isOpen).toBe(false);
    expect(alice.refused).toEqual(['HELLO_TIMEOUT', 'HELLO_TIMEOUT']);
    expect(alice.admitted).toEqual([]);
  });

  test('is told that no version fits, on both sides alike', async ({ expect }) => {
    const alice = await member(a);
    const newer = await puppet(a);
    newer.send({ ...(await goodHello()), versions: { min: 2, max: 9 } });
    await until(() => newer.got.length === 2);
    expect(newer.got[1]).toMatchObject({ type: 'refuse', code: 'VERSION_UNSUPPORTED' });
    await clock.advance(1_000);
    expect(newer.connection.isOpen).toBe(false);
    expect(alice.refused).toEqual(['VERSION_UNSUPPORTED']);
  });

  test('agrees with a newer peer on what both know', async ({ expect }) => {
    const alice = await member(a, { features: ['zip'] });
    const newer = await puppet(a);
    const hello = await goodHello();
    const offered = new Map([...hello.limits, ['frameMaxBytes', 4_096], ['creditInitialBytes', 2 ** 40], ['new', 7]]);
    newer.send({ ...hello, versions: { min: 1, max: 3 }, limits: offered, features: ['zip', 'zap'] });
    newer.send(encodeValue([9, 'a frame of a later version']), { type: 'accept' });
    await until(() => alice.admitted.length === 1);
    expect(alice.admitted[0]?.[1]).toMatchObject({
      version: 1,
      features: new Set(['zip']),
      limits: { ...ourLimits, frameMaxBytes: 4_096 },
    });
  });

  test('is closed for each thing out of place', async ({ expect }) => {
    const alice = await member(a);
    const hello = await goodHello();
    const accept = { type: 'accept' } as const;
    const wrong: Record<string, (AnyFrame | Uint8Array)[]> = {
      'garbage first': [new Uint8Array([1, 2, 3])],
      'nothing in a frame': [new Uint8Array(0)],
      'an accept first': [accept],
      'a second hello': [hello, hello],
      'a second accept': [hello, accept, accept],
      'garbage after the hello': [hello, new Uint8Array([0xff])],
      'a flood of unknown frames': Array.from({ length: 9 }, () => encodeValue([9])),
      'too many addresses': [{ ...hello, addresses: ['1', '2', '3', '4', '5'] }],
      'a limit of nothing': [{ ...hello, limits: new Map([['frameMaxBytes', 0]]) }],
      'versions upside down': [{ ...hello, versions: { min: 2, max: 1 } }],
    };
    for (const [what, frames] of Object.entries(wrong)) {
      const rude = await puppet(a);
      rude.send(...frames);
      await until(() => alice.refused.length > 0);
      await clock.advance(1_000);
      expect(rude.connection.isOpen, what).toBe(false);
      expect(alice.refused.splice(0), what).toEqual([expect.stringMatching(/^(FRAME_MALFORMED|PROTOCOL_VIOLATION)$/)]);
    }
    expect(alice.admitted).toEqual([]);
  });

  test('is closed for anything that it says after the hello', async ({ expect }) => {
    const alice = await member(a);
    const rude = await puppet(a);
    rude.send(await goodHello(), { type: 'accept' });
    await until(() => alice.admitted.length === 1);
    expect(rude.connection.isOpen).toBe(true);
    rude.send(await goodHello());
    await until(() => !rude.connection.isOpen);
  });

  test('is closed for a second hello channel, before and after admission', async ({ expect }) => {
    const alice = await member(a);
    const eager = await puppet(a);
    await eager.connection.open(HELLO_PROTOCOL, new AbortController().signal);
    await until(() => alice.refused.length === 1);
    await clock.advance(1_000);
    expect(eager.connection.isOpen).toBe(false);

    const bert = await member(b);
    const connection = await dial(bert, a);
    await until(() => alice.admitted.length === 1 && bert.admitted.length === 1);
    await connection.open(HELLO_PROTOCOL, new AbortController().signal);
    await until(() => !connection.isOpen);
    expect(alice.refused).toEqual(['PROTOCOL_VIOLATION']);
  });

  test('is closed when it opens a hello on a connection that we dialled', async ({ expect }) => {
    const alice = await member(a);
    const network = hub.join(b);
    network.handle(HELLO_PROTOCOL, { beforeAdmission: true, frameMaxBytes: 1 }, () => {});
    const connection = await dial(alice, b);
    await connection.other.open(HELLO_PROTOCOL, new AbortController().signal);
    await until(() => alice.refused.length === 1);
    await clock.advance(1_000);
    expect(connection.isOpen).toBe(false);
  });

  test('is closed when it ends the hello early, at any step', async ({ expect }) => {
    const alice = await member(a);
    for (const frames of [[], [await goodHello()]]) {
      const hasty = await puppet(a);
      hasty.send(...frames);
      hasty.channel.abort({ code: 'CHANNEL_CLOSED' } as HelixFlowError);
      await until(() => alice.refused.length === 1);
      await clock.advance(1_000);
      expect(hasty.connection.isOpen).toBe(false);
      expect(alice.refused.splice(0)).toEqual(['CHANNEL_CLOSED']);
    }
  });

  test('never gets in with any bytes whatever, at any step', async ({ expect }) => {
    const alice = await member(a);
    const hello = encodeHelloFrame(await goodHello());
    const changed = fc
      .tuple(fc.nat(hello.length - 1), fc.integer({ min: 1, max: 255 }))
      .map(([at, by]) => hello.map((byte, index) => (index === at ? byte ^ by : byte)));
    const frame = fc.oneof(fc.uint8Array({ maxLength: 200 }), changed);
    await fc.assert(
      fc.asyncProperty(fc.array(frame, { minLength: 1, maxLength: 4 }), async (frames) => {
        const rude = await puppet(a);
        rude.send(...frames);
        await until(() => rude.got.length > 1);
        await clock.advance(limits.helloTimeoutMs + 1_000);
        expect(rude.connection.isOpen).toBe(false);
      }),
      { numRuns: 60 },
    );
    expect(alice.admitted).toEqual([]);
  });
});

describe('the frames', () => {
  test('come back from their bytes', ({ expect }) => {
    const label = fc.string({ maxLength: 64 });
    const hello = fc.record({
      type: fc.constant('hello' as const),
      versions: fc.integer({ min: 1, max: 9 }).map((min) => ({ min, max: min + 1 })),
      process: fc.constant(process('3')),
      credentials: fc.record({
        rootPublicKey: fc.uint8Array({ minLength: 32, maxLength: 32 }),
        certificate: fc.string({ maxLength: 500 }),
        membership: fc.string({ maxLength: 500 }),
      }),
      features: fc.array(label, { maxLength: 5 }),
      limits: fc.dictionary(label, fc.integer({ min: 1 })).map((record) => new Map(Object.entries(record))),
      addresses: fc.array(label, { maxLength: 4 }),
    });
    fc.assert(
      fc.property(hello, (frame) => {
        expect(parseHelloFrame(encodeHelloFrame(frame))).toEqual(frame);
      }),
    );
    const refuse = { type: 'refuse', code: 'HELLO_TIMEOUT', reason: 'late' } as const;
    expect(parseHelloFrame(encodeHelloFrame(refuse))).toEqual(refuse);
  });

  test('carry nothing that a terminal would obey, and no code that is unknown', ({ expect }) => {
    const bytes = encodeValue([2, 'NEWER_CODE', 'a\u001b[31mb\nc']);
    expect(parseHelloFrame(bytes)).toEqual({ type: 'refuse', code: 'HELLO_REFUSED', reason: 'a?[31mb?c' });
  });

  test('may have further positions', async ({ expect }) => {
    const { meshId } = mesh.mesh satisfies { meshId: MeshId };
    expect(parseHelloFrame(encodeValue([1, meshId, 7]))).toEqual({ type: 'accept' });
  });

  test('fit the largest hello that is likely: full tokens and addresses', async ({ expect }) => {
    const hello = await goodHello();
    const addresses = Array.from({ length: limits.peerAddressesMax }, () => 'x'.repeat(limits.addressMaxChars));
    expect(encodeHelloFrame({ ...hello, addresses }).length).toBeLessThan(limits.helloMaxBytes / 2);
  });
});
