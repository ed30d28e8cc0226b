/** A whole gateway on real libp2p, and raw peers before it: nobody but a member gets anything out of any protocol. */

import { RELAY_V2_HOP_CODEC, RELAY_V2_STOP_CODEC } from '@libp2p/circuit-relay-v2';
import type { Connection } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import { sha256 } from 'multiformats/hashes/sha2';
import { afterEach, describe, test } from 'vitest';
import { createGatewayPeer, type GatewayPeer } from '../../gateway/peer.ts';
import { systemClock } from '../../protocol/adapters/clock.ts';
import { kadProtocol } from '../../protocol/adapters/libp2p/kad-service.ts';
import type { Libp2pNetwork } from '../../protocol/adapters/network-libp2p.ts';
import { systemRandom } from '../../protocol/adapters/random.ts';
import { encodeValue } from '../../protocol/codec.ts';
import { keyFromSeed } from '../../protocol/crypto.ts';
import { type Credentials, issuerIdOf, signCertificate } from '../../protocol/grants.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { createIdentity, createMesh, issueCredentials, type NewMesh } from '../../protocol/mesh.ts';
import { ADMIT_PROTOCOL, parseAdmitFrame } from '../../protocol/messages/admit.ts';
import { HELLO_PROTOCOL, parseHelloFrame } from '../../protocol/messages/hello.ts';
import { LEASE_PROTOCOL } from '../../protocol/messages/lease.ts';
import { LEDGER_PROTOCOL } from '../../protocol/messages/ledger.ts';
import { REACH_PROTOCOL } from '../../protocol/messages/reach.ts';
import { SESSION_PROTOCOL } from '../../protocol/messages/session.ts';
import { createRoots } from '../../protocol/peer/create-roots.ts';
import { peerIdFromSeed } from '../../protocol/peer/identity.ts';
import type { Roots } from '../../protocol/peer/roots.ts';
import { signRevocation } from '../../protocol/root-tokens.ts';
import { encodeFrames, FrameDecoder } from '../../protocol/session/framing.ts';
import { unixMs } from '../../protocol/units.ts';
import { credentialsFor, tokens } from '../protocol/mesh-fixture.ts';
import { nextSeed, openNetwork, silentLog, untilTrue } from '../support/libp2p-world.ts';
import { MemoryStore } from '../support/memory-store.ts';
import { bytesOf, sayHello } from '../support/raw-hello.ts';
import { dialRaw, openRaw, type RawPeer, tableSize } from '../support/raw-libp2p.ts';

const clock = systemClock();
const random = systemRandom();
const never = new AbortController().signal;
const mesh = await createMesh({ tokens, random, clock }, { name: 'ours', network: 'lan' });
const other = await createMesh({ tokens, random, clock }, { name: 'theirs', network: 'lan' });
const { meshId, rootPublicKey } = mesh.mesh;
const later = unixMs(clock.wallMs() + 86_400_000);

const closers: (() => Promise<unknown> | undefined)[] = [];
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});

interface Started extends GatewayPeer {
  readonly network: Libp2pNetwork;
  readonly roots: Roots;
  readonly store: MemoryStore;
}

async function startGateway(): Promise<Started> {
  const seed = nextSeed();
  const network = await openNetwork({ seed, meshId, relayReservationsMax: 8 });
  const roots = createRoots({ tokens }, { meshId, rootPublicKey });
  await roots.take({ kind: 'issuer', token: mesh.issuer.certificate });
  const store = new MemoryStore();
  const grant = { peer: network.self, role: 'gateway', owner: 'us' as never } as const;
  const credentials = await issueCredentials(mesh, grant, { tokens, nowMs: clock.wallMs() });
  const peer = createGatewayPeer(
    { clock, random, network, directory: network.directory, store, tokens, log: silentLog },
    {
      meshId,
      key: keyFromSeed(seed),
      credentials: () => credentials,
      bootstrap: [],
      callsMax: 10,
      roots,
      issuer: mesh.issuer,
      admission: { mesh: mesh.mesh },
    },
  );
  const gateway = { ...peer, network, roots, store };
  await peer.start();
  closers.push(() => peer.close());
  // An issuer that others may know first asks them what it wrote before; one that is alone has nobody to ask.
  await ban(gateway, peerIdFromSeed(nextSeed()));
  return gateway;
}

