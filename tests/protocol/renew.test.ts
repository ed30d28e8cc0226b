/** A member stays one: renewals, straight or through another gateway, and those that are not to be had. */

import { test } from 'vitest';
import {
  type Credentials,
  checkCredentials,
  issuerIdOf,
  type Membership,
  membershipLifetimeMs,
  signCertificate,
} from '../../protocol/grants.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { NewMesh } from '../../protocol/mesh.ts';
import { ADMIT_PROTOCOL, type AdmitFrame, encodeAdmitFrame } from '../../protocol/messages/admit.ts';
import { type RenewalOptions, renewMembership } from '../../protocol/peer/renew.ts';
import { unixMs } from '../../protocol/units.ts';
import { AdmitStage, issuing, joiner, second, show } from './admit-stage.ts';
import { forever, mesh, type Side } from './hello-stage.ts';
import { until } from './memory-network.ts';
import { credentialsFor, failure, newMesh, owner, peer, seeded, startMs, tokens } from './mesh-fixture.ts';

const { meshId } = mesh.mesh;
const dayMs = 86_400_000;

/** A node whose membership has a day left. */
async function node(stage: AdmitStage, self: PeerId = joiner): Promise<Side & { readonly credentials: Credentials }> {
  const credentials = await credentialsFor(mesh, self, { expiresMs: unixMs(startMs + dayMs) });
  return { credentials, ...(await stage.member(self, { credentials: () => credentials })) };
}

const renew = (
  stage: AdmitStage,
  { network, hello, credentials }: Side & { readonly credentials: Credentials },
  options: Partial<RenewalOptions> = {},
): Promise<Credentials> =>
  renewMembership(
    { network, hello, clock: stage.clock, tokens },
    { meshId, credentials, signal: forever(), ...options },
  );

const read = (credentials: Credentials, self: PeerId = joiner): Promise<Membership> =>
  checkCredentials(credentials, { tokens, meshId, peer: self, nowMs: startMs });

const renewed = { meshId, peer: joiner, role: 'node', owner, expiresMs: startMs + membershipLifetimeMs };

test('a member gets a longer membership from the gateway that holds its issuer', async ({ expect }) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const member = await node(stage);
  await stage.connect(member, issuer);
  expect(await read(await renew(stage, member))).toMatchObject(renewed);
  expect(issuer.desk?.renewed).toEqual([joiner]);
});

test('another gateway passes it on to that one, and nobody passes it on twice', async ({ expect }) => {
  await using stage = new AdmitStage();
  const third = peer('Third');
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const near = await stage.gateway(second, undefined, { holderOf: () => issuing });
  const far = await stage.gateway(third, undefined, { holderOf: () => second });
  const [member, distant] = [await node(stage), await node(stage, peer('Distant'))];
  await stage.connect(near, issuer);
  await stage.connect(far, near);
  await stage.connect(member, near);
  await stage.connect(distant, far);
  expect(await read(await renew(stage, member))).toMatchObject(renewed);
  expect(await failure(() => renew(stage, distant))).toEqual({
    code: 'ADMISSION_UNAVAILABLE',
    reason: 'this gateway does not hold the key of the issuer',
  });
  expect(issuer.desk?.renewed).toEqual([joiner]);
});

test('the holder is asked first, and the others when it cannot', async ({ expect }) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const other = await stage.gateway(second);
  const member = await node(stage);
  await stage.connect(member, other);
  await stage.connect(member, issuer);
  const asked: PeerId[] = [];
  for (const connection of member.network.connections()) {
    const { open } = connection;
    connection.open = (protocol, signal) => {
      asked.push(connection.peer);
      return open.call(connection, protocol, signal);
    };
  }
  await renew(stage, member, { holderOf: () => issuing });
  expect(asked.splice(0)).toEqual([issuing]);
  await renew(stage, member, { holderOf: () => second });
  expect(asked).toEqual([second, issuing]);
});

test('a lost answer locks nobody out: the membership at hand is good for another try', async ({ expect }) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const member = await node(stage);
  const { credentials } = member;
  const first = await stage.connect(member, issuer);
  const channel = await first.open(ADMIT_PROTOCOL, forever());
  channel.send(encodeAdmitFrame({ type: 'renew', peer: joiner, credentials }));
  await until(() => issuer.desk?.renewed.length === 1);
  await first.close();
  await stage.connect(member, issuer);
  expect(await read(await renew(stage, member))).toMatchObject({ peer: joiner });
});

test('a banned peer gets none: not from the issuer, nor from a gateway that knows by itself', async ({ expect }) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const gate = { isMember: ({ peer: who }: { readonly peer: PeerId }) => who !== joiner };
  const knowing = await stage.gateway(second, mesh.issuer, gate);
  issuer.desk?.banned.add(joiner);
  const member = await node(stage);
  await stage.connect(member, issuer);
  expect(await failure(() => renew(stage, member))).toEqual({ code: 'MEMBERSHIP_INVALID', reason: 'it is banned' });
  await stage.connect(member, knowing);
  expect(await failure(() => renew(stage, member, { holderOf: () => second }))).toMatchObject({
    code: 'MEMBERSHIP_INVALID',
  });
  expect([issuer.turnedAway, knowing.desk?.renewed]).toEqual([
    Array.from({ length: 2 }, () => [joiner, 'MEMBERSHIP_INVALID']),
    [],
  ]);
});

