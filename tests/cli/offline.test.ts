/** Commands on a directory that no daemon holds: keys and accounts, backups, leaving, handing over. */

import { copyFile, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { locateDataDir } from '../../cli/data-dir.ts';
import { openLevelStore } from '../../ledger/adapters/store-level.ts';
import { isRestored } from '../../ledger/lease-roll.ts';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { checkInvite } from '../../protocol/invites.ts';
import { unixMs } from '../../protocol/units.ts';
import { peer as peerNamed } from '../protocol/mesh-fixture.ts';
import { runHere } from './in-process.ts';
import { runCli } from './run-cli.ts';
import { tempDir } from './temp-dir.ts';

const peer = '12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo';
const rootSecret = { HELIXFLOW_ROOT_PASSPHRASE: 'of the root' };
const backupSecret = { HELIXFLOW_BACKUP_PASSPHRASE: 'of the backup' };

/** Runs commands on one directory. */
function on(dir: string) {
  const run = (words: readonly string[], env?: Readonly<Record<string, string>>) =>
    runHere([...words, '--data-dir', dir], env);
  const ok = async (words: readonly string[], env?: Readonly<Record<string, string>>) => {
    const { code, value, error } = await run(words, env);
    if (code !== 0) throw new Error(`${words.join(' ')} exited ${code}: ${error}`);
    return value;
  };
  const fails = async (words: readonly string[], env?: Readonly<Record<string, string>>) => {
    const { code, error } = await run(words, env);
    return [code, error];
  };
  return { ok, fails };
}

/** What the audit log of a directory tells: action, actor and object of each line. */
async function noted(dir: string): Promise<(readonly string[])[]> {
  const text = await readFile(join(locateDataDir(dir).audit, 'audit-0.jsonl'), 'utf8');
  const lines = text.trim().split('\n');
  return lines.map((line) => {
    const { action, actor, object } = JSON.parse(line) as Record<'action' | 'actor' | 'object', string>;
    return [action, actor, object];
  });
}

describe('keys and accounts', () => {
  test('are made, listed, changed, replaced and ended', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok, fails } = on(temp.path);
    await ok(['mesh', 'create']);
    const account = await ok(['accounts', 'create', '--name', 'Team A', '--rpm', '100']);
    expect(account).toMatchObject({ name: 'Team A', limits: { rpm: 100 }, strict: false });
    const of = String(account['id']);
    const made = await ok(['keys', 'create', '--name', 'app', '--account', of, '--tpm', '5000', '--expires', '90d']);
    const id = String(made['id']);
    expect(made).toMatchObject({ account: of, limits: { tpm: 5_000 }, role: 'user' });
    const shown = await ok(['keys', 'show', id]);
    expect(shown).toMatchObject({ id, name: 'app', state: 'active', account: of, limits: { tpm: 5_000 } });
    const set = ['keys', 'set', id, '--rpm', '60', '--tpm', 'none', '--models', 'qwen*', '--expires', 'never'];
    const changed = await ok(set);
    expect(changed).toMatchObject({ limits: { rpm: 60 }, models: ['qwen*'] });
    expect(changed).not.toHaveProperty('expires');
    const next = await ok(['keys', 'rotate', id]);
    expect(next).toMatchObject({ replaces: id, limits: { rpm: 60 }, models: ['qwen*'], account: of });
    expect(await ok(['keys', 'revoke', id, '--cut'])).toMatchObject({ id, state: 'revoked', cut: true });
    const { keys } = (await ok(['keys', 'ls'])) as { keys: readonly Record<string, unknown>[] };
    expect(keys.map((row) => [row['id'], row['state']]).toSorted()).toEqual(
      [
        [id, 'revoked'],
        [next['id'], 'active'],
      ].toSorted(),
    );
    expect(await ok(['accounts', 'set', of, '--rpm', 'none', '--concurrency', '4', '--strict'])).toMatchObject({
      limits: { concurrency: 4 },
      strict: true,
    });
    const { accounts } = (await ok(['accounts', 'ls'])) as { accounts: readonly unknown[] };
    expect(accounts).toMatchObject([{ id: of, name: 'Team A', strict: true }]);
    expect(await fails(['keys', 'show', '0123456789abcdef'])).toEqual([3, 'SUBJECT_UNKNOWN']);
    expect(await fails(['accounts', 'set', of])).toEqual([2, 'CONFIG_INVALID']);
  });

  test('ask something of the nodes that serve them', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok, fails } = on(temp.path);
    await ok(['mesh', 'create']);
    const [near, slow] = [peer, peerNamed('slow')];
    const wishes = ['--prefer', 'price', '--region', 'eu-central', '--allow-nodes', `${near},${slow}`];
    const made = await ok(['keys', 'create', ...wishes, '--deny-nodes', slow]);
    const preferences = { prefer: 'price', region: 'eu-central', nodes: { allow: [near, slow], deny: [slow] } };
    expect(made).toMatchObject({ preferences });
    const id = String(made['id']);
    expect(await ok(['keys', 'rotate', id])).toMatchObject({ preferences });
    const set = async (...words: string[]) => (await ok(['keys', 'set', id, ...words]))['preferences'];
    expect(await set('--prefer', 'none', '--deny-nodes', 'none')).toEqual({
      region: 'eu-central',
      nodes: { allow: [near, slow] },
    });
    expect(await set('--allow-nodes', 'all', '--deny-nodes', near)).toEqual({
      region: 'eu-central',
      nodes: { deny: [near] },
    });
    expect(await set('--region', 'any')).toEqual({ nodes: { deny: [near] } });
    for (const wrong of [
      ['--prefer', 'luck'],
      ['--region', 'EU central'],
      ['--allow-nodes', 'x'],
    ]) {
      expect(await fails(['keys', 'create', ...wrong])).toEqual([2, 'CONFIG_INVALID']);
    }
  });

  test('a whole key is revoked by its own text; then only its name can change', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok, fails } = on(temp.path);
    await ok(['mesh', 'create']);
    const { id, key } = await ok(['keys', 'create', '--name', 'lost', '--models', 'qwen*']);
    expect(await fails(['keys', 'set', String(id), '--models', ''])).toEqual([2, 'CONFIG_INVALID']);
    expect(await ok(['keys', 'show', String(key)])).toMatchObject({ id, models: ['qwen*'], state: 'active' });
    expect(await ok(['keys', 'revoke', String(key)])).toMatchObject({ id, state: 'revoked' });
    expect(await fails(['keys', 'set', String(id), '--rpm', '5'])).toEqual([2, 'CONFIG_INVALID']);
    expect(await ok(['keys', 'set', String(id), '--forget-name'])).not.toHaveProperty('name');
  });

  test('a strict key opens a strict account; an operator’s key names the gateway of its directory', async ({
    expect,
  }) => {
    await using temp = await tempDir();
    const { ok, fails } = on(temp.path);
    await ok(['mesh', 'create']);
    const strict = await ok(['keys', 'create', '--name', 's', '--strict']);
    expect(strict).toMatchObject({ strict: true });
    expect(await fails(['keys', 'create', '--strict', '--account', String(strict['account'])])).toEqual([
      2,
      'CONFIG_INVALID',
    ]);
    const { gateways } = (await ok(['keys', 'create', '--role', 'operator'])) as { gateways: readonly string[] };
    expect(gateways).toHaveLength(1);
    // No key's text is in any file of the directory.
    const { key } = await ok(['keys', 'create']);
    const signature = String(key).slice(-40);
    for (const entry of await readdir(temp.path, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      expect(await readFile(join(entry.parentPath, entry.name), 'latin1')).not.toContain(signature);
    }
  });
});

