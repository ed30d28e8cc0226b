/** From an invite to a membership, straight or through another gateway. */

import { test } from 'vitest';
import { type Credentials, issuerIdOf, membershipLifetimeMs, signCertificate } from '../../protocol/grants.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { createIdentity } from '../../protocol/mesh.ts';
import { ADMIT_PROTOCOL, encodeAdmitFrame } from '../../protocol/messages/admit.ts';
import type { Connection, Contact } from '../../protocol/ports.ts';
import { AdmitStage, contact, inviteTo, issuing, joiner, second, show } from './admit-stage.ts';
import { forever, mesh } from './hello-stage.ts';
import { until } from './memory-network.ts';
import { credentialsFor, failure, newMesh, owner, peer, seededRandom, startMs, tokens } from './mesh-fixture.ts';

const other = await newMesh('theirs');

test('an invite becomes a membership, with which the peer comes back', async ({ expect }) => {
  await using stage = new AdmitStage();
  const { admitted } = await stage.gateway(issuing, mesh.issuer);
  let credentials: Credentials | undefined;
  const node = await stage.member(joiner, { credentials: () => credentials });
  credentials = await stage.join(await inviteTo([issuing]), node.network);
  expect(await stage.membershipIn(credentials)).toEqual({
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
  await using stage = new AdmitStage();
  await stage.gateway(issuing, mesh.issuer);
  const network = stage.hub.join(joiner);
  const text = await inviteTo([issuing], { role: 'gateway' });
  for (let time = 0; time < 2; time += 1) {
    expect(await stage.membershipIn(await stage.join(text, network))).toMatchObject({ peer: joiner, role: 'gateway' });
  }
});

test('a gateway without the key of the issuer passes the request on to the one that has it', async ({ expect }) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const relaying = await stage.gateway(second);
  await relaying.network.connect(issuing, [], forever());
  await until(() => relaying.admitted.length === 1 && issuer.admitted.length === 1);
  const text = await inviteTo([issuing, second]);
  stage.hub.peers.delete(issuing);
  expect(await stage.membershipIn(await stage.join(text, stage.hub.join(joiner)))).toMatchObject({ peer: joiner });
});

test('a lost answer locks nobody out: the peer comes again with the invite that it has used up', async ({ expect }) => {
  await using stage = new AdmitStage();
  const { desk } = await stage.gateway(issuing, mesh.issuer);
  const network = stage.hub.join(joiner);
  const text = await inviteTo([issuing]);
  const connection = await network.connect(issuing, [], forever());
  const channel = await connection.open(ADMIT_PROTOCOL, forever());
  channel.send(encodeAdmitFrame({ type: 'request', invite: text }));
  await until(() => desk?.admitted.size === 1);
  await connection.close();
  expect(await stage.membershipIn(await stage.join(text, network))).toMatchObject({ peer: joiner });
});

test('a second peer on an invite for one is refused, with the reason, and told of; here or through another', async ({
  expect,
}) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const relaying = await stage.gateway(second);
  await stage.connect(relaying, issuer);
  const text = await inviteTo([issuing]);
  await stage.join(text, stage.hub.join(joiner));
  const [late, later] = [peer('Late'), peer('Later')];
  expect(await failure(() => stage.join(text, stage.hub.join(late)))).toEqual({
    code: 'INVITE_INVALID',
    reason: 'it is used up',
  });
  const connection = await stage.hub.join(later).connect(second, [], forever());
  expect(await show({ type: 'request', invite: text }, connection)).toEqual({
    type: 'refuse',
    code: 'INVITE_INVALID',
    reason: 'it is used up',
  });
  expect(issuer.turnedAway).toEqual([
    [late, 'INVITE_INVALID'],
    [later, 'INVITE_INVALID'],
  ]);
  expect(relaying.turnedAway).toEqual([[later, 'INVITE_INVALID']]);
  expect([...(issuer.desk?.admitted.values() ?? [])]).toEqual([new Set([joiner])]);
});

test('an open invite admits any number, each as its own owner', async ({ expect }) => {
  await using stage = new AdmitStage();
  await stage.gateway(issuing, mesh.issuer);
  const text = await inviteTo([issuing], { uses: 3, isOpen: true });
  const credentials = await stage.join(text, stage.hub.join(joiner));
  expect(await stage.membershipIn(credentials)).toMatchObject({ owner: joiner });
});

test('the gateway that holds the issuer is asked first, wherever the invite points', async ({ expect }) => {
  await using stage = new AdmitStage();
  const holder = peer('Holder');
  const issuer = await stage.gateway(holder, mesh.issuer);
  const relaying = await stage.gateway(second, undefined, { holderOf: () => holder });
  await stage.connect(relaying, issuer);
  const text = await inviteTo([second]);
  expect(await stage.membershipIn(await stage.join(text, stage.hub.join(joiner)))).toMatchObject({ peer: joiner });
});

