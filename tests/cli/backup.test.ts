/** Backups as text: what comes back, and what is refused. */

import fc from 'fast-check';
import { describe, test } from 'vitest';
import { type Backup, encodeBackup, parseBackup } from '../../cli/backup.ts';
import { encodeIssuerRecord, encodeMeshRecord, encodeRootRecord, sealRootRecord } from '../../protocol/mesh.ts';
import { failure, newMesh, peer, seededRandom } from '../protocol/mesh-fixture.ts';

const made = await newMesh('ours');
const random = seededRandom('backup');
const files = {
  'mesh.json': encodeMeshRecord(made.mesh),
  'root.key': encodeRootRecord(made.root),
  'issuer.key': encodeIssuerRecord(made.issuer),
};
const gateways = [{ peer: peer('door'), addresses: ['/ip4/127.0.0.1/tcp/4001'] }];
const backup: Backup = { meshId: made.mesh.meshId, files, gateways };
const seeds = [made.root, made.issuer].map(({ key }) => Buffer.from(key.seed).toString('base64url'));

describe('a backup', () => {
  test('comes back with its passphrase, and hides its keys until then', async ({ expect }) => {
    const text = encodeBackup(backup, 'correct', random);
    for (const seed of seeds) expect(text).not.toContain(seed);
    const locked = parseBackup(text, 'b');
    expect(locked).toMatchObject({ meshId: made.mesh.meshId, isSealed: true });
    expect(locked.open('correct')).toEqual(backup);
    expect(await failure(() => locked.open('wrong'))).toEqual({ code: 'PASSPHRASE_WRONG', path: 'b' });
  });

  test('without a passphrase holds the keys as they are, a sealed root still sealed', ({ expect }) => {
    const sealed = sealRootRecord(made.root, 'p', random);
    const text = encodeBackup({ ...backup, files: { ...files, 'root.key': sealed } }, undefined, random);
    expect(seeds.map((seed) => text.includes(seed))).toEqual([false, true]);
    expect(parseBackup(text, 'b').open('').files['root.key']).toBe(sealed);
  });

  test('of a directory without the root has no root', ({ expect }) => {
    const { 'root.key': _, ...rest } = files;
    const text = encodeBackup({ ...backup, files: rest }, undefined, random);
    expect(parseBackup(text, 'b').open('')).toEqual({ ...backup, files: rest });
  });

  test('that mixes meshes, is newer, or is none is refused', async ({ expect }) => {
    const other = await newMesh('other');
    const mixed = encodeBackup(
      { ...backup, files: { ...files, 'issuer.key': encodeIssuerRecord(other.issuer) } },
      undefined,
      random,
    );
    expect(await failure(() => parseBackup(mixed, 'b').open(''))).toMatchObject({ code: 'BACKUP_INVALID' });
    const plain = encodeBackup(backup, undefined, random);
    expect(await failure(() => parseBackup(plain.replace('"format": 1', '"format": 2'), 'b'))).toEqual({
      code: 'FORMAT_TOO_NEW',
      path: 'b',
      found: 2,
      known: 1,
    });
    for (const text of ['', '{}', plain.slice(0, -9), plain.replace('"plain"', '"sealed"'), files['root.key']]) {
      expect(await failure(() => parseBackup(text, 'b'))).toMatchObject({ code: 'BACKUP_INVALID' });
    }
  });

  test('with any byte changed is refused or says the same', async ({ expect }) => {
    const text = encodeBackup(backup, undefined, random);
    const place = fc.integer({ min: 0, max: text.length - 1 });
    await fc.assert(
      fc.asyncProperty(place, fc.string({ minLength: 1, maxLength: 1 }), async (at, letter) => {
        const changed = text.slice(0, at) + letter + text.slice(at + 1);
        const result = await failure(() => parseBackup(changed, 'b').open(''));
        expect(typeof result === 'string' ? result : (result as { code: string }).code).toMatch(
          /^(nothing was thrown|BACKUP_INVALID|FORMAT_TOO_NEW)$/,
        );
      }),
    );
  });
});
