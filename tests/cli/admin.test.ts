/** Operations without a daemon: one code path with the daemon's, and what it leaves on disk. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { openAdmin } from '../../cli/admin.ts';
import { createMeshIn } from '../../cli/commands/mesh-create.ts';
import { locateDataDir } from '../../cli/data-dir.ts';
import { issuerIdOf, signCertificate } from '../../protocol/grants.ts';
import { issuerOf } from '../../protocol/mesh.ts';
import { signLift, signRevocation } from '../../protocol/root-tokens.ts';
import { unixMs } from '../../protocol/units.ts';
import { failure, seeded, tokens } from '../protocol/mesh-fixture.ts';
import { tempDir } from './temp-dir.ts';

describe('a command on a directory that no daemon holds', () => {
  test('goes on where the one before it stopped, each with an epoch of its own', async ({ expect }) => {
    await using temp = await tempDir();
    await createMeshIn(locateDataDir(temp.path), { name: 'm', network: 'lan' });
    const ids: string[] = [];
    for (const name of ['one', 'two', 'three']) {
      await using admin = await openAdmin(temp.path, 'test');
      ids.push((await admin.call('keys.create', { name })).key);
    }
    await using admin = await openAdmin(temp.path, 'test');
    const { data } = await admin.call('keys.list', {});
    expect(data.map(({ key, name }) => [key, name]).toSorted()).toEqual(
      ids.map((id, index) => [id, ['one', 'two', 'three'][index]]).toSorted(),
    );
    expect(await admin.call('ledger.status', {})).toMatchObject({ authors: 1, frozen: [], writing: 'ready' });
  });

  test('changes of one key or account at the same time all count', async ({ expect }) => {
    await using temp = await tempDir();
    await createMeshIn(locateDataDir(temp.path), { name: 'm', network: 'lan' });
    await using admin = await openAdmin(temp.path, 'test');
    const { account } = await admin.call('accounts.create', { name: 'a' });
    const { key } = await admin.call('keys.create', { name: 'k', account });
    const changes = [{ models: ['qwen*'] }, { limits: { rpm: 5 } }, { limits: { tpm: 100 } }, { ttlMs: 60_000 }];
    await Promise.all(changes.map((change) => admin.call('keys.set', { key, ...change })));
    await Promise.all(
      [{ limits: { rpm: 7 } }, { limits: { tpm: 900 } }, { strict: true }].map((change) =>
        admin.call('accounts.set', { account, ...change }),
      ),
    );
    expect(await admin.call('keys.show', { key })).toMatchObject({
      models: ['qwen*'],
      limits: { rpm: 5, tpm: 100 },
      expiresMs: expect.any(Number),
    });
    expect((await admin.call('accounts.list', {})).data).toMatchObject([
      { account, limits: { rpm: 7, tpm: 900 }, strict: true },
    ]);
  });

  test('holds the directory until it is done', async ({ expect }) => {
    await using temp = await tempDir();
    await createMeshIn(locateDataDir(temp.path), { name: 'm', network: 'lan' });
    await using _first = await openAdmin(temp.path, 'first');
    // The second takes the first for a daemon, which has nothing to answer it with.
    await using second = await openAdmin(temp.path, 'second');
    expect(await failure(() => second.call('keys.list', {}))).toMatchObject({ code: 'LEDGER_UNREADY' });
    expect(await failure(() => second.call('keys.create', { name: 'a' }))).toMatchObject({ code: 'LEDGER_UNREADY' });
    expect(await failure(() => second.takeRoots([]))).toMatchObject({ code: 'LEDGER_UNREADY' });
  });

  test('keeps what the root has said, and tells the audit log', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = locateDataDir(temp.path);
    const { mesh, root, issuer } = await createMeshIn(dir, { name: 'm', network: 'lan' });
    const { meshId } = mesh;
    const signing = { tokens, nowMs: unixMs(Date.now()) };
    const { publicKey } = seeded('next');
    const next = issuerIdOf(publicKey);
    const named = { meshId, issuer: next, publicKey, succeeds: { issuer: issuerOf(issuer).issuer } };
    const lifted = { meshId, author: 'ab'.repeat(32) as never, epoch: 'cd'.repeat(16) as never };
    const said = [
      { kind: 'issuer', token: await signCertificate(named, root.key, signing) },
      { kind: 'revocation', token: await signRevocation({ meshId, issuer: next }, root.key, signing) },
      { kind: 'lift', token: await signLift(lifted, root.key, signing) },
    ] as const;
    const issuersNow = async (tokensTaken: number, expected: readonly unknown[]): Promise<void> => {
      await using admin = await openAdmin(temp.path, 'test');
      expect(await admin.takeRoots(said.slice(0, tokensTaken))).toBe(0);
      const { issuers } = await admin.call('ledger.status', {});
      expect(issuers.map((known) => known.issuer).toSorted()).toEqual(expected.toSorted());
    };
    const own = issuerOf(issuer).issuer;
    {
      await using admin = await openAdmin(temp.path, 'test');
      expect([await admin.takeRoots(said.slice(0, 1)), await admin.takeRoots(said.slice(0, 1))]).toEqual([1, 0]);
      const stolen = { kind: 'lift', token: said[1].token } as const;
      expect(await failure(() => admin.takeRoots([stolen]))).toMatchObject({ code: 'TOKEN_INVALID' });
    }
    await issuersNow(1, [own, next]);
    {
      await using admin = await openAdmin(temp.path, 'test');
      expect(await admin.takeRoots(said)).toBe(2);
    }
    await issuersNow(3, [own]);
    const log = await readFile(join(dir.audit, 'audit-0.jsonl'), 'utf8');
    const lines = log
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { action: string; object: string });
    expect(lines.map(({ action, object }) => [action, object])).toEqual([
      ['mesh.handover', `issuer:${next}`],
      ['issuer.revoke', `issuer:${next}`],
      ['feed.unfreeze', `author:${'ab'.repeat(32)}`],
    ]);
  });
});