test('a membership is renewed for its own peer, or for a gateway that passes on, and for nobody else', async ({
  expect,
}) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const thief = await node(stage, peer('Thief'));
  const { credentials } = await node(stage);
  const theirs = await credentialsFor(await newMesh('theirs'), joiner);
  const expired = await credentialsFor(mesh, joiner, { expiresMs: startMs });
  const connection = await stage.connect(thief, issuer);
  const own = { type: 'renew', peer: peer('Thief') } as const;
  expect(await show({ type: 'renew', peer: joiner, credentials }, connection)).toMatchObject({
    code: 'ADMISSION_UNAVAILABLE',
  });
  for (const shown of [credentials, theirs, expired]) {
    expect(await show({ ...own, credentials: shown }, connection)).toMatchObject({ code: 'MEMBERSHIP_INVALID' });
  }
  const stranger = await stage.hub.join(joiner).connect(issuing, [], forever());
  expect(await show({ type: 'renew', peer: joiner, credentials }, stranger)).toMatchObject({
    code: 'ADMISSION_UNAVAILABLE',
  });
  expect(issuer.desk?.renewed).toEqual([]);
});

test('what comes back is not taken on trust', async ({ expect }) => {
  const by = seeded('another issuer');
  const grant = { meshId, issuer: issuerIdOf(by.publicKey), publicKey: by.publicKey };
  const certificate = await signCertificate(grant, mesh.root.key, { tokens, nowMs: startMs });
  const branch: NewMesh = { ...mesh, issuer: { meshId, key: by, certificate } };
  const answers: Record<string, Credentials> = {
    'for another peer': await credentialsFor(mesh, peer('Other'), { expiresMs: unixMs(startMs + 9 * dayMs) }),
    'another role': await credentialsFor(mesh, joiner, { role: 'gateway', expiresMs: unixMs(startMs + 9 * dayMs) }),
    'no longer than the current one': await credentialsFor(mesh, joiner),
    'another mesh': await credentialsFor(await newMesh('theirs'), joiner, { expiresMs: unixMs(startMs + 9 * dayMs) }),
  };
  for (const [what, credentials] of Object.entries(answers)) {
    await using stage = new AdmitStage();
    const liar = await stage.gateway(issuing);
    liar.network.handle(ADMIT_PROTOCOL, { beforeAdmission: true, frameMaxBytes: 1 }, (channel) => {
      const answer: AdmitFrame = { type: 'admitted', credentials };
      channel.receive({ frame: () => channel.send(encodeAdmitFrame(answer)), closed: () => {}, drained: () => {} });
    });
    const member = await node(stage);
    await stage.connect(member, liar);
    expect(await failure(() => renew(stage, member)), what).toMatchObject({ code: 'MEMBERSHIP_INVALID' });
  }
  // An issuer that took over from another renews what that one had granted.
  await using stage = new AdmitStage();
  const heir = await stage.gateway(issuing, branch.issuer);
  Object.assign(heir.desk ?? {}, { handles: () => true });
  const member = await node(stage);
  await stage.connect(member, heir);
  expect(await read(await renew(stage, member))).toMatchObject({ ...renewed, issuer: grant.issuer });
});

test('no gateway, none that answers, and no more patience each end the wait', async ({ expect }) => {
  await using stage = new AdmitStage();
  const member = await node(stage);
  const other = await node(stage, peer('Other'));
  await stage.connect(member, other);
  expect(await failure(() => renew(stage, member))).toEqual({
    code: 'ADMISSION_UNAVAILABLE',
    reason: 'no gateway is connected',
  });
  const silent = await stage.gateway(issuing);
  let asked = 0;
  silent.network.handle(ADMIT_PROTOCOL, { beforeAdmission: true, frameMaxBytes: 1 }, () => {
    asked += 1;
  });
  await stage.connect(member, silent);
  const waiting = failure(() => renew(stage, member));
  await until(() => asked === 1);
  await stage.clock.advance(limits.admitTimeoutMs);
  expect(await waiting).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
  const abort = new AbortController();
  const stopped = renew(stage, member, { signal: abort.signal }).catch((reason) => reason);
  await until(() => asked === 2);
  abort.abort('enough');
  expect(await stopped).toBe('enough');
});

test('a gateway answers so many members at a time and no more', async ({ expect }) => {
  await using stage = new AdmitStage();
  const issuer = await stage.gateway(issuing, mesh.issuer);
  const held: (() => void)[] = [];
  const { desk } = issuer;
  if (desk === undefined) return expect.fail('no desk');
  const { renew: renewAtOnce } = desk;
  desk.renew = (current) => new Promise((resolve) => held.push(() => resolve(renewAtOnce.call(desk, current))));
  const names = 'abcdefghijkmnopqr'.slice(0, limits.admitConnectionsMax + 1).split('');
  const members = await Promise.all(names.map((name) => node(stage, peer(`Member${name}`))));
  for (const member of members) await stage.connect(member, issuer);
  const last = members.pop() as (typeof members)[number];
  const results = members.map((member) => renew(stage, member));
  await until(() => held.length === limits.admitConnectionsMax);
  expect(await failure(() => renew(stage, last))).toMatchObject({ code: 'ADMISSION_UNAVAILABLE' });
  for (const release of held.splice(0)) release();
  expect(await Promise.all(results)).toHaveLength(limits.admitConnectionsMax);
  const freed = renew(stage, last);
  await until(() => held.length === 1);
  held[0]?.();
  expect(await read(await freed, last.network.self)).toMatchObject({ peer: last.network.self });
});
