/** What grants allow, and every way in which one does not hold. */

import fc from 'fast-check';
import { test } from 'vitest';
import {
  allowsModel,
  checkCertificate,
  checkCredentials,
  checkKey,
  type IssuerCertificate,
  issuerIdOf,
  type KeyGrant,
  signCertificate,
  signKey,
} from '../../protocol/grants.ts';
import type { AccountId, EpochId, IssuerId, KeyId } from '../../protocol/ids.ts';
import { checkInvite, type Invite, ownerBy, signInvite } from '../../protocol/invites.ts';
import { issuerOf } from '../../protocol/mesh.ts';
import { createRoots } from '../../protocol/peer/create-roots.ts';
import type { TokenClaims } from '../../protocol/ports.ts';
import { signRevocation } from '../../protocol/root-tokens.ts';
import { unixMs } from '../../protocol/units.ts';
import { credentialsFor, failure, newMesh, owner, peer, seeded, startMs, tokens } from './mesh-fixture.ts';

const mesh = await newMesh('ours');
const other = await newMesh('theirs');
const { meshId, rootPublicKey } = mesh.mesh;
const issuer = issuerOf(mesh.issuer);
const signing = { tokens, nowMs: startMs };
const checking = { tokens, meshId, nowMs: startMs };
const oldIssuer = '12'.repeat(16) as IssuerId;
const member = peer('Member');
const later = unixMs(startMs + 86_400_000);

const claimsOf = (token: string): TokenClaims =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());

const invite: Invite = {
  meshId,
  issuer: issuer.issuer,
  inviteId: 'ab'.repeat(16),
  role: 'node',
  owner,
  uses: 1,
  network: 'lan',
  gateways: [{ peer: peer('Gateway'), addresses: ['/ip4/127.0.0.1/tcp/4001'] }],
  rootPublicKey,
  certificate: mesh.issuer.certificate,
  expiresMs: later,
};
const grant: KeyGrant = {
  keyId: '0123456789abcdef' as KeyId,
  issuer: issuer.issuer,
  account: 'team-a' as AccountId,
  role: 'user',
  models: [],
  limits: {},
  gateways: [],
  strict: false,
};

test('a certificate names the issuer that the root named', async ({ expect }) => {
  expect(await checkCertificate(mesh.issuer.certificate, rootPublicKey, checking)).toEqual(issuer);
});

test('a certificate tells whom its issuer succeeds, and where the feed of that one ends', async ({ expect }) => {
  const last = { epoch: 'ab'.repeat(16) as EpochId, number: 7 };
  for (const succeeds of [{ issuer: oldIssuer }, { issuer: oldIssuer, last }]) {
    const token = await signCertificate({ ...issuer, succeeds }, mesh.root.key, signing);
    expect(await checkCertificate(token, rootPublicKey, checking)).toEqual({ ...issuer, succeeds });
  }
});

test('a succession that is none is refused', async ({ expect }) => {
  const claims = claimsOf(mesh.issuer.certificate);
  const wrong = {
    'no issuer': {},
    'another form': oldIssuer,
    'a name': { issuer: 'somebody' },
    itself: { issuer: issuer.issuer },
    'no epoch': { issuer: oldIssuer, last: { number: 1 } },
    'a number below zero': { issuer: oldIssuer, last: { epoch: 'ab'.repeat(16), number: -1 } },
  };
  for (const [what, succeeds] of Object.entries(wrong)) {
    const token = await tokens.sign('issuer', { ...claims, succeeds }, mesh.root.key);
    expect(await failure(() => checkCertificate(token, rootPublicKey, checking)), what).toMatchObject({
      code: 'TOKEN_INVALID',
    });
  }
});

test('a certificate of another root is refused', async ({ expect }) => {
  const stolen = await failure(() => checkCertificate(mesh.issuer.certificate, other.mesh.rootPublicKey, checking));
  expect(stolen).toMatchObject({ code: 'TOKEN_INVALID' });
  const foreign = await failure(() => checkCertificate(other.issuer.certificate, rootPublicKey, checking));
  expect(foreign).toMatchObject({ code: 'TOKEN_INVALID' });
});