test('a holder that is not connected is dialled', async ({ expect }) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const reached: Contact[] = [];
  const reach = async (gateway: Contact): Promise<Connection> => {
    reached.push(gateway);
    return stage.connect(relaying, issuer);
  };
  const relaying = await stage.gateway(second, undefined, { holderOf: () => issuing, reach });
  const text = await inviteTo([second, issuing]);
  expect(await stage.membershipIn(await stage.join(text, stage.hub.join(joiner)))).toMatchObject({ peer: joiner });
  expect(reached).toEqual([contact(issuing)]);
});

test('nobody is asked about a peer that is banned, or an invite of an issuer that was taken back', async ({
  expect,
}) => {
  await using stage = new AdmitStage();
  const gate = { isMember: ({ peer: who }: { readonly peer: PeerId }) => who !== joiner };
  const { desk } = await stage.gateway(issuing, mesh.issuer, gate);
  const text = await inviteTo([issuing]);
  expect(await failure(() => stage.join(text, stage.hub.join(joiner)))).toMatchObject({ code: 'INVITE_INVALID' });
  expect(desk?.admitted.size).toBe(0);
});

test('a gateway that is not connected to the issuer says so', async ({ expect }) => {
  await using stage = new AdmitStage();
  await stage.gateway(second);
  const text = await inviteTo([issuing, second]);
  expect(await failure(() => stage.join(text, stage.hub.join(joiner)))).toEqual({
    code: 'ADMISSION_UNAVAILABLE',
    reason: 'the gateway of the issuer is not connected to this one',
  });
});

test('an invite is shown to no member but a gateway, whatever the invite says', async ({ expect }) => {
  await using stage = new AdmitStage();
  const nodeCredentials = await credentialsFor(mesh, issuing);
  const node = await stage.member(issuing, { credentials: () => nodeCredentials });
  let shown = 0;
  node.network.handle(ADMIT_PROTOCOL, { beforeAdmission: true, frameMaxBytes: 1 }, () => {
    shown += 1;
  });
  const relaying = await stage.gateway(second);
  await relaying.network.connect(issuing, [], forever());
  await until(() => relaying.admitted.length === 1 && node.admitted.length === 1);
  const text = await inviteTo([second, issuing]);
  const connection = await stage.hub.join(joiner).connect(second, [], forever());
  expect(await show({ type: 'request', invite: text }, connection)).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
  expect(shown).toBe(0);
});

test('an issuer takes no invite of another issuer of its mesh', async ({ expect }) => {
  await using stage = new AdmitStage();
  const key = createIdentity(seededRandom('another issuer'));
  const grant = { meshId: mesh.mesh.meshId, issuer: issuerIdOf(key.publicKey), publicKey: key.publicKey };
  const certificate = await signCertificate(grant, mesh.root.key, { tokens, nowMs: startMs });
  await stage.gateway(second, { meshId: mesh.mesh.meshId, key, certificate });
  expect(await failure(async () => stage.join(await inviteTo([second]), stage.hub.join(joiner)))).toEqual({
    code: 'ADMISSION_UNAVAILABLE',
    reason: 'the gateway of the issuer is not connected to this one',
  });
});

test('the second gateway of an invite is asked when the first cannot be reached', async ({ expect }) => {
  await using stage = new AdmitStage();
  await stage.gateway(issuing, mesh.issuer);
  const text = await inviteTo([second, issuing]);
  expect(await stage.membershipIn(await stage.join(text, stage.hub.join(joiner)))).toMatchObject({ peer: joiner });
});

test('nobody there, or nobody who admits, is told as such', async ({ expect }) => {
  await using stage = new AdmitStage();
  const network = stage.hub.join(joiner);
  const text = await inviteTo([issuing, second]);
  expect(await failure(() => stage.join(text, network))).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
  stage.hub.join(issuing);
  expect(await failure(() => stage.join(text, network))).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
});

test('an invite to another mesh than that of the directory is refused before anybody is asked', async ({ expect }) => {
  await using stage = new AdmitStage();
  const text = await inviteTo([issuing], {}, other);
  expect(await failure(() => stage.join(text, stage.hub.join(joiner)))).toEqual({
    code: 'MESH_MISMATCH',
    theirs: other.mesh.meshId,
    ours: mesh.mesh.meshId,
  });
});

test('garbage in place of an invite is refused before anybody is asked', async ({ expect }) => {
  await using stage = new AdmitStage();
  const network = stage.hub.join(joiner);
  for (const text of ['', 'hx-invite-', 'sk-hx-x', (await inviteTo([issuing])).slice(0, -1)]) {
    expect(await failure(() => stage.join(text, network))).toMatchObject({ code: 'INVITE_INVALID' });
  }
});