async function startRaw(seed = nextSeed()): Promise<RawPeer> {
  const peer = await openRaw(seed, meshId);
  closers.push(() => Promise.resolve(peer.stop()));
  return peer;
}

/** A raw peer that has said hello as a member: as a gateway, since a node without sessions is let go. */
async function startMember({ network }: Started) {
  const seed = nextSeed();
  const peer = await startRaw(seed);
  const connection = await dialRaw(peer, network);
  const credentials = await credentialsFor(mesh, peerIdFromSeed(seed), { role: 'gateway', expiresMs: later });
  const got = await sayHello(connection, credentials);
  return { peer, connection, got, self: peerIdFromSeed(seed) };
}

/** An issuer of our mesh that the root took back. */
async function fallenIssuer(roots: Roots): Promise<NewMesh> {
  const key = createIdentity(random);
  const grant = { meshId, issuer: issuerIdOf(key.publicKey), publicKey: key.publicKey };
  const signing = { tokens, nowMs: clock.wallMs() };
  const certificate = await signCertificate(grant, mesh.root.key, signing);
  await roots.take({ kind: 'revocation', token: await signRevocation(grant, mesh.root.key, signing) });
  return { ...mesh, issuer: { meshId, key, certificate } };
}

const ban = async ({ ledger }: Started, peer: PeerId): Promise<void> => {
  await ledger.append('issuer', [{ kind: 'ban', peer, ban: Buffer.from(random.bytes(16)).toString('hex') }]);
};

/** What each kind of stranger shows in its hello; undefined says nothing. */
type Shows = (gateway: Started, self: PeerId) => Promise<Credentials | undefined>;
const strangers: Record<string, Shows> = {
  'without a membership': async () => undefined,
  'whose membership has expired': (_, self) =>
    credentialsFor(mesh, self, { expiresMs: unixMs(clock.wallMs() - 1_000) }),
  'of another mesh': (_, self) => credentialsFor(other, self, { expiresMs: later }),
  'with the membership of somebody else': () =>
    credentialsFor(mesh, peerIdFromSeed(nextSeed()), { role: 'gateway', expiresMs: later }),
  'of an issuer that was taken back': async ({ roots }, self) =>
    credentialsFor(await fallenIssuer(roots), self, { expiresMs: later }),
  'that is banned': async (gateway, self) => {
    await ban(gateway, self);
    return credentialsFor(mesh, self, { role: 'gateway', expiresMs: later });
  },
};

/** A request that a member would be answered, where there is one; what the peer makes of it, it may not tell. */
const requestOf = (protocol: string): Uint8Array => {
  // Kademlia's PING; its messages are protobufs behind their length.
  if (protocol.endsWith('/kad/1')) return Uint8Array.of(2, 8, 5);
  // A relay's RESERVE; to who has reserved, a CONNECT.
  if (protocol === RELAY_V2_HOP_CODEC || protocol === RELAY_V2_STOP_CODEC) return Uint8Array.of(2, 8, 0);
  if (protocol.startsWith('/helixflow/')) return encodeFrames([encodeValue([0, 'x'])]);
  return new Uint8Array(32).fill(7);
};

/** Frames in what came back; anything else stands for itself. */
function framesIn(bytes: Uint8Array, read: (frame: Uint8Array) => { readonly type: string } | undefined): string[] {
  const types: string[] = [];
  new FrameDecoder(65_536).push(bytes, (frame) => types.push(read(frame)?.type ?? 'unknown'));
  return types;
}

/** What a protocol gave away: nothing, but for the refusals that the two open ones may give. */
function givenAway(protocol: string, bytes: Uint8Array): string {
  if (protocol === HELLO_PROTOCOL)
    return framesIn(bytes, parseHelloFrame)
      .filter((type) => type !== 'refuse')
      .join();
  if (protocol === ADMIT_PROTOCOL)
    return framesIn(bytes, parseAdmitFrame)
      .filter((type) => type !== 'refuse')
      .join();
  return Buffer.from(bytes).toString('hex');
}

