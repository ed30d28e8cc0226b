/** Commands as child processes: exit codes, and what stands on stdout and stderr. */

import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { createJoseTokens } from '../../protocol/adapters/tokens-jose.ts';
import { checkKey } from '../../protocol/grants.ts';
import { checkInvite } from '../../protocol/invites.ts';
import { issuerOf, parseIssuerRecord } from '../../protocol/mesh.ts';
import { unixMs } from '../../protocol/units.ts';
import { jsonLine, runCli } from './run-cli.ts';
import { tempDir } from './temp-dir.ts';

const peer = '12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo';
const hex = (characters: number): RegExp => new RegExp(`^[0-9a-f]{${characters}}$`);

describe('mesh, invites and keys', () => {
  test('a mesh is made once, and shown', async ({ expect }) => {
    await using dir = await tempDir();
    const at = ['--data-dir', dir.path, '--json'];
    const made = await runCli(['mesh', 'create', '--network', 'public', '--name', 'My mesh', ...at]);
    const mesh = jsonLine(made.stdout);
    expect(made).toMatchObject({ code: 0, stderr: '' });
    expect(mesh).toMatchObject({ meshId: expect.stringMatching(hex(64)), name: 'My mesh', network: 'public' });
    const again = await runCli(['mesh', 'create', ...at]);
    expect(again).toMatchObject({ code: 2, stdout: '' });
    expect(jsonLine(again.stderr)).toMatchObject({
      event: 'error',
      code: 'MESH_EXISTS',
      details: { meshId: mesh['meshId'] },
    });
    const shown = jsonLine((await runCli(['mesh', 'show', ...at])).stdout);
    expect(shown).toEqual({
      meshId: mesh['meshId'],
      name: 'My mesh',
      network: 'public',
      open: false,
      issuer: mesh['issuer'],
      issuers: [{ issuer: mesh['issuer'], state: 'here' }],
      hasRoot: true,
      peers: [],
    });
  });

  test('for people stdout holds the one thing that was asked for', async ({ expect }) => {
    await using dir = await tempDir();
    const at = ['--data-dir', dir.path];
    expect((await runCli(['mesh', 'create', ...at])).stdout).toMatch(/^[0-9a-f]{64}\n$/);
    expect((await runCli(['keys', 'create', ...at])).stdout).toMatch(/^sk-hx-\S+\n$/);
    const invite = ['mesh', 'invite', '--role', 'node', '--gateway', `/ip4/127.0.0.1/tcp/4001/p2p/${peer}`];
    expect((await runCli([...invite, ...at])).stdout).toMatch(/^hx-invite-\S+\n$/);
  });

  test('a key grants what was asked for, and is kept nowhere', async ({ expect }) => {
    await using dir = await tempDir();
    const at = ['--data-dir', dir.path, '--json'];
    const { meshId } = jsonLine((await runCli(['mesh', 'create', ...at])).stdout);
    const made = await runCli([
      'keys',
      'create',
      '--name',
      'app',
      '--expires',
      '90d',
      '--models',
      'qwen*,helix-tiny',
      ...at,
    ]);
    const { id, key, ...rest } = jsonLine(made.stdout);
    expect(rest).toMatchObject({
      name: 'app',
      role: 'user',
      models: ['qwen*', 'helix-tiny'],
      limits: {},
      strict: false,
    });
    const path = join(dir.path, 'mesh/issuer.key');
    const issuer = issuerOf(parseIssuerRecord(await readFile(path, 'utf8'), path));
    const grant = await checkKey(String(key), {
      tokens: createJoseTokens(),
      meshId: meshId as never,
      nowMs: unixMs(Date.now()),
      issuers: new Map([[issuer.issuer, issuer]]),
    });
    expect(grant).toMatchObject({ keyId: id, account: rest['account'], role: 'user', models: ['qwen*', 'helix-tiny'] });
    expect((grant.expiresMs ?? 0) / 86_400_000 - Date.now() / 86_400_000).toBeCloseTo(90, 1);
  });

  test('an invite names the gateways that it was given', async ({ expect }) => {
    await using dir = await tempDir();
    const at = ['--data-dir', dir.path, '--json'];
    const { meshId } = jsonLine((await runCli(['mesh', 'create', ...at])).stdout);
    const gateway = `/ip4/127.0.0.1/tcp/4001/p2p/${peer},/ip4/10.0.0.7/tcp/4001/p2p/${peer}`;
    const made = await runCli([
      'mesh',
      'invite',
      '--role',
      'gateway',
      '--ttl',
      '15m',
      '--owner',
      'alice',
      '--gateway',
      gateway,
      ...at,
    ]);
    const { token } = jsonLine(made.stdout);
    const invite = await checkInvite(String(token), { tokens: createJoseTokens(), nowMs: unixMs(Date.now()) });
    expect(invite).toMatchObject({
      meshId,
      role: 'gateway',
      owner: 'alice',
      network: 'lan',
      gateways: [{ peer, addresses: ['/ip4/127.0.0.1/tcp/4001', '/ip4/10.0.0.7/tcp/4001'] }],
    });
    expect((invite.expiresMs - Date.now()) / 60_000).toBeCloseTo(15, 0);
  });

  test('an invite that only this machine can use says so, and what to do', async ({ expect }) => {
    await using dir = await tempDir();
    const at = ['--data-dir', dir.path];
    await runCli(['mesh', 'create', ...at]);
    const notesOf = async (...addresses: string[]): Promise<string[]> => {
      const gateways = addresses.flatMap((address) => ['--gateway', `${address}/p2p/${peer}`]);
      const { stdout, stderr } = await runCli(['mesh', 'invite', '--role', 'node', ...gateways, ...at]);
      expect(stdout).toMatch(/^hx-invite-\S+\n$/);
      return stderr.split('\n').filter((line) => line.includes('--p2p-host'));
    };
    expect(await notesOf('/ip4/127.0.0.1/tcp/4001', '/ip6/::1/tcp/4001')).toHaveLength(1);
    expect(await notesOf('/ip4/127.0.0.1/tcp/4001', '/ip4/10.1.2.3/tcp/4001')).toEqual([]);
  });

  test('an invite without a known gateway, or with one that may not be dialled, is not made', async ({ expect }) => {
    await using dir = await tempDir();
    const at = ['--data-dir', dir.path, '--json'];
    await runCli(['mesh', 'create', '--network', 'public', ...at]);
    const unknown = await runCli(['mesh', 'invite', '--role', 'node', ...at]);
    expect([unknown.code, jsonLine(unknown.stderr)['code']]).toEqual([5, 'GATEWAY_UNKNOWN']);
    const loopback = await runCli([
      'mesh',
      'invite',
      '--role',
      'node',
      '--gateway',
      `/ip4/127.0.0.1/tcp/4001/p2p/${peer}`,
      ...at,
    ]);
    expect([loopback.code, jsonLine(loopback.stderr)['code']]).toEqual([2, 'ADDRESS_REFUSED']);
  });

  test('without a mesh, or without its issuer, nothing is signed', async ({ expect }) => {
    await using dir = await tempDir();
    const at = ['--data-dir', dir.path, '--json'];
    const commands = [
      ['mesh', 'show'],
      ['mesh', 'invite', '--role', 'node'],
      ['keys', 'create'],
    ];
    const missing = await Promise.all(commands.map((words) => runCli([...words, ...at])));
    expect(missing.map(({ code, stderr }) => [code, jsonLine(stderr)['code']])).toEqual(
      commands.map(() => [2, 'MESH_MISSING']),
    );
    const other = ['--data-dir', join(dir.path, 'other'), '--json'];
    await runCli(['mesh', 'create', ...other]);
    await mkdir(join(dir.path, 'mesh'));
    await writeFile(join(dir.path, 'mesh/mesh.json'), await readFile(join(dir.path, 'other/mesh/mesh.json')));
    const elsewhere = await runCli(['keys', 'create', ...at]);
    expect([elsewhere.code, jsonLine(elsewhere.stderr)['code']]).toEqual([4, 'ISSUER_MISSING']);
  });

  test('a newer format, damage and unreadable files are told, and nothing is changed', async ({ expect }) => {
    await using dir = await tempDir();
    const at = ['--data-dir', dir.path, '--json'];
    await runCli(['mesh', 'create', ...at]);
    const path = join(dir.path, 'mesh/mesh.json');
    const text = await readFile(path, 'utf8');
    for (const [changed, code] of [
      [text.replace('"format": 1', '"format": 99'), 'FORMAT_TOO_NEW'],
      [text.slice(0, 40), 'DATA_DIR_UNUSABLE'],
    ] as const) {
      await writeFile(path, changed);
      const results = await Promise.all(
        [
          ['mesh', 'show'],
          ['mesh', 'create'],
          ['gateway', '--port', '0'],
        ].map((words) => runCli([...words, ...at])),
      );
      expect(results.map((result) => [result.code, jsonLine(result.stderr)['code']])).toEqual([
        [1, code],
        [1, code],
        [1, code],
      ]);
      expect(await readFile(path, 'utf8')).toBe(changed);
    }
    await writeFile(path, text);
    const rootPath = join(dir.path, 'mesh/root.key');
    const root = await readFile(rootPath, 'utf8');
    const newer = root.replace('"format": 1', '"format": 99');
    await writeFile(rootPath, newer);
    const { code, stderr } = await runCli(['gateway', '--port', '0', ...at]);
    expect([code, jsonLine(stderr)]).toMatchObject([1, { code: 'FORMAT_TOO_NEW', details: { path: rootPath } }]);
    expect(await readFile(rootPath, 'utf8')).toBe(newer);
    await writeFile(rootPath, root);
    await chmod(path, 0o600);
    expect((await runCli(['mesh', 'show', ...at])).code).toBe(0);
  });
});