test('a certificate whose issuer is not named after its key is refused', async ({ expect }) => {
  const claims = { ...claimsOf(mesh.issuer.certificate), sub: issuerIdOf(seeded('x').publicKey) };
  const token = await tokens.sign('issuer', claims, mesh.root.key);
  expect(await failure(() => checkCertificate(token, rootPublicKey, checking))).toMatchObject({
    code: 'TOKEN_INVALID',
  });
});

test('credentials give back the membership', async ({ expect }) => {
  const credentials = await credentialsFor(mesh, member, { role: 'gateway' });
  const membership = await checkCredentials(credentials, { ...checking, peer: member });
  expect(membership).toEqual({
    meshId,
    issuer: issuer.issuer,
    peer: member,
    role: 'gateway',
    owner,
    expiresMs: later,
  });
});

test('credentials are refused when any link of their chain is another', async ({ expect }) => {
  const ours = await credentialsFor(mesh, member);
  const theirs = await credentialsFor(other, member);
  const rogueKey = seeded('rogue');
  const rogueGrant = { meshId, issuer: issuerIdOf(rogueKey.publicKey), publicKey: rogueKey.publicKey };
  const selfMade = await tokens.sign(
    'issuer',
    { ...claimsOf(mesh.issuer.certificate), sub: rogueGrant.issuer },
    rogueKey,
  );
  const otherRoot = seeded('other root');
  const claimed = await tokens.sign('issuer', claimsOf(mesh.issuer.certificate), otherRoot);
  const attempts = {
    'a root of its own, which names our issuer for our mesh': {
      ...ours,
      rootPublicKey: otherRoot.publicKey,
      certificate: claimed,
    },
    'another mesh': theirs,
    'the root of another mesh': { ...ours, rootPublicKey: other.mesh.rootPublicKey },
    'the certificate of another mesh': { ...ours, certificate: other.issuer.certificate },
    'the membership of another mesh': { ...ours, membership: theirs.membership },
    'a certificate that its issuer signed': { ...ours, certificate: selfMade },
    'a certificate in place of a membership': { ...ours, membership: ours.certificate },
    'a membership in place of a certificate': { ...ours, certificate: ours.membership },
    'an empty membership': { ...ours, membership: '' },
    'a root key that is too short': { ...ours, rootPublicKey: rootPublicKey.subarray(1) },
    'another peer': await credentialsFor(mesh, peer('Other')),
    'a role that is none': await credentialsFor(mesh, member, { role: 'root' as 'node' }),
    'an owner that is none': await credentialsFor(mesh, member, { owner: '../etc' as typeof owner }),
  };
  for (const [attempt, credentials] of Object.entries(attempts)) {
    const result = await failure(() => checkCredentials(credentials, { ...checking, peer: member }));
    expect(result, attempt).toMatchObject({ code: 'MEMBERSHIP_INVALID' });
  }
});

test('an expired membership is refused as expired', async ({ expect }) => {
  const credentials = await credentialsFor(mesh, member);
  const result = await failure(() => checkCredentials(credentials, { ...checking, peer: member, nowMs: later }));
  expect(result).toEqual({ code: 'MEMBERSHIP_INVALID', reason: 'expired' });
});

test('an invite gives back all that it was made of, in one line of plain characters', async ({ expect }) => {
  const text = await signInvite(invite, mesh.issuer.key, signing);
  expect(text).toMatch(/^hx-invite-[A-Za-z0-9._-]+$/);
  expect(await checkInvite(text, signing)).toEqual(invite);
});

test('an invite tells what the mesh calls itself and whether it is open; an older one for anybody could only be of an open one', async ({
  expect,
}) => {
  const read = async (changes: Partial<Invite>): Promise<Invite> =>
    checkInvite(await signInvite({ ...invite, ...changes }, mesh.issuer.key, signing), signing);
  expect(await read({ meshName: 'lab', isOpen: false })).toEqual({ ...invite, meshName: 'lab', isOpen: false });
  expect(await read({ meshName: 'lab', isOpen: true })).toEqual({ ...invite, meshName: 'lab', isOpen: true });
  expect(await read({})).toEqual(invite);
  expect(await read({ uses: 0 })).toEqual({ ...invite, uses: 0, isOpen: true });
});