describe('invites', () => {
  const gateway = ['--gateway', `/ip4/127.0.0.1/tcp/4001/p2p/${peer}`];
  const read = async (token: unknown) =>
    checkInvite(String(token), { tokens: createJoseTokens(), nowMs: unixMs(Date.now()) });

  test('are for one peer unless somebody says otherwise', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok, fails } = on(temp.path);
    await ok(['mesh', 'create', '--name', 'lab']);
    const one = await ok(['mesh', 'invite', '--role', 'node', ...gateway]);
    const told = { meshName: 'lab', isOpen: false };
    expect(await read(one['token'])).toMatchObject({ uses: 1, owner: 'local', role: 'node', ...told });
    const five = await ok(['mesh', 'invite', '--role', 'node', '--uses', '5', '--owner', 'alice', ...gateway]);
    expect(await read(five['token'])).toMatchObject({ uses: 5, owner: 'alice' });
    expect(await fails(['mesh', 'invite', '--role', 'node', '--uses', 'unlimited', ...gateway])).toEqual([
      2,
      'CONFIG_INVALID',
    ]);
  });

  test('for anybody take an open mesh, and admit nodes only', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok, fails } = on(temp.path);
    expect(await ok(['mesh', 'create', '--open'])).toMatchObject({ open: true });
    expect(await ok(['mesh', 'show'])).toMatchObject({ open: true });
    const anybody = await ok(['mesh', 'invite', '--role', 'node', '--uses', 'unlimited', ...gateway]);
    const invite = await read(anybody['token']);
    expect([invite.uses, invite.owner, invite.isOpen]).toEqual([0, undefined, true]);
    expect(await fails(['mesh', 'invite', '--role', 'gateway', '--uses', 'unlimited', ...gateway])).toEqual([
      2,
      'CONFIG_INVALID',
    ]);
  });

  test('that do not tell whether their mesh is open leave it unknown, and nobody says that it is private', async ({
    expect,
  }) => {
    await using temp = await tempDir();
    const [home, joined] = [join(temp.path, 'home'), join(temp.path, 'joined')];
    await on(home).ok(['mesh', 'create']);
    const { name: _name, open: _open, ...record } = JSON.parse(await readFile(join(home, 'mesh/mesh.json'), 'utf8'));
    await mkdir(join(joined, 'mesh'), { recursive: true });
    await writeFile(join(joined, 'mesh/mesh.json'), JSON.stringify(record));
    const { stdout } = await runCli(['mesh', 'show', '--data-dir', joined]);
    expect(stdout.split('\n')[0]).toBe('mesh     unknown (lan, open or private: unknown)');
    expect(await on(joined).ok(['mesh', 'show'])).not.toHaveProperty('open');
  });

  test('opening a mesh says what it costs', async ({ expect }) => {
    await using temp = await tempDir();
    const { stderr } = await runCli(['mesh', 'create', '--open', '--data-dir', temp.path]);
    for (const word of ['prompts', 'owners', 'account', 'ban']) expect(stderr).toContain(word);
  });
});