/** A stream of `protocol` with a request on it; all that came back until it closed. */
async function ask(connection: Awaited<ReturnType<typeof dialRaw>>, protocol: string): Promise<string> {
  try {
    const stream = await connection.newStream(protocol);
    const bytes = bytesOf(stream);
    if (stream.status === 'open') stream.send(requestOf(protocol));
    return givenAway(protocol, await bytes);
  } catch (error) {
    // libp2p's own errors: the connection, or the stream, was gone before it could be used.
    if (error instanceof Error) return '';
    throw error;
  }
}

const cidOf = async (text: string): Promise<CID> =>
  CID.createV1(raw.code, await sha256.digest(new TextEncoder().encode(text)));

/** Every peer that Kademlia named in `events`, or that only `by` did. */
async function namedIn(events: AsyncIterable<object>, by?: PeerId): Promise<readonly string[]> {
  const named: string[] = [];
  try {
    for await (const event of events) {
      if (by !== undefined && (!('from' in event) || String(event.from) !== by)) continue;
      if ('closer' in event) for (const { id } of event.closer as { id: object }[]) named.push(String(id));
      if ('providers' in event) for (const { id } of event.providers as { id: object }[]) named.push(String(id));
    }
  } catch (error) {
    if (!(error instanceof Error)) throw error;
  }
  return named;
}

/** What identify has told a peer of the gateway. */
async function protocolsOf(peer: RawPeer, { network }: Started): Promise<readonly string[]> {
  const { protocols } = await peer.peerStore.get(peerIdFromString(network.self));
  return protocols;
}

test('a member learns of every protocol, and those are the ones that are written down', async ({ expect }) => {
  const gateway = await startGateway();
  const member = await startMember(gateway);
  expect(member.got.map(({ type }) => type)).toEqual(['hello', 'accept']);
  await untilTrue(() => gateway.network.directory.size() === 1 && tableSize(member.peer) === 1);
  expect([...(await protocolsOf(member.peer, gateway))].sort()).toEqual(
    [
      HELLO_PROTOCOL,
      ADMIT_PROTOCOL,
      SESSION_PROTOCOL,
      LEDGER_PROTOCOL,
      LEASE_PROTOCOL,
      REACH_PROTOCOL,
      kadProtocol(meshId),
      RELAY_V2_HOP_CODEC,
      RELAY_V2_STOP_CODEC,
      '/ipfs/id/1.0.0',
      '/ipfs/ping/1.0.0',
    ].sort(),
  );
});

describe('a stranger', () => {
  for (const [kind, shows] of Object.entries(strangers)) {
    test(`${kind} gets nothing out of any protocol, no stream, no place in a table, and is not spoken of`, async ({
      expect,
    }) => {
      const gateway = await startGateway();
      const { network } = gateway;
      const member = await startMember(gateway);
      await untilTrue(() => network.directory.size() === 1 && tableSize(member.peer) === 1);
      const protocols = await protocolsOf(member.peer, gateway);

      const seed = nextSeed();
      const self = peerIdFromSeed(seed);
      const stranger = await startRaw(seed);
      const credentials = await shows(gateway, self);
      const cid = await cidOf(kind);
      // On its own connection each, since a refused hello, and a bad request of the open protocols, end theirs.
      const connections: Connection[] = [];
      const addresses = network.addresses().map((address) => multiaddr(`${address}/p2p/${network.self}`));
      for (const _ of protocols) connections.push(await stranger.dial(addresses, { force: true }));
      const startMs = clock.nowMs();
      const results = await Promise.all(
        connections.map(async (connection, index) => {
          const protocol = protocols[index] ?? '';
          const got = ask(connection, protocol);
          const told = credentials && protocol !== HELLO_PROTOCOL ? await sayHello(connection, credentials) : [];
          return [protocol, await got, told.map(({ type }) => type).filter((type) => type !== 'refuse')];
        }),
      );
      // Whoever says nothing is given the time of a hello; all others are gone as soon as they have read why.
      if (credentials === undefined) expect(clock.nowMs() - startMs).toBeGreaterThan(limits.helloTimeoutMs - 500);
      expect(results).toEqual(protocols.map((protocol) => [protocol, '', []]));
      const provided = stranger.services.kad.provide(cid, { signal: AbortSignal.timeout(500) });
      expect(await namedIn(provided)).toEqual([]);
      const { metadata } = await stranger.peerStore.get(peerIdFromString(network.self));
      expect(metadata.has('AgentVersion')).toBe(false);

      expect([network.directory.size(), tableSize(stranger)]).toEqual([1, 0]);
      const asked = [
        ...(await namedIn(member.peer.services.kad.findProviders(cid, { signal: never }))),
        ...(await namedIn(member.peer.services.kad.findPeer(stranger.peerId, { signal: never }))),
        ...(await namedIn(member.peer.services.kad.getClosestPeers(stranger.peerId.toMultihash().bytes))),
      ];
      expect(asked).not.toContain(self);
      expect(gateway.member.discovery.known().map(({ peer }) => peer)).toEqual([member.self]);
      expect(gateway.member.admitted().map(([{ peer }]) => peer)).toEqual([member.self]);
      expect(await gateway.store.get(Buffer.from(`peer/${self}`))).toBeUndefined();
      await untilTrue(() => network.connections().length === 1);
    });
  }
});

