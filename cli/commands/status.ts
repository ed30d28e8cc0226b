/** `helixflow status`: what the daemon on a data directory is doing. */

import { HelixFlowError, isHelixFlowError } from '../../protocol/errors.ts';
import type { RunCommand } from '../command.ts';
import { callDaemon } from '../control-client.ts';
import { openDataDir } from '../data-dir.ts';
import { printStatus } from '../status.ts';

export const runStatus: RunCommand<Record<never, never>> = async (_config, { common, output }) => {
  const dir = await openDataDir(common.dataDir, 'read');
  try {
    const status = await callDaemon(dir.socket, 'GET /status');
    output.data(status, printStatus(status));
    return 0;
  } catch (cause) {
    // The route is there once the daemon has started.
    if (!isHelixFlowError(cause, 'DAEMON_UNREACHABLE') && !isHelixFlowError(cause, 'ROUTE_NOT_FOUND')) throw cause;
    throw new HelixFlowError('DAEMON_UNREACHABLE', { path: dir.path }, { cause });
  }
};
