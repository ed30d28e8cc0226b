/** From an invite to a membership, straight or through another gateway, and every way in which it fails. */

import fc from 'fast-check';
import { afterEach, beforeEach, test } from 'vitest';
import { encodeValue } from '../../protocol/codec.ts';
import {
  type Credentials,
  checkCredentials,
  type Invite,
  issuerIdOf,
  membershipLifetimeMs,
  signInvite,
} from '../../protocol/grants.ts';
import type { PeerId, ProcessId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { createIdentity, issueCredentials, type NewMesh } from '../../protocol/mesh.ts';
import { ADMIT_PROTOCOL, type AdmitFrame, encodeAdmitFrame, parseAdmitFrame } from '../../protocol/messages/admit.ts';
import { HELLO_PROTOCOL } from '../../protocol/messages/hello.ts';
import { createAdmission, joinMesh } from '../../protocol/peer/admit.ts';
import { createHello, type PeerInfo } from '../../protocol/peer/hello.ts';
import type { Connection, Contact } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { Hub, type MemoryConnection, type MemoryNetwork, until } from './memory-network.ts';
import {
  credentialsFor,
  failure,
  newMesh,
  owner,
  peer,
  quietLog,
  seededRandom,
  startMs,
  tokens,
} from './mesh-fixture.ts';

const mesh = await newMesh('ours');
const other = await newMesh('theirs');
const joiner = peer('Joiner');
const issuing = peer('Issuing');
const second = peer('Second');

let clock: ManualClock;
let hub: Hub;

beforeEach(() => {
  clock = new ManualClock();
  hub = new Hub();
});

afterEach(async ({ expect }) => {
  for (const network of hub.peers.values()) await network.close();
  await clock.turn();
  expect(clock.timers).toBe(0);
});

const forever = (): AbortSignal => new AbortController().signal;

interface Gateway {
  readonly network: MemoryNetwork;
  readonly admitted: [Connection, PeerInfo][];
}

async function member(
  self: PeerId,
  credentials: () => Credentials | undefined,
  issuer?: NewMesh['issuer'],
  isGateway = true,
): Promise<Gateway> {
  const network = hub.join(self);
  const admitted: Gateway['admitted'] = [];
  const ports = { network, clock, tokens, log: quietLog };
  const hello = createHello(
    ports,
    { meshId: mesh.mesh.meshId, process: '1'.repeat(32) as ProcessId, credentials },
    { admitted: (connection, info) => admitted.push([connection, info]) },
  );
  if (isGateway) createAdmission({ ...ports, hello }, { mesh: mesh.mesh, ...(issuer === undefined ? {} : { issuer }) });
  return { network, admitted };
}

async function gateway(self: PeerId, issuer?: NewMesh['issuer']): Promise<Gateway> {
  const credentials = await credentialsFor(mesh, self, { role: 'gateway' });
  return member(self, () => credentials, issuer);
}

const contact = (self: PeerId): Contact => ({ peer: self, addresses: [`/memory/${self}`] });

const inviteTo = (gateways: readonly PeerId[], changes: Partial<Invite> = {}, by = mesh): Promise<string> =>
  signInvite(
    {
      meshId: by.mesh.meshId,
      issuer: issuerIdOf(by.issuer.key.publicKey),
      inviteId: '0'.repeat(32),
      role: 'node',
      owner,
      network: 'lan',
      gateways: gateways.map(contact),
      rootPublicKey: by.mesh.rootPublicKey,
      certificate: by.issuer.certificate,
      expiresMs: unixMs(startMs + 60_000),
      ...changes,
    },
    by.issuer.key,
    { tokens, nowMs: startMs },
  );

const join = (text: string, network: MemoryNetwork, meshId = mesh.mesh.meshId): Promise<Credentials> =>
  joinMesh(text, { network, clock, tokens }, { meshId, signal: forever() });

const membershipIn = (credentials: Credentials) =>
  checkCredentials(credentials, { tokens, meshId: mesh.mesh.meshId, peer: joiner, nowMs: clock.wallMs() });

test('an invite becomes a membership, with which the peer comes back', async ({ expect }) => {
  const { admitted } = await gateway(issuing, mesh.issuer);
  let credentials: Credentials | undefined;
  const node = await member(joiner, () => credentials, undefined, false);
  credentials = await join(await inviteTo([issuing]), node.network);
  expect(await membershipIn(credentials)).toEqual({
    meshId: mesh.mesh.meshId,
    issuer: issuerIdOf(mesh.issuer.key.publicKey),
    peer: joiner,
    role: 'node',
    owner,
    expiresMs: startMs + membershipLifetimeMs,
  });
  await until(() => node.network.open.size === 0);
  expect(admitted).toEqual([]);
  await node.network.connect(issuing, [], forever());
  await until(() => node.admitted.length === 1 && admitted.length === 1);
  expect(admitted[0]?.[1].membership.peer).toBe(joiner);
});

test('a peer without any hello of its own can join, and repeat it', async ({ expect }) => {
  await gateway(issuing, mesh.issuer);
  const network = hub.join(joiner);
  const text = await inviteTo([issuing], { role: 'gateway' });
  for (let time = 0; time < 2; time += 1) {
    expect(await membershipIn(await join(text, network))).toMatchObject({ peer: joiner, role: 'gateway' });
  }
});

test('a gateway without the key of the issuer passes the request on to the one that has it', async ({ expect }) => {
  const issuer = await gateway(issuing, mesh.issuer);
  const relaying = await gateway(second);
  await relaying.network.connect(issuing, [], forever());
  await until(() => relaying.admitted.length === 1 && issuer.admitted.length === 1);
  const text = await inviteTo([issuing, second]);
  hub.peers.delete(issuing);
  expect(await membershipIn(await join(text, hub.join(joiner)))).toMatchObject({ peer: joiner });
});

test('a gateway that is not connected to the issuer says so', async ({ expect }) => {
  await gateway(second);
  const text = await inviteTo([issuing, second]);
  expect(await failure(() => join(text, hub.join(joiner)))).toEqual({
    code: 'ADMISSION_UNAVAILABLE',
    reason: 'the gateway of the issuer is not connected to this one',
  });
});

test('the second gateway of an invite is asked when the first cannot be reached', async ({ expect }) => {
  await gateway(issuing, mesh.issuer);
  const text = await inviteTo([second, issuing]);
  expect(await membershipIn(await join(text, hub.join(joiner)))).toMatchObject({ peer: joiner });
});

test('nobody there, or nobody who admits, is told as such', async ({ expect }) => {
  const network = hub.join(joiner);
  const text = await inviteTo([issuing, second]);
  expect(await failure(() => join(text, network))).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
  hub.join(issuing);
  expect(await failure(() => join(text, network))).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
});

test('an invite to another mesh than that of the directory is refused before anybody is asked', async ({ expect }) => {
  const text = await inviteTo([issuing], {}, other);
  expect(await failure(() => join(text, hub.join(joiner)))).toEqual({
    code: 'MESH_MISMATCH',
    theirs: other.mesh.meshId,
    ours: mesh.mesh.meshId,
  });
});

test('garbage in place of an invite is refused before anybody is asked', async ({ expect }) => {
  const network = hub.join(joiner);
  for (const text of ['', 'hx-invite-', 'sk-hx-x', (await inviteTo([issuing])).slice(0, -1)]) {
    expect(await failure(() => join(text, network))).toMatchObject({ code: 'INVITE_INVALID' });
  }
});

/** Shows `frame` to the issuing gateway by hand, and gives back what it says. */
async function show(frame: AdmitFrame | Uint8Array, connection: MemoryConnection): Promise<AdmitFrame> {
  const channel = await connection.open(ADMIT_PROTOCOL, forever());
  const answers: AdmitFrame[] = [];
  channel.receive({ frame: (bytes) => answers.push(parseAdmitFrame(bytes)), closed: () => {}, drained: () => {} });
  channel.send(frame instanceof Uint8Array ? frame : encodeAdmitFrame(frame));
  await until(() => answers.length > 0);
  return answers[0] as AdmitFrame;
}

test('the gateway judges for itself: expired, of another mesh, of an issuer nobody named', async ({ expect }) => {
  await gateway(issuing, mesh.issuer);
  const network = hub.join(joiner);
  const rogue = createIdentity(seededRandom('rogue'));
  const attempts: Record<string, string> = {
    expired: await inviteTo([issuing], { expiresMs: startMs }),
    'it is for another mesh': await inviteTo([issuing], {}, other),
    'kid does not fit': await signInvite(
      {
        meshId: mesh.mesh.meshId,
        issuer: issuerIdOf(rogue.publicKey),
        inviteId: '0'.repeat(32),
        role: 'node',
        owner,
        network: 'lan',
        gateways: [contact(issuing)],
        rootPublicKey: mesh.mesh.rootPublicKey,
        certificate: mesh.issuer.certificate,
        expiresMs: unixMs(startMs + 60_000),
      },
      rogue,
      { tokens, nowMs: startMs },
    ),
  };
  for (const [reason, invite] of Object.entries(attempts)) {
    const connection = await network.connect(issuing, [], forever());
    const answer = await show({ type: 'request', invite }, connection);
    expect(answer).toEqual({ type: 'refuse', code: 'INVITE_INVALID', reason });
    await clock.advance(1_000);
    expect(connection.isOpen).toBe(false);
  }
});

test('what a gateway answers is not taken on trust', async ({ expect }) => {
  const wrong: Record<string, AdmitFrame | Uint8Array> = {
    MEMBERSHIP_INVALID: { type: 'admitted', credentials: await credentialsFor(mesh, peer('Somebody')) },
    ADMISSION_UNAVAILABLE: encodeValue(['garbage']),
  };
  const text = await inviteTo([issuing]);
  for (const [code, frame] of Object.entries(wrong)) {
    const bytes = frame instanceof Uint8Array ? frame : encodeAdmitFrame(frame);
    hub.join(issuing).handle(ADMIT_PROTOCOL, { beforeAdmission: true, frameMaxBytes: 1 }, (channel) => {
      channel.receive({ frame: () => channel.send(bytes), closed: () => {}, drained: () => {} });
    });
    expect(await failure(() => join(text, hub.join(joiner))), code).toMatchObject({ code });
  }
});

test('a gateway that says nothing is given up after ten seconds, and so is the wait on demand', async ({ expect }) => {
  hub.join(issuing).handle(ADMIT_PROTOCOL, { beforeAdmission: true, frameMaxBytes: 1 }, () => {});
  const network = hub.join(joiner);
  const text = await inviteTo([issuing]);
  const result = failure(() => join(text, network));
  await until(() => [...network.open].some((connection) => connection.channels.size > 0));
  await clock.advance(limits.admitTimeoutMs);
  expect(await result).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });

  const abort = new AbortController();
  const stopped = joinMesh(text, { network, clock, tokens }, { signal: abort.signal }).catch((reason) => reason);
  await until(() => [...network.open].some((connection) => connection.channels.size > 0));
  abort.abort('enough');
  expect(await stopped).toBe('enough');
  expect(network.open.size).toBe(0);
});