test('an invite may be for any number of peers, each its own owner, and an old one is for one', async ({ expect }) => {
  const { owner: _, ...anybody } = invite;
  const open: Invite = { ...anybody, uses: 0, isOpen: true };
  expect(await checkInvite(await signInvite(open, mesh.issuer.key, signing), signing)).toEqual(open);
  expect(ownerBy(open, member)).toBe(member);
  expect(ownerBy(invite, member)).toBe(owner);

  const text = await signInvite(invite, mesh.issuer.key, signing);
  const { uses, ...old } = claimsOf(text.split('.').slice(4).join('.'));
  const token = await tokens.sign('invite', old as TokenClaims, mesh.issuer.key);
  expect(uses).toBe(1);
  expect(await checkInvite([...text.split('.').slice(0, 4), token].join('.'), signing)).toEqual(invite);
});

test('an expired invite is refused as expired', async ({ expect }) => {
  const text = await signInvite(invite, mesh.issuer.key, signing);
  expect(await failure(() => checkInvite(text, { tokens, nowMs: later }))).toEqual({
    code: 'INVITE_INVALID',
    reason: 'expired',
  });
});

test('an invite whose parts do not belong together is refused', async ({ expect }) => {
  const text = await signInvite(invite, mesh.issuer.key, signing);
  const [root = '', ...rest] = text.slice('hx-invite-'.length).split('.');
  const spare = 'AEIMQUYcgkosw048';
  const respelled = `${root.slice(0, -1)}${String.fromCharCode(root.charCodeAt(42) + 1)}`;
  expect(spare).toContain(root[42]);
  expect(Buffer.from(respelled, 'base64url')).toEqual(Buffer.from(root, 'base64url'));
  const theirs = Buffer.from(other.mesh.rootPublicKey).toString('base64url');
  const rogueKey = seeded('rogue');
  const rogue = await signInvite({ ...invite, issuer: issuerIdOf(rogueKey.publicKey) }, rogueKey, signing);
  const attempts = {
    'another root': ['hx-invite-', [theirs, ...rest].join('.')].join(''),
    'the certificate of another mesh': `hx-invite-${root}.${other.issuer.certificate}.${rest.slice(3).join('.')}`,
    'an issuer without a certificate': rogue,
    'another text of the same root': `hx-invite-${respelled}.${rest.join('.')}`,
    'a part less': text.slice(0, text.lastIndexOf('.')),
    'a part more': `${text}.x`,
    'no prefix': text.slice('hx-invite-'.length),
    'an API key': await signKey({ ...grant, meshId }, mesh.issuer.key, signing),
    nothing: '',
    'a path': '../../../etc/passwd',
    'too much': `hx-invite-${'a.'.repeat(1_000_000)}`,
  };
  for (const [attempt, made] of Object.entries(attempts)) {
    expect(await failure(() => checkInvite(made, signing)), attempt).toMatchObject({ code: 'INVITE_INVALID' });
  }
});

test('an invite says nothing that a joiner could not use', async ({ expect }) => {
  const contact = invite.gateways[0] as Invite['gateways'][number];
  const useless: Partial<Invite>[] = [
    { gateways: [] },
    { gateways: Array.from({ length: 9 }, () => contact) },
    { gateways: [{ peer: contact.peer, addresses: [] }] },
    { gateways: [{ peer: contact.peer, addresses: Array.from({ length: 5 }, () => '/ip4/10.0.0.1/tcp/1') }] },
    { gateways: [{ peer: 'no peer' as typeof contact.peer, addresses: contact.addresses }] },
    { inviteId: 'short' },
    { uses: -1 },
    { uses: 10_001 },
    { owner: 'no owner' as typeof owner },
    { network: 'wan' as 'lan' },
    { role: 'root' as 'node' },
  ];
  for (const fault of useless) {
    const text = await signInvite({ ...invite, ...fault }, mesh.issuer.key, signing);
    expect(await failure(() => checkInvite(text, signing)), JSON.stringify(fault)).toMatchObject({
      code: 'INVITE_INVALID',
    });
  }
});

