/** Who may begin a feed: an issuer with its own key, and a gateway with its peer key, by tokens of its own. */

import { test } from 'vitest';
import { mayWrite } from '../../ledger/authors.ts';
import { authorIdOf } from '../../ledger/block.ts';
import type { AuthorEntry } from '../../ledger/entry.ts';
import { keyFromSeed, sha256 } from '../../protocol/crypto.ts';
import { membershipLifetimeMs, type Role } from '../../protocol/grants.ts';
import type { AuthorId } from '../../protocol/ids.ts';
import { issueCredentials, type NewMesh } from '../../protocol/mesh.ts';
import { peerIdOf } from '../../protocol/peer/identity.ts';
import type { SigningKey } from '../../protocol/ports.ts';
import { unixMs } from '../../protocol/units.ts';
import { newMesh, owner, startMs, tokens } from '../protocol/mesh-fixture.ts';

const [ours, other] = [await newMesh('authors'), await newMesh('others')];
const [keyA, keyB] = [keyFromSeed(sha256('a')), keyFromSeed(sha256('b'))];
const { key: issuerKey } = ours.issuer;

const entryOf = (by: SigningKey, more: Partial<AuthorEntry>): AuthorEntry => ({
  ...{ kind: 'author', role: 'gateway', peer: peerIdOf(by.publicKey), membership: '' },
  certificate: ours.issuer.certificate,
  ...more,
});

async function membershipOf(key: SigningKey, role: Role = 'gateway', mesh: NewMesh = ours): Promise<string> {
  const member = { peer: peerIdOf(key.publicKey), role, owner };
  return (await issueCredentials(mesh, member, { tokens, nowMs: startMs })).membership;
}

const may = (author: AuthorId, first: AuthorEntry, atMs = startMs): Promise<boolean> =>
  mayWrite(author, first, atMs, { tokens, meshId: ours.mesh.meshId, rootPublicKey: ours.mesh.rootPublicKey });

const [authorA, authorB, issuer] = [keyA, keyB, issuerKey].map(({ publicKey }) => authorIdOf(publicKey)) as [
  AuthorId,
  AuthorId,
  AuthorId,
];

test('an issuer with the key that the root named, and nobody else with its certificate', async ({ expect }) => {
  const first = entryOf(keyA, { role: 'issuer' });
  expect(await may(issuer, first)).toBe(true);
  expect(await may(authorA, first)).toBe(false);
  expect(await may(issuer, { ...first, certificate: other.issuer.certificate })).toBe(false);
  expect(await may(issuer, { ...first, certificate: 'a.b.c' })).toBe(false);
});

test('a gateway with its own key and membership, and nobody else with them', async ({ expect }) => {
  const first = entryOf(keyA, { membership: await membershipOf(keyA) });
  expect(await may(authorA, first)).toBe(true);
  expect(await may(authorB, first)).toBe(false);
  expect(await may(authorB, { ...first, peer: peerIdOf(keyB.publicKey) })).toBe(false);
  expect(await may(authorA, { ...first, membership: await membershipOf(keyA, 'gateway', other) })).toBe(false);
  expect(await may(authorA, { ...first, membership: '' })).toBe(false);
});

test('no node, whatever it says that it is', async ({ expect }) => {
  const membership = await membershipOf(keyA, 'node');
  expect(await may(authorA, entryOf(keyA, { membership }))).toBe(false);
  expect(await may(authorA, entryOf(keyA, { membership, role: 'issuer' }))).toBe(false);
});

test('a gateway for as long as its membership was good, by the time of the block', async ({ expect }) => {
  const first = entryOf(keyA, { membership: await membershipOf(keyA) });
  expect(await may(authorA, first, unixMs(startMs + membershipLifetimeMs - 2_000))).toBe(true);
  expect(await may(authorA, first, unixMs(startMs + membershipLifetimeMs + 2_000))).toBe(false);
});