describe('the root key', () => {
  test('under a passphrase signs with it only', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok, fails } = on(temp.path);
    expect(await fails(['mesh', 'create', '--passphrase'])).toEqual([2, 'CONFIG_INVALID']);
    expect(await ok(['mesh', 'create'], rootSecret)).toMatchObject({ rootEncrypted: true });
    expect(await readFile(join(temp.path, 'mesh/root.key'), 'utf8')).toContain('"sealed"');
    // Everything but the root's own acts goes without it.
    await ok(['keys', 'create']);
    const unfreeze = ['mesh', 'unfreeze', 'ab'.repeat(32), '--epoch', 'cd'.repeat(16)];
    expect(await fails(unfreeze)).toEqual([2, 'CONFIG_INVALID']);
    expect(await fails(unfreeze, { HELIXFLOW_ROOT_PASSPHRASE: 'wrong' })).toEqual([4, 'PASSPHRASE_WRONG']);
    expect(await ok(unfreeze, rootSecret)).toMatchObject({ epochs: ['cd'.repeat(16)] });
    expect(await fails(['mesh', 'unfreeze', 'ab'.repeat(32)], rootSecret)).toEqual([3, 'SUBJECT_UNKNOWN']);
    await rm(join(temp.path, 'mesh/root.key'));
    expect(await fails(unfreeze, rootSecret)).toEqual([4, 'ROOT_MISSING']);
  });
});

