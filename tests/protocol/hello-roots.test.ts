/** What the root has said travels with hellos, and whoever was taken back is out: at the hello, in it and after it. */

import { test } from 'vitest';
import { decodeValue, encodeValue, type Value } from '../../protocol/codec.ts';
import { type Credentials, issuerIdOf, type Membership, signCertificate } from '../../protocol/grants.ts';
import type { AuthorId, EpochId, PeerId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import type { NewMesh } from '../../protocol/mesh.ts';
import { addRoots, encodeHelloFrame, type HelloFrame, parseHelloFrame } from '../../protocol/messages/hello.ts';
import { createRoots } from '../../protocol/peer/create-roots.ts';
import type { Roots, RootToken } from '../../protocol/peer/roots.ts';
import { signLift, signRevocation } from '../../protocol/root-tokens.ts';
import { alice, bert, forever, goodHello, mesh, type Side, Stage } from './hello-stage.ts';
import { until } from './memory-network.ts';
import { credentialsFor, peer, seeded, startMs, tokens } from './mesh-fixture.ts';

const { meshId, rootPublicKey } = mesh.mesh;
const signing = { tokens, nowMs: startMs };
const carol = peer('Carol');

/** Our mesh as another of its issuers sees it. */
const key = seeded('another issuer');
const grant = { meshId, issuer: issuerIdOf(key.publicKey), publicKey: key.publicKey };
const certificate = await signCertificate(grant, mesh.root.key, signing);
const branch: NewMesh = { ...mesh, issuer: { meshId, key, certificate } };
const revocation: RootToken = {
  kind: 'revocation',
  token: await signRevocation({ meshId, issuer: grant.issuer }, mesh.root.key, signing),
};
const author = 'cd'.repeat(32) as AuthorId;
const epoch = 'ef'.repeat(16) as EpochId;
const lift: RootToken = { kind: 'lift', token: await signLift({ meshId, author, epoch }, mesh.root.key, signing) };

const newRoots = (): Roots => createRoots({ tokens }, { meshId, rootPublicKey });
async function memberOf(
  stage: Stage,
  self: PeerId,
  by: NewMesh = mesh,
): Promise<Side & { roots: Roots; credentials: Credentials }> {
  const [roots, credentials] = [newRoots(), await credentialsFor(by, self)];
  return { roots, credentials, ...(await stage.member(self, { roots, credentials: () => credentials })) };
}

test('two members tell each other what the root has said', async ({ expect }) => {
  await using stage = new Stage();
  const [ours, theirs] = [await memberOf(stage, alice), await memberOf(stage, bert)];
  await ours.roots.take(revocation);
  await theirs.roots.take(lift);
  await ours.network.connect(bert, [], forever());
  await until(() => ours.admitted.length === 1 && theirs.admitted.length === 1);
  const issuer = { kind: 'issuer', token: mesh.issuer.certificate };
  expect(ours.roots.tokens()).toEqual([revocation, issuer, lift]);
  expect(theirs.roots.tokens()).toEqual([revocation, issuer, lift]);
});

test('the issuer of a member becomes known by its hello', async ({ expect }) => {
  await using stage = new Stage();
  const [ours, theirs] = [await memberOf(stage, alice), await memberOf(stage, bert, branch)];
  await ours.network.connect(bert, [], forever());
  await until(() => ours.admitted.length === 1 && theirs.admitted.length === 1);
  expect(ours.roots.issuers.get(grant.issuer)).toEqual(grant);
});

test('a member of an issuer that the root took back is refused, also when it is itself the one to tell', async ({
  expect,
}) => {
  for (const who of ['ours', 'theirs'] as const) {
    await using stage = new Stage();
    const sides = { ours: await memberOf(stage, alice), theirs: await memberOf(stage, bert, branch) };
    await sides[who].roots.take(revocation);
    await sides.theirs.network.connect(alice, [], forever());
    await until(() => stage.isEmpty);
    expect([sides.ours.admitted, sides.theirs.admitted]).toEqual([[], []]);
    expect(sides.ours.refused).toEqual(['MEMBERSHIP_INVALID']);
  }
});

test('a revocation that comes with a hello ends the connections of those whom it is about, and no other', async ({
  expect,
}) => {
  await using stage = new Stage();
  const ours = await memberOf(stage, alice);
  const [theirs, third] = [await memberOf(stage, bert, branch), await memberOf(stage, carol)];
  ours.roots.onChange(() => ours.hello.review());
  const connection = await theirs.network.connect(alice, [], forever());
  await until(() => ours.admitted.length === 1 && theirs.admitted.length === 1);
  await third.roots.take(revocation);
  const other = await third.network.connect(alice, [], forever());
  await until(() => ours.admitted.length === 2 && third.admitted.length === 1);
  await until(() => !connection.isOpen);
  expect([other.isOpen, ours.hello.infoOf(connection.other)]).toEqual([true, undefined]);

  const again = await theirs.network.connect(alice, [], forever());
  await until(() => !again.isOpen);
  expect(ours.admitted).toHaveLength(2);
});

test('a review closes the connections of those whom the gate turns away by now, and names them', async ({ expect }) => {
  await using stage = new Stage();
  const banned = new Set<PeerId>();
  const isMember = (membership: Membership): boolean => !banned.has(membership.peer);
  const ours = await stage.member(alice, { isMember });
  const [theirs, third] = [await stage.member(bert), await stage.member(carol)];
  await theirs.network.connect(alice, [], forever());
  await ours.network.connect(bert, [], forever());
  const other = await third.network.connect(alice, [], forever());
  await until(() => ours.admitted.length === 3 && theirs.admitted.length === 2 && third.admitted.length === 1);
  expect(ours.hello.review()).toEqual([]);
  banned.add(bert);
  expect(ours.hello.review()).toEqual([bert]);
  await until(() => theirs.network.open.size === 0);
  expect([...ours.network.open]).toEqual([other.other]);
  await theirs.network.connect(alice, [], forever());
  await until(() => theirs.refused.length === 1 && theirs.network.open.size === 0);
  expect([ours.refused, theirs.refused]).toEqual([['MEMBERSHIP_INVALID'], ['HELLO_REFUSED']]);
});

test('a member taken back between its hello and its accept does not get in', async ({ expect }) => {
  await using stage = new Stage();
  let isMember = true;
  const ours = await stage.member(alice, { isMember: () => isMember });
  const puppet = await stage.puppet(alice);
  puppet.send(await goodHello());
  await until(() => puppet.got.length === 2);
  isMember = false;
  puppet.send({ type: 'accept' });
  await until(() => puppet.got.length === 3);
  expect(puppet.got[2]).toEqual({ type: 'refuse', code: 'MEMBERSHIP_INVALID', reason: 'it was taken back' });
  await stage.clock.advance(1_000);
  expect([puppet.connection.isOpen, ours.admitted]).toEqual([false, []]);
});

test('a token that the root did not sign harms nobody but itself and those after it', async ({ expect }) => {
  await using stage = new Stage();
  const ours = await memberOf(stage, alice);
  const puppet = await stage.puppet(alice);
  const bad: RootToken = { kind: 'lift', token: 'bad' };
  puppet.send({ ...(await goodHello()), roots: [revocation, bad, lift] }, { type: 'accept' });
  await until(() => ours.admitted.length === 1);
  expect([ours.roots.isRevoked(grant.issuer), ours.roots.lifts()]).toEqual([true, []]);
});

test('a hello from before there were revocations is read, and one from after there is more', async ({ expect }) => {
  const hello = await goodHello();
  const positions = decodeValue(encodeHelloFrame(hello)) as readonly Value[];
  expect(parseHelloFrame(encodeValue(positions.slice(0, -1)))).toEqual(hello);
  const newer: Value = [
    [7, 'later'],
    [0, revocation.token],
  ];
  const frame = parseHelloFrame(encodeValue([...positions.slice(0, -1), newer, 'more']));
  expect(frame).toEqual({ ...hello, roots: [revocation] });
});

test('of what the root has said a hello carries what fits: revocations first, the newest first', async ({ expect }) => {
  const hello = await goodHello();
  const many = (kind: RootToken['kind'], count: number, chars: number): RootToken[] =>
    Array.from({ length: count }, (_, index) => ({ kind, token: `${kind}-${index}-`.padEnd(chars, 'x') }));
  const said = [...many('issuer', 5, 400), ...many('lift', 100, 400), ...many('revocation', 10, 400)];
  const made = addRoots(hello, said);
  expect(made.roots.slice(0, 10)).toEqual(said.slice(105));
  expect(made.roots.slice(10)).toEqual(said.slice(5, 5 + made.roots.length - 10));
  const size = encodeHelloFrame(made).length;
  expect(size).toBeLessThanOrEqual(limits.helloMaxBytes);
  expect(size).toBeGreaterThan(limits.helloMaxBytes - 900);
  expect(addRoots(hello, many('lift', 100, 20)).roots).toHaveLength(64);
  const addresses = Array.from({ length: 4 }, () => 'x'.repeat(256));
  const membership = 'x'.repeat(8_192);
  const full: HelloFrame = { ...hello, addresses, credentials: { ...hello.credentials, membership } };
  expect(addRoots({ ...full, credentials: { ...full.credentials, certificate: membership } }, said).roots).toEqual([]);
});
