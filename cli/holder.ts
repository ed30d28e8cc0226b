/** Who holds a data directory: one process, known by its admin socket. */

import { randomBytes } from 'node:crypto';
import { chmod, link, rename, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { HelixFlowError } from '../protocol/errors.ts';
import { type ControlApi, type ControlRoutes, callDaemon, isSocketAlive, serveControl } from './control.ts';
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

/** Resolves to false when something is at `path` already. */
async function listen(server: Server, path: string): Promise<boolean> {
  return await new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      if (systemCode(error) === 'EADDRINUSE') resolve(false);
      else reject(error);
    };
    server.once('error', failed);
    server.listen(path, () => {
      server.off('error', failed);
      resolve(true);
    });
  });
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
    await rm(aside, { force: true });
  } catch (error) {
    // ENOENT: another process took it first. EEXIST: yet another one listens there by now.
    if (systemCode(error) !== 'ENOENT' && systemCode(error) !== 'EEXIST') throw error;
  }
}

const describeHolder = ({ command, pid, since }: Holder): string => `helixflow ${command} (pid ${pid}, since ${since})`;

/** The directory's holder in words. */
async function askHolder(path: string): Promise<string> {
  try {
    return describeHolder(await callDaemon(path, 'GET /holder', holderTimeoutMs));
  } catch (error) {
    if (!(error instanceof HelixFlowError)) throw error;
    return 'another process, which does not answer';
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
  try {
    for (let tries = 1; !(await listen(server, socket)); tries += 1) {
      if ((await isSocketAlive(socket)) || tries === triesMax) {
        throw new HelixFlowError('DATA_DIR_HELD', { path, holder: await askHolder(socket) });
      }
      await removeStale(socket);
    }
    if (process.platform !== 'win32') await chmod(socket, 0o600);
  } catch (cause) {
    if (cause instanceof HelixFlowError) throw cause;
    throw new HelixFlowError(
      'DATA_DIR_UNUSABLE',
      { path, reason: `no socket can be made there: ${systemReason(cause)}` },
      { cause },
    );
  }
  return {
    serve: (wanted) => {
      routes = wanted;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