describe('a backup', () => {
  test('goes into an empty directory, or the same mesh, and nowhere else', async ({ expect }) => {
    await using temp = await tempDir();
    const [mine, empty, other] = ['mine', 'empty', 'other'].map((name) => on(join(temp.path, name))) as [
      ReturnType<typeof on>,
      ReturnType<typeof on>,
      ReturnType<typeof on>,
    ];
    const file = join(temp.path, 'backup.json');
    const { meshId } = await mine.ok(['mesh', 'create']);
    await other.ok(['mesh', 'create']);
    expect(await mine.fails(['mesh', 'backup', '--out', file])).toEqual([2, 'CONFIG_INVALID']);
    const backup = await mine.ok(['mesh', 'backup', '--out', file], backupSecret);
    expect(backup).toEqual({ meshId, out: file, encrypted: true, holds: ['mesh.json', 'root.key', 'issuer.key'] });
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await mine.fails(['mesh', 'backup', '--out', file], backupSecret)).toEqual([2, 'CONFIG_INVALID']);
    const lines = (await noted(join(temp.path, 'mine'))).slice(1);
    expect(lines).toEqual([['mesh.backup', 'local', `mesh:${meshId}`]]);
    const restore = ['mesh', 'restore', '--from', file];
    expect(await other.fails(restore, backupSecret)).toEqual([2, 'MESH_EXISTS']);
    expect(await empty.fails(restore, { HELIXFLOW_BACKUP_PASSPHRASE: 'wrong' })).toEqual([4, 'PASSPHRASE_WRONG']);
    expect(await empty.ok(restore, backupSecret)).toMatchObject({ restored: ['mesh.json', 'root.key', 'issuer.key'] });
    // Whatever was leased since, other gateways have to tell first.
    const store = await openLevelStore(locateDataDir(join(temp.path, 'empty')).peer('gateway').store);
    expect(await isRestored(store)).toBe(true);
    await store.close();
    expect(await empty.ok(['mesh', 'show'])).toMatchObject({ meshId, hasRoot: true });
    await rm(join(temp.path, 'mine/mesh/root.key'));
    expect(await mine.ok(restore, backupSecret)).toMatchObject({ restored: ['root.key'] });
    await writeFile(file, 'garbage');
    expect(await mine.fails(restore, backupSecret)).toEqual([1, 'BACKUP_INVALID']);
  });

  test('is readable only where somebody insists', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok } = on(join(temp.path, 'd'));
    await ok(['mesh', 'create']);
    const file = join(temp.path, 'plain.json');
    expect(await ok(['mesh', 'backup', '--plain', '--out', file])).toMatchObject({ encrypted: false });
    const { key } = JSON.parse(await readFile(join(temp.path, 'd/mesh/root.key'), 'utf8')) as { key: string };
    expect(await readFile(file, 'utf8')).toContain(key);
    expect(await on(join(temp.path, 'e')).ok(['mesh', 'restore', '--from', file])).toMatchObject({
      restored: expect.arrayContaining(['issuer.key']),
    });
  });
});

describe('leaving', () => {
  test('keeps keys that nobody can make again, unless it is forced', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok, fails } = on(temp.path);
    expect(await fails(['mesh', 'leave'])).toEqual([2, 'MESH_MISSING']);
    const { meshId } = await ok(['mesh', 'create']);
    await ok(['keys', 'create']);
    expect(await fails(['mesh', 'leave'])).toEqual([2, 'SECRET_AT_STAKE']);
    expect(await ok(['mesh', 'show'])).toMatchObject({ meshId });
    expect(await ok(['mesh', 'leave', '--force'])).toMatchObject({ meshId, left: true });
    expect(await readdir(temp.path)).toEqual(['audit']);
    expect((await noted(temp.path)).at(-1)).toEqual(['mesh.leave', 'local', `mesh:${meshId}`]);
    expect((await noted(temp.path)).filter(([action]) => action === 'mesh.leave')).toHaveLength(1);
    await ok(['mesh', 'create']);
  });

  test('takes along what killed commands have left, and is repeated where it was killed itself', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok } = on(temp.path);
    await ok(['mesh', 'create']);
    for (const left of ['mesh.0123abcd.gone', 'mesh.4567cdef.new']) {
      await mkdir(join(temp.path, left));
      await copyFile(join(temp.path, 'mesh/root.key'), join(temp.path, left, 'root.key'));
    }
    await mkdir(join(temp.path, 'mesh.of.mine'));
    for (const key of ['root.key', 'issuer.key']) await rm(join(temp.path, 'mesh', key));
    expect(await ok(['mesh', 'leave'])).toMatchObject({ left: true });
    expect((await readdir(temp.path)).toSorted()).toEqual(['audit', 'mesh.of.mine']);
  });
});

