/** Making a mesh, and the records that a data directory keeps of it. */

import fc from 'fast-check';
import { test } from 'vitest';
import { checkCredentials, issuerIdOf, membershipLifetimeMs, meshIdOf } from '../../protocol/grants.ts';
import {
  checkRecordFormat,
  encodeCredentials,
  encodeIdentityRecord,
  encodeIssuerRecord,
  encodeMeshRecord,
  encodeRootRecord,
  issueCredentials,
  issuerOf,
  parseCredentials,
  parseIdentityRecord,
  parseIssuerRecord,
  parseMeshRecord,
  parseRootRecord,
  type RootRecord,
  sealRootRecord,
} from '../../protocol/mesh.ts';
import { failure, newMesh, owner, peer, seeded, seededRandom, startMs, tokens } from './mesh-fixture.ts';

const made = await newMesh('ours');
const member = { peer: peer('Member'), role: 'gateway', owner } as const;
const credentials = await issueCredentials(made, member, { tokens, nowMs: startMs });

const { name: _name, isOpen: _isOpen, ...untold } = made.mesh;
const openRoot = (json: string, path: string): RootRecord => parseRootRecord(json, path).open('');
const records = {
  mesh: [encodeMeshRecord(made.mesh), parseMeshRecord, made.mesh],
  root: [encodeRootRecord(made.root), openRoot, made.root],
  open: [encodeMeshRecord({ ...made.mesh, isOpen: true }), parseMeshRecord, { ...made.mesh, isOpen: true }],
  untold: [encodeMeshRecord(untold), parseMeshRecord, untold],
  issuer: [encodeIssuerRecord(made.issuer), parseIssuerRecord, made.issuer],
  identity: [encodeIdentityRecord(seeded('peer')), parseIdentityRecord, seeded('peer')],
  credentials: [encodeCredentials(credentials), parseCredentials, credentials],
} as const;

test('a mesh is named after its root, its issuer after its key', ({ expect }) => {
  expect(made.mesh.meshId).toBe(meshIdOf(made.root.key.publicKey));
  expect(made.mesh.rootPublicKey).toEqual(made.root.key.publicKey);
  expect(issuerOf(made.issuer).issuer).toBe(issuerIdOf(made.issuer.key.publicKey));
});

test('two meshes share nothing', async ({ expect }) => {
  const other = await newMesh('other');
  expect(other.mesh.meshId).not.toBe(made.mesh.meshId);
  expect(other.issuer.key.seed).not.toEqual(made.issuer.key.seed);
  expect(made.issuer.key.seed).not.toEqual(made.root.key.seed);
});

test('the issuer admits a peer, itself too, for a month', async ({ expect }) => {
  const checking = { tokens, meshId: made.mesh.meshId, peer: member.peer, nowMs: startMs };
  const expiresMs = startMs + membershipLifetimeMs;
  expect(await checkCredentials(credentials, checking)).toMatchObject({ ...member, expiresMs });
});

test('each record comes back from its text', ({ expect }) => {
  for (const [name, [text, parse, record]] of Object.entries(records)) {
    expect(text, name).toMatch(/^\{[\s\S]*\}\n$/);
    expect(parse(text, name), name).toEqual(record);
  }
});

test('a newer format is refused as newer', async ({ expect }) => {
  for (const [text, parse] of Object.values(records)) {
    const newer = text.replace('"format": 1', '"format": 2');
    expect(await failure(() => parse(newer, 'a/file'))).toEqual({
      code: 'FORMAT_TOO_NEW',
      path: 'a/file',
      found: 2,
      known: 1,
    });
  }
});

test('a newer format is told of a record that is only kept, and nothing else is', async ({ expect }) => {
  for (const [text] of Object.values(records)) {
    const newer = text.replace('"format": 1', '"format": 2');
    expect(await failure(() => checkRecordFormat(newer, 'a/file'))).toMatchObject({ code: 'FORMAT_TOO_NEW', found: 2 });
    for (const kept of [text, text.slice(0, 40), '', '{}'])
      expect(() => checkRecordFormat(kept, 'a/file')).not.toThrow();
  }
});