describe('usage', () => {
  test.each([['statsu'], ['mesh creat'], ['status --jsn'], ['node --slots'], ['status extra'], [''], ['mesh']])(
    'helixflow %s is refused with exit code 2',
    async (words) => {
      const args = words.split(' ').filter((word) => word !== '');
      const { code, stdout, stderr } = await runCli(args, { env: { HELIXFLOW_JSON: '1' } });
      if (code !== 2 || stdout !== '') throw new Error(`${code}: ${stdout}`);
      jsonLine(stderr);
    },
  );

  test('a mistyped word is answered with what may have been meant', async ({ expect }) => {
    const { code, stderr } = await runCli(['statsu']);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^helixflow: .*\n {2}why: .*status.*\n {2}do: {2}.*\n$/);
  });

  test('help and version go to stdout', async ({ expect }) => {
    const [help, command, version] = await Promise.all(
      [['--help'], ['node', '--help'], ['--version']].map((args) => runCli(args)),
    );
    expect([help?.code, command?.code, version?.code]).toEqual([0, 0, 0]);
    expect(help?.stdout).toContain('mesh');
    expect(command?.stdout).toContain('HELIXFLOW_NODE_SLOTS');
    expect(version?.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test('version says what runs, without any warning', async ({ expect }) => {
    const { code, stdout, stderr } = await runCli(['version', '--json']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(jsonLine(stdout)).toMatchObject({ nodeVersion: process.version, platform: process.platform });
  });

  test('status without a daemon says so', async ({ expect }) => {
    await using dir = await tempDir();
    const { code, stdout, stderr } = await runCli(['status', '--json', '--data-dir', dir.path]);
    expect({ code, stdout }).toEqual({ code: 5, stdout: '' });
    expect(jsonLine(stderr)).toMatchObject({ code: 'DAEMON_UNREACHABLE', details: { path: dir.path } });
  });

  test('options that contradict each other are refused before anything starts', async ({ expect }) => {
    await using dir = await tempDir();
    const args = ['node', '--engine', 'synthetic', '--model', 'x.gguf', '--digest', '0'.repeat(64), '--json'];
    const { code, stderr } = await runCli([...args, '--data-dir', join(dir.path, 'd')]);
    expect([code, jsonLine(stderr)['code']]).toEqual([2, 'CONFIG_INVALID']);
  });
});

describe('the simulator', () => {
  test('plays a seed and says what came of it, in one line', async ({ expect }) => {
    const { code, stdout, stderr } = await runCli(['sim', 'run', '--seed', '7', '--json']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(jsonLine(stdout)).toMatchObject({
      seed: 7,
      events: expect.any(Number),
      eventsPerSecond: expect.any(Number),
      virtualSeconds: expect.any(Number),
      traceHash: expect.any(String),
      faults: { partition: expect.any(Number) },
      violations: [],
    });
  });

  test('does not play what it does not know', async ({ expect }) => {
    const { code, stderr } = await runCli(['sim', 'run', '--scenario', 'nowhere', '--json']);
    expect([code, jsonLine(stderr)['code']]).toEqual([2, 'CONFIG_INVALID']);
  });
});
