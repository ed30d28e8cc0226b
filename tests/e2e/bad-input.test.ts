/** What a person can get wrong on the command line: one clear message, the documented exit code, nothing half-written. */

import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { type Daemon, Daemons } from '../support/daemons.ts';

let daemons: Daemons;
let gateway: Daemon;

beforeAll(async () => {
  daemons = new Daemons();
  await daemons.json(['mesh', 'create', '--data-dir', daemons.path('gateway')]);
  gateway = await daemons.start('gateway', ['gateway', '--port', '0']);
});

afterAll(async () => {
  await daemons[Symbol.asyncDispose]();
});

/** The code that `--json` prints on stderr. */
const codeOf = (stderr: string): unknown =>
  stderr
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .find(({ event }) => event === 'error')?.['code'];

const invite = async (role = 'node'): Promise<string> =>
  String((await daemons.json(['mesh', 'invite', '--role', role, '--data-dir', gateway.dir]))['token']);

describe('a command that cannot work', () => {
  test('an unknown command or flag is a usage error', async ({ expect }) => {
    expect((await daemons.run(['nodde'])).code).toBe(2);
    expect((await daemons.run(['up', '--prot', '1'])).code).toBe(2);
  });

  test('a gateway without key or token names mesh create', async ({ expect }) => {
    const { code, stderr } = await daemons.run(['gateway', '--data-dir', daemons.path('none')]);
    expect([code, stderr.includes('mesh create')]).toEqual([2, true]);
  });

  test('a join token that is garbage is refused', async ({ expect }) => {
    const args = [
      'node',
      '--join',
      'garbage',
      '--engine',
      'synthetic',
      '--data-dir',
      daemons.path('garbage'),
      '--json',
    ];
    const { code, stderr } = await daemons.run(args);
    expect([code, codeOf(stderr)]).toEqual([4, 'INVITE_INVALID']);
  });

  test('a join token of another mesh is refused', async ({ expect }) => {
    const own = daemons.path('own');
    await daemons.json(['mesh', 'create', '--data-dir', own]);
    const token = await invite('gateway');
    const { code, stderr } = await daemons.run([
      'gateway',
      '--join',
      token,
      '--port',
      '0',
      '--data-dir',
      own,
      '--json',
    ]);
    expect([code, codeOf(stderr)]).toEqual([4, 'MESH_MISMATCH']);
  });

  test('a model file that is not GGUF is refused before anything is joined', async ({ expect }) => {
    const file = daemons.path('model.gguf');
    writeFileSync(file, 'not a model');
    const dir = daemons.path('bad-model');
    const args = ['node', '--join', await invite(), '--model', file, '--data-dir', dir, '--json'];
    const { code, stderr } = await daemons.run(args);
    expect([code, codeOf(stderr)]).toEqual([1, 'MODEL_FILE_INVALID']);
    expect(existsSync(join(dir, 'node', 'membership.json'))).toBe(false);
  });

  test('a port in use is named, with the flag that changes it', async ({ expect }) => {
    const server = net.createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    const dir = daemons.path('port');
    await daemons.json(['mesh', 'create', '--data-dir', dir]);
    const { code, stderr } = await daemons.run(['gateway', '--port', String(port), '--data-dir', dir]);
    server.close();
    expect([code, stderr.includes(String(port)), stderr.includes('--port')]).toEqual([5, true, true]);
  });

  test('a data directory that is a file, or of a newer format, is refused', async ({ expect }) => {
    const file = daemons.path('file');
    writeFileSync(file, '');
    const asFile = await daemons.run(['mesh', 'create', '--data-dir', file, '--json']);
    expect([asFile.code, codeOf(asFile.stderr)]).toEqual([1, 'DATA_DIR_UNUSABLE']);
    const newer = daemons.path('newer');
    mkdirSync(join(newer, 'mesh'), { recursive: true });
    writeFileSync(join(newer, 'mesh', 'mesh.json'), '{"format":999}');
    const asNewer = await daemons.run(['gateway', '--port', '0', '--data-dir', newer, '--json']);
    expect([asNewer.code, codeOf(asNewer.stderr)]).toEqual([1, 'FORMAT_TOO_NEW']);
  });

  test('all bad values are told together', async ({ expect }) => {
    const { code, stderr } = await daemons.run(['node', '--slots', 'banana', '--p2p-port', '99999999']);
    expect([code, stderr.includes('banana'), stderr.includes('99999999')]).toEqual([2, true, true]);
  });

  test('an invite without a known gateway address is refused', async ({ expect }) => {
    const dir = daemons.path('lonely');
    await daemons.json(['mesh', 'create', '--data-dir', dir]);
    const { code, stderr } = await daemons.run(['mesh', 'invite', '--role', 'node', '--data-dir', dir, '--json']);
    expect([code, codeOf(stderr)]).toEqual([5, 'GATEWAY_UNKNOWN']);
  });

  test('status of a directory on which nothing runs says so', async ({ expect }) => {
    const { code, stderr } = await daemons.run(['status', '--data-dir', daemons.path('nobody'), '--json']);
    expect([code, codeOf(stderr)]).toEqual([5, 'DAEMON_UNREACHABLE']);
  });
});