test('the seventeenth connection that wants to be admitted is refused, until one of the sixteen is gone', async ({
  expect,
}) => {
  await gateway(issuing, mesh.issuer);
  const waiting: MemoryConnection[] = [];
  for (let count = 0; count < limits.admitConnectionsMax; count += 1) {
    const connection = await hub.join(peer(`Guest${'abcdefghijkmnopq'[count]}`)).connect(issuing, [], forever());
    await connection.open(ADMIT_PROTOCOL, forever());
    waiting.push(connection);
  }
  const network = hub.join(joiner);
  const text = await inviteTo([issuing]);
  expect(await failure(() => join(text, network))).toEqual({
    code: 'ADMISSION_UNAVAILABLE',
    reason: 'too many peers are being admitted at once',
  });
  await waiting[0]?.close();
  await clock.turn();
  expect(await membershipIn(await join(text, network))).toMatchObject({ peer: joiner });
  expect(waiting[1]?.isOpen).toBe(true);
  await clock.advance(limits.admitTimeoutMs);
  expect(waiting.filter((connection) => connection.isOpen)).toEqual([]);
});

test('a joiner gets nothing but one answer: a second frame, a second channel or a hello ends it', async ({
  expect,
}) => {
  await gateway(issuing, mesh.issuer);
  const network = hub.join(joiner);
  const request: AdmitFrame = { type: 'request', invite: await inviteTo([issuing]) };
  const rude: Record<string, (connection: MemoryConnection) => Promise<unknown>> = {
    'a second frame': async (connection) => {
      const channel = await connection.open(ADMIT_PROTOCOL, forever());
      channel.send(encodeAdmitFrame(request));
      channel.send(encodeAdmitFrame(request));
    },
    'a second channel': async (connection) => {
      await show(request, connection);
      await connection.open(ADMIT_PROTOCOL, forever());
    },
    'a hello': async (connection) => {
      await show(request, connection);
      await connection.open(HELLO_PROTOCOL, forever());
    },
  };
  for (const [what, be] of Object.entries(rude)) {
    const connection = await network.connect(issuing, [], forever());
    await be(connection);
    await until(() => !connection.isOpen).catch(() => expect.fail(what));
  }
});

