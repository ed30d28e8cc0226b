/** Which TCP port a peer listens on. */

import { createServer } from 'node:net';
import { HelixFlowError } from '../protocol/errors.ts';
import type { Random } from '../protocol/ports.ts';
import { systemCode, systemReason } from './files.ts';

/** Below what systems take for outgoing connections: a port from there could be taken when it is needed again. */
const chosenPortMin = 20_000;
const chosenPortMax = 32_767;
const chosenTriesMax = 32;

/** True when `port` of `host` is free now. @throws HelixFlowError CONFIG_INVALID when the host is none of this machine. */
async function isFree(host: string, port: number): Promise<boolean> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    return true;
  } catch (cause) {
    if (systemCode(cause) === 'EADDRINUSE') return false;
    const reason = `--p2p-host ${host}: cannot listen there: ${systemReason(cause)}`;
    throw new HelixFlowError('CONFIG_INVALID', { reason }, { cause });
  } finally {
    server.close();
  }
}

/**
 * The port itself, if it is free; for 0 one that is.
 * @throws HelixFlowError PORT_IN_USE; CONFIG_INVALID when the host is none of this machine.
 */
export async function choosePort(host: string, wanted: number, random: Random): Promise<number> {
  if (wanted !== 0 && (await isFree(host, wanted))) return wanted;
  for (let tries = 0; wanted === 0 && tries < chosenTriesMax; tries += 1) {
    const port = chosenPortMin + random.int(chosenPortMax - chosenPortMin + 1);
    if (await isFree(host, port)) return port;
  }
  throw new HelixFlowError('PORT_IN_USE', { host, port: wanted, option: '--p2p-port' });
}
