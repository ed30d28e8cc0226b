/** The data directory: what may be used, what is written how, and that one process holds it. */

import { chmod, link, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'vitest';
import { callDaemon, isSocketAlive } from '../../cli/control-client.ts';
import { type DataDir, locateDataDir, openDataDir } from '../../cli/data-dir.ts';
import { makeDirectory, writeFileAtomic } from '../../cli/files.ts';
import { type Hold, holdDataDir } from '../../cli/holder.ts';
import { readMesh, writeNewMesh } from '../../cli/mesh-files.ts';
import { readSettings, writeSettings } from '../../cli/peer-files.ts';
import type { PeerId } from '../../protocol/ids.ts';
import { failure, newMesh } from '../protocol/mesh-fixture.ts';
import { tempDir } from './temp-dir.ts';

const modeOf = async (path: string): Promise<string> => ((await stat(path)).mode & 0o777).toString(8);

/** A socket that nobody listens on, as a killed process leaves it. */
async function leaveSocket(path: string): Promise<void> {
  const server: Server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.first`, resolve));
  await link(`${path}.first`, path);
  await new Promise((resolve) => server.close(resolve));
}

describe('a data directory', () => {
  test('is made for its owner alone, parents included', async ({ expect }) => {
    await using temp = await tempDir();
    await openDataDir(join(temp.path, 'a/b'), 'write');
    expect([await modeOf(join(temp.path, 'a')), await modeOf(join(temp.path, 'a/b'))]).toEqual(['700', '700']);
  });

  test('is not made for reading', async ({ expect }) => {
    await using temp = await tempDir();
    await openDataDir(join(temp.path, 'a'), 'read');
    expect(await readdir(temp.path)).toEqual([]);
  });

  test('cannot be a file, lie below a file, or have too long a path for a socket', async ({ expect }) => {
    await using temp = await tempDir();
    const file = join(temp.path, 'file');
    await writeFile(file, '');
    const paths = [file, join(file, 'below'), join(temp.path, 'x'.repeat(110))];
    for (const path of paths) {
      for (const mode of ['read', 'write'] as const) {
        expect(await failure(() => openDataDir(path, mode))).toMatchObject({ code: 'DATA_DIR_UNUSABLE', path });
      }
    }
  });

  test('below a place where nothing can be made is refused at once', async ({ expect }) => {
    expect(await failure(() => openDataDir('/proc/helixflow', 'write'))).toMatchObject({ code: 'DATA_DIR_UNUSABLE' });
  });

  test('has a place of its own on this platform', ({ expect }) => {
    expect(locateDataDir(undefined).path).toMatch(/helixflow/);
  });
});

describe('files', () => {
  test('are readable by their owner alone, and leave nothing behind', async ({ expect }) => {
    await using temp = await tempDir();
    const path = join(temp.path, 'secret');
    await writeFileAtomic(path, 'old');
    await chmod(path, 0o644);
    await writeFileAtomic(path, 'new');
    expect(await readFile(path, 'utf8')).toBe('new');
    expect(await modeOf(path)).toBe('600');
    expect(await readdir(temp.path)).toEqual(['secret']);
  });

  test('that cannot be written leave nothing behind either', async ({ expect }) => {
    await using temp = await tempDir();
    const path = join(temp.path, 'taken');
    await mkdir(join(path, 'by-a-directory'), { recursive: true });
    expect(await failure(() => writeFileAtomic(path, 'new'))).toMatchObject({ code: 'DATA_DIR_UNUSABLE', path });
    expect(await readdir(temp.path)).toEqual(['taken']);
  });

  test('directories of our own are closed to others', async ({ expect }) => {
    await using temp = await tempDir();
    const path = join(temp.path, 'own');
    await mkdir(path, { mode: 0o755 });
    await makeDirectory(path, true);
    expect(await modeOf(path)).toBe('700');
  });

  test('settings come back as they were, and a newer format is refused', async ({ expect }) => {
    await using temp = await tempDir();
    const paths = locateDataDir(temp.path).peer('node');
    await makeDirectory(paths.path);
    expect(await readSettings(paths)).toEqual({ addresses: [], bootstrap: [] });
    const contact = {
      peer: '12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo' as PeerId,
      addresses: ['/ip4/127.0.0.1/tcp/1'],
    };
    const settings = { p2pPort: 4001, addresses: ['/ip4/127.0.0.1/tcp/4001'], bootstrap: [contact] };
    await writeSettings(paths, settings);
    expect(await readSettings(paths)).toEqual(settings);
    const path = paths.settingsFile;
    await writeFile(path, (await readFile(path, 'utf8')).replace('"format": 1', '"format": 2'));
    expect(await failure(() => readSettings(paths))).toEqual({ code: 'FORMAT_TOO_NEW', path, found: 2, known: 1 });
    await writeFile(path, '{"format": 1, "bootstrap": 7}');
    expect(await failure(() => readSettings(paths))).toMatchObject({ code: 'DATA_DIR_UNUSABLE', path });
  });

  test('a mesh appears whole, once', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = locateDataDir(temp.path);
    const [first, second] = [await newMesh('first'), await newMesh('second')];
    const results = await Promise.all([first, second].map((mesh) => failure(() => writeNewMesh(dir, mesh))));
    const known = await readMesh(dir);
    const meshId = known?.mesh.meshId;
    expect(results.toSorted()).toEqual([{ code: 'MESH_EXISTS', meshId }, 'nothing was thrown'].toSorted());
    expect(await readdir(temp.path)).toEqual(['mesh']);
    expect(await modeOf(dir.mesh)).toBe('700');
    expect(await Promise.all([dir.meshFile, dir.rootFile, dir.issuerFile].map(modeOf))).toEqual(['600', '600', '600']);
  });
});

describe('the holder', () => {
  const hold = async (dir: DataDir): Promise<Hold> => await holdDataDir(dir, 'gateway');

  test('is one, says who it is, and serves only the owner', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = locateDataDir(temp.path);
    await using _first = await hold(dir);
    expect(await modeOf(dir.socket)).toBe('600');
    const { since, ...holder } = await callDaemon(dir.socket, 'GET /holder');
    expect(holder).toEqual({ command: 'gateway', pid: process.pid });
    expect(await failure(() => hold(dir))).toEqual({
      code: 'DATA_DIR_HELD',
      path: temp.path,
      holder: `helixflow gateway (pid ${process.pid}, since ${since})`,
    });
  });

  test('frees the directory when it ends', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = locateDataDir(temp.path);
    await (await hold(dir))[Symbol.asyncDispose]();
    expect(await readdir(temp.path)).toEqual([]);
    await using _second = await hold(dir);
    expect(await isSocketAlive(dir.socket)).toBe(true);
  });

  test('of those who come at the same time after a crash one wins', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = locateDataDir(temp.path);
    await leaveSocket(dir.socket);
    expect(await isSocketAlive(dir.socket)).toBe(false);
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => hold(dir)));
    const winners = results.filter((result) => result.status === 'fulfilled');
    expect(winners.length).toBe(1);
    const losers = results.filter((result) => result.status === 'rejected').map(({ reason }) => reason.code);
    expect(losers).toEqual(new Array(7).fill('DATA_DIR_HELD'));
    expect(await readdir(temp.path)).toEqual(['control.sock']);
    await Promise.all(winners.map(({ value }) => value[Symbol.asyncDispose]()));
  });

  test('a process that does not answer still holds', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = locateDataDir(temp.path);
    const mute = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => mute.listen(dir.socket, resolve));
    expect(await failure(() => hold(dir))).toMatchObject({ code: 'DATA_DIR_HELD', path: temp.path });
    await new Promise((resolve) => mute.close(resolve));
  });

  test('answers what it does not know with an error, and a missing daemon is told as such', async ({ expect }) => {
    await using temp = await tempDir();
    const dir = locateDataDir(temp.path);
    const status = () => callDaemon(dir.socket, 'GET /status');
    expect(await failure(status)).toEqual({ code: 'DAEMON_UNREACHABLE', path: dir.socket });
    await using _held = await hold(dir);
    expect(await failure(status)).toMatchObject({ code: 'ROUTE_NOT_FOUND', path: '/status' });
  });
});