describe('a member that is banned while it is connected', () => {
  test('loses connection, streams and place in the table at once, and does not come back', async ({ expect }) => {
    const gateway = await startGateway();
    const [bad, good] = [await startMember(gateway), await startMember(gateway)];
    await untilTrue(() => gateway.network.directory.size() === 2 && tableSize(bad.peer) >= 1);
    // Streams that it never closes, and goes on writing to.
    const streams = await Promise.all(
      [kadProtocol(meshId), LEDGER_PROTOCOL, SESSION_PROTOCOL].map((protocol) => bad.connection.newStream(protocol)),
    );
    await ban(gateway, bad.self);
    const bannedMs = clock.nowMs();
    await untilTrue(() => bad.connection.status !== 'open' && streams.every(({ status }) => status !== 'open'));
    expect(clock.nowMs() - bannedMs).toBeLessThan(1_000);
    await untilTrue(() => gateway.network.directory.size() === 1);
    expect(gateway.member.admitted().map(([{ peer }]) => peer)).toEqual([good.self]);
    expect(gateway.member.discovery.known().map(({ peer }) => peer)).toEqual([good.self]);

    const again = await dialRaw(bad.peer, gateway.network);
    const got = await sayHello(again, await credentialsFor(mesh, bad.self, { role: 'gateway', expiresMs: later }));
    expect(got).toEqual([{ type: 'refuse', code: 'MEMBERSHIP_INVALID', reason: 'it was taken back' }]);
    await untilTrue(() => again.status !== 'open');
    expect([good.connection.status, gateway.network.directory.size()]).toEqual(['open', 1]);
  });

  test('is named by no answer of the gateway any more', async ({ expect }) => {
    const gateway = await startGateway();
    const [bad, good] = [await startMember(gateway), await startMember(gateway)];
    await untilTrue(() => gateway.network.directory.size() === 2 && tableSize(good.peer) >= 1);
    const { kad } = good.peer.services;
    const gatewayId = gateway.network.self;
    const closest = (): Promise<readonly string[]> =>
      namedIn(kad.getClosestPeers(bad.peer.peerId.toMultihash().bytes, { signal: never }), gatewayId);
    const cid = await cidOf('a model');
    await namedIn(bad.peer.services.kad.provide(cid, { signal: never }));
    const providers = (): Promise<readonly string[]> => namedIn(kad.findProviders(cid, { signal: never }), gatewayId);
    expect([await closest(), await providers()]).toEqual([
      expect.arrayContaining([bad.self]),
      expect.arrayContaining([bad.self]),
    ]);
    await bad.peer.stop();
    await ban(gateway, bad.self);
    await untilTrue(() => gateway.network.directory.size() === 1);
    expect([...(await closest()), ...(await providers())]).not.toContain(bad.self);
  });

  test('may be named by an entry that names nobody', async ({ expect }) => {
    const gateway = await startGateway();
    await ban(gateway, 'NobodyAtAnyTime' as PeerId);
    expect(gateway.ledger.standing.isBanned('NobodyAtAnyTime' as PeerId)).toBe(true);
  });
});