test('an invite that would be too long is never made', async ({ expect }) => {
  const addresses = Array.from({ length: 4 }, (_, index) => `/dns4/${'a'.repeat(240)}${index}`);
  const gateways = Array.from({ length: 8 }, () => ({ peer: peer('Gateway'), addresses }));
  const result = await failure(() => signInvite({ ...invite, gateways }, mesh.issuer.key, signing));
  expect(result).toMatchObject({ code: 'INVITE_INVALID' });
});

const issuers: ReadonlyMap<IssuerId, IssuerCertificate> = new Map([[issuer.issuer, issuer]]);

test('a key gives back its grant, with and without an end', async ({ expect }) => {
  const full: KeyGrant = {
    ...grant,
    models: ['qwen*', 'tiny'],
    role: 'admin',
    expiresMs: later,
    limits: { rpm: 60, tpm: 100_000, concurrency: 2 },
    gateways: [peer('Gateway')],
    strict: true,
    preferences: { prefer: 'price', region: 'eu-central', nodes: { allow: [peer('Near')], deny: [] } },
  };
  for (const made of [grant, full, { ...full, role: 'user', gateways: [], limits: { tpm: 1 } } as KeyGrant]) {
    const text = await signKey({ ...made, meshId }, mesh.issuer.key, signing);
    expect(text).toMatch(/^sk-hx-[A-Za-z0-9._-]+$/);
    const { preferences, ...rest } = made;
    // A list that denies nobody says nothing.
    const wishes = { prefer: 'price', region: 'eu-central', nodes: { allow: [peer('Near')] } };
    const read = preferences === undefined ? rest : { ...rest, preferences: wishes };
    expect(await checkKey(text, { ...checking, issuers })).toEqual(read);
  }
});

test('a key that is none is refused with the same code whatever is wrong', async ({ expect }) => {
  const good = await signKey({ ...grant, meshId }, mesh.issuer.key, signing);
  const claims = claimsOf(good.slice('sk-hx-'.length));
  const signed = async (changes: object, key = mesh.issuer.key) =>
    `sk-hx-${await tokens.sign('key', { ...claims, ...changes }, key)}`;
  const attempts = {
    nothing: '',
    'the prefix alone': 'sk-hx-',
    'an OpenAI key': 'sk-proj-abcdef',
    'no prefix': good.slice('sk-hx-'.length),
    'a space before it': ` ${good}`,
    'a character less': good.slice(0, -1),
    'another signer': await signed({}, seeded('rogue')),
    'another mesh': await signed({ aud: other.mesh.meshId }),
    'an issuer nobody named': await signed({ iss: issuerIdOf(seeded('rogue').publicKey) }, seeded('rogue')),
    'an account that is none': await signed({ account: '' }),
    'a role that is none': await signed({ role: 'root' }),
    'models that are none': await signed({ models: '*' }),
    'too many models': await signed({ models: Array.from({ length: 65 }, () => 'm') }),
    'an id that is none': await signed({ sub: '../x' }),
    'a limit of nothing': await signed({ limits: { rpm: 0 } }),
    'a limit beyond counting': await signed({ limits: { tpm: 2 ** 31 } }),
    'a limit that nobody knows': await signed({ limits: { rpd: 5 } }),
    'limits that are none': await signed({ limits: 5 }),
    'a gateway that is none': await signed({ gateways: ['here'] }),
    'too many gateways': await signed({ gateways: Array.from({ length: 17 }, () => peer('Gateway')) }),
    'an admin of all gateways': await signed({ role: 'admin' }),
    'an operator of two gateways': await signed({ role: 'operator', gateways: [peer('A1234567'), peer('B1234567')] }),
    'a preference that is none': await signed({ preferences: { prefer: 'luck' } }),
    'a preference that nobody knows': await signed({ preferences: { speed: 1 } }),
    'a region of two words': await signed({ preferences: { region: 'eu central' } }),
    'a node that is none': await signed({ preferences: { nodes: { deny: ['there'] } } }),
    'too many nodes': await signed({
      preferences: { nodes: { allow: Array.from({ length: 33 }, () => peer('Near')) } },
    }),
    'a strictness that is none': await signed({ strict: 'yes' }),
    'a membership': `sk-hx-${(await credentialsFor(mesh, member)).membership}`,
  };
  for (const [attempt, text] of Object.entries(attempts)) {
    expect(await failure(() => checkKey(text, { ...checking, issuers })), attempt).toEqual({ code: 'KEY_INVALID' });
  }
});

