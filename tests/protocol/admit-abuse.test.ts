/** What comes of invites that do not hold, of joiners that do not behave and of gateways that lie. */

import fc from 'fast-check';
import { test } from 'vitest';
import { encodeValue } from '../../protocol/codec.ts';
import { issuerIdOf } from '../../protocol/grants.ts';
import { signInvite } from '../../protocol/invites.ts';
import { limits } from '../../protocol/limits.ts';
import { createIdentity, issueCredentials } from '../../protocol/mesh.ts';
import { ADMIT_PROTOCOL, type AdmitFrame, encodeAdmitFrame, parseAdmitFrame } from '../../protocol/messages/admit.ts';
import { HELLO_PROTOCOL } from '../../protocol/messages/hello.ts';
import { joinMesh } from '../../protocol/peer/admit.ts';
import { unixMs } from '../../protocol/units.ts';
import { AdmitStage, contact, inviteTo, issuing, joiner, second, show } from './admit-stage.ts';
import { forever, mesh } from './hello-stage.ts';
import { type MemoryConnection, until } from './memory-network.ts';
import { credentialsFor, failure, newMesh, owner, peer, seededRandom, startMs, tokens } from './mesh-fixture.ts';

const other = await newMesh('theirs');

test('the gateway judges for itself: expired, of another mesh, of an issuer nobody named', async ({ expect }) => {
  await using stage = new AdmitStage();
  await stage.gateway(issuing, mesh.issuer);
  const network = stage.hub.join(joiner);
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
        uses: 1,
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
    await stage.clock.advance(1_000);
    expect(connection.isOpen).toBe(false);
  }
});

test('what a gateway answers is not taken on trust', async ({ expect }) => {
  await using stage = new AdmitStage();
  const wrong: Record<string, AdmitFrame | Uint8Array> = {
    MEMBERSHIP_INVALID: { type: 'admitted', credentials: await credentialsFor(mesh, peer('Somebody')) },
    ADMISSION_UNAVAILABLE: encodeValue(['garbage']),
  };
  const text = await inviteTo([issuing]);
  for (const [code, frame] of Object.entries(wrong)) {
    const bytes = frame instanceof Uint8Array ? frame : encodeAdmitFrame(frame);
    stage.hub.join(issuing).handle(ADMIT_PROTOCOL, { beforeAdmission: true, frameMaxBytes: 1 }, (channel) => {
      channel.receive({ frame: () => channel.send(bytes), closed: () => {}, drained: () => {} });
    });
    expect(await failure(() => stage.join(text, stage.hub.join(joiner))), code).toMatchObject({ code });
  }
});

test('a gateway that says nothing is given up after ten seconds, and so is the wait on demand', async ({ expect }) => {
  await using stage = new AdmitStage();
  stage.hub.join(issuing).handle(ADMIT_PROTOCOL, { beforeAdmission: true, frameMaxBytes: 1 }, () => {});
  const network = stage.hub.join(joiner);
  const text = await inviteTo([issuing]);
  const result = failure(() => stage.join(text, network));
  await until(() => [...network.open].some((connection) => connection.channels.size > 0));
  await stage.clock.advance(limits.admitTimeoutMs);
  expect(await result).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });

  const abort = new AbortController();
  const stopped = joinMesh(text, { network, clock: stage.clock, tokens }, { signal: abort.signal }).catch(
    (reason) => reason,
  );
  await until(() => [...network.open].some((connection) => connection.channels.size > 0));
  abort.abort('enough');
  expect(await stopped).toBe('enough');
  expect(network.open.size).toBe(0);
});

test('the seventeenth connection that wants to be admitted is refused, until one of the sixteen is gone', async ({
  expect,
}) => {
  await using stage = new AdmitStage();
  await stage.gateway(issuing, mesh.issuer);
  const waiting: MemoryConnection[] = [];
  for (let count = 0; count < limits.admitConnectionsMax; count += 1) {
    const connection = await stage.hub.join(peer(`Guest${'abcdefghijkmnopq'[count]}`)).connect(issuing, [], forever());
    await connection.open(ADMIT_PROTOCOL, forever());
    waiting.push(connection);
  }
  const network = stage.hub.join(joiner);
  const text = await inviteTo([issuing]);
  expect(await failure(() => stage.join(text, network))).toEqual({
    code: 'ADMISSION_UNAVAILABLE',
    reason: 'too many peers are being admitted at once',
  });
  await waiting[0]?.close();
  await stage.clock.turn();
  expect(await stage.membershipIn(await stage.join(text, network))).toMatchObject({ peer: joiner });
  expect(waiting[1]?.isOpen).toBe(true);
  await stage.clock.advance(limits.admitTimeoutMs);
  expect(waiting.filter((connection) => connection.isOpen)).toEqual([]);
});

test('a joiner gets nothing but one answer: a second frame, a second channel or a hello ends it', async ({
  expect,
}) => {
  await using stage = new AdmitStage();
  await stage.gateway(issuing, mesh.issuer);
  const network = stage.hub.join(joiner);
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
  await using stage = new AdmitStage();
  await stage.gateway(issuing, mesh.issuer);
  const connection = await stage.hub.join(joiner).connect(issuing, [], forever());
  await connection.open(HELLO_PROTOCOL, forever());
  await stage.clock.turn();
  await connection.open(ADMIT_PROTOCOL, forever());
  await until(() => !connection.isOpen);
  expect(connection.isAdmitted).toBe(false);
});

test('only gateways pass requests on, and nobody passes them on twice', async ({ expect }) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const plain = await stage.gateway(second);
  const relay: AdmitFrame = { type: 'relay', invite: await inviteTo([issuing]), joiner };
  const stranger = await stage.hub.join(peer('Stranger')).connect(issuing, [], forever());
  expect(await show(relay, stranger)).toMatchObject({ type: 'refuse', code: 'ADMISSION_UNAVAILABLE' });

  const request: AdmitFrame = { type: 'request', invite: relay.invite };
  const nodeCredentials = await credentialsFor(mesh, joiner);
  const node = await stage.member(joiner, { credentials: () => nodeCredentials });
  const connection = await node.network.connect(issuing, [], forever());
  await until(() => node.admitted.length === 1 && issuer.admitted.length === 1);
  expect(await show(relay, connection)).toMatchObject({ type: 'refuse', code: 'ADMISSION_UNAVAILABLE' });

  const back = await issuer.network.connect(second, [], forever());
  await until(() => issuer.admitted.length === 2 && plain.admitted.length === 1);
  expect(await show(relay, back)).toMatchObject({ reason: 'this gateway does not hold the key of the issuer' });
  expect(await show(request, back)).toMatchObject({ reason: 'only gateways pass requests on' });
});

test('any bytes whatever are refused, and the connection ends', async ({ expect }) => {
  await using stage = new AdmitStage();
  await stage.gateway(issuing, mesh.issuer);
  const network = stage.hub.join(joiner);
  const good = encodeAdmitFrame({ type: 'request', invite: await inviteTo([issuing]) });
  const changed = fc
    .tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }))
    .map(([at, by]) => good.map((byte, index) => (index === at ? byte ^ by : byte)));
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 100 }), changed), async (bytes) => {
      const connection = await network.connect(issuing, [], forever());
      expect(await show(bytes, connection)).toMatchObject({ type: 'refuse' });
      await stage.clock.advance(1_000);
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
    { type: 'refuse', code: 'MEMBERSHIP_INVALID', reason: 'it was taken back' },
    { type: 'renew', peer: joiner, credentials },
  ];
  for (const frame of frames) expect(parseAdmitFrame(encodeAdmitFrame(frame))).toEqual(frame);
});
