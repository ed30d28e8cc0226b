/** Who holds a data directory: one process, known by its admin socket. */

import { randomBytes } from 'node:crypto';
import { chmod, link, rename, rm, stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { HelixFlowError } from '../protocol/errors.ts';
import { type ControlApi, type ControlRoutes, serveControl } from './control.ts';
import { callDaemon, isSocketAlive } from './control-client.ts';
import type { DataDir } from './data-dir.ts';
import { systemCode, systemReason } from './files.ts';

/** A held data directory. */
export interface Hold extends AsyncDisposable {
  /** Sets what the admin socket answers from now on; until then it tells only who holds the directory. */
  serve(routes: ControlRoutes): void;
}

type Holder = ControlApi['GET /holder']['response'];

const triesMax = 20;
const holderTimeoutMs = 2_000;
/** Whoever takes our socket for a stale one does so within this time of having looked. */
const doubtMs = 50;

async function listen(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    // The socket's file is made within this call: nobody else may connect before its mode is set.
    const before = process.umask(0o177);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
    process.umask(before);
  });
}

/** The file behind `path`, whatever its names; undefined when there is none. */
async function fileAt(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).ino;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Gives the socket at `own` the name `path`, unless something has that name. */
async function claim(own: string, path: string): Promise<boolean> {
  try {
    await link(own, path);
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/**
 * Takes a socket that nobody answers out of the way. What was taken is looked at once more: if somebody began
 * to listen on it in between, it goes back.
 */
async function removeStale(path: string): Promise<void> {
  const aside = `${path}.${randomBytes(4).toString('hex')}`;
  try {
    await rename(path, aside);
    if (await isSocketAlive(aside)) await link(aside, path);
  } catch (error) {
    // ENOENT: another process took it first. EEXIST: yet another one holds the name by now, and the one aside finds out.
    if (systemCode(error) !== 'ENOENT' && systemCode(error) !== 'EEXIST') throw error;
  } finally {
    await rm(aside, { force: true });
  }
}

const describeHolder = ({ command, pid, since }: Holder): string => `helixflow ${command} (pid ${pid}, since ${since})`;

/** The directory's holder in words. */
async function askHolder(path: string): Promise<string> {
  try {
    return describeHolder(await callDaemon(path, 'GET /holder', { timeoutMs: holderTimeoutMs }));
  } catch (error) {
    if (!(error instanceof HelixFlowError)) throw error;
    return 'another process, which does not answer';
  }
}

/** The holder of a socket: listens under a name of its own first, so that taking the known name is one atomic step. */
async function takeSocket(server: Server, dir: DataDir): Promise<number | undefined> {
  const { path, socket } = dir;
  if (process.platform === 'win32') {
    await listen(server, socket);
    return undefined;
  }
  const held = async (): Promise<HelixFlowError> =>
    new HelixFlowError('DATA_DIR_HELD', { path, holder: await askHolder(socket) });
  const own = `${socket}.${randomBytes(2).toString('hex')}`;
  await listen(server, own);
  try {
    await chmod(own, 0o600);
    const file = await fileAt(own);
    for (let tries = 1; !(await claim(own, socket)); tries += 1) {
      if ((await isSocketAlive(socket)) || tries === triesMax) throw await held();
      await removeStale(socket);
    }
    await new Promise((resolve) => setTimeout(resolve, doubtMs));
    if ((await fileAt(socket)) !== file) throw await held();
    return file;
  } finally {
    await rm(own, { force: true });
  }
}

/**
 * Takes a data directory for this process and serves its admin socket.
 * @param command For whoever comes second.
 * @throws HelixFlowError DATA_DIR_HELD when another process has it; DATA_DIR_UNUSABLE when no socket can be made there.
 */
export async function holdDataDir(dir: DataDir, command: string): Promise<Hold> {
  const { path, socket } = dir;
  const holder: Holder = { command, pid: process.pid, since: new Date().toISOString() };
  let routes: ControlRoutes = {};
  const server = createServer(serveControl(() => ({ ...routes, 'GET /holder': () => holder })));
  let file: number | undefined;
  try {
    file = await takeSocket(server, dir);
  } catch (cause) {
    server.close();
    if (cause instanceof HelixFlowError) throw cause;
    const isHeld = systemCode(cause) === 'EADDRINUSE';
    if (isHeld) throw new HelixFlowError('DATA_DIR_HELD', { path, holder: await askHolder(socket) }, { cause });
    const reason = `no socket can be made there: ${systemReason(cause)}`;
    throw new HelixFlowError('DATA_DIR_UNUSABLE', { path, reason }, { cause });
  }
  return {
    serve: (wanted) => {
      routes = wanted;
    },
    [Symbol.asyncDispose]: async () => {
      if (file !== undefined && (await fileAt(socket)) === file) await rm(socket, { force: true });
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