describe('a handover', () => {
  test('names one step, and takes nothing that was not asked for', async ({ expect }) => {
    await using temp = await tempDir();
    const { ok, fails } = on(temp.path);
    const { issuer: old } = await ok(['mesh', 'create']);
    expect(await fails(['mesh', 'handover'])).toEqual([2, 'CONFIG_INVALID']);
    expect(await fails(['mesh', 'handover', '--prepare', '--revoke'])).toEqual([2, 'CONFIG_INVALID']);
    expect(await fails(['mesh', 'handover', '--to', 'garbage'])).toEqual([4, 'TOKEN_INVALID']);
    expect(await fails(['mesh', 'handover', '--accept', 'garbage'])).toEqual([4, 'TOKEN_INVALID']);
    const { request } = await ok(['mesh', 'handover', '--prepare']);
    expect(await ok(['mesh', 'handover', '--prepare'])).toMatchObject({ request });
    const { grant, issuer, succeeds } = await ok(['mesh', 'handover', '--to', String(request)]);
    expect(succeeds).toMatchObject({ issuer: old });
    const other = on(join(temp.path, 'other'));
    await other.ok(['mesh', 'create']);
    const { request: foreign } = await other.ok(['mesh', 'handover', '--prepare']);
    expect(await fails(['mesh', 'handover', '--to', String(foreign)])).toEqual([4, 'MESH_MISMATCH']);
    expect(await other.fails(['mesh', 'handover', '--accept', String(grant)])).toEqual([4, 'TOKEN_INVALID']);
    // The same directory may take over from itself: a new key in the place of the old one.
    expect(await ok(['mesh', 'handover', '--accept', String(grant)])).toMatchObject({ issuer });
    expect(await ok(['mesh', 'show'])).toMatchObject({ issuer });
    expect(await readdir(join(temp.path, 'mesh'))).toContain(`issuer-${String(old)}.key`);
    expect(await ok(['keys', 'create'])).toMatchObject({ role: 'user' });
  });

  test('may go where no peer has run yet, and be taken once more where a crash came in between', async ({ expect }) => {
    await using temp = await tempDir();
    const [home, fresh] = [join(temp.path, 'home'), join(temp.path, 'fresh')];
    await on(home).ok(['mesh', 'create']);
    await mkdir(join(fresh, 'mesh'), { recursive: true });
    await copyFile(join(home, 'mesh/mesh.json'), join(fresh, 'mesh/mesh.json'));
    const { request } = await on(fresh).ok(['mesh', 'handover', '--prepare']);
    const { grant, issuer } = await on(home).ok(['mesh', 'handover', '--to', String(request)]);
    const next = join(fresh, 'mesh/issuer-next.key');
    await copyFile(next, join(temp.path, 'next'));
    expect(await on(fresh).ok(['mesh', 'handover', '--accept', String(grant)])).toMatchObject({ issuer });
    expect(await noted(fresh)).toEqual([
      ['handover.prepare', 'local', `issuer:${issuer}`],
      ['mesh.handover', 'local', `issuer:${issuer}`],
    ]);
    await copyFile(join(temp.path, 'next'), next);
    expect(await on(fresh).ok(['mesh', 'handover', '--accept', String(grant)])).toMatchObject({ issuer });
    expect(await readdir(join(fresh, 'mesh'))).not.toContain('issuer-next.key');
    expect(await on(fresh).ok(['keys', 'create'])).toMatchObject({ role: 'user' });
  });

  test('answers one request, and an older backup does not undo it', async ({ expect }) => {
    await using temp = await tempDir();
    const [home, fresh] = [join(temp.path, 'home'), join(temp.path, 'fresh')];
    await on(home).ok(['mesh', 'create']);
    const file = join(temp.path, 'backup.json');
    await on(home).ok(['mesh', 'backup', '--plain', '--out', file]);
    await mkdir(join(fresh, 'mesh'), { recursive: true });
    await copyFile(join(home, 'mesh/mesh.json'), join(fresh, 'mesh/mesh.json'));
    const ours = await on(home).ok(['mesh', 'handover', '--prepare']);
    const theirs = await on(fresh).ok(['mesh', 'handover', '--prepare']);
    const sign = ['mesh', 'handover', '--to', String(ours['request'])];
    expect(await on(home).fails([...sign, '--from', String(ours['issuer'])])).toEqual([2, 'CONFIG_INVALID']);
    const { grant } = await on(home).ok(sign);
    expect(await on(fresh).fails(['mesh', 'handover', '--accept', String(grant)])).toEqual([4, 'TOKEN_INVALID']);
    expect((await readdir(join(fresh, 'mesh'))).toSorted()).toEqual(['issuer-next.key', 'mesh.json']);
    expect(await on(fresh).ok(['mesh', 'handover', '--prepare'])).toEqual(theirs);
    await on(home).ok(['mesh', 'handover', '--accept', String(grant)]);
    const handover = ['mesh.handover', 'local', `issuer:${ours['issuer']}`];
    expect((await noted(home)).filter(([action]) => action === 'mesh.handover')).toEqual([handover, handover]);
    expect(await on(home).fails(['mesh', 'restore', '--from', file])).toEqual([2, 'CONFIG_INVALID']);
    expect(await on(home).ok(['mesh', 'show'])).toMatchObject({ issuer: ours['issuer'] });
  });

  test('is not signed twice for one issuer, but for the same request', async ({ expect }) => {
    await using temp = await tempDir();
    const [home, fresh] = [join(temp.path, 'home'), join(temp.path, 'fresh')];
    const { issuer: first } = await on(home).ok(['mesh', 'create']);
    await mkdir(join(fresh, 'mesh'), { recursive: true });
    await copyFile(join(home, 'mesh/mesh.json'), join(fresh, 'mesh/mesh.json'));
    const { request } = await on(home).ok(['mesh', 'handover', '--prepare']);
    const { request: other } = await on(fresh).ok(['mesh', 'handover', '--prepare']);
    const signed = await on(home).ok(['mesh', 'handover', '--to', String(request)]);
    await on(home).ok(['keys', 'ls']);
    expect(await on(home).ok(['mesh', 'handover', '--to', String(request), '--revoke'])).toMatchObject({
      issuer: signed['issuer'],
      succeeds: signed['succeeds'],
    });
    expect(await on(home).ok(['mesh', 'show'])).toMatchObject({
      issuers: [{ issuer: first, state: 'revoked', succeededBy: signed['issuer'] }],
    });
    const again = ['mesh', 'handover', '--to', String(other)];
    expect(await on(home).fails(again)).toEqual([2, 'CONFIG_INVALID']);
    expect(await on(home).fails([...again, '--from', String(first)])).toEqual([2, 'CONFIG_INVALID']);
    const heir = await on(home).ok([...again, '--from', String(signed['issuer'])]);
    expect(heir).toMatchObject({ succeeds: { issuer: signed['issuer'] } });
  });

  test('can be signed where there is a root and nothing else', async ({ expect }) => {
    await using temp = await tempDir();
    const [home, vault] = [join(temp.path, 'home'), join(temp.path, 'vault')];
    const { issuer } = await on(home).ok(['mesh', 'create']);
    const file = join(temp.path, 'backup.json');
    await on(home).ok(['mesh', 'backup', '--plain', '--out', file]);
    await on(vault).ok(['mesh', 'restore', '--from', file]);
    await Promise.all([rm(join(vault, 'mesh/issuer.key')), rm(join(home, 'mesh/root.key'))]);
    const { request } = await on(home).ok(['mesh', 'handover', '--prepare']);
    const sign = ['mesh', 'handover', '--to', String(request)];
    expect(await on(home).fails(sign)).toEqual([4, 'ROOT_MISSING']);
    expect(await on(vault).fails(sign)).toEqual([2, 'CONFIG_INVALID']);
    const signed = await on(vault).ok([...sign, '--from', String(issuer), '--revoke']);
    expect(signed).toMatchObject({ succeeds: { issuer }, revoked: true });
    expect(await on(home).ok(['mesh', 'handover', '--accept', String(signed['grant'])])).toMatchObject({
      issuer: signed['issuer'],
    });
    expect(await on(vault).fails(['keys', 'create'])).toEqual([4, 'ISSUER_MISSING']);
    expect(await on(home).ok(['keys', 'create'])).toMatchObject({ role: 'user' });
  });
});