test('an admission after a hello has begun is refused by closing', async ({ expect }) => {
  await gateway(issuing, mesh.issuer);
  const connection = await hub.join(joiner).connect(issuing, [], forever());
  await connection.open(HELLO_PROTOCOL, forever());
  await clock.turn();
  await connection.open(ADMIT_PROTOCOL, forever());
  await until(() => !connection.isOpen);
  expect(connection.isAdmitted).toBe(false);
});

test('only gateways pass requests on, and nobody passes them on twice', async ({ expect }) => {
  const issuer = await gateway(issuing, mesh.issuer);
  const plain = await gateway(second);
  const relay: AdmitFrame = { type: 'relay', invite: await inviteTo([issuing]), joiner };
  const stranger = await hub.join(peer('Stranger')).connect(issuing, [], forever());
  expect(await show(relay, stranger)).toMatchObject({ type: 'refuse', code: 'ADMISSION_UNAVAILABLE' });

  const nodeCredentials = await credentialsFor(mesh, joiner);
  const node = await member(joiner, () => nodeCredentials, undefined, false);
  const connection = await node.network.connect(issuing, [], forever());
  await until(() => node.admitted.length === 1 && issuer.admitted.length === 1);
  expect(await show(relay, connection)).toMatchObject({ type: 'refuse', code: 'ADMISSION_UNAVAILABLE' });

  const back = await issuer.network.connect(second, [], forever());
  await until(() => issuer.admitted.length === 2 && plain.admitted.length === 1);
  expect(await show(relay, back)).toMatchObject({
    reason: 'this gateway does not hold the key of the issuer',
  });
});