test('a key from before limits, gateways and strictness has none of them', async ({ expect }) => {
  const text = await signKey({ ...grant, meshId }, mesh.issuer.key, signing);
  const claims = claimsOf(text.slice('sk-hx-'.length));
  expect(Object.keys(claims).sort()).toEqual(['account', 'aud', 'iat', 'iss', 'models', 'role', 'sub']);
  expect(await checkKey(text, { ...checking, issuers })).toEqual({ ...grant, limits: {}, gateways: [], strict: false });
});

test('a key of an issuer that the root took back is no key', async ({ expect }) => {
  const roots = createRoots({ tokens }, { meshId, rootPublicKey });
  await roots.take({ kind: 'issuer', token: mesh.issuer.certificate });
  const text = await signKey({ ...grant, meshId }, mesh.issuer.key, signing);
  expect(await checkKey(text, { ...checking, issuers: roots.issuers })).toEqual(grant);
  const token = await signRevocation({ meshId, issuer: issuer.issuer }, mesh.root.key, signing);
  await roots.take({ kind: 'revocation', token });
  expect(await failure(() => checkKey(text, { ...checking, issuers: roots.issuers }))).toEqual({ code: 'KEY_INVALID' });
});

test('an expired key is refused as expired', async ({ expect }) => {
  const text = await signKey({ ...grant, meshId, expiresMs: later }, mesh.issuer.key, signing);
  expect(await failure(() => checkKey(text, { ...checking, issuers, nowMs: later }))).toEqual({ code: 'KEY_EXPIRED' });
});

test('any text is refused as a key and as an invite, and nothing else is thrown', async ({ expect }) => {
  const prefix = fc.constantFrom('', 'sk-hx-', 'hx-invite-');
  const body = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(fc.base64String()).map((parts) => parts.join('.')),
  );
  await fc.assert(
    fc.asyncProperty(prefix, body, async (start, rest) => {
      const text = `${start}${rest}`;
      expect(await failure(() => checkKey(text, { ...checking, issuers }))).toEqual({ code: 'KEY_INVALID' });
      expect(await failure(() => checkInvite(text, signing))).toMatchObject({ code: 'INVITE_INVALID' });
    }),
  );
});

test('a key without patterns allows every model, one with patterns those that fit', ({ expect }) => {
  const allowed = (models: string[], name: string) => allowsModel({ models }, name);
  expect(allowed([], 'anything')).toBe(true);
  expect(allowed(['qwen*'], 'qwen3-8b')).toBe(true);
  expect(allowed(['qwen*'], 'my-qwen')).toBe(false);
  expect(allowed(['*-8b', 'tiny'], 'llama-8b')).toBe(true);
  expect(allowed(['a*b*c'], 'aXbYbZc')).toBe(true);
  expect(allowed(['a*b*c'], 'aXbYbZ')).toBe(false);
  expect(allowed(['tiny'], 'tiny@0123abcd')).toBe(true);
  expect(allowed(['tiny'], 'tiny-2')).toBe(false);
  expect(allowed(['a.c'], 'abc')).toBe(false);
});

test('patterns agree with the regular expression they stand for, in bounded time', ({ expect }) => {
  const piece = fc.stringMatching(/^[ab.*+]{0,8}$/);
  fc.assert(
    fc.property(piece, fc.stringMatching(/^[ab.+]{0,8}$/), (pattern, name) => {
      if (pattern === '') return;
      const escaped = pattern.replaceAll(/[.+]/g, '\\$&').replaceAll('*', '.*');
      expect(allowsModel({ models: [pattern] }, name)).toBe(new RegExp(`^${escaped}$`).test(name));
    }),
  );
  expect(allowsModel({ models: ['*a'.repeat(60)] }, `${'a'.repeat(127)}b`)).toBe(false);
});

test('an issuer is signed for under its own mesh only', async ({ expect }) => {
  const wrong = signCertificate({ ...issuer, meshId: other.mesh.meshId }, mesh.root.key, signing);
  await expect(wrong).rejects.toMatchObject({ name: 'InvariantError' });
});