test('a damaged record is refused, and nothing of a secret is told', async ({ expect }) => {
  for (const [text, parse] of Object.values(records)) {
    const damaged = [
      '',
      'null',
      '[]',
      '7',
      '{}',
      text.slice(0, -3),
      text.replace('"format": 1', '"format": "1"'),
      text.replace('"format": 1', '"format": 0'),
      text.replace(/"(rootPublicKey|key)": "../, '"$1": "'),
      text.replace(/"(rootPublicKey|key)": "../, '"$1": "!!'),
    ];
    for (const broken of damaged) {
      const result = (await failure(() => parse(broken, 'a/file'))) as { code: string; reason: string };
      expect(result, broken).toMatchObject({ code: 'DATA_DIR_UNUSABLE', path: 'a/file' });
      for (const secret of [made.root.key, made.issuer.key, seeded('peer')]) {
        const hidden = Buffer.from(secret.seed).toString('base64url');
        for (const piece of hidden.match(/.{8}/g) ?? []) expect(result.reason).not.toContain(piece);
      }
    }
  }
});

test('a record of one mesh with the root of another is refused', async ({ expect }) => {
  const other = await newMesh('other');
  const mixed = encodeMeshRecord({ ...made.mesh, rootPublicKey: other.mesh.rootPublicKey });
  expect(await failure(() => parseMeshRecord(mixed, 'mesh.json'))).toMatchObject({ code: 'DATA_DIR_UNUSABLE' });
  const stolen = encodeRootRecord({ ...made.root, meshId: other.mesh.meshId });
  expect(await failure(() => parseRootRecord(stolen, 'root.key'))).toMatchObject({ code: 'DATA_DIR_UNUSABLE' });
});

test('any text whatever ends in one of the two errors', async ({ expect }) => {
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.json(),
    fc.json().map((inner) => `{"format":1,"key":${inner}}`),
  );
  await fc.assert(
    fc.asyncProperty(text, async (garbage) => {
      for (const [, parse] of Object.values(records)) {
        const result = (await failure(() => parse(garbage, 'file'))) as { code: string };
        expect(['DATA_DIR_UNUSABLE', 'FORMAT_TOO_NEW']).toContain(result.code);
      }
    }),
  );
});

test('a root under a passphrase comes back with it, and with nothing else', async ({ expect }) => {
  const sealed = sealRootRecord(made.root, 'Größe 42', seededRandom('seal'));
  expect(sealed).not.toContain(Buffer.from(made.root.key.seed).toString('base64url'));
  const locked = parseRootRecord(sealed, 'root.key');
  expect(locked).toMatchObject({ isSealed: true, meshId: made.mesh.meshId });
  // The same letters, written with combining marks.

  expect(locked.open('Gr\u006f\u0308ße 42')).toEqual(made.root);
  const other = await newMesh('other');
  const moved = sealed.replace(made.mesh.meshId, other.mesh.meshId);
  const flipped = sealed.replace(/"data": "./, (text) => `${text.slice(0, -1)}${text.endsWith('A') ? 'B' : 'A'}`);
  const attempts = [
    () => locked.open('größe 42'),
    () => locked.open(''),
    () => parseRootRecord(moved, 'root.key').open('Größe 42'),
    () => parseRootRecord(flipped, 'root.key').open('Größe 42'),
  ];
  for (const attempt of attempts)
    expect(await failure(attempt)).toEqual({ code: 'PASSPHRASE_WRONG', path: 'root.key' });
});

test('a sealed record cannot ask for more memory than there is', async ({ expect }) => {
  const sealed = sealRootRecord(made.root, 'x', seededRandom('seal'));
  const greedy = sealed.replace('"logN": 17', '"logN": 31');
  expect(await failure(() => parseRootRecord(greedy, 'root.key'))).toMatchObject({ code: 'DATA_DIR_UNUSABLE' });
});