test('any bytes whatever are refused, and the connection ends', async ({ expect }) => {
  await gateway(issuing, mesh.issuer);
  const network = hub.join(joiner);
  const good = encodeAdmitFrame({ type: 'request', invite: await inviteTo([issuing]) });
  const changed = fc
    .tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }))
    .map(([at, by]) => good.map((byte, index) => (index === at ? byte ^ by : byte)));
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 100 }), changed), async (bytes) => {
      const connection = await network.connect(issuing, [], forever());
      expect(await show(bytes, connection)).toMatchObject({ type: 'refuse' });
      await clock.advance(1_000);
      expect(connection.isOpen).toBe(false);
    }),
    { numRuns: 100 },
  );
});

test('the frames come back from their bytes', async ({ expect }) => {
  const credentials = await issueCredentials(mesh, { peer: joiner, role: 'node', owner }, { tokens, nowMs: startMs });
  const frames: AdmitFrame[] = [
    { type: 'request', invite: 'hx-invite-…' },
    { type: 'relay', invite: 'x', joiner },
    { type: 'admitted', credentials },
    { type: 'refuse', code: 'INVITE_INVALID', reason: 'expired' },
  ];
  for (const frame of frames) expect(parseAdmitFrame(encodeAdmitFrame(frame))).toEqual(frame);
});
